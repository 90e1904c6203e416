"""How well predictions agree with what models did: correlations and their intervals.

Pure functions of arrays whose rows are targets and whose columns are masks. Each is ranked once;
everything else is a matrix product or a pass over whole arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# With fewer masks than these an interval is made with the steeper of two slopes.
_STEEP = 8
# Pairs inside a block of this many are compared one by one, which is faster than sorting them.
_BLOCK = 16


def ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks along each row less their mean, ties averaged: (target, mask) to the same.

    A row that holds NaN is NaN.
    """
    from scipy.stats import rankdata

    ranked: NDArray[np.float64] = rankdata(values, axis=1)
    ranked -= (values.shape[1] + 1) / 2
    return ranked


def tied(values: NDArray[np.float64], tolerance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set numbers of a row that rounding alone may have told apart to one, the smallest of them.

    Parameters
    ----------
    values : (target, mask) float64
    tolerance : (target,) float64
        What stands next to each other in order and differs by no more is one number.

    Returns
    -------
    (target, mask) float64
    """
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    close = np.diff(ordered, axis=1) <= tolerance[:, None]
    if not close.any():
        return values
    place = np.broadcast_to(np.arange(values.shape[1]), values.shape).copy()
    place[:, 1:][close] = 0
    first = np.maximum.accumulate(place, axis=1)
    together = np.empty_like(values)
    np.put_along_axis(together, order, np.take_along_axis(ordered, first, axis=1), axis=1)
    return together


def pearson(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation of the rows of two arrays: (target, mask) each, to (target,).

    A constant row gives 0: what predicts nothing has no merit and no fault. So does a row that holds NaN.
    SciPy's ``pearsonr``, which computes p-values too, takes 2 to 5 times as long
    (``python -m benchmarks ranks``).
    """
    constant = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    # What is left of a constant is the rounding of its mean.
    a[constant] = 0
    # Scaled first, so that squares neither overflow nor vanish.
    for values in (a, b):
        largest = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
        values /= np.where(largest > 0, largest, 1.0)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return _ratio((a * b).sum(axis=1), scale)


def spearman(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Spearman correlation of the rows of two arrays: (target, mask) each, to (target,).

    A constant row gives 0, and so does one that holds NaN.
    """
    return pearson(ranks(a), ranks(b))


def kendall(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Kendall's tau-b of the rows of two arrays: (target, mask) each, to (target,).

    A constant row gives 0, and so does one that holds NaN. Discordant pairs are the inversions of one in
    the order of the other, counted by merging (Knight 1966), for all rows at once; SciPy's ``kendalltau``,
    row by row, takes 9 times as long with 100 masks, 5 with 200 and as long with 1,000.
    """
    masks = a.shape[1]
    first, second = _places(a), _places(b)
    key = np.sort(first * masks + second, axis=1)
    # Places add up to the number of pairs that are not tied.
    untied_first, untied_second, untied = (
        places.sum(axis=1) for places in (first, second, _places(key))
    )
    concordant_less_discordant = (
        untied_first + untied_second - untied - 2 * _inversions(key % masks)
    )
    scale = np.sqrt(untied_first.astype(np.float64) * untied_second)
    return _ratio(concordant_less_discordant.astype(np.float64), scale)


def resampling(masks: int, resamples: int, random_state: int) -> NDArray[np.float64]:
    """Weights of bootstrap resamples of masks: (resample, mask), each row adding up to 1."""
    draw = np.random.default_rng(random_state)
    return draw.multinomial(masks, np.full(masks, 1 / masks), resamples) / masks


def influence(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each mask moves the Spearman correlation of a row: what its interval over fresh masks spreads by.

    A mask counts by its own ranks and by the ranks of others that it moves; resamples with ranks kept
    leave out the latter, and spread 3 to 8 % too little (``python -m benchmarks calibration``).

    Parameters
    ----------
    a, b : (target, mask) float64
        Ranks (:func:`ranks`).

    Returns
    -------
    (target, mask) float64
        Of mean 0 in each row: the first-order change of the correlation is a weighted mean of them. 0 where a row is constant.
    """
    both = a * b + _moved(a, b) + _moved(b, a)
    own = [x**2 + 2 * _moved(x, x) for x in (a, b)]
    square_a, square_b = ((x**2).mean(axis=1, keepdims=True) for x in (a, b))
    scale = np.sqrt(square_a * square_b)
    known = scale[:, 0] > 0
    r = pearson(a, b)[:, None]
    moves = np.zeros(a.shape)
    moves[known] = (both / np.where(scale > 0, scale, 1))[known]
    for x, square in zip(own, (square_a, square_b), strict=True):
        moves[known] -= (r * x / np.where(square > 0, square, 1) / 2)[known]
    moves -= moves.mean(axis=1, keepdims=True)
    return moves


def _moved(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the b of masks that have a larger a, those that are equal counted half: (target, mask)."""
    order = np.argsort(a, axis=1)
    ordered = np.take_along_axis(a, order, axis=1)
    masks = a.shape[1]
    above = np.zeros((len(a), masks + 1))
    above[:, :-1] = np.cumsum(np.take_along_axis(b, order, axis=1)[:, ::-1], axis=1)[:, ::-1]
    place = np.broadcast_to(np.arange(masks), a.shape)
    starts = np.ones(a.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] > ordered[:, :-1]
    first = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    ends = np.ones(a.shape, dtype=bool)
    ends[:, :-1] = starts[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, masks)[:, ::-1], axis=1)[:, ::-1]
    sums = np.take_along_axis(above, first, axis=1) + np.take_along_axis(above, last + 1, axis=1)
    moved = np.empty(a.shape)
    np.put_along_axis(moved, order, sums / 2, axis=1)
    return moved


def few_masks(
    lds: NDArray[np.float64], tau: NDArray[np.float64], masks: int
) -> NDArray[np.float64]:
    """How much larger a Spearman correlation is over very many masks than over these, on average.

    Among n masks a rank correlation r has the mean (3 tau + (n - 2) r) / (n + 1), with the r and
    Kendall's tau of very many, whatever the distribution (Kendall 1970, chapter 9).

    Parameters
    ----------
    lds, tau : (target,) float64
    masks : int
        More than 2.

    Returns
    -------
    (target,) float64
        To be added.
    """
    return np.asarray(3 * (lds - tau) / (masks - 2))


def interval(
    draws: NDArray[np.float64],
    point: NDArray[np.float64],
    *,
    masks: int | None = None,
    shift: NDArray[np.float64] | float = 0.0,
    difference: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % bootstrap interval of correlations, or of means or differences of them, over fresh masks.

    Correlations spread less the nearer they are to 1 or -1. So their interval is made on Fisher's scale, artanh, where the
    spread depends little on the correlation (Fisher 1921), with the slope of that scale in the middle between these masks'
    correlation and that of very many. Simulated single targets with 8 and 10 masks were covered 84 to 93 % with the slope at the
    one, 96 to 99 % at the other, 92 to 96 % in the middle (on no such scale: 83 to 93 %). With fewer masks the steeper one is taken.

    Parameters
    ----------
    draws : (resample, ...) float64
    point : (...) float64
        The same of the whole sample.
    masks : int, optional
        How many were resampled. Of few the draws spread too little, by the root of 1 - 1/masks and as the
        quantiles of a normal distribution are less than Student's.
    shift : (...) float64
        What the correlation of these masks lacks (:func:`few_masks`). Resampling has a bias of its own: the
        draws are shifted to have the mean ``point + shift``.
    difference : bool
        Whether these are differences, which have no such scale.

    Returns
    -------
    low, high : (...) float64
        With `point` between them, always.
    """
    from scipy.stats import norm, t

    low, high = np.percentile(draws, [2.5, 97.5], axis=0) - draws.mean(axis=0)
    wider = 1.0
    if masks is not None:
        wider = float(np.sqrt(masks / (masks - 1)) * t.ppf(0.975, masks - 1) / norm.ppf(0.975))
    centre = point + shift
    low, high = wider * low, wider * high
    if difference:
        return np.minimum(centre + low, point), np.maximum(centre + high, point)
    # Of few masks a correlation has few values: the steps between them are no smaller than that.
    limit = 1 - (1e-3 if masks is None else min(1e-3, 6 / (masks**3 - masks)))
    centre = np.clip(centre, -limit, limit)
    near = centre if masks is not None and masks < _STEEP else np.clip(point, -limit, limit)
    steep = 1 / (1 - ((centre + near) / 2) ** 2)
    place = np.arctanh(centre)
    low, high = np.tanh(place + steep * low), np.tanh(place + steep * high)
    return np.minimum(low, point), np.maximum(high, point)


def average(values: NDArray[Any], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over the runs of each mask: (run, target) and (run,) to (target, mask). Equal means are equal numbers."""
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    means = mean_of(values, np.split(order, cuts))
    if values.dtype == np.float64:
        # Sums in another order; those of narrower numbers are exact.
        means = tied(means, 4 * np.finfo(np.float64).eps * np.abs(means).max(axis=1, initial=0.0))
    return means


def mean_of(values: NDArray[Any], rows: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Means over lists of rows, (run, target) to (target, list) float64."""
    flat = np.concatenate(rows)
    start = np.cumsum([0, *map(len, rows[:-1])])
    sums = np.add.reduceat(values[flat].astype(np.float64), start, axis=0)
    return np.ascontiguousarray((sums / np.array([*map(len, rows)])[:, None]).T)


def _ratio(
    above: NDArray[np.float64], below: NDArray[np.float64], least: float = 0.0
) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(
        above, below, out=np.zeros(above.shape), where=below > least
    )
    return np.clip(ratio, -1, 1, out=ratio)


def _places(values: NDArray[Any]) -> NDArray[np.int64]:
    """How many values of its row are smaller: equal where values are, 0 throughout where one is NaN."""
    from scipy.stats import rankdata

    return np.asarray(np.nan_to_num(rankdata(values, "min", axis=1) - 1).astype(np.int64))


def _inversions(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of each row whose earlier value is the larger."""
    rows, length = values.shape
    size = _BLOCK
    padded = max(size, 1 << (length - 1).bit_length())
    work = np.full((rows, padded), length, dtype=np.int32)
    work[:, :length] = values
    blocks = work.reshape(rows, -1, size)
    count = np.zeros(rows, dtype=np.int64)
    for place in range(size - 1):
        count += (blocks[:, :, place, None] > blocks[:, :, place + 1 :]).sum(axis=(1, 2))
    blocks = np.sort(blocks, axis=2)
    while size < padded:
        blocks = blocks.reshape(rows, -1, 2 * size)
        # A stable sort of two halves in order leaves equal values of the left one first, so a value
        # from the right has been passed by exactly the larger ones of the left.
        order = np.argsort(blocks, axis=2, kind="stable")
        right = np.where(order >= size, np.arange(2 * size), 0).sum(axis=(1, 2))
        merges = blocks.shape[1]
        count += merges * (size * size + size * (size - 1) // 2) - right
        blocks = np.take_along_axis(blocks, order, axis=2)
        size *= 2
    return count
