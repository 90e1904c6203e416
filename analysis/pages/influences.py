"""The most influential train units of every target, under several algorithms: what a page shows of datamodels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

# Bytes of datamodels that are looked at in one piece.
_BLOCK = 1 << 26


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
        for start in range(0, targets, step):
            block = np.asarray(data[start : start + step].values, dtype=np.float32)
            for place, values in enumerate(block, start):
                unit[row, place], weight[row, place] = _strongest(values, count)
            if tell:
                tell(row * targets + start + len(block), len(weights) * targets)
    return Influences(unit, weight)


def _strongest(
    values: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and values of the largest positive entries, then of the smallest negative ones; -1 and 0 where there are fewer."""
    unit = np.full(2 * count, -1, dtype=np.int64)
    weight = np.zeros(2 * count, dtype=np.float32)
    # Once per row: most weights are 0.
    any_weight = np.flatnonzero(values)
    for start, sign in ((0, 1.0), (count, -1.0)):
        there = any_weight[sign * values[any_weight] > 0]
        size = -sign * values[there]
        if len(there) > count:
            least = np.argpartition(size, count - 1)[:count]
            there, size = there[least], size[least]
        order = np.lexsort((there, size))
        unit[start : start + len(order)] = there[order]
        weight[start : start + len(order)] = values[there[order]]
    return unit, weight
