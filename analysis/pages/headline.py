"""The first sentences of the page: what the comparison says, how sure that is, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.answer import Answer, DirectionClaim, GroupClaim, answer
from dmstore.analysis.comparison.codes import direction_code
from dmstore.analysis.comparison.modeldiff import likeness, rank
from dmstore.analysis.comparison.sentences import ends, named, number, share
from dmstore.analysis.comparison.target_groups import ALL

# Below these shares of the other algorithm's, a direction is one's own, or nearly.
_HARDLY, _LESS = 0.2, 0.5
_SCALE = "where 1 means that every training example matters in the same way to both"


@dataclass(frozen=True)
class Headline:
    """What stands at the top of a page, each a few sentences, empty where there is nothing to say.

    Attributes
    ----------
    answer : str
        Whether and how the two differ.
    alike : str
        How alike they are.
    sure : str
        How sure that is.
    next : str
        What to do now.
    """

    answer: str
    alike: str = ""
    sure: str = ""
    next: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(part for part in (self.answer, self.alike, self.sure, self.next) if part)


def headline(
    comparison: xr.Dataset,
    names: Sequence[str],
    about: Mapping[str, str],
    effects: Sequence[Mapping[str, Any]] = (),
    *,
    scores_only: bool = False,
    runs: Sequence[int] = (),
) -> Headline:
    """The answer in a few sentences.

    Parameters
    ----------
    comparison : Dataset
    names : sequence of str
    about : mapping
        Code of a direction, such as ``A1``, to what its targets have in common, such as ``targets of class nine``; empty or
        missing where nothing is known.
    effects : sequence of mapping
        Counterfactual checks.
    scores_only : bool
        Whether there are no runs behind the comparison.
    runs : sequence of int
        How many runs each algorithm was fitted on, where that is known.

    Returns
    -------
    Headline
    """
    said = answer(comparison)
    first = likeness(comparison)
    if not any(rank(comparison)) and not first:
        first = "No direction is longer than rounding makes it."
    if said.measured:
        made = _measured(said, names, about, effects, runs)
    elif any(rank(comparison)):
        made = _unmeasured(comparison, names, about, effects, scores_only=scores_only)
    else:
        made = Headline("")
    return replace(made, answer=" ".join(text for text in (first, made.answer) if text))


def _measured(
    said: Answer,
    names: Sequence[str],
    about: Mapping[str, str],
    effects: Sequence[Mapping[str, Any]],
    runs: Sequence[int],
) -> Headline:
    counted = (
        f" ({runs[0]:,} runs of {names[0]}, {runs[1]:,} of {names[1]})" if len(runs) == 2 else ""
    )
    if not said.similarity and not said.differs:
        return Headline(
            f"These runs are too few, or their outputs too noisy, to tell whether {names[0]} and {names[1]} differ{counted}.",
            next="Train more runs of both.",
        )
    if not said.differs:
        return Headline(
            f"There is no sign that {names[0]} and {names[1]} use the training examples differently.",
            _score(said),
            _missed(said),
            _more_runs(said),
        )
    claimed = _claimed(said, names)
    return Headline(
        " ".join(
            [_where(said, names), *(_claim(one, names, about) for one in claimed[:1])]
            + [_effect(one) for one in _telling(effects)]
        ),
        _score(said),
        f"{_counted(said)} was measured on runs that had no part in finding it{counted}. Of claims like these, at most "
        f"{_odds(said.fdr)} is expected to be false.",
        _try(claimed, names, tried=bool(effects)),
    )


def _where(said: Answer, names: Sequence[str]) -> str:
    """Whether they differ, and where most."""
    one = _least_alike(said)
    start = f"{names[0]} and {names[1]} use the training examples differently"
    if said.hardly:
        start = f"{names[0]} and {names[1]} use the training examples in nearly the same way. They differ by more than chance, but hardly"
    return f"{start}, most of all for {named(one)}." if one else f"{start}."


def _least_alike(said: Answer) -> GroupClaim | None:
    return next((one for one in said.groups if one.beyond and one.group != ALL), None)


def _score(said: Answer) -> str:
    """How alike they are, over all targets and where they are least so."""
    whole, one = said.similarity, _least_alike(said)
    if whole is None:
        return "Over all targets the datamodels are too weak to be measured with these runs."
    value = f"{number(whole.estimate, whole)} (95 % interval {ends(whole)}) over all targets"
    there = (
        f", and {number(one.similarity.estimate, one.similarity)} for {named(one)}" if one else ""
    )
    return f"On a scale {_SCALE}: {value}{there}."


def _claimed(said: Answer, names: Sequence[str]) -> list[DirectionClaim]:
    """Directions beyond chance, the surest first, of equally sure ones those that take most more of their own algorithm."""
    claimed = [one for one in said.directions if one.beyond]

    def gap(one: DirectionClaim) -> float:
        row = list(names).index(one.algorithm)
        value = max(one.energy[row], 0.0) - max(one.energy[1 - row], 0.0)
        return value if np.isfinite(value) else -1.0

    return sorted(claimed, key=lambda one: (one.q > 1e-3, -gap(one)))


def _code(one: DirectionClaim, names: Sequence[str]) -> str:
    return direction_code(list(names).index(one.algorithm), one.component)


def _claim(one: DirectionClaim, names: Sequence[str], about: Mapping[str, str]) -> str:
    own = one.algorithm
    other = names[1 - list(names).index(own)]
    code = _code(one, names)
    energy = dict(zip(names, one.energy, strict=True))
    which = f" This matters most for {about[code]}." if about.get(code) else ""
    if not all(np.isfinite(value) for value in one.energy):
        return f"They differ along a direction of the training examples (shown below as {code}).{which}"
    mine, others = max(energy[own], 0.0), max(energy[other], 0.0)
    if others < _LESS * mine:
        verb = "hardly uses" if others < _HARDLY * mine else "uses less"
        start = f"{own} relies on a set of training examples that {other} {verb}"
    else:
        start = f"{own} and {other} weigh some training examples differently"
    return (
        f"{start} (shown below as {code}): they make up {share(mine)} of what {own} learns from its training set, and "
        f"{share(others)} of what {other} learns.{which}"
    )


def _counted(said: Answer) -> str:
    """How much was found, of how much that was looked at."""
    parts = [
        f"{count} of {whole} {what}"
        for count, whole, what in (
            (sum(one.beyond for one in said.directions), len(said.directions), "directions"),
            (
                sum(one.beyond for one in said.groups if one.group != ALL),
                sum(one.group != ALL for one in said.groups),
                "groups of targets",
            ),
        )
        if count
    ]
    if not parts:
        return "That they differ"
    return f"That they differ in {' and '.join(parts)} that were looked at"


def _odds(fdr: float) -> str:
    return f"1 in {round(1 / fdr)}" if 0 < fdr <= 0.5 else f"{100 * fdr:.0f} in 100"


def _missed(said: Answer) -> str:
    """What these runs would have shown."""
    if not np.isfinite(said.detectable):
        return "Nothing is beyond chance."
    if said.detectable >= 1:
        return "These runs are too few to show any single set of training examples that one uses and the other does not."
    return (
        f"These runs would have shown, four times in five, a set of training examples that accounts for {share(said.detectable)} "
        f"of what one takes from them and for nothing with the other; a smaller one may still be there."
    )


def _more_runs(said: Answer) -> str:
    if not np.isfinite(said.detectable):
        return ""
    if said.detectable >= 1:
        return "Train more runs of both, and fit and compare again."
    return (
        "To look for a difference half as large, train about twice as many runs of both. To test a guess of your own, run "
        "'dmstore contrast', which needs far fewer."
    )


def _try(claimed: Sequence[DirectionClaim], names: Sequence[str], *, tried: bool) -> str:
    if not claimed:
        return "Look at the targets that are least alike below; more runs would show single directions."
    code = _code(claimed[0], names)
    if tried:
        return f"Look at {code} and at the checks below."
    return (
        f"Look at the examples of {code} below and name what they share; then test it: change that in the inputs with "
        f"'dmstore counterfactual', and see whether {names[0]} and {names[1]} react differently."
    )


def _unmeasured(
    comparison: xr.Dataset,
    names: Sequence[str],
    about: Mapping[str, str],
    effects: Sequence[Mapping[str, Any]],
    *,
    scores_only: bool,
) -> Headline:
    sentences = [_in_sample(comparison, row, names, about) for row in (0, 1)]
    cosine = float(np.nanmean(comparison["cosine"].values)) + 0.0
    sentences.insert(
        0, f"Over all targets the mean cosine similarity is {cosine:.2f}.".replace("-0.00", "0.00")
    )
    sentences += [_effect(one) for one in _telling(effects)]
    if scores_only:
        return Headline(
            " ".join(sentences),
            sure="This is from scores alone, in sample: without the runs behind them nothing says how much of it is noise.",
            next="Look whether the targets below and the random ones beside them differ.",
        )
    return Headline(
        " ".join(sentences),
        sure="This is in sample: nothing was measured on runs, because a fit has no halves or the comparison was made by an "
        "earlier version.",
        next="Run 'dmstore fit --halves' for both, then 'dmstore compare' again.",
    )


def _in_sample(
    comparison: xr.Dataset, row: int, names: Sequence[str], about: Mapping[str, str]
) -> str:
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
    code = direction_code(row, best)
    titled = f"direction {code}" + (f", for {about[code]}," if about.get(code) else "")
    explained = dict(zip(names, comparison["explained_variance"].values[row, best], strict=True))
    return (
        f"What {own} uses and {other} uses less, by the largest gap: {titled} explains {100 * explained[own]:.2f} % "
        f"of {own}'s datamodels and {100 * explained[other]:.2f} % of {other}'s."
    )


def _telling(effects: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The check whose intervals are furthest apart; none where all overlap: then they say nothing of a difference."""

    def apart(effect: Mapping[str, Any]) -> float:
        low, high = (np.array([row[end] for row in effect["rows"]]) for end in ("low", "high"))
        # Of one model there is no interval.
        return float(low.max() - high.min()) if np.isfinite(low).all() else 0.0

    return [one for one in sorted(effects, key=apart, reverse=True)[:1] if apart(one) > 0]


def _effect(effect: Mapping[str, Any]) -> str:
    changes = " and by ".join(
        f"{row['effect']:+.1f}{effect['unit']} under {row['algorithm']}".replace("-0.0", "0.0")
        if abs(row["effect"]) < 0.05
        else f"{row['effect']:+.1f}{effect['unit']} under {row['algorithm']}"
        for row in effect["rows"]
    )
    return f"Changing the inputs ({effect['name']}) moves the {effect['what']} by {changes}."
