"""Figures of a comparison: each function draws on matplotlib axes and returns them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.pages.settings import own_settings
from dmstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    # What was drawn, and what it is called.
    Entries = list[tuple[Artist, str]]

COLORS = ("#1b7f5c", "#b8382b")
GREY = "#6b7280"
_BETWEEN = "#64748b"
# Names are no mathematics, whatever stands in them, and need no TeX.
PLAIN: Any = {"parse_math": False, "usetex": False}


def figure(width: float = 5.4, height: float = 3.9) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the style of the report, outside of pyplot's state."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "figures need matplotlib; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    made = Figure(figsize=(width, height), layout="constrained")
    axes = made.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    return made, axes


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
        entries.append((points, f"{'AB'[row]}: directions of {own} less {other}"))
        for component in np.flatnonzero(real[row])[:5]:
            axes.annotate(
                f"{'AB'[row]}{component + 1}",
                explained[row, component],
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=9,
                color=COLORS[row],
            )
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
    legend(axes, entries, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.14))
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
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
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
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
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
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
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


def legend(axes: Axes, entries: Entries, **options: Any) -> None:
    """A legend of what was drawn and what it is called; names may begin with ``_`` and hold ``$``."""
    # matplotlib leaves out labels that begin with '_', so that the texts are put in afterwards.
    made = axes.legend(
        [artist for artist, _ in entries],
        [str(place) for place in range(len(entries))],
        frameon=False,
        **options,
    )
    for text, (artist, label) in zip(made.get_texts(), entries, strict=True):
        artist.set_label(label)
        text.set(text=label, **PLAIN)


def legend_above(axes: Axes, entries: Entries, size: int) -> None:
    """A legend in two columns above the axes, where it hides nothing."""
    legend(axes, entries, fontsize=size, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)


def first_of(bars: Any) -> Artist:
    """What stands for a histogram in a legend."""
    first: Artist = bars[0]
    return first


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


def svg(draw: Callable[[], Axes]) -> str:
    """What a function draws as an SVG element, texts kept as texts, whatever the user's settings."""
    buffer = io.StringIO()
    with own_settings():
        figure: Any = draw().get_figure()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
