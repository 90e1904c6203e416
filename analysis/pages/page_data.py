"""What a page shows, as JSON holds it: labelled data in, plain data out, nothing read or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.answer import DirectionClaim, answer, finite
from dmstore.analysis.comparison.codes import direction_code
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.comparison.sentences import interval, named, rate, share
from dmstore.analysis.explaining.explanation import Examples
from dmstore.analysis.explaining.lines import best
from dmstore.analysis.pages.influences import Influences, influences
from dmstore.analysis.pages.units import described

_NORMAL = 1.959964
# Pictures of a subpopulation and train units of a direction: more has no reader.
_MEMBERS, _HEAVY, _INFLUENCERS = 64, 24, 12
# An annotation that ranks a direction's targets so well says what they are.
_SAYS = 0.8
# A class is named where it is most of a subpopulation, and chance would hardly make it so.
_CHANCE = 0.01
_DIGITS = 5


@dataclass(frozen=True)
class Subject:
    """What a page says beside the comparison itself.

    Attributes
    ----------
    title : str
    examples : Examples
    cards : list of dict
        One per algorithm: ``title`` and ``rows``, pairs of texts.
    provenance : list of pair of str
    commands : list of str
        What makes it again.
    effects : list of dict
        Counterfactual checks, from :func:`dmstore.analysis.pages.kept_effects.kept_effects`.
    captions, removals : list of dict
        What is kept of captions and removal checks.
    curves : dict
        Algorithm to its learning curve, from :func:`dmstore.analysis.evaluation.curve_summary.kept_curve`.
    fits : dict
        Algorithm to its fit, without what has train units.
    weights : list of (target, train) DataArray
        Datamodels of each algorithm, lazy; empty where they are not shown.
    runs : list of int
        Runs of each fit.
    outputs : list of str
        What the fitted output of each algorithm is.
    images : list of str
        The column of train images that each algorithm trained on.
    doubts : list of str
        Sentences on what may be wrong with the input.
    scores_only : bool
        Whether there are no runs behind the comparison, and so no check against chance.
    """

    title: str
    examples: Examples
    cards: list[dict[str, Any]]
    provenance: list[tuple[str, str]]
    commands: list[str] = field(default_factory=list)
    effects: list[dict[str, Any]] = field(default_factory=list)
    captions: list[dict[str, Any]] = field(default_factory=list)
    removals: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    fits: dict[str, xr.Dataset] = field(default_factory=dict)
    weights: list[xr.DataArray] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=lambda: ["image", "image"])
    doubts: list[str] = field(default_factory=list)
    scores_only: bool = False


@dataclass(frozen=True)
class PageData:
    """What a page shows.

    Attributes
    ----------
    data : dict
        As JSON holds it: ``names``, ``classes``, ``target``, ``train``, ``groups``, ``directions``.
    shown : (unit,) int64
        Positions of the train units that appear anywhere, ascending; ``train`` is about these.
    influences : Influences or None
        Of every target; train units by their place in `shown`.
    """

    data: dict[str, Any]
    shown: NDArray[np.int64]
    influences: Influences | None


def page_data(comparison: xr.Dataset, subject: Subject, tell: Any = None) -> PageData:
    """Gather what a page shows.

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.modeldiff`, in memory.
    subject : Subject
    tell : callable, optional
        Called with targets done and targets in all.

    Returns
    -------
    PageData
    """
    examples = subject.examples
    names = [str(name) for name in comparison["algorithm"].values]
    directions = [one for row in (0, 1) for one in _directions(comparison, subject, row)]
    made = influences(subject.weights, tell=tell) if subject.weights else None
    listed = [unit for one in directions for key in ("heavy", "influencers") for unit in one[key]]
    used = [np.array([unit for unit, _ in listed], dtype=np.int64)]
    if made is not None:
        used.append(made.unit[made.unit >= 0])
    shown = np.unique(np.concatenate(used))
    for one in directions:
        for key in ("heavy", "influencers"):
            one[key] = [[int(np.searchsorted(shown, u)), w] for u, w in one[key]]
    if made is not None:
        place = np.where(made.unit >= 0, np.searchsorted(shown, made.unit), -1)
        made = Influences(place, made.weight)
    targets = np.arange(comparison.sizes["target"])
    data = {
        "names": names,
        "classes": list(examples.class_names),
        "measured": "q" in comparison,
        "outputs": subject.outputs,
        "target": described(examples.targets, "target", targets, examples.class_names)
        | _by_target(comparison),
        "train": described(examples.train, "train", shown, examples.class_names)
        | {"count": comparison.sizes["train"]},
        "groups": _groups(comparison),
        "directions": directions,
    }
    return PageData(data, shown, made)


def about_directions(directions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Code of each direction to what its targets have in common, as a sentence has it."""
    return {one["code"]: one["about"] for one in directions}


def numbers(values: Any) -> list[Any]:
    """Numbers in few digits; None for what is not finite."""
    return [
        None if not np.isfinite(one) else float(f"{one:.{_DIGITS}g}") + 0.0
        for one in np.asarray(values, dtype=np.float64).ravel().tolist()
    ]


def _by_target(comparison: xr.Dataset) -> dict[str, Any]:
    made = {"cosine": numbers(comparison["cosine"].values)}
    if "similarity" in comparison:
        made["similarity"] = numbers(comparison["similarity"].values)
        made["error"] = numbers(comparison["similarity_error"].values)
    return made


def _groups(comparison: xr.Dataset) -> list[dict[str, Any]]:
    """Groups of targets, those beyond chance first, the least alike first."""
    return [
        {
            "name": named(one),
            "targets": one.targets,
            "similarity": interval(one.similarity),
            "estimate": one.similarity.estimate,
            "low": one.similarity.low,
            "high": one.similarity.high,
            "q": rate(one.q),
            "beyond": one.beyond,
        }
        for one in answer(comparison).groups
        if np.isfinite(one.similarity.estimate)
    ]


def _directions(comparison: xr.Dataset, subject: Subject, row: int) -> list[dict[str, Any]]:
    examples = subject.examples
    own = str(comparison["algorithm"].values[row])
    claims = {one.component: one for one in answer(comparison).directions if one.algorithm == own}
    explained = best(comparison, examples)[row]
    made = []
    for component in range(rank(comparison)[row]):
        one = comparison.isel(algorithm=row, component=component)
        ends = [
            {
                "title": title,
                "of": int((one["subpopulation"].values[end] >= 0).sum()),
                "members": _there(one["subpopulation"].values[end])[:_MEMBERS],
                "random": _there(one["contrast"].values[end])[:_MEMBERS],
            }
            for end, title in enumerate(("top", "bottom"))
        ]
        heavy = one["heaviest"].values[:_HEAVY]
        says = explained[component]
        made.append(
            {
                "code": direction_code(row, component),
                "row": row,
                "component": component,
                "about": _about(
                    says, examples, one["subpopulation"].values[0], comparison["included"].values
                ),
                "annotation": says["line"].replace("`", ""),
                "explained": numbers(one["explained_variance"].values * 100),
                "delta": numbers([one["delta"].values * 100])[0],
                **_measured(claims.get(component), one, row),
                "ends": ends,
                "heavy": _weighed(heavy, one["direction"].values[heavy]),
                "influencers": _influencers(one["relative_influence"].values),
                "captions": [
                    finite(entry)
                    for entry in subject.captions
                    if (entry["algorithm"], entry["component"]) == (own, component)
                ],
            }
        )
    return made


