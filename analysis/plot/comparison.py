"""Figures of a comparison: directions, and how alike two algorithms are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.codes import LETTERS, direction_code
from dmstore.analysis.plot.drawing import (
    COLORS,
    GREY,
    PLAIN,
    figure,
    first_of,
    legend,
    legend_above,
)
from dmstore.analysis.plot.placing import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries

_BETWEEN = "#64748b"
# Directions of either algorithm that have a label; those up to which each has a mark.
_LABELLED, _MARKED = 5, 30


def directions(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Variance that distinguishing directions explain under either algorithm (Figure 3, left)."""
    axes = axes if axes is not None else figure()[1]
    from matplotlib.ticker import LogLocator, NullLocator

    names = [str(name) for name in comparison["algorithm"].values]
    explained = comparison["explained_variance"].values * 100
    # Directions that are rounding alone are no points.
    real = comparison["residual_variance"].values > 0
    top = max(float(explained.max()) * 1.3, 1e-4)
    low = max(float(explained[explained > 0].min(initial=top)) * 0.6, top * 1e-4)
    axes.plot([low, top], [low, top], color=GREY, linewidth=0.8, linestyle="--")
    entries: Entries = []
    for row, own in enumerate(names):
        other = names[1 - row]
        points = axes.scatter(
            explained[row, real[row], 0],
            explained[row, real[row], 1],
            s=42,
            color=COLORS[row],
            alpha=0.85,
            edgecolor="white",
            linewidth=0.6,
        )
        entries.append((points, f"{LETTERS[row]}: directions of {own} less {other}"))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, top)
    axes.set_ylim(low, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(f"variance explained under {names[0]} (%)", **PLAIN)
    axes.set_ylabel(f"variance explained under {names[1]} (%)", **PLAIN)
    legend_above(axes, entries, 9, columns=1)
    labelled = [
        (row, k) for k in range(_LABELLED) for row in (0, 1) if k in np.flatnonzero(real[row])
    ]
    others = [
        (row, int(k))
        for row in (0, 1)
        for k in np.flatnonzero(real[row])
        if (row, int(k)) not in labelled
    ]
    places = np.array([explained[row, k] for row, k in (*labelled, *others)]).reshape(-1, 2)
    place_labels(
        axes,
        np.maximum(places, low),
        [direction_code(row, k) for row, k in labelled],
        [COLORS[row] for row, _ in labelled],
    )
    return axes


def explained_variance(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Variance that the directions of either algorithm's residuals explain under both, by rank (Figure 19).

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.modeldiff` or :func:`dmstore.analysis.compare`; with ``components=100`` it is the paper's figure.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes
    """
    axes = axes if axes is not None else figure()[1]
    names = [str(name) for name in comparison["algorithm"].values]
    explained = comparison["explained_variance"].values * 100
    real = comparison["residual_variance"].values > 0
    entries: Entries = []
    for row, own in enumerate(names):
        place = np.flatnonzero(real[row])
        for on, under in enumerate(names):
            style = "-" if on == row else "--"
            few = len(place) <= _MARKED
            lines = axes.plot(
                place + 1,
                explained[row, place, on],
                color=COLORS[row],
                linestyle=style,
                marker="o" if few else None,
                markersize=4,
                markerfacecolor=COLORS[row] if on == row else "white",
            )
            entries += zip(lines, [f"{LETTERS[row]}: {own}'s, under {under}"], strict=True)
    positive = explained[explained > 0]
    if len(positive) and positive.max() > 20 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("direction, by variance of the residuals")
    axes.set_ylabel("variance explained (%)")
    legend_above(axes, entries, 8)
    return axes


def similarity(comparison: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Cosine similarity of the two datamodels of each target, noise taken out where it was measured (Appendix F.1)."""
    axes = axes if axes is not None else figure()[1]
    names = [str(name) for name in comparison["algorithm"].values]
    between = comparison["similarity"] if "similarity" in comparison else comparison["cosine"]
    series = [(f"{names[0]} with {names[1]}", between.values, _BETWEEN)]
    finite = [(label, values[np.isfinite(values)], color) for label, values, color in series]
    everything = np.concatenate([values for _, values, _ in finite]) if finite else np.zeros(1)
    low = float(np.floor(everything.min(initial=1.0) * 10) / 10)
    # Noise carries similarities beyond 1 where it was taken out.
    bins = np.linspace(min(low, 0.9), max(1.0, float(everything.max(initial=1.0))), 41)
    entries: Entries = []
    for label, values, color in finite:
        mean = f"{values.mean() + 0.0:.2f}".replace("-0.00", "0.00") if len(values) else "none"
        # Only the comparison is filled: three fills on top of each other hide one another.
        filled = color == _BETWEEN
        _, _, bars = axes.hist(
            values,
            bins=bins.tolist(),
            histtype="stepfilled" if filled else "step",
            alpha=0.45 if filled else 1.0,
            color=color,
            linewidth=0 if filled else 1.6,
        )
        entries.append((first_of(bars), f"{label}: mean {mean}"))
    axes.set_xlabel("cosine similarity of datamodels")
    axes.set_ylabel("targets")
    legend(axes, entries, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return axes
