"""Groups of targets in cells: targets of a group to which the same train groups look alike.

A target that is a train unit is measured on runs that did not see it. Its own unit is then no part of a group, so that
the mean over the group is one over the others, and a mask says of the group what it says of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cells:
    """Cells of groups of targets, and how train groups look to each.

    Attributes
    ----------
    unit : (target,) int64
        The train unit that each target is, -1 for none.
    train : (train, train group) float64
    target : (target, target group) float64
    means : (train group,) bool
        Which train groups are means over units.
    number : (target group, pattern) int64
        Of the cell, -1 for none.
    pattern : (target,) int64
    group : (cell,) int64
        Target group that each is part of.
    own : (cell,) bool
        Whether its targets are train units.
    inside : (train group, cell) bool
        Whether these units are of the train group.
    """

    unit: NDArray[np.int64]
    train: Floats
    target: Floats
    means: NDArray[np.bool_]
    number: NDArray[np.int64]
    pattern: NDArray[np.int64]
    group: NDArray[np.int64]
    own: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    @classmethod
    def of(
        cls, unit: NDArray[np.int64], train: Floats, target: Floats, means: NDArray[np.bool_]
    ) -> Cells:
        """Cells of target groups; `means` says which train groups are means, (train group,) bool."""
        known = unit >= 0
        seen = np.zeros((len(unit), 1 + train.shape[1]), dtype=bool)
        seen[:, 0] = known
        seen[known, 1:] = (train[unit[known]] != 0) & means
        patterns, pattern = np.unique(seen, axis=0, return_inverse=True)
        pattern = pattern.ravel().astype(np.int64)
        there = np.zeros((target.shape[1], len(patterns)), dtype=bool)
        for place, column in enumerate(target.T):
            there[place, pattern[column != 0]] = True
        group, kind = (one.astype(np.int64) for one in np.nonzero(there))
        number = np.full(there.shape, -1, dtype=np.int64)
        number[group, kind] = np.arange(len(group))
        own, inside = patterns[kind, 0], patterns[kind, 1:].T
        return cls(unit, train, target, means, number, pattern, group, own, inside)

    def weight(self, start: int, stop: int) -> Floats:
        """Weights of some targets by cell: (target, cell) float64."""
        made = np.zeros((stop - start, len(self.group)))
        row, group = np.nonzero(self.target[start:stop])
        made[row, self.number[group, self.pattern[start + row]]] = self.target[start + row, group]
        return made

    def summed(self, values: Floats) -> Floats:
        """Sums over the cells of each target group: (..., cell) to (..., target group)."""
        if len(self.group) == self.target.shape[1]:
            return np.asarray(values)
        starts = np.flatnonzero(np.diff(self.group, prepend=-1))
        return np.asarray(np.add.reduceat(values, starts, axis=-1))

    def factor(self) -> Floats:
        """What makes a mean over a group one over its other units: (train group, cell) float64."""
        share = self.train.max(axis=0)[:, None]
        whole = np.ones(self.inside.shape)
        return np.asarray(np.divide(1.0, 1.0 - share, out=whole, where=self.inside & (share < 1)))
