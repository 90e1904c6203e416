"""One algorithm's runs in one half of the masks: what was seen, what was said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.errors import InputError
from dmstore.regression.problem.packing import Words

# A variance over fewer masks says nothing.
FEWEST_MASKS = 10


@dataclass(frozen=True)
class MaskSet:
    """Distinct masks, packed along masks.

    Attributes
    ----------
    words : (train, words) uint64
        As kernels take them: in whole vectors.
    mask_id : (bit,) int64
        -1 for a bit that stands for no mask.
    """

    words: Words
    mask_id: NDArray[np.int64]

    @property
    def train(self) -> int:
        """Number of train units."""
        return len(self.words)


@dataclass(frozen=True)
class Arm:
    """An algorithm's runs in one half of the masks. Runs that share a mask are one observation, their mean.

    Attributes
    ----------
    masks : MaskSet
        Two algorithms that were trained on the same masks share one.
    used : (bit,) bool
        Masks that the algorithm has runs of.
    rate : (train,) float64
        How often each unit is seen: alpha where masks are planned, counted where they are not.
    outputs : callable
        Given first and last target, what was said, less about its mean: (bit, target) float, 0 where not `used`; best
        contiguous for each target.
    unit : (target,) int64
        The train unit that each target is, -1 for none.
    fixed : float
        1 where all masks see as many units, 0 where units are drawn independently of one another. The covariance of two
        units is -fixed / (train - 1) times the variance of one.
    """

    masks: MaskSet
    used: NDArray[np.bool_]
    rate: NDArray[np.float64]
    outputs: Callable[[int, int], NDArray[np.floating]]
    unit: NDArray[np.int64]
    fixed: float = 1.0

    @property
    def count(self) -> int:
        """Masks that it has runs of."""
        return int(self.used.sum())

    @property
    def spread(self) -> NDArray[np.float64]:
        """1 / (rate (1 - rate)), 0 for units that all or none of the runs saw: (train,) float64."""
        variance = self.rate * (1 - self.rate)
        return np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0)

    def expected(
        self,
        product: NDArray[np.float64],
        left: NDArray[Any],
        right: NDArray[Any],
        fixed: float | None = None,
    ) -> NDArray[np.float64]:
        """The same as :func:`as_masks_see`, of its own masks; `fixed` is 1 where u is measured less its mean."""
        own = self.fixed if fixed is None else fixed
        return as_masks_see(product, left, right, train=self.masks.train, fixed=own)

    def there(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Which runs count for each target, those that did not see it: (bit, target) or (bit, 1) bool."""
        unit = self.unit[start:stop]
        if (unit < 0).all():
            return self.used[:, None]
        saw = np.zeros((len(self.used), len(unit)), dtype=bool)
        own = np.flatnonzero(unit >= 0)
        saw[:, own] = bits.unpack_runs(self.masks.words[unit[own]], len(self.used))
        return self.used[:, None] & ~saw


Halves = tuple[Arm, Arm]


def as_masks_see(
    product: NDArray[np.float64],
    left: NDArray[Any],
    right: NDArray[Any],
    *,
    train: int,
    fixed: float,
) -> NDArray[np.float64]:
    """What an effect f, measured along u without noise, comes to: f . u, where masks of one size exchange units.

    Parameters
    ----------
    product : float64
        f . u.
    left, right : float64
        Sums over train units of f and of u, shaped as the product or so that they spread to it.
    train : int
        Units that are drawn.
    fixed : float
        1 where all masks see as many units, 0 where units are drawn independently of one another.
    """
    share = fixed / max(train - 1, 1)
    return np.asarray((1 + share) * product - share * left * right)


def centred(values: Any, used: NDArray[np.bool_], axis: int = -1) -> Any:
    """Values of masks, which stand along `axis`, less their mean over those that are used; 0 for the others."""
    shape = [1] * values.ndim
    shape[axis] = -1
    there = used.reshape(shape)
    mean = values.mean(axis=axis, dtype=np.float64, where=there, keepdims=True)
    made = values - mean.astype(values.dtype)
    np.copyto(made, 0, where=~there)
    return made


