"""Figures of what a comparison claims: directions, groups and targets with their intervals, and what it could have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.answer import answer
from dmstore.analysis.comparison.codes import LETTERS, direction_code
from dmstore.analysis.comparison.sentences import named, share
from dmstore.analysis.comparison.target_groups import ALL
from dmstore.analysis.plot.drawing import COLORS, GREY, PLAIN, figure, legend_above, shown
from dmstore.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries

_NORMAL = 1.959964
_ROW = 0.3
# Directions of either algorithm, groups, targets at either end that one figure holds.
_DIRECTIONS, _GROUPS = 10, 24


def _measured(comparison: xr.Dataset) -> None:
    if "q" not in comparison:
        msg = "this comparison was not measured on runs (of score files, or of fits without halves), so it has no intervals; fit again and compare again"
        raise InputError(msg)


def _rows(count: int, axes: Axes | None, width: float = 5.8, edge: float = 0.04) -> Axes:
    axes = axes if axes is not None else figure(width, 1.5 + _ROW * max(count, 2), edge)[1]
    axes.set_ylim(max(count, 1) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes


def _named_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names, fontsize=8.5)
    for text in axes.get_yticklabels():
        text.set(**PLAIN)


def direction_intervals(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """How far the datamodels of both algorithms lie along each direction, with 95 % intervals; those that are claimed are filled.

    Measured on runs that did not find the direction. The share of datamodels along it, under either algorithm, stands beside it.

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.compare`, or one that was kept.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If it was not measured on runs.
    """
    _measured(comparison)
    names = [str(name) for name in comparison["algorithm"].values]
    said = [one for one in answer(comparison).directions if one.component < _DIRECTIONS]
    # Texts are up to a tenth wider in other resolutions than the one that is laid out, and in browsers.
    axes = _rows(len(said), axes, 6.6, 0.16)
    value, error = comparison["effect"].values, comparison["effect_error"].values
    entries: Entries = []
    labels = []
    for place, one in enumerate(said):
        row = names.index(one.algorithm)
        labels.append(direction_code(row, one.component))
        if not np.isfinite(one.estimate):
            axes.text(0, place, "nothing can be told", fontsize=8, color=GREY, va="center")
            continue
        for on, (color, shift) in enumerate(zip(COLORS, (-0.14, 0.14), strict=True)):
            x, half = value[row, one.component, on], _NORMAL * error[row, one.component, on]
            drawn = axes.errorbar(
                x,
                place + shift,
                xerr=half,
                color=color,
                marker="o",
                markersize=4.5,
                markerfacecolor=color if one.beyond else "white",
                linewidth=1.4,
                linestyle="none",
            )
            if len(entries) == on:
                entries.append((drawn.lines[0], f"under {names[on]}"))
        text = " and ".join(share(energy) for energy in one.energy)
        axes.annotate(
            text,
            (1.01, place),
            xycoords=("axes fraction", "data"),
            fontsize=7.5,
            color="black" if one.beyond else GREY,
            va="center",
            annotation_clip=False,
        )
    axes.axvline(0, color=GREY, linewidth=0.8)
    _named_rows(axes, labels)
    axes.set_xlabel(
        "mean coordinate of unit datamodels along the direction", fontsize=9, loc="right"
    )
    axes.annotate(
        "shares of\ndatamodels",
        (1.01, 1.0),
        xycoords="axes fraction",
        fontsize=7.5,
        color=GREY,
        va="bottom",
        annotation_clip=False,
    )
    legend_above(axes, entries, 9)
    return axes


def groups(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Where two algorithms differ: noise-free similarity on each group of targets, with 95 % intervals, the least alike first.

    Parameters
    ----------
    comparison : Dataset
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If it was not measured on runs.
    """
    _measured(comparison)
    said = [one for one in answer(comparison).groups if np.isfinite(one.similarity.estimate)]
    whole = [one for one in said if one.group == ALL]
    rest = sorted(
        (one for one in said if one not in whole), key=lambda one: one.similarity.estimate
    )
    chosen = [*whole, *rest[:_GROUPS]]
    axes = _rows(len(chosen), axes)
    entries: Entries = []
    for place, one in enumerate(chosen):
        value = one.similarity
        color = COLORS[1] if one.beyond else GREY
        drawn = axes.errorbar(
            value.estimate,
            place,
            xerr=[[value.estimate - value.low], [value.high - value.estimate]],
            color=color,
            marker="o",
            markersize=5,
            markerfacecolor=color if one.beyond else "white",
            linewidth=1.4,
            linestyle="none",
        )
        text = "less alike than chance makes them" if one.beyond else "not beyond chance"
        if text not in [label for _, label in entries]:
            entries.append((drawn.lines[0], text))
    axes.axvline(1, color=GREY, linewidth=0.8, linestyle="--")
    _named_rows(axes, [f"{shown(named(one), 44)} ({one.targets})" for one in chosen])
    axes.set_xlabel(
        "similarity without noise; 1 means the same up to a scale", fontsize=9, loc="right"
    )
    legend_above(axes, entries, 8)
    return axes


def unlike_targets(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """All targets by noise-free similarity, the least alike first, with their 95 % intervals.

    Parameters
    ----------
    comparison : Dataset
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If it was not measured on runs, or no target is strong enough to be measured.
    """
    _measured(comparison)
    value, error = comparison["similarity"].values, comparison["similarity_error"].values
    known = np.flatnonzero(np.isfinite(value))
    if not len(known):
        msg = (
            "no target's datamodels are strong enough to be measured by themselves; train more runs"
        )
        raise InputError(msg)
    order = known[np.argsort(value[known], kind="stable")]
    axes = axes if axes is not None else figure()[1]
    place = np.arange(1, len(order) + 1)
    low, high = (value[order] + sign * _NORMAL * error[order] for sign in (-1, 1))
    entries: Entries = [
        (
            axes.fill_between(place, low, high, color=COLORS[0], alpha=0.2, linewidth=0),
            "95 % interval of each",
        ),
        (axes.plot(place, value[order], color=COLORS[0])[0], "similarity without noise"),
    ]
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle="--")
    # A few wide intervals would leave no room for the others.
    floor = min(float(value[order[0]]), float(np.quantile(low, 0.05)), 0.9)
    axes.set_ylim(max(floor - 0.03, -1.2), max(1.05, min(float(np.quantile(high, 0.98)), 1.5)))
    left = len(value) - len(known)
    weak = f"; {left} more are too weak or left out" if left else ""
    axes.set_xlabel(f"{len(known)} targets, the least alike first{weak}")
    axes.set_ylabel("similarity")
    legend_above(axes, entries, 9)
    return axes


def power(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """What these runs could have shown: share of datamodels along each direction, beside the least that would be claimed.

    Parameters
    ----------
    comparison : Dataset
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If it was not measured on runs.
    """
    _measured(comparison)
    names = [str(name) for name in comparison["algorithm"].values]
    said = answer(comparison)
    axes = axes if axes is not None else figure()[1]
    entries: Entries = []
    largest = 0.0
    for row, name in enumerate(names):
        some = [one for one in said.directions if one.algorithm == name]
        place = np.array([one.component + 1 for one in some], dtype=float)
        energy = np.array([max(100 * one.energy[row], 0.0) for one in some])
        claimed = np.array([one.beyond for one in some], dtype=bool)
        for which, face in ((claimed, COLORS[row]), (~claimed, "white")):
            axes.scatter(
                place[which] + 0.12 * (2 * row - 1),
                energy[which],
                s=34,
                facecolor=face,
                edgecolor=COLORS[row],
                linewidth=1.2,
                zorder=3,
            )
        largest = max(largest, float(np.max(energy[np.isfinite(energy)], initial=0.0)))
        handle = axes.scatter([], [], s=34, color=COLORS[row])
        entries.append((handle, f"{LETTERS[row]}: {name}'s, filled where claimed"))
    if np.isfinite(said.detectable) and said.detectable < 1:
        line = axes.axhline(100 * said.detectable, color=GREY, linestyle="--", linewidth=1.0)
        entries.append((line, f"{share(said.detectable)} would be found four times in five"))
        largest = max(largest, 100 * said.detectable)
    axes.set_ylim(0, 1.12 * largest if largest else 1)
    axes.set_xlabel("direction")
    axes.set_ylabel("share of datamodels (%)")
    legend_above(axes, entries, 8, columns=1)
    return axes
