"""Labelled arrays as the functions here take them: their dims, or one line that says which are missing."""

from __future__ import annotations

from typing import Any

import xarray as xr

from dmstore.errors import InputError


def with_dims(array: Any, *dims: str) -> xr.DataArray:
    """An array in the order of these dims; of a dataset its ``weight``.

    Raises
    ------
    InputError
        If it is no labelled array, or its dims are not these.
    """
    if isinstance(array, xr.Dataset) and "weight" in array:
        array = array["weight"]
    expected = ", ".join(dims)
    if not isinstance(array, xr.DataArray):
        msg = f"{type(array).__name__} is no labelled array; give xarray.DataArray(values, dims={dims})"
        raise InputError(msg)
    if set(array.dims) != set(dims):
        lost, more = [d for d in dims if d not in array.dims], set(array.dims) - set(dims)
        remedy = (
            f"keep {lost[0]!r}, as .isel({lost[0]}=[0]) does"
            if lost
            else f"choose along {sorted(map(str, more))[0]!r} first"
        )
        msg = f"an array over ({', '.join(map(str, array.dims))}), expected ({expected}); {remedy}"
        raise InputError(msg)
    return array.transpose(*dims)
