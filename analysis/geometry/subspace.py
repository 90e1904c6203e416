"""Leading right singular vectors of a matrix that only products are taken with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Up to this length of the shorter side all of its spectrum is computed.
EXACT = 1500
# The same where so many times the directions are no fewer than the shorter side.
_OVERSAMPLED = 6
# Directions are done when they may still turn by this angle; a cosine of .9999 is one of .014.
_ANGLE = 0.005
# What blocks may have in common with the basis before they are made orthogonal to it once more.
_CLEAN = 0.1
_MOST_PER_DIRECTION, _MOST_BESIDE = 16, 400


class Operator(Protocol):
    """A matrix (target, train) by its products."""

    @property
    def shape(self) -> tuple[int, int]:
        """Targets, train units."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the products."""

    @property
    def by_train(self) -> bool:
        """Whether :meth:`squared` maps columns over train units, else over targets."""

    @property
    def width(self) -> int:
        """Columns that are best multiplied at once."""

    def squared(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R'R times columns over train units, or RR' times columns over targets."""

    def gram(self) -> NDArray[np.float64]:
        """RR' or R'R, the smaller of the two."""

    def adjoint(self, columns: NDArray[Any]) -> NDArray[Any]:
        """R' times columns over targets."""


def is_exact(targets: int, train: int, count: int) -> bool:
    """Whether so many directions come from the whole spectrum."""
    least = min(targets, train)
    return least <= max(EXACT, _OVERSAMPLED * count)


def basis_size(targets: int, train: int, count: int) -> int:
    """Vectors that a subspace is sought in at most."""
    return min(_MOST_PER_DIRECTION * count + _MOST_BESIDE, targets, train)


def leading_directions(
    matrix: Operator,
    count: int,
    random_state: int = 0,
    tell: Callable[[float], None] | None = None,
) -> NDArray[np.float64]:
    """Leading right singular vectors, largest first.

    From the whole spectrum of the smaller Gram matrix where that is small, else by block Lanczos with full
    orthogonalisation, started from `random_state`. That goes on until every direction can turn by no more
    than .005 any more: the residual of a Ritz pair over its distance to the next bounds the angle. Directions
    whose singular values are the same to a millionth of the largest have no direction of their own.

    Parameters
    ----------
    matrix : Operator
    count : int
        At most the shorter side.
    random_state : int
    tell : callable, optional
        Called with the share of the work that is done.

    Returns
    -------
    (component, train) float64
        Orthonormal.
    """
    targets, train = matrix.shape
    if is_exact(targets, train, count):
        vectors = np.linalg.eigh(matrix.gram())[1][:, ::-1][:, :count]
        over_train = train < targets
    else:
        vectors = _lanczos(matrix, count, random_state, tell)
        over_train = matrix.by_train
    if over_train:
        return _orthonormal(vectors)
    # The smaller Gram matrix has the same spectrum; QR restores what squaring costs in angles.
    return _orthonormal(matrix.adjoint(vectors.astype(matrix.dtype, copy=False)))


def _orthonormal(columns: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of length 1 along the columns, each less what those before it have."""
    from scipy.linalg import qr

    q, r = qr(columns.astype(np.float64), mode="economic", check_finite=False)
    return np.ascontiguousarray((q * np.where(np.diagonal(r) < 0, -1.0, 1.0)).T)


def _lanczos(
    matrix: Operator, count: int, random_state: int, tell: Callable[[float], None] | None
) -> NDArray[Any]:
    """Leading eigenvectors of a squared matrix: (length, count)."""
    length = matrix.shape[1 if matrix.by_train else 0]
    width = min(matrix.width, max(1, length // 8))
    most = basis_size(*matrix.shape, count)
    most = max(most // width, 1) * width
    start = np.random.default_rng(random_state).normal(size=(length, width))
    basis = np.zeros((length, most), dtype=matrix.dtype, order="F")
    projected = np.zeros((most, most))
    block = _block(start.astype(matrix.dtype))
    size, check = 0, 2 * count + 2 * width
    while True:
        basis[:, size : size + width] = block
        size += width
        image = matrix.squared(block)
        so_far = basis[:, :size]
        row = so_far.T @ image
        projected[:size, size - width : size] = row
        projected[size - width : size, :size] = row.T
        last = size + width > most
        if not last:
            block = _continued(image - so_far @ row, so_far)
        if size >= check or last:
            values, vectors = np.linalg.eigh(projected[:size, :size])
            values, vectors = values[::-1], vectors[:, ::-1]
            coupling = (block.T @ image).astype(np.float64)
            left = np.linalg.norm(coupling @ vectors[size - width :, :count], axis=0)
            if last or _is_settled(values, left, count):
                return np.asarray(so_far @ vectors[:, :count].astype(matrix.dtype))
            check = max(size + width, int(1.1 * size))
        if tell:
            # Most need some six times as many vectors as directions.
            tell(min(size / (_OVERSAMPLED * count + 8 * width), 0.95))


def _continued(image: NDArray[Any], basis: NDArray[Any]) -> NDArray[Any]:
    """An orthonormal block that has nothing in common with a basis; where nothing new is left, any such block."""
    # What the caller took off is the first time; rounding leaves no more after the second, unless the image was
    # rounding alone.
    block = _block(image)
    for _ in range(2):
        shared = basis.T @ block
        block = _block(block - basis @ shared)
        if np.abs(shared).max() < _CLEAN:
            break
    return block


def _block(columns: NDArray[Any]) -> NDArray[Any]:
    """An orthonormal basis of some columns, in their dtype; numpy's takes several times as long, in float64."""
    from scipy.linalg import qr

    return np.asarray(qr(columns, mode="economic", check_finite=False)[0])


def _is_settled(values: NDArray[np.float64], left: NDArray[np.float64], count: int) -> bool:
    """Whether what is left of each Ritz pair is little beside its distance to its neighbours."""
    steps = -np.diff(values[: count + 1])
    gap = np.minimum(steps, np.concatenate([[np.inf], steps[:-1]]))
    return bool((left <= np.maximum(_ANGLE * gap, 1e-6 * values[0])).all())
