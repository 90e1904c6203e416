"""Labelled arrays as the functions here take them: their dims, or one line that says which are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

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


def positions_of(given: Any, count: int, dim: str) -> NDArray[np.int64]:
    """Positions along a dim, without those that stand for none (-1).

    Raises
    ------
    InputError
        If they are no whole numbers, one is out of range, or none is left.
    """
    values = np.asarray(given)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        msg = f"positions of {dim}s are whole numbers in one dim, got {values.dtype} with {values.ndim} dims"
        raise InputError(msg)
    values = np.asarray(values[values != -1], dtype=np.int64)
    wrong = values[(values < 0) | (values >= count)]
    if len(wrong):
        msg = f"position {wrong[0]} of a {dim}: there are {count}, from 0 to {count - 1}"
        raise InputError(msg)
    if not len(values):
        msg = f"no {dim} is given; give one position at least"
        raise InputError(msg)
    positions: NDArray[np.int64] = values
    return positions
