"""The LDS that the truth itself would reach: what repeats of masks say of the noise of outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics

# Targets whose halves are ranked at a time.
_TARGETS = 256
# Reliabilities that targets may have, and how often their shares are reckoned again.
_GRID = np.linspace(0, 1, 101)
_ROUNDS = 1000
# Reliabilities are told apart no better than the grid does.
_LEAST_ERROR = 0.005


def noise_ceiling(
    values: NDArray[Any], group: NDArray[np.int64], *, splits: int = 5, random_state: int = 0
) -> NDArray[np.float64]:
    """The Spearman correlation that the truth itself would reach with averaged, noisy outputs.

    The runs of every mask that has several are split in two at random. The rank correlation r of
    the halves' means (mean over `splits` such splits) is the reliability of a half's mean; that of
    the mean of all runs, k times as many, is k r / (1 + (k - 1) r) (Spearman 1910, Brown 1910), and
    its square root is the correlation of such means with their truth (Spearman 1904). Numbers of
    runs that differ between masks count by their harmonic mean. For product moments this is exact;
    with ranks it is within .015 for normal outputs.

    A root of a noisy r is biased: above 0 where there is no signal, too low where there is little. So
    the distribution of r over targets is estimated first, the most likely one given the error of an r
    of so many masks (Kiefer and Wolfowitz 1956), and a target's ceiling is its mean given the target's r.

    Parameters
    ----------
    values : (run, target)
    group : (run,) int64
        Number of the mask of each run, from 0.
    splits : int
    random_state : int

    Returns
    -------
    (target,) float64
        NaN where fewer than 3 masks have several runs, or the halves' means are constant.
    """
    count = np.bincount(group)
    repeated = np.flatnonzero(count >= 2)
    targets = values.shape[1]
    ceiling = np.full(targets, np.nan)
    if len(repeated) < 3:
        return ceiling
    half = count[repeated] // 2
    longer = float(np.mean(1 / half) / np.mean(1 / count[count > 0]))
    halves = _split(group, count, repeated, splits, random_state)
    reliability, error = np.empty(targets), np.empty(targets)
    for start in range(0, targets, _TARGETS):
        part = slice(start, start + _TARGETS)
        reliability[part], error[part] = _reliability(values[:, part], halves)
    varies = np.ptp(values, axis=0) > 0
    if varies.any():
        reached = np.sqrt(longer * _GRID / (1 + (longer - 1) * _GRID))
        ceiling[varies] = _expected(reliability[varies], error[varies]) @ reached
    return ceiling


def _split(
    group: NDArray[np.int64],
    count: NDArray[np.int64],
    repeated: NDArray[np.int64],
    splits: int,
    random_state: int,
) -> list[list[list[NDArray[np.int64]]]]:
    """Rows of the runs of each mask in each half, for each split."""
    draw = np.random.default_rng(random_state)
    half = count[repeated] // 2
    start = np.concatenate([[0], np.cumsum(count)])[repeated]
    halves = []
    for _ in range(splits):
        shuffled = draw.permutation(len(group))
        order = shuffled[np.argsort(group[shuffled], kind="stable")]
        halves.append(
            [
                [order[s : s + h] for s, h in zip(begin, half, strict=True)]
                for begin in (start, start + half)
            ]
        )
    return halves


def _reliability(
    values: NDArray[Any], halves: list[list[list[NDArray[np.int64]]]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rank correlation of the halves' means, and its standard error were there no signal: (target,) both."""
    total, influence = np.zeros(values.shape[1]), np.zeros((values.shape[1], len(halves[0][0])))
    for pair in halves:
        a, b = (_unit(rank_statistics.mean_of(values, rows)) for rows in pair)
        r = (a * b).mean(axis=1)
        total += r
        influence += a * b - r[:, None] * (a**2 + b**2) / 2
    r, masks = total / len(halves), influence.shape[1]
    error = np.sqrt((influence**2).sum(axis=1) / (masks * (masks - 1))) / len(halves)
    left = 1 - r**2
    return r, np.divide(error, left, out=np.full(len(r), masks**-0.5), where=left > 0.01)


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks of rows, of mean 0 and variance 1; 0 where they are constant."""
    ranked = rank_statistics.ranks(values)
    spread = np.sqrt((ranked**2).mean(axis=1, keepdims=True))
    return ranked / np.where(spread > 0, spread, 1)


def _expected(reliability: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    """How likely each target has each reliability of the grid: (target, grid) float64, rows adding up to 1."""
    # The error is that of so many masks; a target's own estimate of it is noisier than their median.
    width = np.maximum(np.median(error) * (1 - _GRID**2), _LEAST_ERROR)
    # Targets that the third digit does not tell apart are reckoned as one.
    seen, which, times = np.unique(
        np.round(reliability, 3), return_inverse=True, return_counts=True
    )
    fit = -(((seen[:, None] - _GRID) / width) ** 2) / 2 - np.log(width)
    likelihood = np.exp(fit - fit.max(axis=1, keepdims=True))
    share = np.full(len(_GRID), 1 / len(_GRID))
    for _ in range(_ROUNDS):
        share *= (times / (likelihood @ share)) @ likelihood / len(reliability)
    likely = likelihood * share
    return np.asarray((likely / likely.sum(axis=1, keepdims=True))[which.ravel()])
