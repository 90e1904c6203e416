"""The most influential train units of every target, under several algorithms: what a page shows of datamodels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.rows import blocks, compressed

# Bytes of datamodels that are looked at in one piece.
_BLOCK = 1 << 23


@dataclass(frozen=True)
class Influences:
    """Most influential train units, by algorithm and target.

    Attributes
    ----------
    unit : (algorithm, target, place) int64
        Positions of train units: first those that raise the output, largest first, then those that lower it, lowest
        first; -1 where there are fewer.
    weight : (algorithm, target, place) float32
        Weights, in output units per train unit; 0 where there are fewer.
    """

    unit: NDArray[np.int64]
    weight: NDArray[np.float32]


def influences(
    weights: Sequence[xr.DataArray], count: int = 8, tell: Callable[[int, int], None] | None = None
) -> Influences:
    """Find the most influential train units of every target.

    Parameters
    ----------
    weights : sequence of (target, train) DataArray
        Datamodels of each algorithm, in memory or lazy: read some targets at a time.
    count : int
        How many that raise the output, and how many that lower it.
    tell : callable, optional
        Called with targets done and targets in all.

    Returns
    -------
    Influences
        ``place`` has 2 `count` entries, fewer if there are fewer train units.
    """
    targets, train = weights[0].shape
    count = min(count, train)
    unit = np.full((len(weights), targets, 2 * count), -1, dtype=np.int64)
    weight = np.zeros(unit.shape, dtype=np.float32)
    step = max(1, _BLOCK // (4 * train))
    for row, data in enumerate(weights):
        for first, block in blocks(data, check=False):
            for low in range(0, len(block), step):
                some = np.asarray(block[low : low + step], dtype=np.float32)
                place = slice(first + low, first + low + len(some))
                _strongest(some, count, unit[row, place], weight[row, place])
            if tell:
                tell(row * targets + first + len(block), len(weights) * targets)
    return Influences(unit, weight)


def _strongest(
    block: NDArray[np.float32], count: int, unit: NDArray[np.int64], weight: NDArray[np.float32]
) -> None:
    """Write positions and values of the largest positive entries of each row, then of its smallest negative ones; of equal ones the first."""
    column, number, many = compressed(block)
    # Most weights are 0: rows of what is left, filled up with zeros.
    size = np.zeros((len(block), max(count, int(many.max(initial=0)))), dtype=np.float32)
    unit_of = np.zeros(size.shape, dtype=np.int32)
    row = np.repeat(np.arange(len(block)), many)
    place = np.arange(len(number)) - np.repeat(np.cumsum(many) - many, many)
    size[row, place] = np.where(np.isnan(number), 0, number)
    unit_of[row, place] = column
    for start, sign in ((0, -1), (count, 1)):
        signed = sign * size
        least = np.partition(signed, count - 1, axis=1)[:, count - 1 : count]
        row, place = np.nonzero((signed <= least) & (signed < 0))
        units, values = unit_of[row, place], signed[row, place]
        order = np.lexsort((units, values, row))
        # Of one row they stand together: how many before each.
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = order[rank < count]
        there = (row[kept], start + rank[rank < count])
        unit[there], weight[there] = units[kept], sign * values[kept]
