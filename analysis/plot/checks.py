"""Figures of checks: contrasts of groups, the coherence of a subpopulation, Proposition 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dmstore.analysis.plot.drawing import (
    COLORS,
    GREY,
    MORE,
    PLAIN,
    figure,
    first_of,
    legend_above,
    shown,
)
from dmstore.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries

_ROWS = 24


def contrast(result: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Effect of one more train unit of a group on a group of targets, under each algorithm, with 95 % intervals.

    Parameters
    ----------
    result : Dataset
        From :func:`dmstore.analysis.contrast`; of many pairs of groups those with the smallest p.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes
    """
    of = [str(one) for one in result["of"].values]
    p = result["p"].values.min(axis=0)
    pairs = sorted(np.ndindex(*p.shape), key=lambda pair: p[pair] if np.isfinite(p[pair]) else 2.0)
    chosen = sorted(pairs[:_ROWS])
    count = len(chosen)
    axes = axes if axes is not None else figure(6.2, 1.5 + 0.42 * max(count, 2))[1]
    axes.set_ylim(max(count, 1) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    entries: Entries = []
    for k, name in enumerate(of):
        color = (*COLORS, "#111827")[k] if len(of) == 3 else MORE[k % len(MORE)]
        shift = 0.2 * (k - (len(of) - 1) / 2)
        for place, pair in enumerate(chosen):
            value, low, high = (
                float(result[key].values[k][pair]) for key in ("effect", "low", "high")
            )
            beyond = bool(result["beyond_chance"].values[k][pair])
            drawn = axes.errorbar(
                value,
                place + shift,
                xerr=[[value - low], [high - value]],
                color=color,
                marker="s" if " - " in name and len(of) == 3 and k == 2 else "o",
                markersize=4.5,
                markerfacecolor=color if beyond else "white",
                linewidth=1.3,
                linestyle="none",
            )
            if place == 0:
                entries.append((drawn.lines[0], name))
    axes.axvline(0, color=GREY, linewidth=0.8)
    train, target = (result[key].values for key in ("train_group", "target_group"))
    names = [f"{shown(train[i], 28)} on {shown(target[j], 28)}" for i, j in chosen]
    axes.set_yticks(np.arange(count), names, fontsize=8.5)
    for text in axes.get_yticklabels():
        text.set(**PLAIN)
    unit = result.attrs.get("units")
    said = str(result.attrs.get("output", "output")) + (f", {unit}" if unit else "")
    axes.set_xlabel(
        f"change of the mean output ({shown(said)}) by one more train unit",
        fontsize=9,
        loc="right",
        **PLAIN,
    )
    legend_above(axes, entries, 9, columns=3)
    return axes


def coherence(result: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Mean cosine between the residual datamodels of a subpopulation, beside random sets of the same classes.

    Parameters
    ----------
    result : Dataset
        From :func:`dmstore.analysis.coherence`.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes
    """
    axes = axes if axes is not None else figure()[1]
    null, value, p = result["null"].values, float(result["coherence"]), float(result["p"])
    edges = np.histogram_bin_edges(null, bins=30)
    _, _, bars = axes.hist(null, bins=edges.tolist(), color=GREY, alpha=0.5)
    line = axes.axvline(value, color=COLORS[0], linewidth=2)
    matched = " of the same classes" if result.attrs.get("matched", 1) else ""
    entries: Entries = [
        (
            line,
            f"the subpopulation: {value:.3f}, p {'<' if p <= 0.001 else '='} {max(p, 0.001):.3f}",
        ),
        (first_of(bars), f"{len(null)} random sets{matched}"),
    ]
    axes.set_xlabel("mean cosine between residual datamodels")
    axes.set_ylabel("random sets")
    legend_above(axes, entries, 9, columns=1)
    return axes


def proposition(
    result: xr.Dataset, axes: Axes | None = None, *, direction: str | None = None
) -> Axes:
    """How far outputs move along a direction, measured by weighting runs, over what datamodels say (Proposition 1).

    Parameters
    ----------
    result : Dataset
        From :func:`dmstore.analysis.proposition`.
    axes : matplotlib axes, optional
    direction : str, optional
        ``A1``, ``B2``, …; the first by default.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If it was not checked along this direction.
    """
    known = [str(one) for one in result["direction"].values]
    left = list(result.attrs.get("left_out", []))
    code = next((one for one in known if one not in left), known[0])
    code = code if direction is None else direction
    if code in left:
        msg = (
            f"direction {code}: one unit weighs too much for it to be weighted along; draw another"
        )
        raise InputError(msg)
    if code not in known:
        msg = f"direction {code!r:.40}: checked were {', '.join(known)}"
        raise InputError(msg)
    axes = axes if axes is not None else figure()[1]
    place = known.index(code)
    entries: Entries = []
    reach = 0.0
    for on, name in enumerate(result["on"].values):
        x, y = (result[key].values[place, on] for key in ("predicted", "shift"))
        points = axes.scatter(x, y, s=10, color=COLORS[on], alpha=0.6, linewidth=0)
        slope = float(result["slope"].values[place, on])
        text = f"slope {slope:.2f}" if np.isfinite(slope) else "nothing predicted"
        entries.append((points, f"{name}: {text}"))
        reach = max(reach, float(np.abs(x).max(initial=0)), float(np.abs(y).max(initial=0)))
    reach = 1.05 * reach or 1.0
    axes.plot([-reach, reach], [-reach, reach], color=GREY, linewidth=0.8, linestyle="--")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel(f"shift along {code} that datamodels say")
    axes.set_ylabel("shift of weighted runs")
    legend_above(axes, entries, 9)
    return axes
