"""Figures over the number of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.plot.drawing import MORE, figure, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries


def learning_curve(curves: Mapping[str, Mapping[str, Any]], axes: Axes | None = None) -> Axes:
    """LDS over the number of runs that datamodels are fitted on, with 95 % intervals.

    Parameters
    ----------
    curves : mapping
        Name of an algorithm to numbers from :func:`dmstore.analysis.evaluation.curve_summary.summarise_curve`.
    axes : matplotlib axes, optional
    """
    axes = axes if axes is not None else figure()[1]
    entries: Entries = []
    for (name, curve), color in zip(curves.items(), MORE, strict=False):
        runs, lds, low, high, r2 = (
            _column(curve, key) for key in ("runs", "lds", "lds_low", "lds_high", "r2")
        )
        axes.fill_between(runs, low, high, color=color, alpha=0.18, linewidth=0)
        lines = axes.plot(runs, lds, color=color, marker="o", markersize=4)
        lines += axes.plot(runs, r2, color=color, linestyle="--")
        entries += zip(lines, (f"{name}: LDS", f"{name}: median R², eval runs"), strict=True)
    _runs_axis(axes, curves)
    axes.set_ylabel("agreement with eval runs")
    legend_above(axes, entries, 8)
    return axes


def sample_size(curves: Mapping[str, Mapping[str, Any]], axes: Axes | None = None) -> Axes:
    """Cosine similarity with the datamodels from most runs (Appendix F.3): mean and 5 % quantile.

    Parameters
    ----------
    curves : mapping
        As of :func:`learning_curve`.
    axes : matplotlib axes, optional
    """
    axes = axes if axes is not None else figure()[1]
    entries: Entries = []
    for (name, curve), color in zip(curves.items(), MORE, strict=False):
        runs, mean, low = (_column(curve, key) for key in ("runs", "cosine", "cosine_low"))
        lines = axes.plot(runs, mean, color=color, marker="o", markersize=4)
        lines += axes.plot(runs, low, color=color, linestyle=":")
        entries += zip(lines, (f"{name}: mean", f"{name}: 5 % of targets lie below"), strict=True)
    _runs_axis(axes, curves)
    axes.set_ylabel("cosine with datamodels from all runs")
    legend_above(axes, entries, 8)
    return axes


def explained_by_samples(
    curves: Mapping[str, Mapping[str, Any]], step: int, axes: Axes | None = None
) -> Axes:
    """Variance of datamodels from different numbers of runs along the components of one (Figure 21).

    Parameters
    ----------
    curves : mapping
        As of :func:`learning_curve`, each with ``explained``.
    step : int
        Whose principal components: 0 of the fewest runs, -1 of all.
    axes : matplotlib axes, optional
    """
    axes = axes if axes is not None else figure()[1]
    entries: Entries = []
    for (name, curve), color in zip(curves.items(), MORE, strict=False):
        steps = curve["steps"]
        for place, (shares, other) in enumerate(zip(steps[step]["explained"], steps, strict=True)):
            known = [np.nan if share is None else share for share in shares]
            lines = axes.plot(
                np.arange(1, len(known) + 1),
                known,
                color=color,
                alpha=0.3 + 0.7 * (place + 1) / len(steps),
                marker="o",
                markersize=3,
                linewidth=1.0,
            )
            entries += zip(lines, [f"{name}: {other['runs']:,} runs"], strict=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(
        "principal component of datamodels from " + ("fewest" if step == 0 else "all") + " runs"
    )
    axes.set_ylabel("share of variance explained")
    legend_above(axes, entries, 8)
    return axes


def _column(curve: Mapping[str, Any], key: str) -> NDArray[np.float64]:
    """One number a step: of a list, the last; NaN where it is not known."""
    values = (step[key] for step in curve["steps"])
    last = [value[-1] if isinstance(value, list) else value for value in values]
    return np.array([np.nan if value is None else value for value in last], dtype=float)


def _runs_axis(axes: Axes, curves: Mapping[str, Mapping[str, Any]]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    # The numbers of two algorithms lie close together; those of the first are enough.
    ticks = _column(next(iter(curves.values())), "runs")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("runs fitted on")
