"""Datamodels as rows that products are taken with: read some targets at a time, kept sparse."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.products import Product
from dmstore.core.memory import available, scratch_array
from dmstore.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Share of non-zeros up to which rows are kept sparse: a dense number takes half of what a sparse one does.
SPARSE = 0.25

# Of a block of rows while it is read; beside it lie a mask and the places of its non-zeros.
_BLOCK_BYTES = 1 << 26
_TALL = 4


def blocks(
    array: xr.DataArray, block: int | None = None, *, check: bool = True
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of datamodels, some targets at a time: (first target, (target, train) values).

    Parameters
    ----------
    array : (target, train) float
        In memory or lazy; of a lazy one no more than a block of rows is computed at once.
    block : int, optional
        Targets in a block; without, as many as 64 MiB hold, in whole chunks where the array has them.
    check : bool
        Whether weights must be finite.

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
        if check and not np.isfinite(values).all():
            raise _not_finite(values, first)
        yield first, values


def _not_finite(values: NDArray[Any], first: int) -> InputError:
    row, unit = (int(place[0]) for place in np.nonzero(~np.isfinite(values)))
    return InputError(
        f"weight: {values[row, unit]} at target {first + row}, train unit {unit}; every weight must be finite, leave the target out"
    )


def _block(array: xr.DataArray) -> int:
    """Targets that are read at once, no chunk of them twice where one fits."""
    targets, train = array.shape
    size = max(1, _BLOCK_BYTES // max(1, train * array.dtype.itemsize))
    if array.chunks is not None:
        chunk = max(array.chunks[0], default=1)
        # Chunks that are far too tall are computed again for each block: memory before time.
        size = max(chunk, size // chunk * chunk) if chunk <= _TALL * size else size
    return min(size, max(1, targets))


@dataclass(frozen=True)
class Rows:
    """Unit rows of one algorithm.

    Attributes
    ----------
    matrix : (target, train) csr_array, or array where too much is non-zero
        float32, or float64 where that was asked for; a dense one may lie in a file on scratch.
    nonzero : (target,) bool
        Whether there is a datamodel.
    """

    matrix: Any
    nonzero: NDArray[np.bool_]

    @property
    def is_sparse(self) -> bool:
        """Whether zeros are left out."""
        return not isinstance(self.matrix, np.ndarray)

    @property
    def stored(self) -> int | None:
        """Non-zeros of sparse rows."""
        return int(self.matrix.nnz) if self.is_sparse else None

    def parts(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """The rows of a dense matrix, some at a time: (first target, values)."""
        size = max(1, (_BLOCK_BYTES >> 1) // max(1, self.matrix[:1].nbytes))
        for first in range(0, len(self.matrix), size):
            yield first, np.asarray(self.matrix[first : first + size])
            release(self.matrix)

    def along(self, directions: NDArray[np.float64], threads: int = 1) -> NDArray[np.float64]:
        """Products with directions (component, train): (target, component) float64."""
        if self.is_sparse:
            return Product(self.matrix, threads)(directions.T).astype(np.float64)
        result = np.empty((self.matrix.shape[0], len(directions)))
        turned = np.ascontiguousarray(directions.T, dtype=self.matrix.dtype)
        for first, values in self.parts():
            result[first : first + len(values)] = values @ turned
        return result

    def influence(self, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sum of the absolute weights of some targets: (train,) float64."""
        chosen = self.matrix[targets]
        if self.is_sparse:
            weights = np.abs(chosen.data).astype(np.float64)
            columns = self.matrix.shape[1]
            return np.asarray(np.bincount(chosen.indices, weights, columns), dtype=np.float64)
        return np.asarray(np.abs(chosen).sum(axis=0, dtype=np.float64))


