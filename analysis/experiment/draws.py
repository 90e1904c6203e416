"""What masks say about train groups, and how units are drawn together: what makes an effect of a covariance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.arms import Halves, as_masks_see, centred
from dmstore.analysis.experiment.cells import Cells
from dmstore.analysis.experiment.projections import dense_products
from dmstore.core import bits
from dmstore.errors import InputError

Floats = NDArray[np.float64]
# Words of masks that are unpacked at a time.
_STEP = 16
# By how much the variance of a group's members may differ from that of units drawn by themselves, and how many standard
# errors are beyond chance: for a group, and for the largest of many units.
_MORE, _ERRORS, _MOST_ERRORS = 0.2, 3.0, 6.0


@dataclass(frozen=True)
class Draws:
    """How the masks of an algorithm were drawn, and what each says about the train groups.

    Attributes
    ----------
    z : pair of (bit, train group) float64
        (mask - rate) . u / (rate (1 - rate)), centred; 0 where a mask is not used.
    fixed : bool
        Whether all masks are of one size: a unit is then always in the place of another.
    rate, spread : (train,) float64
        As :class:`~dmstore.analysis.experiment.arms.Arm` has them.
    """

    z: tuple[Floats, Floats]
    fixed: bool
    rate: Floats
    spread: Floats

    @classmethod
    def of(cls, halves: Halves, train: Floats, names: Sequence[str]) -> Draws:
        """Read all masks once.

        Raises
        ------
        InputError
            If masks do not differ in what they say about a group.
        """
        spread, rate = halves[0].spread, np.asarray(halves[0].rate, dtype=np.float64)
        columns = np.concatenate([train * spread[:, None], np.ones((len(train), 1))], axis=1)
        sums = [
            dense_products(arm.masks.words, columns.astype(np.float32)).astype(np.float64)
            for arm in halves
        ]
        sizes = np.concatenate([one[arm.used, -1] for one, arm in zip(sums, halves, strict=True)])
        z = []
        for one, arm in zip(sums, halves, strict=True):
            z.append(centred(one[:, :-1], arm.used, axis=0))
            largest = np.abs(one[arm.used, :-1]).max(axis=0)
            for group in np.flatnonzero(np.abs(z[-1]).max(axis=0) <= 1e-5 * largest).tolist():
                msg = (
                    f"group {names[group]!r}: all masks hold equally much of it, as where it has all train units or "
                    f"none that masks differ in, so it has no effect to measure; give a part of the units"
                )
                raise InputError(msg)
        return cls((z[0], z[1]), bool(np.ptp(sizes) == 0), rate, spread)

    def known(self, train: Floats, weight: Floats) -> Floats:
        """What is expected of a sum of weights over a mask: (train group, column) float64, for weights (train, column)."""
        count, variance = len(train), self.rate * (1 - self.rate)
        # A unit is exchanged for others as often as masks differ in these.
        total = count * (variance @ weight) / variance.sum() if self.fixed else 0.0
        left = train.sum(axis=0)[:, None]
        return as_masks_see(
            train.T @ weight, left, np.asarray(total), train=count, fixed=float(self.fixed)
        )

    def shift(self, cells: Cells) -> Floats:
        """By how much z lies off 0 in runs that did not see a target, with the sign turned: (train group, cell) float64."""
        if not cells.own.any():
            return np.zeros(cells.inside.shape)
        used = self.spread > 0
        rate, spread = float(self.rate[used].mean()), float(self.spread[used].mean())
        share = cells.inside * cells.train.max(axis=0)[:, None]
        shift = share * rate * spread
        if self.fixed:
            rest = cells.train.sum(axis=0)[:, None] - share
            shift -= rest * rate * spread / (len(self.rate) - 1)
        return np.where(cells.own, shift, 0.0)

    def without_one(self) -> float:
        """What the rates of the other units make of `spread` in runs that did not see one of them."""
        rate, n = float(self.rate[0]), len(self.rate)
        if not self.fixed or float(np.ptp(self.rate)) > 1e-9:
            return 1.0
        more = rate * n / (n - 1)
        return rate * (1 - rate) / (more * (1 - more)) if more < 1 else 1.0


def drawn_together(halves: Halves, draws: Draws, train: Floats) -> NDArray[np.bool_]:
    """Which groups the masks draw together with other units, or in one piece: (train group,) bool.

    Two checks: the variance of what masks say about a group is that of units drawn by themselves, and no unit is in the
    masks of a group more or less often than in others.
    """
    z = np.concatenate([one[arm.used] for one, arm in zip(draws.z, halves, strict=True)])
    count = len(z)
    variance = (z**2).mean(axis=0)
    error = (z**2).std(axis=0) / np.sqrt(count)
    weighted = train * np.sqrt(draws.spread)[:, None]
    expected = (weighted**2).sum(axis=0)
    if draws.fixed:
        kept = draws.spread > 0
        middle = np.average(train[kept], axis=0, weights=1 / draws.spread[kept])
        expected = ((train[kept] - middle) ** 2 * draws.spread[kept, None]).sum(axis=0)
    ratio, beyond = variance / expected - 1, _ERRORS * error / expected
    apart = np.abs(ratio) > _MORE + beyond
    # Covariances with every unit, in the units of which there is 1 for a unit of the group.
    total = np.zeros(train.shape)
    for one, arm in zip(draws.z, halves, strict=True):
        words = arm.masks.words
        for start in range(0, words.shape[1], _STEP):
            part = np.ascontiguousarray(words[:, start : start + _STEP])
            seen = bits.unpack_runs(part, part.shape[1] * bits.WORD).astype(np.float32)
            rows = slice(start * bits.WORD, start * bits.WORD + len(seen))
            total += seen.T @ one[rows].astype(np.float32)
    expected_with = train.copy()
    if draws.fixed:
        own = draws.rate * (1 - draws.rate)
        expected_with -= own[:, None] / own.sum() * train.sum(axis=0)
    error_with = np.sqrt(np.outer(draws.rate * (1 - draws.rate), variance) / count)
    off = np.abs(total / count - expected_with) > _MOST_ERRORS * error_with + 1e-9
    # Of a group of few units the distribution is far from normal, and so are these errors.
    off &= np.abs(total / count - expected_with) > _MORE * np.abs(train).max(axis=0)
    return np.asarray(apart | off.any(axis=0))
