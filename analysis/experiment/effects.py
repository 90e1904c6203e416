"""How much one more train unit of a group moves the mean output of a group of targets: from raw runs, with errors.

The mathematics stands in ``docs/explanation/statistics.md``, "Contrasts". In short: a mask is drawn before anything is trained, so
the covariance of what it says about a group with an output is the group's effect, without a fit. Where there are fits
of halves of the masks, each is taken off the outputs of the other half and its known part is added again, which takes
noise away and adds no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.arms import Arm, Halves, as_masks_see, centred, common_bits
from dmstore.analysis.experiment.cells import Cells
from dmstore.analysis.experiment.draws import Draws, drawn_together
from dmstore.analysis.experiment.projections import dense_products, sparse_products
from dmstore.errors import InputError

Floats = NDArray[np.float64]
# Given a half of the masks and first and last target, the fits of that half: (target, train) csr.
Fits = Callable[[int, int, int], Any]
# Targets at a time.
BLOCK = 256
# Runs that did not see a target which is a train unit, in either half.
_FEWEST = 3


@dataclass(frozen=True)
class Effects:
    """Effects of train groups on groups of targets.

    Attributes
    ----------
    estimate, error, freedom : (algorithm or difference, train group, target group) float64
        Of each algorithm, and last, where there are two, of the first less the second: in output units; standard
        error; degrees of freedom of Student's t.
    together : (algorithm, train group) bool
        Whether masks that were made elsewhere hold the group in one piece, or together with other units.
    fitted : tuple of bool
        Whether fits were taken off the outputs, of each algorithm.
    """

    estimate: Floats
    error: Floats
    freedom: Floats
    together: NDArray[np.bool_]
    fitted: tuple[bool, ...]


@dataclass(frozen=True)
class _Read:
    """One algorithm in one half: what its masks say of the train groups, and what is left of its outputs.

    The estimates are the sums over masks of z times rest, with `known` added.
    """

    arm: Arm
    z: Floats
    rest: Floats
    factor: Floats
    shift: Floats
    known: Floats

    def moved(self, group: int, cells: Cells) -> Floats:
        """What each mask adds to the effects of a train group: (bit, target group) float64."""
        factor = self.factor[group]
        part = self.z[:, group, None] * cells.summed(self.rest * factor)
        shift = factor * self.shift[group]
        return part + cells.summed(self.rest * shift) if shift.any() else part

    @property
    def inflation(self) -> float:
        """Of deviations, to the jackknife's standard error of their sum."""
        n = self.arm.count
        return float(np.sqrt(n * (n - 1)) / (n - 2))


