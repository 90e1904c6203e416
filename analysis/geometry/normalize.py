"""Step 1 of ModelDiff: datamodels of unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims
from dmstore.errors import InputError


def normalize(weight: xr.DataArray) -> xr.DataArray:
    """Scale every datamodel to unit length (paper section 3, step 1).

    Parameters
    ----------
    weight : (target, train) float
        In memory or lazy.

    Returns
    -------
    (target, train) float64
        Lazy where `weight` is, whole rows in a chunk. All-zero rows stay zero; of an array in memory they are
        counted in the attribute ``zero_rows``.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite: xarray has NaN where an array was masked. Of
        a lazy array that is seen when it is computed.
    """
    weight = with_dims(weight, "target", "train")
    if weight.chunks is not None:
        return _lazily(weight)
    unit = _unit(np.asarray(weight.values))
    return weight.copy(data=unit).assign_attrs(zero_rows=int((~unit.any(axis=1)).sum()))


def _lazily(weight: xr.DataArray) -> xr.DataArray:
    """The same of a Dask array, whole rows in a chunk: each chunk by itself, when it is computed."""
    whole = weight.chunk(train=-1)
    first = np.cumsum([0, *whole.chunks[0][:-1]]) if whole.chunks else np.zeros(0)
    unit = whole.data.map_blocks(_unit_block, first.tolist(), dtype=np.float64)
    return whole.copy(data=unit)


def _unit_block(
    values: NDArray[Any], first: list[int], block_id: tuple[int, ...] = (0, 0)
) -> NDArray[np.float64]:
    return _unit(values, first[block_id[0]])


def _unit(values: NDArray[Any], first: int = 0) -> NDArray[np.float64]:
    """Rows of unit length; `first` is the position of the first of them."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        target, train = (int(place[0]) for place in np.nonzero(~np.isfinite(values)))
        msg = f"weight: {values[target, train]} at target {first + target}, train unit {train}; every weight must be finite, leave the target out"
        raise InputError(msg)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(np.divide(values, length, out=np.zeros_like(values), where=length > 0))
