"""How two algorithms differ, measured on runs that took no part in finding it: one pass over blocks of targets.

The mathematics stands in ``docs/explanation/statistics.md``. In short: what the fits of one half of the masks propose is
measured on the raw outputs of the other half. The fits are taken off these outputs first and their known
part is added again, so that estimates are unbiased whatever the fits are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment import kernels
from dmstore.analysis.experiment.arms import Halves
from dmstore.analysis.experiment.halves import Half, squares, studentised
from dmstore.analysis.experiment.projections import accumulate, sketch
from dmstore.analysis.experiment.similarity import Similarity, block_similarity
from dmstore.core.threads import side_by_side
from dmstore.errors import InputError

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
# Targets at a time.
_BLOCK = 256
_SMALLEST = 16
# Arrays of a number for each mask and target that are in memory at once.
_ARRAYS = 20
# Columns of a sketch of the train units.
_SKETCH = 512


@dataclass(frozen=True)
class Proposal:
    """Directions that one half of the runs proposes.

    Attributes
    ----------
    direction : (component, train) float
    weight : (component, target) float
        How much each target should count, and with which sign: positive where A should lie further along.
        NaN counts as 0.
    """

    direction: NDArray[Any]
    weight: NDArray[Any]


@dataclass
class Directions:
    """What one half of the runs says about directions that the other half proposed.

    Attributes
    ----------
    statistic, error, z : (component,) float64
        Of the difference; 0 on average where the two algorithms use the same features, up to a scale for each target.
    scale : (component,) float64
        What makes a mean coordinate of unit datamodels of the statistic.
    energy : (2, component) float64
        Share of each algorithm's datamodels along the direction, noise taken out.
    effect, effect_error : (2, component) float64
        Weighted mean coordinate of the unit datamodels of each algorithm along the direction.
    """

    statistic: Floats
    error: Floats
    z: Floats
    scale: Floats
    energy: Floats
    effect: Floats
    effect_error: Floats


@dataclass
class Measured:
    """What runs say of two algorithms.

    Attributes
    ----------
    directions : pair of Directions
        Proposed by half 0 and by half 1.
    similarity : Similarity
        Of each target and of each group of targets.
    target_z : (half, target) float64
        Determinant of each target over its error: 0 on average where its datamodels are the same up to a scale, else
        positive.
    group_z : (half, group) float64
        Of sums of determinants.
    """

    directions: tuple[Directions, Directions]
    similarity: Similarity
    target_z: Floats
    group_z: Floats


@dataclass
class _Sums:
    """What is added up over blocks of targets for one half that measures.

    What masks say about directions is the same for all blocks, so it is multiplied in at the end: `plain`, `effects` and
    `noise` are per bit, `own` per mask that A and B share (none where its terms cancel).
    """

    statistic: Floats
    scale: Floats
    energy: Floats
    effect: Floats
    total: Floats
    plain: list[Singles]
    crossed: list[Singles]
    effects: list[Singles]
    noise: list[Floats]
    own: list[Singles]
    groups: Floats
    group_influence: list[Floats]


def measure(
    arms: tuple[Halves, Halves],
    fits: tuple[Sequence[Any], Sequence[Any]],
    proposals: tuple[Proposal, Proposal],
    groups: NDArray[np.bool_],
    *,
    threads: int = 1,
    random_state: int = 0,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measure what each half of the runs proposes on the other half.

    Parameters
    ----------
    arms : pair of Halves
        Runs of A and of B. Equal mask ids are taken as dependent, wherever they stand.
    fits : pair of pair of (target, train) csr_array
        Datamodels of A and of B, each fitted on half 0 and on half 1 of the masks.
    proposals : pair of Proposal
        Found on half 0 and on half 1, as many components each.
    groups : (target, group) bool
        Groups of targets.
    threads : int
    random_state : int
        Draws the sketch of train units, where there are many.
    memory : int, optional
        Bytes that may be taken beside what is given: blocks of targets are made smaller for it.
    progress : callable, optional
        Called with targets done and targets in all.

    Returns
    -------
    Measured

    Raises
    ------
    InputError
        If that is too little.
    """
    targets = fits[0][0].shape[0]
    block = _block(arms, len(proposals[0].direction), memory)
    columns = sketch(arms[0][0].masks.train, _SKETCH, random_state)
    target_z = np.full((2, targets), np.nan)

    def begin(m: int) -> Half:
        return Half((arms[0][m], arms[1][m]), columns, proposals[1 - m].direction, threads)

    # The halves are independent but for the similarity.
    with side_by_side(threads) as pool:
        halves = list(pool.map(begin, (0, 1)))
        sums = [_empty(half, len(proposals[0].direction), groups.shape[1]) for half in halves]
        similarity = Similarity.empty(targets, groups.shape[1], halves)
        for start in range(0, targets, block):
            part = slice(start, min(start + block, targets))
            loading = [
                pool.submit(half.load, part, [one[1 - m][part] for one in fits])
                for m, half in enumerate(halves)
            ]
            for loaded in loading:
                loaded.result()
            lam = block_similarity(similarity, halves, part, groups[part])
            adding = [
                pool.submit(
                    _add, sums[m], half, proposals[1 - m].weight[:, part], lam, groups[part]
                )
                for m, half in enumerate(halves)
            ]
            for m, added in enumerate(adding):
                target_z[m, part] = added.result()
            if progress:
                progress(part.stop, targets)
    made = tuple(_finish(sums[1 - h], halves[1 - h], similarity) for h in (0, 1))
    group_z = [
        studentised(one.groups, one.group_influence, half.common, half.used, threads)[1]
        for one, half in zip(sums, halves, strict=True)
    ]
    # Rows are the half that proposed, as in `directions`.
    return Measured(
        (made[0], made[1]), similarity.finish(halves), target_z[::-1], np.array(group_z[::-1])
    )


