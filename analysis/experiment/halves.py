"""What one half of the runs says about a block of targets, with the fits of the other half taken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.arms import Arm, common_bits
from dmstore.analysis.experiment.projections import dense_products, sparse_products
from dmstore.core import bits

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
# Of the variance that two algorithms have each by itself, what is left at least where they cancel: less is rounding.
_LEAST = 1e-4
# Difference of two shares of masks that are of one size that counts as none.
_ALIKE = 0.05
# Length of the difference of two unit rows of float32 that is rounding alone.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)


class Half:
    """Runs of A and of B in one half of the masks, which measure what the other half proposes.

    Parameters
    ----------
    arms : pair of Arm
    columns : (train, number) float32, optional
        On which inner products over train units are taken; on all units without.
    direction : (component, train) float

    Attributes
    ----------
    used : pair of (bit,) bool
    common : pair of (mask,) int64
        Bits of A and of B that are one mask.
    z : pair of (bit, component) float32
        What a run's mask says about each direction: (mask - rate) . u / (rate (1 - rate)), centred.
    zg : pair of (bit, number) float32
        The same for the columns.
    rest : pair of (bit, target) float32
        Outputs of the block without the fit of the other half, centred; 0 where a run does not count.
    runs : pair of (target,) float64
        Masks that count, less one.
    zv, zu : pair of (bit, target) float32
        As `z`, for each target's own reference v and own difference u: sum and difference of its unit fits, with B's turned
        by `turn`; u is 0 where they differ by rounding alone.
    along : pair of (target, component) float64
        Unbiased coordinates of A's and B's datamodels on the directions.
    sketch : pair of (target, number) float64
        The same on the columns.
    reference, apart : pair of (target,) float64
        The same on v and on u.
    inverse : (target,) float64
        1 / (|fit of A| |fit of B|), 0 where one is zero.
    turn : (target,) float64
        -1 where the fits of A and of B point away from each other, else 1.
    """

    rest: list[Singles]
    runs: list[Floats]
    zv: list[Singles]
    zu: list[Singles]
    along: list[Floats]
    sketch: list[Floats]
    reference: list[Floats]
    apart: list[Floats]
    inverse: Floats
    turn: Floats

    def __init__(
        self, arms: tuple[Arm, Arm], columns: Singles | None, direction: NDArray[Any]
    ) -> None:
        self.arms = arms
        self.used = [arm.used for arm in arms]
        self.columns = columns
        self.direction = np.asarray(direction, dtype=np.float32)
        self._sums = self.direction.sum(axis=1, dtype=np.float64)
        self._column_sums = np.ones(1) if columns is None else columns.sum(axis=0, dtype=np.float64)
        self.z: list[Singles] = []
        self.zg: list[Singles] = []
        self._shared = arms[0].masks is arms[1].masks
        # Masks of one size do not see what all units have in common, so others must not count it beside them.
        self._level = abs(arms[0].fixed - arms[1].fixed) > _ALIKE
        self._sizes: list[Singles] = []
        same = self._shared and np.array_equal(arms[0].spread, arms[1].spread)
        z, zg, size = self._projected(arms[0])
        for i, arm in enumerate(arms):
            if i and same and np.array_equal(self.used[0], self.used[1]):
                self.z.append(self.z[0])
                self.zg.append(self.zg[0])
                self._sizes.append(self._sizes[0])
                continue
            if i and not same:
                z, zg, size = self._projected(arm)
            self._sizes.append(size)
            self.z.append(self.centred(i, z))
            self.zg.append(self.centred(i, zg))
        self.common = common_bits(arms[0], arms[1])

    def _projected(self, arm: Arm) -> tuple[Singles, Singles, Singles]:
        """Products of masks with directions and columns, and of (bit, 1) with ones, where they are to be level."""
        spread = arm.spread.astype(np.float32)
        words, count = arm.masks.words, len(self.direction)
        one = np.ones((1, len(spread)), dtype=np.float32)
        if self.columns is None:
            seen = bits.unpack_runs(words, len(arm.used)).astype(np.float32)
            size = seen @ (one * spread).T
            z, zg = seen @ (self.direction * spread).T, seen * spread
        else:
            columns = np.concatenate([one, self.direction, self.columns.T]) * spread
            sums = dense_products(words, np.ascontiguousarray(columns.T))
            size, z = sums[:, :1].copy(), sums[:, 1 : 1 + count].copy()
            zg = sums[:, 1 + count :].copy()
        size = self.centred_by(arm.used, size)
        if self._level:
            train = len(spread)
            z = z - size * (self._sums / train).astype(np.float32)
            zg = zg - size * (self._column_sums / train).astype(np.float32)
        return z, zg, size

    def _expected(self, i: int, product: Any, left: Any, right: Any) -> Floats:
        """What fits come to along a vector, as masks see it."""
        return self.arms[i].expected(product, left, right, fixed=1.0 if self._level else None)

    def centred(self, i: int, values: Any) -> Any:
        """Values of an algorithm's bits less their mean over those that are used; 0 for the others."""
        return self.centred_by(self.used[i], values)

    @staticmethod
    def centred_by(used: NDArray[np.bool_], values: Any) -> Any:
        """The same with the bits that are used."""
        mean = values[used].mean(axis=0, dtype=np.float64).astype(values.dtype)
        values = values - mean
        values[~used] = 0
        return values

    def sketch_error(self, cosine: Floats) -> Floats:
        """Standard error of cosines that were taken on a sketch; 0 where all train units were taken."""
        if self.columns is None:
            return np.zeros_like(cosine)
        return np.asarray(np.maximum(1 - cosine**2, 0.0) / np.sqrt(self.columns.shape[1]))

    def coordinate_noise(self) -> Floats:
        """Covariance under A and B of one coordinate of their datamodels, as this half measures it: (2, 2, target) float64."""
        made = np.empty((2, 2, len(self.inverse)))
        scale = [
            np.sqrt(float(arm.spread.mean())) / runs
            for arm, runs in zip(self.arms, self.runs, strict=True)
        ]
        a, b = (rest[common] for rest, common in zip(self.rest, self.common, strict=True))
        for i, j, x, y in (
            (0, 0, self.rest[0], self.rest[0]),
            (1, 1, self.rest[1], self.rest[1]),
            (0, 1, a, b),
        ):
            total = np.einsum("ij,ij->j", x, y, dtype=np.float64)
            made[i, j] = made[j, i] = total * scale[i] * scale[j]
        return made

    def load(self, part: slice, fits: Sequence[Any], threads: int) -> None:
        """Take up a block of targets, with the fits (target, train) of the other half."""
        norm = [np.sqrt(rowdot(fit, fit)) for fit in fits]
        inner = rowdot(fits[0], fits[1])
        with np.errstate(divide="ignore"):
            inverse = np.where((norm[0] > 0) & (norm[1] > 0), 1 / (norm[0] * norm[1]), 0.0)
        # Unit fits x and y, B's turned where it points away from A's: v = (x + y) / |x + y|, u = x - y.
        unit = [np.where(n > 0, 1 / np.maximum(n, 1e-300), 0.0) for n in norm]
        cosine = np.clip(np.abs(inner) * unit[0] * unit[1], 0, 1)
        self.turn = turned(inner)
        unit[1] = unit[1] * self.turn
        length = np.sqrt(2 + 2 * cosine)
        # Fits that are the same up to a scale have no difference but rounding, which would seem highly certain.
        apart = 2 - 2 * cosine > _ROUNDING**2
        weights = {"v": [one / length for one in unit], "u": [unit[0] * apart, -unit[1] * apart]}
        self.inverse = inverse
        self.rest, self.runs, self.zv, self.zu = [], [], [], []
        self.along, self.sketch, self.reference, self.apart = [], [], [], []
        # Inner products of fits: what is known of the coordinates beforehand.
        products = np.array([[norm[0] ** 2, inner], [inner, norm[1] ** 2]])
        sums = np.array([np.asarray(fit.sum(axis=1), dtype=np.float64).ravel() for fit in fits])
        said: list[Singles] = []
        for i, arm in enumerate(self.arms):
            if i == 0 or not self._shared:
                said = [sparse_products(arm.masks.words, fit, threads) for fit in fits]
            there = arm.there(part.start, part.stop)
            runs = np.broadcast_to(there.sum(axis=0), (part.stop - part.start,)).astype(np.float64)
            left = np.where(there, arm.outputs(part.start, part.stop) - said[i], 0.0)
            rest = np.where(there, left - left.sum(axis=0) / np.maximum(runs, 1), 0.0)
            rest = rest.astype(np.float32)
            self.rest.append(rest)
            # A covariance over so many masks has one degree of freedom less.
            runs = np.maximum(runs - 1, 1.0)
            self.runs.append(runs)
            spread = arm.spread
            flat = bool(np.ptp(spread) < 1e-9)
            scaled = said
            if not flat:
                scaled = [
                    sparse_products(arm.masks.words, fit.multiply(spread[None]).tocsr(), threads)
                    for fit in fits
                ]
            factor = float(spread[0]) if flat else 1.0
            for name, kept, into in (("v", self.zv, self.reference), ("u", self.zu, self.apart)):
                x, y = (factor * w for w in weights[name])
                z = self.centred(
                    i, scaled[0] * x.astype(np.float32) + scaled[1] * y.astype(np.float32)
                )
                if self._level:
                    own = sums[0] * weights[name][0] + sums[1] * weights[name][1]
                    z -= self._sizes[i] * (own / arm.masks.train).astype(np.float32)
                kept.append(z)
                known = self._expected(
                    i,
                    products[i, 0] * weights[name][0] + products[i, 1] * weights[name][1],
                    sums[i],
                    sums[0] * weights[name][0] + sums[1] * weights[name][1],
                )
                into.append((z * rest).sum(axis=0, dtype=np.float64) / runs + known)
            own = sums[i][:, None]
            known = self._expected(i, fits[i] @ self.direction.T, own, self._sums)
            self.along.append((rest.T @ self.z[i]) / runs[:, None] + known)
            if self.columns is None:
                known = self._expected(i, fits[i].toarray(), own, np.ones(1))
            else:
                known = self._expected(i, fits[i] @ self.columns, own, self._column_sums)
            self.sketch.append((rest.T @ self.zg[i]) / runs[:, None] + known)