def effects(
    arms: Sequence[Halves],
    train: NDArray[np.floating],
    target: NDArray[np.floating],
    *,
    means: NDArray[np.bool_] | None = None,
    fits: Sequence[Fits | None] | None = None,
    planned: Sequence[bool] | None = None,
    names: Sequence[str] | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Effects:
    """Effects of train groups on groups of targets, under one algorithm or two, and their difference.

    Parameters
    ----------
    arms : sequence of Halves
        Runs of one algorithm or of two. Masks of equal id count as one observation of both.
    train : (train, train group) float
        How much of each unit is added: 1 / size for the mean effect of one unit of a group.
    target : (target, target group) float
        Weights, 1 / size for a mean.
    means : (train group,) bool, optional
        Which columns of `train` are means over groups, so that a target which is a unit of the group has the mean
        over the others; all without.
    fits : sequence of callable or None, optional
        Of each algorithm. Not taken where masks draw units together, since their known part is not known then.
    planned : sequence of bool, optional
        Whether it is known that masks draw units by themselves or in masks of one size; all without.
    names : sequence of str, optional
        Of the train groups, for errors.
    threads : int
    progress : callable, optional
        Called with targets done and targets in all, over all algorithms.

    Returns
    -------
    Effects

    Raises
    ------
    InputError
        If masks do not differ in what they say about a group, or too few runs did not see a target that is a train unit.
    """
    groups = np.asarray(train, dtype=np.float64)
    mean = np.ones(groups.shape[1], dtype=bool) if means is None else means
    cells = Cells.of(arms[0][0].unit, groups, np.asarray(target, dtype=np.float64), mean)
    called = [str(g) for g in range(groups.shape[1])] if names is None else names
    draws = [Draws.of(halves, groups, called) for halves in arms]
    sure = [True] * len(arms) if planned is None else planned
    together = np.array(
        [
            np.zeros(len(called), dtype=bool) if known else drawn_together(halves, one, groups)
            for known, halves, one in zip(sure, arms, draws, strict=True)
        ]
    )
    taken = [None if fits is None or together[i].any() else fits[i] for i in range(len(arms))]
    read = _read(arms, cells, draws, taken, threads, progress)
    count, many = groups.shape[1], len(arms)
    estimate = np.zeros((many, count, cells.target.shape[1]))
    variance = np.zeros((3 if many == 2 else 1, *estimate.shape[1:]))
    for m in (0, 1):
        sums = [one[m] for one in read]
        share = [s.arm.count / sum(arm.count for arm in a) for s, a in zip(sums, arms, strict=True)]
        for group in range(count):
            parts = [
                weight * one.moved(group, cells) for weight, one in zip(share, sums, strict=True)
            ]
            for i, part in enumerate(parts):
                estimate[i, group] += part.sum(axis=0) + share[i] * sums[i].known[group]
                parts[i] = centred(part, sums[i].arm.used, axis=0) * sums[i].inflation
                variance[i, group] += (parts[i] ** 2).sum(axis=0)
            if many == 2:
                a, b = common_bits(sums[0].arm, sums[1].arm)
                variance[2, group] -= 2 * (parts[0][a] * parts[1][b]).sum(axis=0)
    free = [sum(arm.count for arm in halves) - 2.0 for halves in arms]
    freedom = [np.full(estimate.shape[1:], one) for one in free]
    if many == 2:
        estimate = np.concatenate([estimate, estimate[:1] - estimate[1:]])
        variance[2] = np.maximum(variance[2] + variance[0] + variance[1], 0.0)
        # Welch and Satterthwaite.
        parts_ = sum(one**2 / number for one, number in zip(variance[:2], free, strict=True))
        both = (variance[0] + variance[1]) ** 2
        freedom.append(
            np.divide(both, parts_, out=np.full(both.shape, min(free)), where=parts_ > 0)
        )
    fitted = tuple(one is not None for one in taken)
    return Effects(estimate, np.sqrt(variance), np.array(freedom), together, fitted)


def _read(
    arms: Sequence[Halves],
    cells: Cells,
    draws: Sequence[Draws],
    fits: Sequence[Fits | None],
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[_Read, _Read]]:
    """What is left of all outputs, in blocks of targets: only sums over cells are kept."""
    targets = len(cells.target)
    made = []
    for i, (halves, draw, fit) in enumerate(zip(arms, draws, fits, strict=True)):
        sums = [_Sums(arm, cells, draw, threads) for arm in halves]
        for start in range(0, targets, BLOCK):
            stop = min(start + BLOCK, targets)
            if cells.target[start:stop].any():
                for m, one in enumerate(sums):
                    one.add(start, stop, None if fit is None else fit(1 - m, start, stop))
            if progress:
                progress(i * targets + stop, len(arms) * targets)
        a, b = (one.finish(draw.z[m]) for m, one in enumerate(sums))
        made.append((a, b))
    return made


class _Sums:
    """Sums over cells of what one algorithm's runs in one half say."""

    def __init__(self, arm: Arm, cells: Cells, draws: Draws, threads: int) -> None:
        self.arm, self.cells, self.draws, self.threads = arm, cells, draws, threads
        self.said = np.zeros((len(arm.used), len(cells.group)))
        self.own = np.zeros_like(self.said) if cells.own.any() else None
        self.weight = np.zeros((arm.masks.train, cells.target.shape[1]))
        self.known = np.zeros((cells.train.shape[1], cells.target.shape[1]))

    def add(self, start: int, stop: int, fit: Any) -> None:
        """Add a block of targets, with the fits of the other half."""
        weight = self.cells.weight(start, stop)
        values = self.arm.outputs(start, stop).astype(np.float64)
        counted = weight.any(axis=1)
        own = self.cells.unit[start:stop] >= 0
        plain = np.flatnonzero(counted & ~own)
        self.said += values[:, plain] @ weight[plain]
        if fit is not None:
            self.weight += fit[plain].T @ self.cells.target[start + plain]
        units = np.flatnonzero(counted & own)
        if len(units):
            self._add_units(start, units, values[:, units], weight[units], fit)

    def _add_units(
        self, start: int, place: NDArray[np.int64], values: Floats, weight: Floats, fit: Any
    ) -> None:
        """Add targets that are train units: each on the runs that did not see it."""
        assert self.own is not None
        unit = self.cells.unit[start + place]
        there = np.concatenate([self.arm.there(start + t, start + t + 1) for t in place], axis=1)
        runs = there.sum(axis=0)
        if runs.min() < _FEWEST:
            t, few = start + int(place[runs.argmin()]), int(runs.min())
            msg = f"target {t} (counted from 0) is a train unit, which all but {few} masks of one half saw; at least {_FEWEST} are needed: train more runs"
            raise InputError(msg)
        if fit is not None:
            fits = _without(fit[place], unit)
            values = values - sparse_products(self.arm.masks.words, fits, self.threads)
            self.known += self._known_units(fits, unit) @ self.cells.target[start + place]
        rest = np.where(there, values - (values * there).sum(axis=0) / runs, 0.0)
        self.own += rest @ (weight * (self.draws.without_one() / (runs - 1))[:, None])

    def _known_units(self, fits: Any, unit: NDArray[np.int64]) -> Floats:
        """What is expected of fits of targets that are train units: (train group, target) float64."""
        train, draws = self.cells.train, self.draws
        value = np.asarray(fits @ train)
        if draws.fixed:
            variance, n = draws.rate * (1 - draws.rate), len(train)
            # Of the other units alone, for which each is exchanged.
            total = (n - 1) * (fits @ variance) / (variance.sum() - variance[unit])
            left = train.sum(axis=0) - train[unit]
            value = as_masks_see(value, left, total[:, None], train=n - 1, fixed=1.0)
        share = np.where(self.cells.means, train[unit], 0.0)
        return np.asarray((value / np.where(share < 1, 1 - share, 1.0)).T)

    def finish(self, z: Floats) -> _Read:
        """Sums over all blocks."""
        if self.weight.any():
            said = dense_products(self.arm.masks.words, self.weight.astype(np.float32))
            self.known += self.draws.known(self.cells.train, self.weight)
            self.said -= self._by_cell(said)
        rest = centred(self.said, self.arm.used, axis=0) / (self.arm.count - 1)
        if self.own is not None:
            rest += self.own
        factor, shift = self.cells.factor(), self.draws.shift(self.cells)
        return _Read(self.arm, z, rest, factor, shift, self.known)

    def _by_cell(self, said: NDArray[np.float32]) -> Floats:
        """Predictions of target groups at the cells of targets that are no train units."""
        placed = np.zeros_like(self.said)
        plain = np.flatnonzero(~self.cells.own)
        placed[:, plain] = said[:, self.cells.group[plain]]
        return placed


def _without(fits: Any, unit: NDArray[np.int64]) -> Any:
    """Fits of targets that are train units, whose own weight says nothing: no run that counts saw it."""
    rows = np.repeat(np.arange(fits.shape[0]), np.diff(fits.indptr))
    data = np.where(fits.indices == unit[rows], 0, fits.data)
    return type(fits)((data, fits.indices, fits.indptr), shape=fits.shape)
