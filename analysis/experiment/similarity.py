"""How alike two algorithms' datamodels are with noise taken out (in place of the cosine of paper F.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.halves import Half, squares

Floats = NDArray[np.float64]
# A squared length below so many of its errors is held to be so long.
_FLOOR = 4.0


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
        Sum over all targets of squared lengths, in units of what each is divided by.
    """

    square: Floats
    square_error: Floats
    inner: Floats
    cosine: Floats
    error: Floats
    group: Floats
    group_error: Floats
    total: Floats
    sums: Floats
    influence: list[list[list[Floats]]]

    @classmethod
    def empty(cls, targets: int, groups: int, halves: Sequence[Half]) -> Similarity:
        """Before any block is added."""
        nothing = np.full(targets, np.nan)
        made = [
            [[np.zeros((len(used), groups)) for _ in range(2)] for used in half.used]
            for half in halves
        ]
        return cls(
            np.zeros((2, targets)),
            np.zeros((2, targets)),
            np.zeros(targets),
            nothing.copy(),
            nothing.copy(),
            np.full(groups, np.nan),
            np.full(groups, np.nan),
            np.zeros(2),
            np.zeros((3, groups)),
            made,
        )

    def finish(self, halves: Sequence[Half]) -> Similarity:
        """Cosines of groups, from sums over all blocks."""
        number, a, b = self.sums
        valid = (a > 0) & (b > 0)
        root = np.sqrt(np.where(valid, a * b, 1.0))
        self.group = np.where(valid, number / root, np.nan)
        variance = np.zeros(len(self.group))
        for half, kept in zip(halves, self.influence, strict=True):
            parts = []
            for i, (over, length) in enumerate(kept):
                own = self.sums[1 + i]
                safe = np.where(valid, own, 1.0)
                part = over / root - 0.5 * self.group * length / safe
                parts.append(half.centred(i, np.nan_to_num(part)))
            variance += squares(parts, half.common, half.used)
        self.group_error = np.where(valid, np.sqrt(variance), np.nan)
        return self


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
    # What each mask adds: [half][algorithm] of the inner product and of its own square.
    adds: list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = []
    for m, half in enumerate(halves):
        there = []
        for i in (0, 1):
            rest = half.rest[i] / half.runs[i].astype(np.float32)
            others = s[1 - m]
            over = 0.5 * rest * (half.zg[i] @ others[1 - i].T.astype(np.float32))
            length = rest * (half.zg[i] @ others[i].T.astype(np.float32))
            there.append((half.centred(i, over), half.centred(i, length)))
        adds.append(there)
    variance = np.array(
        [
            sum(squares([adds[m][i][1]], None, [half.used[i]]) for m, half in enumerate(halves))
            for i in (0, 1)
        ]
    )
    error = np.sqrt(variance)
    strong = square > _FLOOR * error
    lam2 = np.maximum(square, _FLOOR * error)
    lam2 = np.where(lam2 > 0, lam2, np.inf)
    lam = np.sqrt(lam2)
    over = inner / (lam[0] * lam[1])
    slope = [
        np.where(strong[i], -0.5 * over / np.where(strong[i], square[i], 1.0), 0.0) for i in (0, 1)
    ]
    weak = [np.where(strong[i], 0.0, 1 / lam2[i]) for i in (0, 1)]
    both = strong[0] & strong[1]
    spread = np.zeros(inner.shape)
    bias = np.zeros(inner.shape)
    for m, half in enumerate(halves):
        parts = []
        for i in (0, 1):
            a, b = adds[m][i]
            first = (1 / (lam[0] * lam[1])).astype(np.float32)
            part_ = a * first + b * slope[i].astype(np.float32)
            parts.append(part_)
            result.influence[m][i][0] += part_ @ groups.astype(np.float32)
            result.influence[m][i][1] += (b * weak[i].astype(np.float32)) @ groups.astype(
                np.float32
            )
        spread += squares(parts, half.common, half.used)
        bias += _curvature(adds[m], half, inner, square, both)
    over = np.where(both, over - bias, over)
    result.square[:, part], result.square_error[:, part] = square, error
    result.inner[part] = inner
    result.cosine[part] = np.where(both, over, np.nan)
    result.error[part] = np.where(both, np.sqrt(spread), np.nan)
    lengths = np.where(strong, 1.0, square / lam2)
    result.total += lengths.sum(axis=1)
    result.sums += np.stack([over, lengths[0], lengths[1]]) @ groups
    return np.asarray(lam)


def _curvature(
    adds: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
    half: Half,
    inner: Floats,
    square: Floats,
    both: NDArray[np.bool_],
) -> Floats:
    """By how much noise in the lengths moves a cosine on average, to second order: (target,) float64."""
    a, b = np.where(both, square[0], 1.0), np.where(both, square[1], 1.0)
    value = inner / np.sqrt(a * b)

    def covariance(x: NDArray[np.float32], y: NDArray[np.float32]) -> Floats:
        return np.asarray(np.einsum("ij,ij->j", x, y, dtype=np.float64))

    (na, da), (nb, db) = adds
    ia, ib = half.common
    inverse = 1 / np.sqrt(a * b)
    total = 0.375 * value * (covariance(da, da) / a**2 + covariance(db, db) / b**2)
    total -= 0.5 * inverse * (covariance(na, da) / a + covariance(nb, db) / b)
    if len(ia):
        total += 0.25 * value * covariance(da[ia], db[ib]) / (a * b)
        total -= 0.5 * inverse * (covariance(nb[ib], da[ia]) / a + covariance(na[ia], db[ib]) / b)
    return np.asarray(np.where(both, total, 0.0))
