"""Every annotation of targets and of train units on every direction: how strongly, and how surely."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.inference import discovery_rates
from dmstore.analysis.explaining.annotations import FEWEST, Annotation, annotated
from dmstore.analysis.explaining.association import (
    Association,
    auroc,
    enrichment,
    explained,
    spearman,
)
from dmstore.analysis.explaining.explanation import (
    HEAVY,
    HEAVY_WITHIN,
    ONE_CLASS,
    TARGETS,
    WITHIN,
    Examples,
    Explanation,
)

if TYPE_CHECKING:
    import xarray as xr


def explanations(
    comparison: xr.Dataset, examples: Examples, *, fdr: float = 0.05
) -> list[Explanation]:
    """Every annotation on every direction that is more than rounding, those of one direction best first.

    Parameters
    ----------
    comparison : xarray.Dataset
        In memory.
    examples : Examples
    fdr : float
        What is beyond it comes last.
    """
    found = [*_of_targets(comparison, examples), *_of_train(comparison, examples)]
    if not found:
        return []
    # Many classes must not make it harder for what is looked at over all of them.
    kinds = [[one for one in found if one.of == of] for of in dict.fromkeys(o.of for o in found)]
    rates = discovery_rates([np.array([one.p for one in kind]) for kind in kinds])
    made = [
        replace(one, q=float(q))
        for kind, own in zip(kinds, rates, strict=True)
        for one, q in zip(kind, own, strict=True)
    ]
    return sorted(made, key=lambda one: (one.row, one.component, one.q > fdr, -one.strength))


def _counted(comparison: xr.Dataset) -> list[int]:
    """Directions of either algorithm that are more than rounding."""
    return [int(count) for count in (comparison["residual_variance"].values > 0).sum(axis=1)]


def _strata(
    known: list[Annotation], label: NDArray[np.int64] | None, count: int
) -> NDArray[np.int64] | None:
    """Classes to look within, where there are several."""
    if label is None or len(label) != count or len(np.unique(label)) < 2:
        return None
    return label if any(one.name != "label" for one in known) else None


def _label(data: xr.Dataset) -> NDArray[np.int64] | None:
    return np.asarray(data["label"].values, dtype=np.int64) if "label" in data else None


def _of_targets(comparison: xr.Dataset, examples: Examples) -> list[Explanation]:
    known = annotated(examples.targets, examples.class_names)
    projection = comparison["projection"].values
    there = np.isfinite(projection).all(axis=(0, 1))
    places = [(row, k) for row, count in enumerate(_counted(comparison)) for k in range(count)]
    if not places or examples.targets.sizes.get("target") != len(there):
        return []
    rows = np.array([projection[row, k] for row, k in places], dtype=np.float64)
    classes = _strata(known, _label(examples.targets), len(there))
    made: list[Explanation] = []
    for one in known:
        for of, strata in ((TARGETS, np.zeros(len(there), dtype=np.int64)), (WITHIN, classes)):
            if strata is None or (of == WITHIN and one.name == "label"):
                continue
            used = there & one.known
            for column, value in enumerate(one.values):
                kept = used & _mixed(one.member[:, column], strata, used)
                inside = one.member[kept, column]
                if min(inside.sum(), (~inside).sum()) >= FEWEST:
                    score = auroc(rows[:, kept], inside[:, None], strata[kept])
                    share = explained(rows[:, kept], inside, strata[kept])
                    made += _listed(places, score, share, of, one.name, value, "auroc", 0.5)
            if one.number is not None and used.sum() > 2 * FEWEST:
                score = spearman(rows[:, used], one.number[used], strata[used])
                # The correlation of ranks: a long tail of numbers must not decide.
                share = score.score[:, 0] * np.abs(score.score[:, 0])
                made += _listed(places, score, share, of, one.number_name, "", "spearman", 0.0)
        if classes is not None and one.name != "label":
            for value in np.unique(classes[there]):
                made += _of_one_class(
                    places,
                    rows,
                    there & one.known & (classes == value),
                    one,
                    examples.class_names[int(value)],
                )
    return made


def _of_one_class(
    places: list[tuple[int, int]],
    rows: NDArray[np.float64],
    used: NDArray[np.bool_],
    one: Annotation,
    label: str,
) -> list[Explanation]:
    """Values of an annotation among the targets of a class."""
    member = one.member[used]
    counts = member.sum(axis=0)
    kept = np.flatnonzero((counts >= FEWEST) & (len(member) - counts >= FEWEST))
    if not len(kept):
        return []
    all_alike = np.zeros(len(member), dtype=np.int64)
    score = auroc(rows[:, used], member[:, kept], all_alike)
    return [
        replace(found, within=label)
        for place, column in enumerate(kept.tolist())
        for found in _listed(
            places,
            Association(score.score[:, place, None], score.p[:, place, None]),
            explained(rows[:, used], member[:, column], all_alike),
            *(ONE_CLASS, one.name, one.values[column], "auroc", 0.5),
        )
    ]


def _mixed(
    member: NDArray[np.bool_], strata: NDArray[np.int64], used: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Examples of strata that have members and others: the rest has nothing to compare."""
    inside = np.isin(strata, strata[used & member])
    return inside & np.isin(strata, strata[used & ~member])


def _listed(
    places: list[tuple[int, int]],
    score: Association,
    share: NDArray[np.float64],
    of: str,
    name: str,
    value: str,
    measure: str,
    chance: float,
) -> list[Explanation]:
    # A few far away may turn the correlation against the score: then it accounts for nothing of what the score says.
    own = np.maximum(share * np.sign(score.score[:, 0] - chance), 0.0)
    return [
        Explanation(
            row, k, of, name, value, measure, float(s), chance, float(p), explained=float(e)
        )
        for (row, k), s, p, e in zip(places, score.score[:, 0], score.p[:, 0], own, strict=True)
        if np.isfinite(s)
    ]


def _of_train(comparison: xr.Dataset, examples: Examples) -> list[Explanation]:
    known = annotated(examples.train, examples.class_names)
    count = comparison.sizes["train"]
    if examples.train.sizes.get("train") != count:
        return []
    heaviest = comparison["heaviest"].values
    classes = _strata(known, _label(examples.train), count)
    made: list[Explanation] = []
    for row, k in ((r, k) for r, most in enumerate(_counted(comparison)) for k in range(most)):
        chosen = np.zeros(count, dtype=bool)
        chosen[heaviest[row, k][heaviest[row, k] >= 0]] = True
        if chosen.all():
            continue
        for one in known:
            used = one.known
            for of, strata in ((HEAVY, np.zeros(count, dtype=np.int64)), (HEAVY_WITHIN, classes)):
                if strata is None or (of == HEAVY_WITHIN and one.name == "label"):
                    continue
                share = enrichment(one.member[used], chosen[used], strata[used])
                made += [
                    Explanation(row, k, of, one.name, value, "share", s, e, p)
                    for value, s, e, p in zip(
                        one.values,
                        share.share.tolist(),
                        share.overall.tolist(),
                        share.p.tolist(),
                        strict=True,
                    )
                    if np.isfinite(p)
                ]
    return made