def _measured(claim: DirectionClaim | None, one: xr.Dataset, row: int) -> dict[str, Any]:
    """What a direction shows on runs that did not find it."""
    nothing = {"q": None, "rate": "", "beyond": False, "estimate": None, "error": None}
    if claim is None:
        return {**nothing, "energy": None, "shares": None, "effects": None}
    known = bool(np.isfinite(claim.estimate))
    effects = None
    if known and "effect" in one:
        value, error = one["effect"].values, one["effect_error"].values
        effects = [
            numbers([v, v - _NORMAL * e, v + _NORMAL * e])
            for v, e in zip(value, error, strict=True)
        ]
    return {
        "q": numbers([claim.q])[0],
        "rate": rate(claim.q),
        "beyond": claim.beyond,
        "estimate": numbers([claim.estimate])[0],
        "error": numbers([claim.standard_error])[0],
        "energy": numbers([100 * value for value in claim.energy]) if known else None,
        "shares": [share(value) for value in claim.energy] if known else None,
        "effects": effects,
    }


def _there(positions: NDArray[np.int64]) -> list[int]:
    return [int(one) for one in positions[positions >= 0]]


def _weighed(units: NDArray[np.int64], values: NDArray[Any]) -> list[list[Any]]:
    return [[int(unit), value] for unit, value in zip(units, numbers(values), strict=True)]


def _influencers(values: NDArray[Any]) -> list[list[Any]]:
    """Train units that move the top subpopulation most under the one algorithm and not under the other (appendix D)."""
    order = np.argsort(-values, kind="stable")[:_INFLUENCERS]
    order = order[values[order] > 0]
    return _weighed(order, values[order])


def _about(
    says: Mapping[str, Any],
    examples: Examples,
    members: NDArray[np.int64],
    among: NDArray[np.bool_],
) -> str:
    """What the targets of a direction have in common, unlike all that are compared; empty where nothing says it."""
    if says["measure"] == "auroc" and says["score"] >= _SAYS and says["end"] == "top":
        label, value = says["label"], str(says["value"])
        parts = [f"targets of class {label}" if label else "targets"]
        if says["annotation"] != "label":
            without = value.startswith("not ")
            parts.append(
                f"{'without' if without else 'with'} {says['annotation']} = {value.removeprefix('not ')}"
            )
        return " ".join(parts)
    there = members[members >= 0]
    if "label" not in examples.targets or not len(there) or not examples.class_names:
        return ""
    labels = np.asarray(examples.targets["label"].values)
    common = np.bincount(labels[there])
    first, count = int(common.argmax()), int(common.max())
    if (
        2 * count <= len(there)
        or _tail(count, len(there), float((labels[among] == first).mean())) > _CHANCE
    ):
        return ""
    return f"targets of class {examples.class_names[first]}"


def _tail(count: int, of: int, base: float) -> float:
    """Probability of so many or more of one kind among `of` drawn at random."""
    from scipy.stats import binom

    return float(binom.sf(count - 1, of, base))
