"""The leading directions of one algorithm's residuals, from rows that are never formed as differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.geometry.differences import residual_matrix
from dmstore.analysis.geometry.pca import check_counts, residual_shares, signs
from dmstore.analysis.geometry.rows import Rows
from dmstore.analysis.geometry.subspace import leading_directions


@dataclass(frozen=True)
class Principal:
    """Directions of residuals (paper Eq. 4), signed so that the target furthest along lies on the positive side.

    Attributes
    ----------
    direction : (component, train) float64
        Orthonormal.
    projection : (component, target) float32
        Uncentred; NaN for targets that are left out.
    residual_variance : (component,) float64
        Share of the residuals' variance; 0 where it is rounding alone.
    products : pair of (target, component) float64
        Unit rows of the own and of the other algorithm along the directions.
    """

    direction: NDArray[np.float64]
    projection: NDArray[np.float32]
    residual_variance: NDArray[np.float64]
    products: tuple[NDArray[np.float64], NDArray[np.float64]]


def principal_directions(
    own: Rows,
    other: Rows,
    cosine: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    components: int,
    center: bool,
    rounding: float,
    random_state: int = 0,
    threads: int = 1,
    tell: Callable[[float], None] | None = None,
) -> Principal:
    """Principal components of the residuals of one algorithm with respect to another.

    Parameters
    ----------
    own, other : Rows
        Both sparse, or both dense.
    cosine : (target,) float64
        Their products.
    included : (target,) bool
        Targets with both datamodels.
    components : int
        Directions at most.
    center : bool
        Whether the mean residual is taken off.
    rounding : float
        Length that residuals reach by rounding alone.
    random_state : int
    threads : int
    tell : callable, optional
        Called with the share of the work that is done.

    Raises
    ------
    InputError
        If fewer than two targets are included.
    """
    counted = check_counts(int(included.sum()), components)
    matrix = residual_matrix(own, other, cosine, included, center=center, threads=threads)
    count = min(components, counted, matrix.shape[1])
    direction = leading_directions(matrix, count, random_state, tell)
    mean, energy = matrix.mean, matrix.energy
    del matrix
    products = (own.along(direction, threads), other.along(direction, threads))
    along = (products[0] - cosine[:, None] * products[1])[included]
    sign = signs(along)
    direction *= sign[:, None]
    projection = np.full((count, len(included)), np.nan, dtype=np.float32)
    projection[:, included] = (along * sign).T
    shares = residual_shares(along - sign * (direction @ mean), energy, rounding)
    return Principal(direction, projection, shares, products)