def turned(inner: Floats) -> Floats:
    """The sign that makes the fit of B point where A's does, from their inner product: 1 where it is 0."""
    return np.where(inner < 0, -1.0, 1.0)


def rowdot(a: Any, b: Any) -> Floats:
    """Inner products of the rows of two sparse matrices: (row,) float64."""
    return np.asarray(a.astype(np.float64).multiply(b).sum(axis=1), dtype=np.float64).ravel()


def squares(
    influence: Sequence[NDArray[Any]],
    common: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    used: Sequence[NDArray[np.bool_]],
) -> Floats:
    """Variance of a sum from what each mask adds to it, masks that two algorithms share taken together.

    Parameters
    ----------
    influence : one or two (bit, number) arrays
        Centred.
    common : pair of (mask,) int64, optional
    used : one or two (bit,) bool

    Returns
    -------
    (number,) float64
    """
    total = np.zeros(influence[0].shape[1])
    counts = [int(there.sum()) for there in used]
    more = [count / max(count - 1, 1) for count in counts]
    for one, factor in zip(influence, more, strict=True):
        total += np.einsum("ij,ij->j", one, one, dtype=np.float64) * factor
    least = _LEAST * total
    if common is not None and len(influence) == 2 and len(common[0]):
        a, b = influence[0][common[0]], influence[1][common[1]]
        total += 2 * np.einsum("ij,ij->j", a, b, dtype=np.float64) * np.sqrt(more[0] * more[1])
    return np.maximum(total, least)


