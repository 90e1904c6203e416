"""How what is known of examples goes with numbers of them: AUROC, rank correlation and enrichment, within classes too.

Pure functions on arrays. Ties count half everywhere, and p-values are those of a random order of the examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Association:
    """How strongly, and how surely, some rows of numbers go with some columns of what is known.

    Attributes
    ----------
    score : (row, column) float64
        AUROC or correlation; NaN where there is nothing to compare.
    p : (row, column) float64
        Two-sided.
    """

    score: Floats
    p: Floats


def ranks(values: NDArray[np.floating]) -> Floats:
    """Ranks from 1 along the last axis, those of ties averaged."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def auroc(values: NDArray[np.floating], member: Bools, stratum: NDArray[np.int64]) -> Association:
    """Probability that a member has a larger value than another example, of one stratum.

    Parameters
    ----------
    values : (row, example) float
    member : (example, column) bool
    stratum : (example,) int
        Members are compared with others of their stratum alone; all 0 to compare with all others.

    Returns
    -------
    Association
    """
    shape = (len(values), member.shape[1])
    above, pairs, variance = np.zeros(shape), np.zeros(shape[1]), np.zeros(shape)
    for value in np.unique(stratum):
        here = stratum == value
        rank, inside = ranks(values[:, here]), member[here].astype(np.float64)
        n, inner = len(inside), inside.sum(axis=0)
        above += rank @ inside - inner * (inner + 1) / 2
        pairs += inner * (n - inner)
        # Of a sum of ranks without replacement; ties make it smaller.
        spread = rank.var(axis=1)[:, None]
        variance += spread * inner * (n - inner) / max(n - 1, 1)
    return _tested(above - pairs / 2, variance, pairs[None] * np.ones(shape), 0.5)


def spearman(
    values: NDArray[np.floating], known: NDArray[np.floating], stratum: NDArray[np.int64]
) -> Association:
    """Rank correlation within strata.

    Parameters
    ----------
    values : (row, example) float
    known : (example,) float
    stratum : (example,) int
        Ranks are those within a stratum; all 0 for the correlation over all.

    Returns
    -------
    Association
        One column.
    """
    shape = (len(values), 1)
    product, variance, x, y = (np.zeros(shape) for _ in range(4))
    for value in np.unique(stratum):
        here = stratum == value
        n = int(here.sum())
        if n < 2:
            continue
        # A stratum counts by its size, not by the square of it.
        rank = (ranks(values[:, here]) - (n + 1) / 2) / n
        other = (ranks(np.asarray(known, dtype=np.float64)[here]) - (n + 1) / 2) / n
        own, theirs = (rank**2).sum(axis=1)[:, None], float((other**2).sum())
        product += (rank @ other)[:, None]
        variance += own * theirs / (n - 1)
        x, y = x + own, y + theirs
    return _tested(product, variance, np.sqrt(x * y), 0.0)


def explained(
    values: NDArray[np.floating], known: NDArray[Any], stratum: NDArray[np.int64]
) -> Floats:
    """Share of the variance of some rows of numbers, within strata, that goes with what is known.

    AUROC favours few examples at the very end; this says how much of all the numbers there is to them.

    Parameters
    ----------
    values : (row, example) float
    known : (example,) bool or float
        Whether an example is a member, or a number of it.
    stratum : (example,) int

    Returns
    -------
    (row,) float64
        The squared correlation, negative where the correlation is; 0 where either does not vary.
    """
    rows, column = np.array(values, dtype=np.float64), np.array(known, dtype=np.float64)
    for value in np.unique(stratum):
        here = stratum == value
        rows[:, here] -= rows[:, here].mean(axis=1, keepdims=True)
        column[here] -= column[here].mean()
    whole = (rows**2).sum(axis=1) * (column @ column)
    share: Floats = np.zeros(len(rows))
    product = rows @ column
    np.divide(product * np.abs(product), whole, out=share, where=whole > 0)
    return share


def _tested(excess: Floats, variance: Floats, whole: Floats, middle: float) -> Association:
    from scipy.stats import norm

    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.where(whole > 0, middle + excess / whole, np.nan)
        z = np.where(variance > 0, excess / np.sqrt(variance), 0.0)
    return Association(score, np.where(np.isnan(score), np.nan, 2 * norm.sf(np.abs(z))))


@dataclass(frozen=True)
class Enrichment:
    """How often chosen examples are members.

    Attributes
    ----------
    share, overall : (column,) float64
        Of the chosen that are members, and of all; within strata, of as many of each stratum as are chosen.
    p : (column,) float64
        That so many members or more are chosen by chance (hypergeometric); NaN where chance decides nothing.
    """

    share: Floats
    overall: Floats
    p: Floats


def enrichment(member: Bools, chosen: Bools, stratum: NDArray[np.int64]) -> Enrichment:
    """Whether chosen examples are members more often than by chance, given how many of each stratum are chosen.

    Parameters
    ----------
    member : (example, column) bool
    chosen : (example,) bool
    stratum : (example,) int

    Returns
    -------
    Enrichment
    """
    from scipy.stats import hypergeom

    columns = member.shape[1]
    hits = member[chosen].sum(axis=0)
    p, expected = np.full(columns, np.nan), np.zeros(columns)
    parts = [(stratum == value) for value in np.unique(stratum[chosen])]
    for column in range(columns):
        # How many members are chosen: a sum over strata.
        chance = np.ones(1)
        for here in parts:
            n, inside, drawn = (
                int(one.sum()) for one in (here, member[here, column], chosen[here])
            )
            expected[column] += drawn * inside / n
            if 0 < inside < n and drawn < n:
                chance = np.convolve(chance, hypergeom.pmf(np.arange(drawn + 1), n, inside, drawn))
            else:
                sure = drawn if inside == n else inside if drawn == n else 0
                chance = np.concatenate([np.zeros(sure), chance])
        if np.count_nonzero(chance) > 1:
            p[column] = min(1.0, float(chance[hits[column] :].sum()))
    count = max(1, int(chosen.sum()))
    return Enrichment(hits / count, expected / count, p)
