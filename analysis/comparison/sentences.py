"""The answer of a comparison in words, for the page and the command line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmstore.analysis.comparison.answer import Answer, DirectionClaim, Estimate, GroupClaim
from dmstore.analysis.comparison.target_groups import ALL

_SHOWN = 3
_NARROW = 0.03


def interval(value: Estimate) -> str:
    """A number with its interval, in as many digits as the interval has a use for."""
    return f"{number(value.estimate, value)} (95 % interval {ends(value)})"


def ends(value: Estimate) -> str:
    """Both ends of an interval."""
    return f"{number(value.low, value)} to {number(value.high, value)}"


def number(one: float, value: Estimate) -> str:
    """A number in the digits of an interval."""
    digits = 3 if value.high - value.low < _NARROW else 2
    return f"{one + 0.0:.{digits}f}"


def rate(q: float) -> str:
    """A q-value as people write it."""
    return "q < 0.001" if q < 0.001 else f"q = {q:.3f}" if q < 0.0995 else f"q = {q:.2f}"


def share(value: float) -> str:
    """A share of datamodels in per cent; noise can make it negative, which says that it is 0, or beyond all."""
    if not value <= 1:
        return "an unknown share"
    return f"{max(100 * value, 0.0):.1f} %"


def verdict(said: Answer) -> list[str]:
    """What is to be said first, a line each."""
    lines = []
    if said.similarity:
        lines.append(
            f"  similarity without noise {interval(said.similarity)}; 1 means the same up to a scale"
        )
    else:
        lines.append("  the datamodels are too weak to be measured with these runs")
    if said.weak:
        lines.append(
            "  1 target is too weak to be measured by itself"
            if said.weak == 1
            else f"  {said.weak} targets are too weak to be measured by themselves"
        )
    lines.append(f"  {difference(said)}")
    lines += [f"    {group_text(one)}" for one in _least_alike(said)]
    return lines


def difference(said: Answer) -> str:
    """Whether they differ, and what would have been seen."""
    directions = sum(one.beyond for one in said.directions)
    # What goes for all targets is said by the similarity.
    groups = sum(one.beyond for one in said.groups if one.group != ALL)
    level = f"at a false discovery rate of {100 * said.fdr:g} %"
    if not said.differs:
        return f"No difference is beyond chance {level}. {sensitivity(said)}".rstrip()
    opposite = said.similarity is not None and said.similarity.high < 0
    if opposite and not directions:
        return "They are opposite: the similarity of their datamodels is below 0."
    counts = [
        f"{number} {what}{'s' if number > 1 else ''}"
        for number, what in ((directions, "direction"), (groups, "group of targets"))
        if number
    ]
    little = ", though hardly," if said.hardly else ""
    if not directions and not groups:
        return f"They differ{little} over all targets together, beyond chance {level}."
    counts = [text.replace("group of targetss", "groups of targets") for text in counts]
    how = (
        "They are opposite, and differ by more than the sign"
        if opposite
        else f"They differ{little.rstrip(',')}"
    )
    return f"{how}: {' and '.join(counts)} beyond chance {level}."


def sensitivity(said: Answer) -> str:
    """What these runs would have shown."""
    if not np.isfinite(said.detectable):
        return ""
    if said.detectable >= 1:
        return "These runs are too few to show any direction."
    return f"These runs would have shown a direction of {share(said.detectable)} of the datamodels, four times in five."


def named(one: GroupClaim) -> str:
    """A group of targets as a sentence has it: ``targets of class nine``, ``targets with marked = true``."""
    name, equals, value = one.group.partition("=")
    if one.group.startswith("class "):
        return f"targets of {one.group}"
    return f"targets with {name} = {value}" if equals else one.group


def group_text(one: GroupClaim) -> str:
    """How alike they are on one group."""
    return f"{named(one)}: similarity {interval(one.similarity)}, {rate(one.q)}"


def direction_text(one: DirectionClaim, names: Sequence[str]) -> str:
    """What the runs say of a direction."""
    parts = [f"{share(e)} of {name}'s" for e, name in zip(one.energy, names, strict=True)]
    beyond = "beyond chance" if one.beyond else "not beyond chance"
    if not np.isfinite(one.estimate):
        return "nothing can be told of it with these runs"
    return (
        f"{' and '.join(parts)} datamodels; difference {one.estimate:+.3f} with a standard error of {one.standard_error:.3f}, "
        f"{rate(one.q)}, {beyond}"
    )


def _least_alike(said: Answer) -> list[GroupClaim]:
    """Groups beyond chance on which they are least alike, apart from all targets."""
    beyond = [one for one in said.groups if one.beyond]
    return [one for one in beyond if one.group != ALL][:_SHOWN]
