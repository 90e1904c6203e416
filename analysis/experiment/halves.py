"""What one half of the runs says about a block of targets, with the fits of the other half taken off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment import kernels
from dmstore.analysis.experiment.arms import Arm, centred, common_bits
from dmstore.analysis.experiment.projections import (
    dense_products,
    sparse_products,
    sparse_times,
)
from dmstore.core import bits

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
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
    columns : (train, number) csr_array, optional
        On which inner products over train units are taken; on all units without.
    direction : (component, train) float
    threads : int

    Attributes
    ----------
    used : pair of (bit,) bool
    common : pair of (mask,) int64
        Bits of A and of B that are one mask.
    alike : bool
        Whether what masks say is the same under A and B: they have the same masks, all used by both, at the same rates.
    counts : pair of (bit,) float32
        1 where a bit is used, as kernels take it.
    z : pair of (component, bit) float32
        What a run's mask says about each direction: (mask - rate) . u / (rate (1 - rate)), centred.
    zg : pair of (number, bit) float32
        The same for the columns.
    rest : pair of (target, bit) float32
        Outputs of the block without the fit of the other half, centred; 0 where a run does not count.
    runs : pair of (target,) float64
        Masks that count, less one.
    zv, zu : pair of (target, bit) float32
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
        self, arms: tuple[Arm, Arm], columns: Any, direction: NDArray[Any], threads: int = 1
    ) -> None:
        self.arms = arms
        self.used = [arm.used for arm in arms]
        self.counts = [used.astype(np.float32) for used in self.used]
        self.columns = columns
        self.threads = threads
        # (train, component)
        self._direction = np.ascontiguousarray(direction.T, dtype=np.float32)
        self._sums = self._direction.sum(axis=0, dtype=np.float64)
        self._column_sums = np.ones(1)
        if columns is not None:
            self._column_sums = np.asarray(columns.sum(axis=0, dtype=np.float64)).ravel()
        self.z: list[Singles] = []
        self.zg: list[Singles] = []
        self._shared = arms[0].masks is arms[1].masks
        # Masks of one size do not see what all units have in common, so others must not count it beside them.
        self._level = abs(arms[0].fixed - arms[1].fixed) > _ALIKE
        self._sizes: list[Singles] = []
        same = self._shared and np.array_equal(arms[0].spread, arms[1].spread)
        self.alike = same and np.array_equal(self.used[0], self.used[1])
        z, zg, size = self._projected(arms[0])
        for i, arm in enumerate(arms):
            if i and self.alike:
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
        """Products of masks with directions, with columns, and with ones."""
        spread = arm.spread.astype(np.float32)
        words = arm.masks.words
        columns = np.hstack([self._direction * spread[:, None], spread[:, None]])
        sums = dense_products(words, columns).T
        z, size = sums[:-1], centred(sums[-1:], arm.used)[0]
        if self.columns is None:
            zg = bits.unpack_runs(words, len(arm.used)).T * spread[:, None]
        else:
            weighted = self.columns.multiply(spread[:, None]).T.tocsr()
            zg = sparse_products(words, weighted, self.threads).T
        if self._level:
            train = len(spread)
            z = z - np.outer((self._sums / train).astype(np.float32), size)
            own = np.broadcast_to(self._column_sums / train, len(zg)).astype(np.float32)
            zg = zg - np.outer(own, size)
        return z, zg, size

    def _expected(self, i: int, product: Any, left: Any, right: Any) -> Floats:
        """What fits come to along a vector, as masks see it."""
        return self.arms[i].expected(product, left, right, fixed=1.0 if self._level else None)

    def centred(self, i: int, values: Any) -> Any:
        """Values of an algorithm's bits less their mean over those that are used; 0 for the others."""
        return centred(values, self.used[i])

    def sketch_error(self, cosine: Floats) -> Floats:
        """Standard error of cosines that were taken on a sketch; 0 where all train units were taken."""
        if self.columns is None:
            return np.zeros_like(cosine)
        return np.asarray(np.maximum(1 - cosine**2, 0.0) / np.sqrt(self.columns.shape[1]))

    def coordinate_noise(self) -> Floats:
        """Covariance under A and B of one coordinate of their datamodels, as this half measures it: (2, 2, target) float64."""
        scale = np.array(
            [
                np.sqrt(float(arm.spread.mean())) / runs
                for arm, runs in zip(self.arms, self.runs, strict=True)
            ]
        )
        made = covariances(self.rest[0][None], self.rest[1][None], self.common, self.threads)
        return np.asarray(made * scale[:, None] * scale[None])

    def load(self, part: slice, fits: Sequence[Any]) -> None:
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
        weights = {
            "v": np.array([one / length for one in unit]),
            "u": np.array([unit[0] * apart, -unit[1] * apart]),
        }
        self.inverse = inverse
        self.rest, self.runs, self.zv, self.zu = [], [], [], []
        self.along, self.sketch, self.reference, self.apart = [], [], [], []
        # Inner products of fits: what is known of the coordinates beforehand.
        products = np.array([[norm[0] ** 2, inner], [inner, norm[1] ** 2]])
        sums = np.array([np.asarray(fit.sum(axis=1), dtype=np.float64).ravel() for fit in fits])
        # A covariance over masks has one degree of freedom less than there are masks.
        said: list[Singles] = []
        for i, arm in enumerate(self.arms):
            if i == 0 or not self._shared:
                said = self._said(arm, fits)
            rest, runs = np.empty_like(said[i]), np.empty(len(said[i]))
            outputs = np.ascontiguousarray(arm.outputs(part.start, part.stop).T, dtype=np.float32)
            there = np.ascontiguousarray(arm.there(part.start, part.stop).T)
            kernels.on_rows(self.threads, kernels.residuals, outputs, said[i], there, rest, runs)
            del outputs
            runs = np.maximum(runs - 1, 1.0)
            self.rest.append(rest)
            self.runs.append(runs)
            if i and self.alike:
                self.zv.append(self.zv[0])
                self.zu.append(self.zu[0])
            else:
                self._refer(i, said, fits, weights, sums)
            for name, z, into in (("v", self.zv, self.reference), ("u", self.zu, self.apart)):
                own = weights[name]
                known = self._expected(
                    i, (products[i] * own).sum(axis=0), sums[i], (sums * own).sum(axis=0)
                )
                covariance = np.empty(len(rest))
                kernels.on_rows(self.threads, kernels.dots, z[i], rest, covariance)
                into.append(covariance / runs + known)
            total = sums[i][:, None]
            product = sparse_times(fits[i], self._direction, self.threads)
            known = self._expected(i, product, total, self._sums)
            self.along.append((rest @ self.z[i].T) / runs[:, None] + known)
            on = fits[i] if self.columns is None else fits[i] @ self.columns
            known = self._expected(i, on.toarray(), total, self._column_sums)
            self.sketch.append((rest @ self.zg[i].T) / runs[:, None] + known)

    def _said(self, arm: Arm, fits: Sequence[Any]) -> list[Singles]:
        """What fits say about masks: (target, bit) each."""
        return [sparse_products(arm.masks.words, fit, self.threads).T for fit in fits]

    def _refer(
        self,
        i: int,
        said: list[Singles],
        fits: Sequence[Any],
        weights: dict[str, Floats],
        sums: Floats,
    ) -> None:
        """Add what masks say about the reference and the difference of each target."""
        spread = self.arms[i].spread
        flat = bool(np.ptp(spread) < 1e-9)
        if not flat:
            said = self._said(self.arms[i], [fit.multiply(spread[None]).tocsr() for fit in fits])
        for name, kept in (("v", self.zv), ("u", self.zu)):
            own = weights[name]
            level = (sums * own).sum(axis=0) / len(spread) * self._level
            weight = np.vstack([own * (spread[0] if flat else 1.0), level]).astype(np.float32)
            z = np.empty_like(said[0])
            kernels.on_rows(
                self.threads, kernels.combinations, *said, weight, self.counts[i], self._sizes[i], z
            )
            kept.append(z)


