"""The effect of changing how often units are seen, measured on runs that took no part in choosing these units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Masks at a time.
_ROWS = 256


def unseen_effect(
    seen: NDArray[np.bool_],
    said: Floats,
    fit: Floats,
    change: Floats,
    rate: Floats,
    fixed: float = 1.0,
) -> tuple[float, float, float]:
    """What a change of the shares in which units are seen does to an output, if effects add up: without bias, whatever the fit is worth.

    A fit shrinks, and units that were chosen by it have weights that noise made large. Runs that it never saw know neither: the
    slope of what the fit leaves of their outputs, along what their masks say of the change, corrects both.

    Parameters
    ----------
    seen : (mask, train) bool
        Distinct masks that neither the fit nor the choice of units rests on.
    said : (mask,) float64
        The output, mean over the runs of a mask.
    fit : (train,) float64
        Weights, of any worth.
    change : (train,) float64
        By how much more often each unit is seen; its sum is 0.
    rate : (train,) float64
        How often masks see each unit.
    fixed : float
        1 where masks are of one size, 0 where units are drawn independently.

    Returns
    -------
    effect, error, freedom : float
        Standard error (of a slope, with unequal variances: HC3), degrees of freedom of Student's t.
    """
    count, train = seen.shape
    variance = rate * (1 - rate)
    told = np.divide(change, variance, out=np.zeros(train), where=variance > 0)
    told /= 1 + fixed / (train - 1)
    sums = [seen[at : at + _ROWS] @ np.stack([told, fit], axis=1) for at in range(0, count, _ROWS)]
    z, predicted = np.concatenate(sums).T
    z, rest = z - z.mean(), said - predicted
    # As masks are drawn. A slope times that has less noise than a covariance, above all where the fit is far off.
    square = float((1 + fixed / (train - 1)) * (variance * told**2).sum())
    total = float((z**2).sum())
    slope = z @ rest / total
    left = rest - rest.mean() - slope * z
    free = np.maximum(1 - 1 / count - z**2 / total, 1 / count)
    error = square / total * np.sqrt(((z * left / free) ** 2).sum())
    known = np.where(variance > 0, change, 0.0) @ fit
    return float(known + slope * square), float(error), count - 2.0