def common_bits(a: Arm, b: Arm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bits of two arms that are one mask: (mask,) int64 each."""
    bit = [np.flatnonzero(arm.used) for arm in (a, b)]
    ids = [arm.masks.mask_id[place] for arm, place in zip((a, b), bit, strict=True)]
    _, x, y = np.intersect1d(ids[0], ids[1], assume_unique=True, return_indices=True)
    return bit[0][x], bit[1][y]


def check_enough(arms: Halves, name: str) -> None:
    """Refuse halves of so few masks that no variance can be told.

    Raises
    ------
    InputError
    """
    fewest = min(arm.count for arm in arms)
    if fewest < FEWEST_MASKS:
        msg = f"algorithm {name!r} has {fewest} masks in one half of its runs, at least {FEWEST_MASKS} are needed in each; train more runs"
        raise InputError(msg)


def fixed_share(masks: tuple[MaskSet, ...], rate: NDArray[np.float64]) -> float:
    """How far masks are of one size, from the variance of their sizes: 1 where they are, 0 where units are independent."""
    sizes = np.concatenate([_sizes(one) for one in masks])
    expected = float((rate * (1 - rate)).sum())
    if len(sizes) < 2 or expected <= 0:
        return 1.0
    return float(np.clip(1 - sizes.var(ddof=1) / expected, 0.0, 1.0))


def _sizes(masks: MaskSet) -> NDArray[np.float64]:
    """Train units that each mask saw."""
    sizes = np.zeros(len(masks.mask_id))
    for start in range(0, masks.train, 1024):
        seen = bits.unpack_runs(masks.words[start : start + 1024], len(sizes))
        sizes += np.count_nonzero(seen, axis=1)
    return sizes[masks.mask_id >= 0]


def arms_of(
    mask: NDArray[np.bool_],
    outputs: NDArray[np.floating],
    half: NDArray[np.int64],
    *,
    mask_id: NDArray[np.int64] | None = None,
    rate: float | NDArray[np.float64] | None = None,
    masks: tuple[MaskSet, MaskSet] | None = None,
) -> Halves:
    """Arms of plain arrays, one distinct mask a row.

    Parameters
    ----------
    mask : (mask, train) bool
    outputs : (mask, target) float
        Means over the runs of a mask.
    half : (mask,) int
        0 or 1.
    mask_id : (mask,) int, optional
        Equal where two algorithms were trained on one mask; positions without.
    rate : float or (train,) float, optional
        How often each unit is seen; counted without.
    masks : pair of MaskSet, optional
        Those of another algorithm whose masks are the very same.
    """
    from dmstore.regression.problem.packing import padded

    ids = np.arange(len(mask)) if mask_id is None else mask_id
    rates = np.asarray(mask.mean(axis=0) if rate is None else rate, dtype=np.float64)
    rates = np.broadcast_to(rates, mask.shape[1:])
    values = outputs - outputs.mean(axis=0, dtype=np.float64)

    sets: list[MaskSet] = []
    for which in (0, 1):
        chosen = np.flatnonzero(half == which)
        words = padded(bits.pack_runs(mask[chosen]))
        bit = np.full(words.shape[1] * bits.WORD, -1, dtype=np.int64)
        bit[: len(chosen)] = ids[chosen]
        sets.append(MaskSet(words, bit))
    own_sets = masks or (sets[0], sets[1])
    fixed = fixed_share(own_sets, rates)

    def arm(which: int) -> Arm:
        rows = np.flatnonzero(half == which)
        own = own_sets[which]
        said = np.zeros((len(own.mask_id), outputs.shape[1]))
        said[: len(rows)] = values[rows]
        return Arm(
            own,
            own.mask_id >= 0,
            rates,
            lambda start, stop: said[:, start:stop],
            np.full(outputs.shape[1], -1, dtype=np.int64),
            fixed,
        )

    return arm(0), arm(1)
