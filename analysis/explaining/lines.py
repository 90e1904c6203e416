"""The best explanation of each direction, as one line and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.explaining.annotations import Annotation, annotated
from dmstore.analysis.explaining.association import auroc, explained
from dmstore.analysis.explaining.explanation import (
    HEAVY,
    ONE_CLASS,
    TARGETS,
    WITHIN,
    Examples,
    Explanation,
)
from dmstore.analysis.explaining.scores import explanations

if TYPE_CHECKING:
    import xarray as xr

# Pairs of a class and a value that are looked at for the line, the strongest within the class.
_PAIRS = 20


def best(
    comparison: xr.Dataset,
    examples: Examples,
    *,
    found: list[Explanation] | None = None,
    fdr: float = 0.05,
) -> list[list[dict[str, Any]]]:
    """The best explanation of each direction, for programs and for people.

    Parameters
    ----------
    comparison : xarray.Dataset
        In memory.
    examples : Examples
    found : list of Explanation, optional
        From :func:`explanations`, where they are there already.
    fdr : float

    Returns
    -------
    list of list of dict
        Of each algorithm, of each component: ``line``, such as "nine with `marked` = true, AUROC .99", and ``label``,
        ``annotation``, ``value``, ``measure``, ``score``, ``end`` (top or bottom) and ``q``. Empty texts and None where
        nothing is beyond chance.
    """
    every = explanations(comparison, examples, fdr=fdr) if found is None else found
    sure = [one for one in every if one.q <= fdr]
    targets = annotated(examples.targets, examples.class_names)
    return [
        [
            _best(
                [one for one in sure if (one.row, one.component) == (row, k)],
                comparison["projection"].values[row, k],
                {one.name: one for one in targets},
            )
            for k in range(comparison.sizes["component"])
        ]
        for row in range(comparison.sizes["algorithm"])
    ]


_NOTHING = {
    "line": "",
    **dict.fromkeys(("label", "annotation", "value", "measure", "end"), ""),
    **dict.fromkeys(("score", "q")),
}


def _best(
    sure: list[Explanation], projection: NDArray[Any], known: dict[str, Annotation]
) -> dict[str, Any]:
    """Of what is beyond chance on one direction, that which accounts for most of it: one annotation, or a class with what is within it."""

    def first(*of: str, label: bool) -> Explanation | None:
        kept = [one for one in sure if one.of in of and (one.annotation == "label") == label]
        return max(kept, key=lambda one: one.strength, default=None)

    single = max(
        (one for one in sure if one.of == TARGETS), key=lambda one: one.explained, default=None
    )
    pairs = sorted((o for o in sure if o.of == ONE_CLASS), key=lambda one: -one.strength)[:_PAIRS]
    both = [made for one in pairs if (made := _both(one, projection, known))]
    share, pair = max(both, key=lambda one: one[0], default=(0.0, None))
    if pair and (single is None or share >= single.explained):
        return pair
    chosen = single or first(WITHIN, label=False)
    if chosen is None:
        heavy = first(HEAVY, label=True) or first(HEAVY, label=False)
        return _NOTHING | (_heavy(heavy) if heavy else {})
    return _alone(chosen)


def _both(
    one: Explanation, projection: NDArray[Any], known: dict[str, Annotation]
) -> tuple[float, dict[str, Any]] | None:
    """A class with a value within it, against all other targets, and how much of the direction it accounts for."""
    other, label = known[one.annotation], known["label"]
    if one.within not in label.values:
        return None
    there = np.isfinite(projection) & other.known
    of_class = label.member[:, label.values.index(one.within)] & there
    inside = other.member[:, other.values.index(one.value)]

    # Those that have the value at one end, or those that have not at the other.
    top = one.score > one.expected
    share, score, end, sign = max(
        (*_accounted(projection[there], member[there], end=end), end, sign)
        for member, end, sign in (
            (of_class & inside, top, "with"),
            (of_class & ~inside, not top, "without"),
        )
    )
    return share, {
        "line": f"{one.within} {sign} `{one.annotation}` = {one.value}, AUROC {_two(score)}{_end(end)}",
        "label": one.within,
        "annotation": one.annotation,
        "value": one.value if sign == "with" else f"not {one.value}",
        "measure": "auroc",
        "score": score,
        "end": "top" if end else "bottom",
        "q": one.q,
    }


def _accounted(
    projection: NDArray[Any], member: NDArray[np.bool_], *, end: bool
) -> tuple[float, float]:
    """Share of the variance that goes with members, and their AUROC towards the top or the bottom."""
    alike = np.zeros(len(projection), dtype=np.int64)
    area = float(auroc(projection[None], member[:, None], alike).score[0, 0])
    score = area if end else 1 - area
    share = float(explained(projection[None], member, alike)[0])
    # A class may stand at the other end as a whole.
    return (max(share if end else -share, 0.0) if score > 0.5 else 0.0), score


def _alone(one: Explanation) -> dict[str, Any]:
    """One annotation of targets."""
    top = one.score > one.expected
    where = " within its class" if one.of == WITHIN else ""
    if one.measure == "spearman":
        line = f"`{one.annotation}`{where}, rank correlation {np.trunc(100 * one.score) / 100:+.2f}"
        score = one.score
    else:
        score = one.score if top else 1 - one.score
        what = one.value if one.annotation == "label" else f"`{one.annotation}` = {one.value}"
        line = f"{what}{where}, AUROC {_two(score)}{_end(top)}"
    return {
        "line": line,
        "label": one.value if one.annotation == "label" else "",
        "annotation": one.annotation,
        "value": one.value,
        "measure": one.measure,
        "score": score,
        "end": "top" if top else "bottom",
        "q": one.q,
    }


def _heavy(one: Explanation) -> dict[str, Any]:
    """One annotation of train units, where those of targets say nothing."""
    what = one.value if one.annotation == "label" else f"`{one.annotation}` = {one.value}"
    return {
        "line": f"{what} at {one.score:.0%} of its heaviest train units, {one.expected:.0%} of all",
        "annotation": one.annotation,
        "value": one.value,
        "measure": "share",
        "score": one.score,
        "q": one.q,
    }


def _two(score: float) -> str:
    """Of an AUROC two digits, and no 1 that is none."""
    return (
        f"{np.floor(score * 1000) / 1000:.3f}".rstrip("0").replace("0.", ".") if score < 1 else "1"
    )


def _end(top: bool) -> str:  # noqa: FBT001 - one of two ends
    return "" if top else ", at its bottom end"
