"""Products of a sparse matrix with columns: compiled where it is large, shared between threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Columns that a sparse matrix is multiplied with at once; more of them do not stay in a cache.
COLUMNS = 16
# Non-zeros of a matrix from which on it is worth the while to load compiled code.
_COMPILED = 1 << 20


class Product:
    """Products of a sparse matrix with some columns, its rows shared between threads: the same bits with any number."""

    def __init__(self, matrix: csr_array, threads: int = 1) -> None:
        from scipy.sparse import csr_array

        self.shape, self.dtype = matrix.shape, matrix.dtype
        self._times = _compiled_times() if matrix.nnz > _COMPILED else None
        # By non-zeros, not by rows: train units differ in how many targets use them.
        wanted = np.linspace(0, matrix.nnz, threads + 1)[1:-1]
        edges = [0, *np.searchsorted(matrix.indptr, wanted).tolist(), matrix.shape[0]]
        self._parts = []
        for low, high in pairwise(edges):
            start, stop = int(matrix.indptr[low]), int(matrix.indptr[high])
            content = (
                matrix.data[start:stop],
                matrix.indices[start:stop],
                matrix.indptr[low : high + 1] - matrix.indptr[low],
            )
            self._parts.append(csr_array(content, shape=(high - low, matrix.shape[1]), copy=False))

    def __call__(self, columns: NDArray[Any]) -> NDArray[Any]:
        """The matrix times (its columns, count)."""
        made = np.empty((self.shape[0], columns.shape[1]), dtype=self.dtype)
        for low in range(0, columns.shape[1], COLUMNS):
            some = columns[:, low : low + COLUMNS]
            made[:, low : low + COLUMNS] = self._few(np.ascontiguousarray(some, dtype=self.dtype))
        return made

    def _few(self, columns: NDArray[Any]) -> NDArray[Any]:
        if len(self._parts) == 1:
            return self._part(self._parts[0], columns)
        with ThreadPoolExecutor(len(self._parts)) as pool:
            return np.concatenate(
                list(pool.map(lambda part: self._part(part, columns), self._parts))
            )

    def _part(self, part: csr_array, columns: NDArray[Any]) -> NDArray[Any]:
        width = columns.shape[1]
        if self._times is None or 2 * width <= COLUMNS:
            return np.asarray(part @ columns)
        if width < COLUMNS:
            columns = np.pad(columns, ((0, 0), (0, COLUMNS - width)))
        made = np.empty((part.shape[0], COLUMNS), dtype=self.dtype)
        self._times(part.indptr, part.indices, part.data, columns, made)
        return made[:, :width]


def _compiled_times() -> Callable[..., None] | None:
    """The kernel, which takes a quarter of scipy's time; None where numba is not installed."""
    try:
        from dmstore.regression.kernels.sparse import times_sixteen
    except MissingDependencyError:
        return None
    return times_sixteen