def _block(arms: tuple[Halves, Halves], count: int, memory: int | None) -> int:
    """Targets that are taken at a time."""
    if memory is None:
        return _BLOCK
    train = arms[0][0].masks.train
    bits = sum(len(arm.used) for halves in arms for arm in halves)
    width = train if train <= 2 * _SKETCH else _SKETCH
    fixed = 4 * (bits * (width + 5 * count) + train * (width + 4 * count))
    block = int((memory - fixed) // (_ARRAYS * 4 * bits))
    if block < _SMALLEST:
        needed = fixed + _SMALLEST * _ARRAYS * 4 * bits
        msg = f"measuring {count} directions on {bits // 2} masks of {train} train units needs {needed / 1e9:.2f} GB beside masks and fits, and {max(memory, 0) / 1e9:.2f} GB are left; give more memory, or take fewer components"
        raise InputError(msg)
    return min(_BLOCK, block)


def _empty(half: Half, count: int, groups: int) -> _Sums:
    sizes = [len(used) for used in half.used]

    def by_bit() -> list[Singles]:
        return [np.zeros((count, size), dtype=np.float32) for size in sizes]

    shared = 0 if half.alike else len(half.common[0])
    return _Sums(
        np.zeros(count),
        np.zeros(count),
        np.zeros((2, count)),
        np.zeros((2, count)),
        np.zeros(count),
        by_bit(),
        by_bit(),
        by_bit(),
        [np.zeros(size) for size in sizes],
        [np.zeros((count, shared), dtype=np.float32) for _ in sizes],
        np.zeros(groups),
        [np.zeros((groups, size)) for size in sizes],
    )


def _add(
    sums: _Sums, half: Half, weight: NDArray[Any], lam: Floats, groups: NDArray[np.bool_]
) -> Floats:
    """Add a block of targets to the sums of one half: the determinant of each target over its error."""
    _add_directions(sums, half, np.nan_to_num(weight.astype(np.float64)).T, lam)
    return _add_targets(sums, half, groups)


def _add_directions(sums: _Sums, half: Half, weight: Floats, lam: Floats) -> None:
    """Add a block of targets to the statistics of the directions; `weight` is (target, component)."""
    # B turned to where A points, so that the opposite of an algorithm is no difference.
    turn = (np.ones_like(half.turn), half.turn)
    a, b = half.along[0], half.along[1] * half.turn[:, None]
    p, q = half.reference[0], half.reference[1] * half.turn
    omega = weight * half.inverse[:, None]
    sums.statistic += (omega * (a * q[:, None] - b * p[:, None])).sum(axis=0)
    sums.scale += (np.abs(omega) * (p * q)[:, None]).sum(axis=0)
    sums.total += np.abs(weight).sum(axis=0)
    for i, (sign, other, across) in enumerate(((1, q, b), (-1, p, a))):
        rest, each = half.rest[i], turn[i] / half.runs[i]
        scaled = weight / lam[i][:, None]
        sums.effect[i] += (scaled * (a, b)[i]).sum(axis=0)
        sums.energy[i] += (half.along[i] ** 2 / lam[i][:, None] ** 2).sum(axis=0)
        accumulate(_rows(sign * omega * (other * each)[:, None]), rest, sums.plain[i])
        accumulate(_rows(scaled * each[:, None]), rest, sums.effects[i])
        product = half.zv[i] * rest
        accumulate(_rows(sign * omega * across * each[:, None]), product, sums.crossed[i])
        np.multiply(rest, rest, out=product)
        sums.noise[i] += ((each / lam[i]) ** 2).astype(np.float32) @ product
    if sums.own[0].size:
        ia, ib = half.common
        both = half.rest[0][:, ia] * half.rest[1][:, ib]
        scale = _rows(omega * (half.turn / (half.runs[0] * half.runs[1]))[:, None])
        accumulate(scale, half.zv[1][:, ib] * both, sums.own[0])
        accumulate(scale, half.zv[0][:, ia] * both, sums.own[1])


def _rows(weight: Floats) -> Singles:
    """(target, component) weights as a product takes them."""
    return np.ascontiguousarray(weight.T, dtype=np.float32)


def _add_targets(sums: _Sums, half: Half, groups: NDArray[np.bool_]) -> Floats:
    """The determinant of each target of a block over its error; adds those of the groups."""
    # B is turned to where A points, as for directions.
    (a, b), (p, q) = half.apart, half.reference
    scale = half.inverse * half.turn
    value = scale * (a * q - b * p)
    parts = []
    for i, (sign, other, across) in enumerate(((1, q, b), (-1, p, a))):
        each = sign * scale / half.runs[i]
        weight = np.stack([each * other, -each * across]).astype(np.float32)
        part, z = np.empty_like(half.rest[i]), (half.zu[i], half.zv[i])
        kernels.on_rows(
            half.threads, kernels.weighed, half.rest[i], *z, weight, half.counts[i], part
        )
        parts.append(part)
    if sums.own[0].size:
        ia, ib = half.common
        both = half.rest[0][:, ia] * half.rest[1][:, ib]
        own = half.zu[0][:, ia] * half.zv[1][:, ib] - half.zu[1][:, ib] * half.zv[0][:, ia]
        own = (own * both).sum(axis=1, dtype=np.float64)
        value = value - scale * own / (half.runs[0] * half.runs[1])
    member = groups.T.astype(np.float32)
    for i, part in enumerate(parts):
        sums.group_influence[i] += member @ part
    sums.groups += value @ groups
    return studentised(value, parts, half.common, half.used, half.threads)[1]


def _finish(sums: _Sums, half: Half, similarity: Similarity) -> Directions:
    total = np.maximum(sums.total, 1e-300)
    scale = np.where(sums.scale > 0, 1 / np.maximum(sums.scale, 1e-300), 0.0)
    effect_error, influence = [], []
    for i, z in enumerate(half.z):
        effects = half.centred(i, z * sums.effects[i])
        effect_error.append(np.sqrt(squares([effects], None, [half.used[i]], half.threads)))
        influence.append(half.centred(i, z * sums.plain[i] - sums.crossed[i]))
    noise = [np.einsum("kb,kb,b->k", z, z, one) for z, one in zip(half.z, sums.noise, strict=True)]
    statistic = sums.statistic
    if sums.own[0].size:
        a, b = (
            np.einsum("kb,kb->k", z[:, bit], one, dtype=np.float64)
            for z, bit, one in zip(half.z, half.common, sums.own, strict=True)
        )
        statistic = statistic - (a - b)
    error, ratio = studentised(statistic, influence, half.common, half.used, half.threads)
    return Directions(
        statistic,
        error,
        ratio,
        scale,
        (sums.energy - noise) / np.where(similarity.total > 0, similarity.total, np.nan)[:, None],
        sums.effect / total,
        np.array(effect_error) / total,
    )