def turned(inner: Floats) -> Floats:
    """The sign that makes the fit of B point where A's does, from their inner product: 1 where it is 0."""
    return np.where(inner < 0, -1.0, 1.0)


def rowdot(a: Any, b: Any) -> Floats:
    """Inner products of the rows of two sparse matrices: (row,) float64."""
    return np.asarray(a.astype(np.float64).multiply(b).sum(axis=1), dtype=np.float64).ravel()


def covariances(a: Singles, b: Singles, common: Pairs, threads: int = 1) -> Floats:
    """Inner products of what masks add, of A's with B's over the masks that both have.

    Parameters
    ----------
    a, b : (k, number, bit) float32
        B may have no rows.
    common : pair of (mask,) int64
    threads : int

    Returns
    -------
    (k of A and B, k of A and B, number) float64
    """
    count = len(a) + len(b)
    made = np.empty((a.shape[1], count, count))
    kernels.on_rows(threads, kernels.covariances, a, b, *common, made)
    return np.ascontiguousarray(made.transpose(1, 2, 0))


def variance_of(own: Sequence[Floats], across: Any, used: Sequence[NDArray[np.bool_]]) -> Floats:
    """Variance of a sum from sums over masks, not less than what rounding leaves where A and B cancel.

    Parameters
    ----------
    own : one or two (number,) float64
        Sums of squares of what each mask adds, of each algorithm.
    across : (number,) float64
        Sums of products, over the masks that both have.
    used : one or two (bit,) bool
    """
    counts = [int(there.sum()) for there in used]
    more = [count / max(count - 1, 1) for count in counts]
    alone = np.asarray(sum(one * factor for one, factor in zip(own, more, strict=True)))
    total = alone + 2 * across * np.sqrt(more[0] * more[-1])
    return np.asarray(np.maximum(total, _LEAST * alone))


