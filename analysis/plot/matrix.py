"""Figures of any number of algorithms: how alike each is with each (Figure 18)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dmstore.analysis.plot.drawing import GREY, MORE, PLAIN, figure, first_of, legend_above, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.plot.drawing import Entries

_LONGEST = 24
# Numbers stand in the cells of so many algorithms at most.
_NUMBERS = 12
# Pairs that one figure of histograms can hold.
_PAIRS = 8


def similarity_matrix(similar: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Heat map of the similarity of each algorithm with each, alike ones side by side, and the tree that says so.

    Parameters
    ----------
    similar : Dataset
        From :func:`dmstore.analysis.similarities` or :func:`dmstore.analysis.cosines`: the noise-free similarity where it is there.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes
    """
    count = similar.sizes["algorithm"]
    if axes is None:
        side = min(2.6 + 0.62 * count, 12.0)
        axes = figure(side + 0.8, side)[1]
    measured = "similarity" in similar
    order = similar["order"].values
    names = [shown(similar["algorithm"].values[k], _LONGEST) for k in order]
    value = similar["similarity" if measured else "cosine"].values[np.ix_(order, order)]
    low = float(np.nanmin(value))
    # One hue from light to dark where all are alike in sign; from 0 both ways where some are opposite.
    opposite = low < -0.05
    image = axes.imshow(
        np.clip(value, -1 if opposite else 0, 1),
        cmap="PuOr_r" if opposite else "Blues",
        vmin=-1 if opposite else 0,
        vmax=1,
    )
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    places = np.arange(count)
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(places, names, fontsize=9)
    axes.tick_params(length=0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(**PLAIN)
    if count <= _NUMBERS:
        error = similar["similarity_error"].values[np.ix_(order, order)] if measured else None
        for i, j in np.ndindex(count, count):
            known = np.isfinite(value[i, j])
            text = f"{value[i, j] + 0.0:.2f}" if known else "?"
            if error is not None and i != j and known:
                text += f"\n± {error[i, j]:.2f}" if error[i, j] >= 0.005 else "\n± <.01"
            dark = known and (value[i, j] > 0.6 or value[i, j] < -0.6)
            axes.text(
                j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )
    if count > 2:
        _tree(axes, similar["linkage"].values, count)
    made: Any = axes.get_figure()
    bar = made.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(
        "similarity without noise ± standard error" if measured else "mean cosine of datamodels",
        fontsize=9,
    )
    return axes


def _tree(axes: Axes, linkage: Any, count: int) -> None:
    """Average linkage above the columns of a heat map."""
    from scipy.cluster.hierarchy import dendrogram

    drawn = dendrogram(linkage, no_plot=True)
    top: Any = axes.inset_axes((0.0, 1.01, 1.0, 0.16), sharex=axes)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        # SciPy puts leaves at 5, 15, 25, …
        top.plot((np.asarray(x) - 5) / 10, y, color=GREY, linewidth=1.0)
    top.set_axis_off()
    top.set_ylim(bottom=0)
    axes.set_xlim(-0.5, count - 0.5)


def similarity_histograms(similar: xr.Dataset, axes: Axes | None = None) -> Axes:
    """Cosine similarity of the datamodels of each target, a line for each pair of algorithms (Figure 18).

    Parameters
    ----------
    similar : Dataset
        From :func:`dmstore.analysis.similarities` or :func:`dmstore.analysis.cosines`; of many pairs the first eight are drawn.
    axes : matplotlib axes, optional

    Returns
    -------
    matplotlib axes
    """
    axes = axes if axes is not None else figure()[1]
    names = [shown(name, _LONGEST) for name in similar["algorithm"].values]
    each = similar["cosine_of_target"].values
    pairs = list(combinations(range(len(names)), 2))[:_PAIRS]
    values = [each[i, j][np.isfinite(each[i, j])] for i, j in pairs]
    everything = np.concatenate([np.zeros(1), *values])
    bins = np.linspace(float(everything.min()), max(1.0, float(everything.max())), 41)
    entries: Entries = []
    for k, ((i, j), finite) in enumerate(zip(pairs, values, strict=True)):
        mean = f"{finite.mean() + 0.0:.2f}" if len(finite) else "none"
        style: Any = {"linestyle": ("-", "--", ":", "-.")[k % 4], "linewidth": 1.6}
        _, _, bars = axes.hist(
            finite, bins=bins.tolist(), histtype="step", color=MORE[k % len(MORE)], **style
        )
        entries.append((first_of(bars), f"{names[i]} with {names[j]}: mean {mean}"))
    axes.set_xlabel("cosine similarity of datamodels")
    axes.set_ylabel("targets")
    legend_above(axes, entries, 8, columns=1)
    return axes
