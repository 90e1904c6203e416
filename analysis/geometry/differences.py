"""Residual datamodels of one algorithm with respect to another, as a matrix that products are taken with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.geometry.products import COLUMNS, Product
from dmstore.analysis.geometry.rows import Rows

# Non-zeros beyond which a product of sparse matrices is slower than one of dense ones.
_SPARSE_GRAM = 0.05
_DENSE_COLUMNS = 64
_BLOCK_BYTES = 1 << 25


class SparseMatrix:
    """A sparse matrix, less its mean row in some of its rows.

    Parameters
    ----------
    matrix : (target, train) csr_array
    included : (target,) bool
        Rows that count; the others are all zero.
    center : bool
        Whether the mean of the included rows is taken off.
    threads : int
    """

    by_train = False
    width = COLUMNS

    def __init__(
        self, matrix: Any, included: NDArray[np.bool_], *, center: bool, threads: int
    ) -> None:
        self._matrix, self._turned = matrix, matrix.T.tocsr()
        self.shape, self.dtype = matrix.shape, matrix.dtype
        self.by_train = matrix.shape[1] < matrix.shape[0]
        self._included = included.astype(np.float64)
        rows = max(1, int(included.sum()))
        total = np.asarray(matrix.sum(axis=0, dtype=np.float64)).ravel()
        self.mean = total / rows if center else np.zeros(matrix.shape[1])
        data = matrix.data.astype(np.float64)
        self.energy = float(data @ data) - rows * float(self.mean @ self.mean)
        self._apply, self._adjoint = Product(matrix, threads), Product(self._turned, threads)

    def times(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R times columns over train units."""
        mean = self.mean.astype(self.dtype) @ columns
        made = self._apply(columns)
        made -= np.outer(self._included.astype(self.dtype), mean)
        return made

    def adjoint(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R' times columns over targets."""
        sums = self._included.astype(self.dtype) @ columns
        made = self._adjoint(columns)
        made -= np.outer(self.mean.astype(self.dtype), sums)
        return made

    def squared(self, columns: NDArray[Any]) -> NDArray[Any]:
        """RR' times columns over targets, or R'R times columns over train units."""
        if self.by_train:
            return self.adjoint(self.times(columns))
        return self.times(self.adjoint(columns))

    def gram(self) -> NDArray[np.float64]:
        """RR' or R'R, the smaller of the two."""
        targets, train = self.shape
        least = min(targets, train)
        wide, tall = self._matrix.astype(np.float64), self._turned.astype(np.float64)
        if train < targets:
            wide, tall = tall, wide
        if self._matrix.nnz < _SPARSE_GRAM * targets * train:
            raw = (wide @ tall).toarray()
        else:
            raw = np.zeros((least, least))
            step = max(1, _BLOCK_BYTES // (8 * least))
            for low in range(0, tall.shape[0], step):
                some = tall[low : low + step].toarray()
                raw += some.T @ some
        if train < targets:
            return np.asarray(raw - self._included.sum() * np.outer(self.mean, self.mean))
        shared = np.outer(wide @ self.mean, self._included)
        square = float(self.mean @ self.mean) * np.outer(self._included, self._included)
        return np.asarray(raw - shared - shared.T + square)


class PlainMatrix:
    """An array in memory by its products; see :class:`dmstore.analysis.geometry.subspace.Operator`."""

    width = COLUMNS

    def __init__(self, values: NDArray[np.float64]) -> None:
        self._values = values
        self.shape: tuple[int, int] = (values.shape[0], values.shape[1])
        self.dtype = values.dtype
        self.by_train = values.shape[1] < values.shape[0]

    def adjoint(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R' times columns over targets."""
        return np.asarray(self._values.T @ columns)

    def squared(self, columns: NDArray[Any]) -> NDArray[Any]:
        """RR' times columns over targets, or R'R times columns over train units."""
        if self.by_train:
            return np.asarray(self._values.T @ (self._values @ columns))
        return np.asarray(self._values @ (self._values.T @ columns))

    def gram(self) -> NDArray[np.float64]:
        """RR' or R'R, the smaller of the two."""
        rows = self._values
        return np.asarray(rows.T @ rows if rows.shape[1] < rows.shape[0] else rows @ rows.T)


class DenseMatrix:
    """Scaled rows of one dense matrix less scaled rows of another, some targets at a time; less their mean.

    Parameters
    ----------
    own, other : Rows
        Both dense; in memory or on scratch.
    cosine : (target,) float64
    included : (target,) bool
        Rows that count.
    center : bool
    """

    by_train = True
    width = _DENSE_COLUMNS

    def __init__(
        self,
        own: Rows,
        other: Rows,
        cosine: NDArray[np.float64],
        included: NDArray[np.bool_],
        *,
        center: bool,
    ) -> None:
        self._own, self._other, self._cosine = own, other, cosine
        self._included = included
        self.shape, self.dtype = own.matrix.shape, own.matrix.dtype
        self.mean = np.zeros(self.shape[1])
        total = np.zeros(self.shape[1])
        if center:
            for _, values in self._parts():
                total += values.sum(axis=0, dtype=np.float64)
            self.mean = total / max(1, int(included.sum()))
        self.energy = sum(float(np.vdot(part, part)) for _, part in self._parts())

    def _parts(self) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Included rows, some at a time, with where they stand."""
        mean = self.mean.astype(self.dtype)
        for (first, mine), (_, theirs) in zip(self._own.parts(), self._other.parts(), strict=True):
            rows = slice(first, first + len(mine))
            factor = self._cosine[rows, None].astype(self.dtype)
            part = mine - factor * theirs - mean
            part[~self._included[rows]] = 0
            yield rows, part

    def adjoint(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R' times columns over targets."""
        result = np.zeros((self.shape[1], columns.shape[1]), self.dtype)
        for rows, part in self._parts():
            result += part.T @ columns[rows]
        return result

    def squared(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R'R times columns over train units, in one pass."""
        result = np.zeros(columns.shape, self.dtype)
        columns = np.ascontiguousarray(columns)
        for _, part in self._parts():
            result += part.T @ (part @ columns)
        return result

    def gram(self) -> NDArray[np.float64]:
        """RR' or R'R, the smaller of the two."""
        targets, train = self.shape
        if train < targets:
            result = np.zeros((train, train))
            for _, part in self._parts():
                wide = part.astype(np.float64)
                result += wide.T @ wide
            return result
        result = np.zeros((targets, targets))
        step = max(1, _BLOCK_BYTES // (8 * targets))
        for low in range(0, train, step):
            some = slice(low, low + step)
            part = self._own.matrix[:, some] - self._cosine[:, None] * self._other.matrix[:, some]
            part = np.where(self._included[:, None], part - self.mean[some], 0)
            result += part @ part.T
        return result


def residual_matrix(
    own: Rows,
    other: Rows,
    cosine: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    center: bool,
    threads: int,
) -> SparseMatrix | DenseMatrix:
    """Residual datamodels a - (a . b) b of unit rows, centred: a difference of rows, never formed where dense.

    Parameters
    ----------
    own, other : Rows
        Both sparse, or both dense.
    cosine : (target,) float64
        Their products.
    included : (target,) bool
        Targets with both datamodels; the rows of others are zero.
    center : bool
        Whether the mean residual is taken off.
    threads : int
    """
    if not own.is_sparse:
        return DenseMatrix(own, other, cosine, included, center=center)
    from scipy.sparse import diags_array

    dtype = own.matrix.dtype
    keep = diags_array(included.astype(dtype))
    taken = diags_array(np.where(included, cosine, 0).astype(dtype))
    matrix = (keep @ own.matrix - taken @ other.matrix).tocsr()
    return SparseMatrix(matrix, included, center=center, threads=threads)
