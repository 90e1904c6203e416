"""How alike two algorithms' datamodels are with noise taken out (in place of the cosine of paper F.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment import kernels
from dmstore.analysis.experiment.halves import Half, covariances, squares, variance_of

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
# A squared length below so many of its errors is too weak to divide by.
_FLOOR = 6.0
# Sums over the targets of a group: cosines of strong targets and how many they are; of weak ones, each over the product
# of its two lengths, the inner product and both squared lengths.
_COSINES, _STRONG, _INNER, _SQUARE_A, _SQUARE_B = range(5)


@dataclass
class Similarity:
    """Noise-free cosine similarity.

    Attributes
    ----------
    square, square_error : (2, target) float64
        Squared length of each algorithm's datamodels, without noise; it may be negative.
    inner : (target,) float64
        Their inner product, without noise.
    cosine, error : (target,) float64
        NaN where a datamodel is too weak to be told from none.
    group, group_error : (group,) float64
        Of groups of targets: a ratio of sums in which weak targets count for less.
    total : (2,) float64
        Sum over all targets of squared lengths, each over what it is held to be at least.
    """

    square: Floats
    square_error: Floats
    inner: Floats
    cosine: Floats
    error: Floats
    group: Floats
    group_error: Floats
    total: Floats
    _sums: Floats
    # By half and algorithm, what each mask adds to the cosines or inner products, and to its own squares, of each group.
    _influence: list[list[list[Floats]]]
    # What the variances of these count twice.
    _twice: Floats

    @classmethod
    def empty(cls, targets: int, groups: int, halves: Sequence[Half]) -> Similarity:
        """Before any block is added."""
        made = [
            [[np.zeros((groups, len(used))) for _ in range(2)] for used in half.used]
            for half in halves
        ]
        return cls(
            np.zeros((2, targets)),
            np.zeros((2, targets)),
            np.zeros(targets),
            np.full(targets, np.nan),
            np.full(targets, np.nan),
            np.full(groups, np.nan),
            np.full(groups, np.nan),
            np.zeros(2),
            np.zeros((5, groups)),
            made,
            np.zeros((3, 3, groups)),
        )

    def finish(self, halves: Sequence[Half]) -> Similarity:
        """Cosines of groups, from sums over all blocks."""
        s = self._sums
        weak = (s[_SQUARE_A] > 0) & (s[_SQUARE_B] > 0)
        root = np.sqrt(np.where(weak, s[_SQUARE_A] * s[_SQUARE_B], 0.0))
        whole = s[_STRONG] + root
        valid = whole > 0
        whole = np.where(valid, whole, 1.0)
        value = (s[_COSINES] + np.where(weak, s[_INNER], 0.0)) / whole
        slope = [
            np.where(weak, -0.5 * value * root / np.where(weak, s[place], 1.0), 0.0)
            for place in (_SQUARE_A, _SQUARE_B)
        ]
        variance = np.zeros(len(value))
        for half, kept in zip(halves, self._influence, strict=True):
            parts = [
                half.centred(i, (over + slope[i][:, None] * length) / whole[:, None])
                for i, (over, length) in enumerate(kept)
            ]
            variance += squares(parts, half.common, half.used)
        form = np.stack([np.ones(len(value)), *slope])
        twice = np.einsum("ig,jg,ijg->g", form, form, self._twice)
        variance = np.maximum(variance - twice / whole**2, 0.25 * variance)
        self.group = np.where(valid, value, np.nan)
        variance += halves[0].sketch_error(value) ** 2
        self.group_error = np.where(valid, np.sqrt(variance), np.nan)
        return self


def _twice(noise: Sequence[Floats], train: int) -> Floats:
    """What variances and covariances of the inner product and of both squared lengths count twice: (3, 3, target) float64.

    Each is e0 . M e1 with the noise e of A and of B in either half. Both halves' influence has the products of the two,
    whose covariance is the trace of M S1 N S0, with S the covariance of one coordinate under A and B.
    """
    forms = np.array([[[0.0, 0.5], [0.5, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    traces = np.einsum("xab,bct,ycd,dat->xyt", forms, noise[1], forms, noise[0])
    return np.asarray(train * traces)


def block_similarity(
    result: Similarity, halves: Sequence[Half], part: slice, groups: NDArray[np.bool_]
) -> Floats:
    """Add a block of targets that both halves have taken up.

    Returns
    -------
    (2, target) float64
        Length of each algorithm's datamodels without noise, held above what noise alone makes.
    """
    s = [[half.sketch[i] for i in (0, 1)] for half in halves]
    square = np.array([(s[0][i] * s[1][i]).sum(axis=1) for i in (0, 1)])
    inner = ((s[0][0] * s[1][1]).sum(axis=1) + (s[1][0] * s[0][1]).sum(axis=1)) / 2
    adds = [_adds(half, s[1 - m]) for m, half in enumerate(halves)]
    # Of A's inner products and squares, then B's.
    moved = [
        covariances(one[0], one[1], half.common, half.threads)
        for one, half in zip(adds, halves, strict=True)
    ]
    coordinate = [half.coordinate_noise() for half in halves]
    twice = _twice(coordinate, halves[0].arms[0].masks.train)
    variance = np.array(
        [
            sum(variance_of([moved[m][k, k]], 0.0, [half.used[i]]) for m, half in enumerate(halves))
            for i, k in ((0, 1), (1, 3))
        ]
    )
    variance = np.maximum(variance - twice[[1, 2], [1, 2]], 0.25 * variance)
    error = np.sqrt(variance)
    strong = (square > _FLOOR * error).all(axis=0)
    held = np.maximum(square, _FLOOR * error)
    lam = np.sqrt(np.where(held > 0, held, np.inf))
    scale = 1 / (lam[0] * lam[1])
    # Lengths of weak targets are brought to one scale under both by their noise, which has the scale of the outputs too:
    # divided by what is known of one algorithm alone they would spread differently over targets, as if they differed.
    noise = np.mean([one[[0, 1], [0, 1]] for one in coordinate], axis=0)
    known = (noise > 0).all(axis=0)
    ratio = np.sqrt(np.where(known, noise[1], 1.0) / np.where(known, noise[0], 1.0))
    over = np.stack([scale * ratio, scale / ratio])
    value = inner * scale
    slope = [np.where(strong, -0.5 * value / np.where(strong, one, 1.0), 0.0) for one in square]
    spread, bias = np.zeros(inner.shape), np.zeros(inner.shape)
    member = groups.T.astype(np.float32)
    for m, half in enumerate(halves):
        forms = [np.stack([scale, one]) for one in slope]
        own = [
            np.einsum("it,jt,ijt->t", form, form, moved[m][place, place])
            for form, place in zip(forms, (slice(0, 2), slice(2, 4)), strict=True)
        ]
        across = np.einsum("it,jt,ijt->t", *forms, moved[m][:2, 2:])
        spread += variance_of(own, across, half.used)
        bias += _curvature(moved[m], inner, square, strong)
        for i, (on_inner, on_square) in enumerate(adds[m]):
            over_both, length = result._influence[m][i]
            over_both += (member * scale.astype(np.float32)) @ on_inner
            over_both += (member * slope[i].astype(np.float32)) @ on_square
            length += (member * np.where(strong, 0.0, over[i]).astype(np.float32)) @ on_square
    form = np.stack([scale, *slope])
    both = np.einsum("it,jt,ijt->t", form, form, twice)
    spread = np.maximum(spread - both, 0.25 * spread)
    bias -= np.where(strong, _moved(square, inner, strong, twice), 0.0)
    value = np.where(strong, value - bias, value)
    result.square[:, part], result.square_error[:, part] = square, error
    result.inner[part] = inner
    result.cosine[part] = np.where(strong, value, np.nan)
    spread += halves[0].sketch_error(value) ** 2
    result.error[part] = np.where(strong, np.sqrt(spread), np.nan)
    result.total += (square / lam**2).sum(axis=1)
    rows = [
        np.where(strong, value, 0.0),
        strong.astype(np.float64),
        *(
            np.where(strong, 0.0, one * by)
            for one, by in zip((inner, *square), (scale, *over), strict=True)
        ),
    ]
    result._sums += np.stack(rows) @ groups
    by = np.where(strong, 0.0, np.stack([scale, *over]))
    weak = twice * by[:, None] * by[None]
    weak[0, 0] = both
    result._twice += weak @ groups
    return np.asarray(lam)


def _adds(half: Half, others: list[Floats]) -> list[Singles]:
    """What each of a half's masks adds to the inner products, and to its own squared lengths, given what the other half says.

    Returns
    -------
    pair of (2, target, bit) float32
        Under A and under B.
    """
    said: list[Singles] = []
    made = []
    for i in (0, 1):
        if i == 0 or not half.alike:
            said = [one.astype(np.float32) @ half.zg[i] for one in others]
        rest, each = half.rest[i], 1 / half.runs[i]
        adds = np.empty((2, *rest.shape), dtype=np.float32)
        for out, x, by in ((adds[0], said[1 - i], 0.5), (adds[1], said[i], 1.0)):
            weight = np.stack([by * each, np.zeros_like(each)]).astype(np.float32)
            kernels.on_rows(half.threads, kernels.weighed, rest, x, x, weight, half.counts[i], out)
        made.append(adds)
    return made


def _curvature(moved: Floats, inner: Floats, square: Floats, strong: NDArray[np.bool_]) -> Floats:
    """By how much noise in the lengths moves a cosine on average, to second order: (target,) float64.

    `moved` has the covariances of A's inner products and squares and of B's.
    """
    made = np.zeros((3, 3, len(inner)))
    made[1, 1], made[2, 2], made[1, 2] = moved[1, 1], moved[3, 3], moved[1, 3]
    made[0, 1] = moved[0, 1] + moved[2, 1]
    made[0, 2] = moved[2, 3] + moved[0, 3]
    return np.where(strong, _moved(square, inner, strong, made), 0.0)


def _moved(square: Floats, inner: Floats, strong: NDArray[np.bool_], covariance: Floats) -> Floats:
    """What covariances of the inner product and both squared lengths move a cosine by, to second order: (target,) float64."""
    a, b = (np.where(strong, one, 1.0) for one in square)
    inverse = 1 / np.sqrt(a * b)
    value = inner * inverse
    return np.asarray(
        0.375 * value * (covariance[1, 1] / a**2 + covariance[2, 2] / b**2)
        - 0.5 * inverse * (covariance[0, 1] / a + covariance[0, 2] / b)
        + 0.25 * value * covariance[1, 2] / (a * b)
    )