def studentised(
    value: Floats,
    influence: Sequence[NDArray[Any]],
    common: tuple[NDArray[np.int64], NDArray[np.int64]],
    used: Sequence[NDArray[np.bool_]],
) -> tuple[Floats, Floats]:
    """Standard errors of sums over masks, and sums over errors, as normal as can be made of them.

    What a mask adds is a product of two numbers, skewed where their mean is not 0, and with long tails; with few masks that
    carries the ratio beyond the normal distribution's tails. Hall's monotone cubic transformation (1992) takes the
    skewness out, and Student's distribution, with as many degrees of freedom as the fourth moments leave to the variance
    (Satterthwaite), allows for its error.

    Parameters
    ----------
    value : (number,) float64
        The sums.
    influence : pair of (bit, number) arrays
        What each mask adds to each, centred.
    common : pair of (mask,) int64
    used : pair of (bit,) bool

    Returns
    -------
    error, z : (number,) float64
        z is NaN where nothing varies.
    """
    from scipy.stats import norm, t

    error = np.sqrt(squares(influence, common, used))
    parts = _together(influence, common)
    second, third, fourth = (
        np.asarray(sum((one**power).sum(axis=0) for one in parts)) for power in (2, 3, 4)
    )
    known = (error > 0) & (second > 0)
    safe = np.where(known, error, 1.0)
    skew, ratio = third / safe**3, value / safe
    ratio = ratio + skew * ratio**2 / 3 + skew**2 * ratio**3 / 27 + skew / 6
    # The variance is estimated too, the worse the longer the tails of what masks add are.
    count = sum(int(there.sum()) for there in used) - len(common[0])
    square = np.where(known, second, 1.0) ** 2
    freedom = 2 / np.maximum(np.where(known, fourth, 1.0) / square - 1 / count, 2 / count)
    sign = np.sign(ratio)
    z = -sign * norm.ppf(np.maximum(t.sf(np.abs(ratio), freedom), 1e-300))
    return error, np.where(known, z, np.nan)


def _together(
    influence: Sequence[NDArray[Any]], common: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> list[Floats]:
    """What each mask adds under either algorithm, those that both have under both."""
    parts = [np.asarray(one, dtype=np.float64) for one in influence]
    if not len(common[0]):
        return parts
    both = parts[0][common[0]] + parts[1][common[1]]
    alone = [np.delete(part, bit, axis=0) for part, bit in zip(parts, common, strict=True)]
    return [*alone, both]