def squares(
    influence: Sequence[NDArray[Any]],
    common: Pairs | None,
    used: Sequence[NDArray[np.bool_]],
    threads: int = 1,
) -> Floats:
    """Variance of a sum from what each mask adds to it, masks that two algorithms share taken together.

    Parameters
    ----------
    influence : one or two (number, bit) arrays
        Centred.
    common : pair of (mask,) int64, optional
    used : one or two (bit,) bool
    threads : int

    Returns
    -------
    (number,) float64
    """
    a, *others = (np.ascontiguousarray(one, dtype=np.float32)[None] for one in influence)
    none = np.zeros(0, dtype=np.int64)
    b = others[0] if others else a[:0]
    made = covariances(a, b, common if common is not None and others else (none, none), threads)
    return variance_of([made[i, i] for i in range(len(made))], made[0, 1] if others else 0.0, used)


def studentised(
    value: Floats,
    influence: Sequence[NDArray[Any]],
    common: Pairs,
    used: Sequence[NDArray[np.bool_]],
    threads: int = 1,
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
    influence : pair of (number, bit) arrays
        What each mask adds to each, centred.
    common : pair of (mask,) int64
    used : pair of (bit,) bool
    threads : int

    Returns
    -------
    error, z : (number,) float64
        z is NaN where nothing varies.
    """
    from scipy.stats import norm, t

    error = np.sqrt(squares(influence, common, used, threads))
    second, third, fourth = _moments(influence, common, threads)
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


def _moments(influence: Sequence[NDArray[Any]], common: Pairs, threads: int) -> Floats:
    """Sums of squares, cubes and fourth powers of what each mask adds, under both together: (3, number) float64."""
    a, b = (np.ascontiguousarray(one, dtype=np.float32) for one in influence)
    partner = np.full(a.shape[1], -1, dtype=np.int64)
    partner[common[0]] = common[1]
    alone = np.delete(np.arange(b.shape[1]), common[1])
    made = np.empty((3, len(a)))
    kernels.on_rows(threads, kernels.moments, a, b, partner, alone, made)
    return made
