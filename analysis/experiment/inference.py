"""From estimates to claims: p-values and false discovery rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def upper_tail(z: NDArray[np.floating]) -> Floats:
    """Probability that noise alone gives so large a z: float64 of the same shape."""
    from scipy.stats import norm

    return np.asarray(norm.sf(z), dtype=np.float64)


def either_half(z: Floats) -> Floats:
    """P-value of directions that each half measured for the other, whatever the two have in common.

    Each half's z is valid by itself. The two are not independent: where noise is common to all targets, both halves
    propose that noise, and both z-values measure the same overlap. So twice the smaller p-value counts
    (Bonferroni), which holds under any dependence.

    Parameters
    ----------
    z : (half, ...) float64
        NaN where a half could not measure.

    Returns
    -------
    (...) float64
        1 where neither could.
    """
    p = np.where(np.isnan(z), 1.0, upper_tail(z))
    known = np.maximum((~np.isnan(z)).sum(axis=0), 1)
    return np.asarray(np.minimum(1.0, known * p.min(axis=0)))


def mean_of_halves(z: Floats) -> Floats:
    """P-value of sums over targets that each half measured for the other.

    Both halves measure the product of the two halves' differences, so that their z-values are nearly the same number;
    their mean has a variance of at most 1.

    Parameters
    ----------
    z : (half, ...) float64

    Returns
    -------
    (...) float64
    """
    return np.where(np.isnan(z).any(axis=0), 1.0, upper_tail(np.mean(z, axis=0)))


def discovery_rates(families: Sequence[Floats]) -> list[Floats]:
    """Q-values over several families of hypotheses that share the false discovery rate equally.

    Benjamini and Hochberg's procedure with weights (Genovese, Roeder, Wasserman 2006): a family of a thousand groups
    costs a family of ten directions no more than a family of ten would.

    Parameters
    ----------
    families : sequence of (hypothesis,) float64
        P-values.

    Returns
    -------
    list of (hypothesis,) float64
        The smallest false discovery rate at which each is claimed.
    """
    there = [len(p) for p in families if len(p)]
    total = sum(there)
    if not total:
        return [np.zeros(0) for _ in families]
    weighted = np.concatenate([p * len(p) * len(there) / total for p in families])
    order = np.argsort(weighted, kind="stable")
    steps = weighted[order] * total / np.arange(1, total + 1)
    q = np.empty(total)
    q[order] = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1])
    return np.split(q, np.cumsum([len(p) for p in families])[:-1])


def matched(
    whole: NDArray[np.floating], half: NDArray[np.floating]
) -> tuple[NDArray[np.int64], Floats]:
    """Which of a half's directions does to targets what each direction of all runs does; none serves twice.

    Parameters
    ----------
    whole, half : (component, target) float
        Projections; NaN where a target has none.

    Returns
    -------
    place : (component,) int64
        -1 where the half has fewer.
    likeness : (component,) float64
        Absolute correlation; NaN there.
    """
    from scipy.optimize import linear_sum_assignment

    rows = [np.asarray(one, dtype=np.float64) for one in (whole, half)]
    known = [~np.isnan(one) for one in rows]
    rows = [np.where(there, one, 0.0) for one, there in zip(rows, known, strict=True)]
    means = [
        one.sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
        for one, there in zip(rows, known, strict=True)
    ]
    rows = [
        np.where(there, one - mean, 0.0)
        for one, there, mean in zip(rows, known, means, strict=True)
    ]
    unit = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-300) for one in rows]
    likeness = np.abs(unit[0] @ unit[1].T)
    place = np.full(len(whole), -1, dtype=np.int64)
    value = np.full(len(whole), np.nan)
    mine, theirs = linear_sum_assignment(-likeness)
    place[mine], value[mine] = theirs, likeness[mine, theirs]
    return place, value


def two_sided(
    estimate: Floats, error: Floats, freedom: Floats, level: float = 0.95
) -> tuple[Floats, Floats, Floats]:
    """P-value against 0, and interval, of estimates whose errors are estimated too (Student's t).

    Parameters
    ----------
    estimate, error, freedom : (...) float64
    level : float
        Of the interval.

    Returns
    -------
    p, low, high : (...) float64
    """
    from scipy.stats import t

    safe = np.where(error > 0, error, 1.0)
    p = np.where(error > 0, 2 * t.sf(np.abs(estimate) / safe, freedom), (estimate == 0) * 1.0)
    wide = t.ppf(0.5 + level / 2, freedom) * error
    return p, estimate - wide, estimate + wide
