"""Datamodels as rows that products are taken with: read some targets at a time, kept sparse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims
from dmstore.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Of a block of rows while it is read; beside it lie a mask and the places of its non-zeros.
_BLOCK_BYTES = 1 << 26
_TALL = 4


def blocks(array: xr.DataArray, block: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of datamodels, some targets at a time: (first target, (target, train) values).

    Parameters
    ----------
    array : (target, train) float
        In memory or lazy; of a lazy one no more than a block of rows is computed at once.
    block : int, optional
        Targets in a block; without, as many as 64 MiB hold, in whole chunks where the array has them.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite: xarray has NaN where an array was masked.
    """
    array = with_dims(array, "target", "train")
    targets = array.sizes["target"]
    size = block or _block(array)
    for first in range(0, targets, size):
        values = np.asarray(array.isel(target=slice(first, first + size)).values)
        # One pass: a sum of finite numbers may overflow, but is finite nowhere else.
        if not np.isfinite(values).all():
            row, unit = (int(place[0]) for place in np.nonzero(~np.isfinite(values)))
            msg = f"weight: {values[row, unit]} at target {first + row}, train unit {unit}; every weight must be finite, leave the target out"
            raise InputError(msg)
        yield first, values


def _block(array: xr.DataArray) -> int:
    """Targets that are read at once, no chunk of them twice where one fits."""
    targets, train = array.shape
    size = max(1, _BLOCK_BYTES // max(1, train * array.dtype.itemsize))
    if array.chunks is not None:
        chunk = max(array.chunks[0], default=1)
        # Chunks that are far too tall are computed again for each block: memory before time.
        size = max(chunk, size // chunk * chunk) if chunk <= _TALL * size else size
    return min(size, max(1, targets))


def sparse_rows(array: xr.DataArray, *, block: int | None = None) -> csr_array:
    """Datamodels as they are, as a sparse matrix; the dense one is never formed.

    Parameters
    ----------
    array : (target, train) float
        In memory or lazy (``study.datamodels("a")["weight"]``, one half of ``weight_half``); read once.
    block : int, optional
        Targets to read at once.

    Returns
    -------
    scipy.sparse.csr_array
        (target, train), float32 (float64 where the array has that), indices sorted, no stored zeros.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite.
    """
    from scipy.sparse import csr_array

    array = with_dims(array, "target", "train")
    dtype = np.float64 if array.dtype.itemsize > 4 else np.float32
    indices, data, counts = [], [], [np.zeros(1, dtype=np.int64)]
    for _, values in blocks(array, block):
        column, number, count = _compressed(values)
        indices.append(column)
        data.append(number.astype(dtype, copy=False))
        counts.append(count)
    indptr = np.cumsum(np.concatenate(counts))
    # Both of one width, or scipy makes a wider copy of the larger.
    indptr = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
    return csr_array(
        (_joined(data, dtype), _joined(indices, np.int32), indptr), shape=array.shape, copy=False
    )


def _compressed(
    values: NDArray[Any],
) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[np.int64]]:
    """Columns and values of the non-zeros of some rows, and how many each row has."""
    place = np.flatnonzero(values)
    count = np.count_nonzero(values, axis=1).astype(np.int64)
    column = place - np.repeat(np.arange(len(values)) * values.shape[1], count)
    return column.astype(np.int32), values.reshape(-1)[place], count


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """One array of the parts, which are let go on the way."""
    whole = np.empty(sum(map(len, parts)), dtype=dtype)
    place = 0
    while parts:
        part = parts.pop(0)
        whole[place : place + len(part)] = part
        place += len(part)
    return whole