def release(matrix: NDArray[Any]) -> None:
    """Let go of the pages of an array that lies on scratch; they count as this process's memory."""
    if isinstance(matrix, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped: Any = matrix
        mapped._mmap.madvise(mmap.MADV_DONTNEED)


def unit_rows(
    weight: xr.DataArray,
    *,
    dtype: Any = np.float32,
    memory: int | None = None,
    dense: bool = False,
    tell: Callable[[int], None] | None = None,
) -> Rows:
    """Datamodels of unit length, read some targets at a time (paper section 3, step 1).

    Parameters
    ----------
    weight : (target, train) float
        In memory or lazy.
    dtype : dtype
        Of the rows.
    memory : int, optional
        Bytes that dense rows may take; more of them lie in a file on scratch.
    dense : bool
        Do not try a sparse matrix.
    tell : callable, optional
        Called with the number of targets read so far.

    Returns
    -------
    Rows
        All-zero rows stay zero.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite.
    StorageError
        If dense rows have no room on scratch.
    """
    weight = with_dims(weight, "target", "train")
    most = None if dense else int(SPARSE * weight.size)
    raw = None if dense else _sparse(weight, None, np.result_type(weight.dtype, dtype), most, tell)
    if raw is None:
        return _dense_rows(weight, dtype, memory, tell)
    data, indptr = raw.data.astype(np.float64), raw.indptr
    count = np.diff(indptr)
    # By the largest first: squares of very large or small outputs are no numbers any more.
    data /= np.repeat(row_reduced(np.maximum, np.abs(data), indptr), count)
    data /= np.repeat(np.sqrt(row_reduced(np.add, data * data, indptr)), count)
    raw.data = data.astype(dtype, copy=False)
    return Rows(raw, count > 0)


def _dense_rows(
    weight: xr.DataArray, dtype: Any, memory: int | None, tell: Callable[[int], None] | None
) -> Rows:
    """Unit rows as an array, in memory or on scratch."""
    size = weight.size * np.dtype(dtype).itemsize
    fits = memory is None or size <= memory
    unit = np.empty(weight.shape, dtype) if fits else scratch_array(None, weight.shape, dtype)
    nonzero = np.zeros(len(unit), dtype=bool)
    for first, values in blocks(weight):
        rows = slice(first, first + len(values))
        largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
        nonzero[rows] = largest[:, 0] > 0
        scaled = np.divide(values, np.where(largest > 0, largest, 1), dtype=unit.dtype)
        length = np.sqrt(np.einsum("tu,tu->t", scaled, scaled, dtype=np.float64))[:, None]
        unit[rows] = scaled / np.where(length > 0, length, 1).astype(unit.dtype)
        release(unit)
        if tell:
            tell(first + len(values))
    return Rows(unit, nonzero)


def as_dense(rows: Rows, memory: int | None) -> Rows:
    """The same rows as an array, as where those of the other algorithm are."""
    if not rows.is_sparse:
        return rows
    shape, dtype = rows.matrix.shape, rows.matrix.dtype
    fits = memory is None or shape[0] * shape[1] * dtype.itemsize <= memory
    values = np.empty(shape, dtype) if fits else scratch_array(None, shape, dtype)
    size = max(1, _BLOCK_BYTES // (shape[1] * dtype.itemsize))
    for low in range(0, shape[0], size):
        values[low : low + size] = rows.matrix[low : low + size].toarray()
        release(values)
    return Rows(values, rows.nonzero)


def rows_of(arrays: Sequence[xr.DataArray]) -> list[Rows]:
    """Unit rows of some algorithms, all sparse or all dense; dense ones on scratch where memory has no room for all.

    Parameters
    ----------
    arrays : sequence of (target, train) float
        In memory or lazy.

    Raises
    ------
    InputError
        If the dims are not those, or a weight is not finite.
    StorageError
        If dense rows have no room on scratch.
    """
    each = available() // (2 * max(1, len(arrays)))
    made = [unit_rows(one, memory=each) for one in arrays]
    if all(one.is_sparse for one in made):
        return made
    return [as_dense(one, each) for one in made]


def row_reduced(
    function: Any, values: NDArray[np.float64], indptr: NDArray[Any]
) -> NDArray[np.float64]:
    """A ufunc over the stored values of each sparse row; 0 where there are none."""
    result = np.zeros(len(indptr) - 1)
    filled = np.diff(indptr) > 0
    if filled.any():
        result[filled] = function.reduceat(values, indptr[:-1][filled])
    return result


def dots(a: Rows, b: Rows) -> NDArray[np.float64]:
    """Products of the rows of each target: (target,) float64. Both sparse, or both dense."""
    if a.is_sparse:
        both = a.matrix.multiply(b.matrix).tocsr()
        return row_reduced(np.add, both.data.astype(np.float64), both.indptr)
    result = np.empty(len(a.nonzero))
    for (first, mine), (_, theirs) in zip(a.parts(), b.parts(), strict=True):
        result[first : first + len(mine)] = np.einsum("tu,tu->t", mine, theirs, dtype=np.float64)
    return result


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
    array = with_dims(array, "target", "train")
    return _sparse(array, block, np.result_type(array.dtype, np.float32), None, None)


def _sparse(
    array: xr.DataArray,
    block: int | None,
    dtype: Any,
    most: int | None,
    tell: Callable[[int], None] | None,
) -> Any:
    """A csr_array; None as soon as there are more than `most` non-zeros."""
    from scipy.sparse import csr_array

    indices, data, counts = [], [], [np.zeros(1, dtype=np.int64)]
    nonzeros = 0
    for first, values in blocks(array, block, check=False):
        column, number, count = compressed(values)
        # What is not finite is not zero either.
        if not np.isfinite(number).all():
            raise _not_finite(values, first)
        nonzeros += len(column)
        if most is not None and nonzeros > most:
            return None
        indices.append(column)
        data.append(number.astype(dtype, copy=False))
        counts.append(count)
        if tell:
            tell(first + len(values))
    indptr = np.cumsum(np.concatenate(counts))
    # Both of one width, or scipy makes a wider copy of the larger.
    indptr = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
    return csr_array(
        (_joined(data, dtype), _joined(indices, np.int32), indptr), shape=array.shape, copy=False
    )


def compressed(
    values: NDArray[Any],
) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[np.int64]]:
    """Columns and values of the non-zeros of some rows, and how many each row has."""
    # Places in an array of bools are found several times as fast as in one of numbers.
    mask = values != 0
    place = np.flatnonzero(mask)
    count = np.count_nonzero(mask, axis=1).astype(np.int64)
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
