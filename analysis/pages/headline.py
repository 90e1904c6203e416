"""The first sentences of the page: what the comparison says, no more and no less than the runs allow."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.answer import Answer, DirectionClaim, Estimate, answer
from dmstore.analysis.comparison.modeldiff import likeness, rank
from dmstore.analysis.comparison.sentences import difference, ends, named, number, rate, share
from dmstore.analysis.comparison.target_groups import ALL

# Below this share of the other algorithm's, a direction is one's own.
_LESS = 0.5


def headline(
    comparison: xr.Dataset,
    names: list[str],
    about: dict[str, str],
    effects: list[dict[str, Any]],
    *,
    scores_only: bool,
) -> str:
    """The answer in a few sentences.

    Parameters
    ----------
    comparison : Dataset
    names : list of str
    about : dict
        Code of a direction, such as ``A1``, to the class that its targets are of; empty where there is none.
    effects : list of dict
        Counterfactual checks.
    scores_only : bool
        Whether there are no runs behind the comparison.
    """
    said = answer(comparison)
    same = not any(rank(comparison))
    sentences = [likeness(comparison)]
    if same and not sentences[0]:
        sentences.append("No direction is longer than rounding makes it.")
    if said.measured:
        sentences += _measured(said, names, about)
    elif not same:
        sentences += _unmeasured(comparison, names, about, scores_only=scores_only)
    if effects:
        sentences.append(_effect(effects[0]))
    return " ".join(text for text in sentences if text)


def _measured(said: Answer, names: list[str], about: dict[str, str]) -> list[str]:
    claimed = [one for one in said.directions if one.beyond]
    groups = [one for one in said.groups if one.beyond and one.group != ALL]
    if not said.similarity:
        return ["Their datamodels are too weak to be compared with these runs.", difference(said)]
    whole = said.similarity
    if not said.differs:
        return [difference(said), f"Over all targets {_alike(whole)}."]
    if groups:
        one = groups[0]
        s = one.similarity
        first = (
            f"{names[0]} and {names[1]} differ most on {named(one)}: there {_alike(s)}; "
            f"over all targets it is {number(whole.estimate, whole)}."
        )
    else:
        first = f"{names[0]} and {names[1]} differ: over all targets {_alike(whole)}."
    best = [
        min(own, key=lambda one: (one.q, -one.estimate))
        for name in names
        if (own := [one for one in claimed if one.algorithm == name])
    ]
    more = (
        f"In all {len(claimed)} directions are beyond chance." if len(claimed) > len(best) else ""
    )
    return [first, *(_claim(one, names, about) for one in best), more]


def _alike(value: Estimate) -> str:
    return (
        f"the similarity of their datamodels with noise taken out is {number(value.estimate, value)} ({ends(value)}), "
        f"where 1 means the same up to a scale"
    )


def _claim(one: DirectionClaim, names: list[str], about: dict[str, str]) -> str:
    own, other = one.algorithm, names[1 - names.index(one.algorithm)]
    code = f"{'AB'[names.index(own)]}{one.component + 1}"
    energy = dict(zip(names, one.energy, strict=True))
    named = f"direction {code}" + (f", about {about[code]}," if about.get(code) else "")
    relies = "less" if energy[other] < _LESS * energy[own] else "differently"
    verb = (
        f"{own} relies on training examples that {other} relies on less"
        if relies == "less"
        else f"{own} and {other} use some training examples differently"
    )
    return (
        f"{verb}: {named} makes up {share(energy[own])} of {own}'s datamodels and {share(energy[other])} of "
        f"{other}'s, with noise taken out ({rate(one.q)})."
    )


def _unmeasured(
    comparison: xr.Dataset, names: list[str], about: dict[str, str], *, scores_only: bool
) -> list[str]:
    sentences = [_in_sample(comparison, row, names, about) for row in (0, 1)]
    cosine = float(np.nanmean(comparison["cosine"].values))
    sentences.append(f"Over all targets the mean cosine similarity is {cosine:.2f}.")
    sentences.append(
        "This is from scores alone, in sample: without the runs behind them nothing says how much of it is noise."
        if scores_only
        else "This is in sample: nothing was measured on runs, because a fit has no halves ('dmstore fit --halves') or "
        "the comparison was made by an earlier version ('dmstore compare' again)."
    )
    return sentences


def _in_sample(comparison: xr.Dataset, row: int, names: list[str], about: dict[str, str]) -> str:
    """The direction of a side with the largest gap, whatever it is worth."""
    own, other = names[row], names[1 - row]
    count = rank(comparison)[row]
    if not count:
        return f"{own} has no direction beyond rounding that {other} has less of."
    delta = comparison["delta"].values[row, :count]
    best = int(np.argmax(delta))
    if delta[best] <= 0:
        return (
            f"None of the first {count} directions of {own} explains more of {own} than of {other}."
        )
    code = f"{'AB'[row]}{best + 1}"
    named = f"direction {code}" + (f", about {about[code]}," if about.get(code) else "")
    explained = dict(zip(names, comparison["explained_variance"].values[row, best], strict=True))
    return (
        f"What {own} uses and {other} uses less, by the largest gap: {named} explains {100 * explained[own]:.2f} % "
        f"of {own}'s datamodels and {100 * explained[other]:.2f} % of {other}'s."
    )


def _effect(effect: dict[str, Any]) -> str:
    changes = " and by ".join(
        f"{row['effect']:+.1f}{effect['unit']} under {row['algorithm']}" for row in effect["rows"]
    )
    return f"{effect['name'].capitalize()} changes the {effect['what']} by {changes}."
