"""Which differences between two algorithms are beyond chance: found on one half of the runs, measured on the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.comparison.parameters import ComparisonParameters
from dmstore.analysis.comparison.target_groups import Groups
from dmstore.analysis.experiment import inference
from dmstore.analysis.experiment.arms import Halves
from dmstore.analysis.experiment.halves import rowdot, turned
from dmstore.analysis.experiment.measure import Directions, Measured, Proposal, measure
from dmstore.analysis.geometry.principal import principal_directions
from dmstore.analysis.geometry.rows import Rows, dots
from dmstore.core.progress import Count
from dmstore.core.threads import side_by_side

Floats = NDArray[np.float64]
# How far beyond the bound of any principal component four of five directions were found, in simulated studies.
_FOUND = 1.15
# Squared errors that a claim of one direction among some tens takes, with 80 % power.
_CLAIMED = (3.2 + 0.84) ** 2
# Errors below 0 of a similarity that is told as such, so many that the test beside it costs no false claims.
_OPPOSITE = 6.0
# Length of a residual of float32 rows that is rounding alone.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)
# Steps in which it is told how far directions are found.
_STEPS = 100


def differences(
    arms: tuple[Halves, Halves],
    fits: tuple[Sequence[Any], Sequence[Any]],
    projection: NDArray[Any],
    shown: Sequence[int],
    groups: Groups,
    parameters: ComparisonParameters,
    *,
    threads: int = 1,
    memory: int | None = None,
    proposing: Count | None = None,
    progress: Count | None = None,
) -> dict[str, NDArray[Any]]:
    """What runs say of the directions of a comparison, of its targets and of groups of these.

    Parameters
    ----------
    arms : pair of Halves
        Runs of A and of B.
    fits : pair of pair of (target, train) csr_array
        Datamodels of A and of B from half 0 and from half 1 of the masks.
    projection : (algorithm, component, target) float
        Of the directions found on all runs, which the halves' are matched to.
    shown : pair of int
        Directions of either algorithm that are more than rounding.
    groups : Groups
    parameters : ComparisonParameters
    threads : int
    memory : int, optional
        Bytes that may be taken beside what is given.
    proposing : callable, optional
        Called with steps done and steps in all, while the halves' directions are found.
    progress : callable, optional
        Called with targets done and targets in all.

    Returns
    -------
    dict
        Arrays of ``comparison.group.json``.
    """
    count = projection.shape[1]

    shares, telling, ended = [0.0, 0.0], Lock(), Event()

    def proposal(h: int) -> Proposal:
        def tell(share: float) -> None:
            if ended.is_set():
                raise CancelledError
            # Else what was told last could be less than what was told before.
            with telling:
                shares[h] = share
                if proposing:
                    proposing(int(_STEPS * sum(shares) / 2), _STEPS)

        return propose(fits[0][h], fits[1][h], count, parameters, threads=threads, tell=tell)

    with side_by_side(threads) as pool:
        try:
            proposed = list(pool.map(proposal, (0, 1)))
        finally:
            # A pool waits for its threads, which Ctrl-C does not reach.
            ended.set()
    measured = measure(
        arms,
        fits,
        (proposed[0], proposed[1]),
        groups.member,
        threads=threads,
        random_state=parameters.random_state,
        memory=memory,
        progress=progress,
    )
    turns = [turned(rowdot(fits[0][h], fits[1][h])) for h in (0, 1)]
    ways = [_one_way(row, projection[row], proposed, turns, measured) for row in (0, 1)]
    arrays = {name: np.stack([way[name] for way in ways]) for name in ways[0]}
    similarity = measured.similarity
    group_p = _opposite(
        inference.mean_of_halves(measured.group_z), similarity.group, similarity.group_error
    )
    tested = np.arange(count) < np.asarray(shown)[:, None]
    p = arrays["p"]
    q_directions, q_groups = inference.discovery_rates([p[tested], group_p])
    q = np.full(p.shape, np.nan)
    q[tested] = q_directions
    p[~tested] = np.nan
    return {
        **arrays,
        "q": q,
        "similarity": similarity.cosine,
        "similarity_error": similarity.error,
        "unlike_z": measured.target_z.mean(axis=0),
        "detectable": np.full(2, _detectable(arms, proposed, measured)),
        "strength": similarity.square,
        "strength_error": similarity.square_error,
        "group": np.array(groups.name, dtype=object),
        "group_size": groups.member.sum(axis=0).astype(np.int64),
        "group_similarity": similarity.group,
        "group_similarity_error": similarity.group_error,
        "group_p": group_p,
        "group_q": q_groups,
    }


def _detectable(
    arms: tuple[Halves, Halves], proposed: Sequence[Proposal], measured: Measured
) -> float:
    """Share of datamodels along a direction that would be found and claimed in four of five studies like this one.

    Noise of variance s per coordinate in target x train numbers hides directions of less energy than
    s sqrt(train / targets) from any principal component (Baik, Ben Arous and Péché 2005); a direction that is found is
    claimed once its energy is beyond that of (3.2 + .84) errors, in units of s / targets. The larger of the two counts;
    ``python -m benchmarks calibration`` holds it against simulated studies.
    """
    targets, train = proposed[0].weight.shape[1], arms[0][0].masks.train
    noise = []
    for half, directions in zip(proposed, measured.directions, strict=True):
        square = (half.weight**2).sum(axis=1)
        there = (square > 0) & (directions.scale > 0)
        effective = np.abs(half.weight).sum(axis=1)[there] ** 2 / square[there]
        noise.append((directions.error * directions.scale)[there] ** 2 * effective)
    values = np.concatenate(noise)
    if not len(values):
        return float("nan")
    return direction_share(float(np.median(values)), targets, train)


def _opposite(p: Floats, similarity: Floats, error: Floats) -> Floats:
    """P-values of groups, those that are opposite too: a similarity far below 0 is none by chance.

    What is measured along directions does not see a sign.
    """
    known = error > 0
    z = np.divide(-similarity, error, out=np.zeros_like(p), where=known)
    return np.where(known & (z > _OPPOSITE), np.minimum(p, inference.upper_tail(z)), p)


def direction_share(noise: float, targets: int, train: int) -> float:
    """Share of datamodels along a direction that is both found and claimed.

    Parameters
    ----------
    noise : float
        Variance of one coordinate of the difference of two unit datamodels, as a half of the runs measures it.
    targets, train : int
    """
    return float(noise * max(_FOUND * np.sqrt(train / targets), _CLAIMED / targets))


def propose(
    a: Any,
    b: Any,
    count: int,
    parameters: ComparisonParameters,
    *,
    threads: int = 1,
    tell: Callable[[float], None] = lambda share: None,
) -> Proposal:
    """Directions of A's residuals, then of B's, of the fits of one half: (target, train) csr_array each.

    Of the weights of B's the sign is turned: statistics are of A less B, and a positive one then says that the
    algorithm whose residuals they are lies further along. Where B points away from A it is -B that is measured, so that there
    the sign is turned once more.
    """
    rows = [_unit(one) for one in (a, b)]
    cosine = dots(rows[0], rows[1])
    included = rows[0].nonzero & rows[1].nonzero
    direction = np.zeros((2 * count, a.shape[1]), dtype=np.float32)
    weight = np.zeros((2 * count, a.shape[0]))
    for way, sign in ((0, np.ones(len(cosine))), (1, -turned(rowdot(a, b)))):
        if int(included.sum()) < 2:
            continue
        made = principal_directions(
            rows[way],
            rows[1 - way],
            cosine,
            included,
            components=count,
            center=parameters.center,
            rounding=_ROUNDING,
            random_state=parameters.random_state,
            threads=threads,
            tell=_one_of_two(tell, way),
        )
        tell((way + 1) / 2)
        real = int((made.residual_variance > 0).sum())
        place = slice(way * count, way * count + real)
        direction[place] = made.direction[:real]
        weight[place] = sign * np.nan_to_num(made.projection[:real])
    return Proposal(direction, weight)


def _one_of_two(tell: Callable[[float], None], which: int) -> Callable[[float], None]:
    """What tells the share of the first or of the second half of something."""
    return lambda share: tell((which + share) / 2)


def _unit(fit: Any) -> Rows:
    """Unit rows of a sparse matrix."""
    from scipy.sparse import diags_array

    length = np.sqrt(rowdot(fit, fit))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return Rows((diags_array(scale) @ fit).astype(fit.dtype).tocsr(), length > 0)


def _one_way(
    row: int,
    projection: NDArray[Any],
    proposed: Sequence[Proposal],
    turns: Sequence[Floats],
    measured: Measured,
) -> dict[str, NDArray[Any]]:
    """Directions of one algorithm: what each half measured of those that are most like them."""
    count = len(projection)
    sign = 1.0 if row == 0 else -1.0
    own = slice(row * count, (row + 1) * count)
    kept: dict[str, list[Floats]] = {}
    for h in (0, 1):
        weight = proposed[h].weight[own] * (1.0 if row == 0 else turns[h])
        place, likeness = inference.matched(projection, weight)
        for name, values in _taken(measured.directions[h], own, place, sign).items():
            kept.setdefault(name, []).append(values)
        kept.setdefault("likeness", []).append(likeness)
    z = np.stack(kept["z"])
    with np.errstate(invalid="ignore"):
        mean = {
            name: _mean(np.stack(kept[name]))
            for name in ("difference", "difference_error", "effect", "effect_error", "energy")
        }
    return {
        **mean,
        "half_z": z.T,
        "half_likeness": np.stack(kept["likeness"]).T,
        "p": inference.either_half(z),
    }


def _taken(
    directions: Directions, own: slice, place: NDArray[np.int64], sign: float
) -> dict[str, Floats]:
    """Statistics of the directions at some places, NaN where there is none."""

    def at(values: Floats) -> Floats:
        picked = values[..., own][..., np.maximum(place, 0)]
        return np.where(place >= 0, picked, np.nan)

    there = at(np.where(directions.error > 0, 1.0, np.nan))
    return {
        "z": at(directions.z),
        "difference": at(directions.statistic * directions.scale) * there,
        "difference_error": at(directions.error * directions.scale) * there,
        "effect": (sign * at(directions.effect) * there).T,
        "effect_error": (at(directions.effect_error) * there).T,
        "energy": (at(directions.energy) * there).T,
    }


def _mean(values: Floats) -> Floats:
    """Mean over halves of those that are there; NaN where none is."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
