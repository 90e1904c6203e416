"""Figures of counterfactual effects: by intensity, a line per algorithm, a panel a class (Figures 4, 6, 8 and 15 to 17)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dmstore.analysis.plot.drawing import GREY, MORE, PLAIN, figure, legend
from dmstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dmstore.analysis.plot.drawing import Entries

_COLUMNS = 5


def effect(result: xr.Dataset, axes: Axes | None = None, *, label: str = "the class") -> Axes:
    """Effect of a transformation on one class over its intensities, with 95 % intervals.

    Parameters
    ----------
    result : Dataset
        ``effect``, ``effect_low`` and ``effect_high`` (algorithm, intensity).
    axes : matplotlib axes, optional
    label : str
        Of the class.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    MissingDependencyError
        If matplotlib is not there.
    """
    axes = axes if axes is not None else figure()[1]
    entries = _lines(result, axes)
    _axis_labels(result, axes, label)
    legend(axes, entries, fontsize=9, loc="upper left")
    return axes


def effect_figure(result: xr.Dataset) -> Figure:
    """Effects of a transformation: a panel a class, all with one scale.

    Parameters
    ----------
    result : Dataset
        ``effect``, ``effect_low`` and ``effect_high`` (algorithm, intensity, class).

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        If matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        msg = "figures need matplotlib; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    classes = [str(one) for one in result["class"].values]
    across = min(_COLUMNS, len(classes))
    down = -(-len(classes) // across)
    single = len(classes) == 1
    size = (5.4, 3.9) if single else (2.5 * across + 0.6, 2.2 * down + 0.9)
    made = Figure(figsize=size, layout="constrained")
    panels = made.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    entries: Entries = []
    for number, axes in enumerate(panels.ravel()):
        if number >= len(classes):
            axes.set_visible(False)
            continue
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
        entries = _lines(result.isel({"class": number}), axes)
        if single:
            _axis_labels(result, axes, classes[0])
        else:
            axes.set_title(classes[number], fontsize=9, **PLAIN)
    if not single:
        unit = _unit(result)
        made.supxlabel("intensity of the transformation", fontsize=10)
        made.supylabel(f"change of the class's {unit}", fontsize=10)
    title = str(result.attrs.get("name", ""))
    if title and single:
        panels[0, 0].set_title(title, fontsize=10, **PLAIN)
    elif title:
        made.suptitle(title, fontsize=11, **PLAIN)
    legend(panels[0, 0], entries, fontsize=9 if single else 7, loc="best")
    return made


def _lines(result: xr.Dataset, axes: Axes) -> Entries:
    scale = 1.0 if result.attrs.get("measure") == "margin" else 100.0
    x = result["intensity"].values
    entries: Entries = []
    for row, name in enumerate(result["algorithm"].values):
        color = MORE[row % len(MORE)]
        low, high = (
            np.asarray(result[key].values[row], dtype=float) * scale
            for key in ("effect_low", "effect_high")
        )
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        style: Any = {
            "marker": "o",
            "markersize": 4,
            "linestyle": "-" if row < len(MORE) else "--",
        }
        values = result["effect"].values[row] * scale
        entries += zip(axes.plot(x, values, color=color, **style), [str(name)], strict=True)
    axes.axhline(0, color=GREY, linewidth=0.8)
    return entries


def _unit(result: xr.Dataset) -> str:
    margin = result.attrs.get("measure") == "margin"
    return "margin, in its own units" if margin else "probability, points"


def _axis_labels(result: xr.Dataset, axes: Axes, label: str) -> None:
    margin = result.attrs.get("measure") == "margin"
    axes.set_xlabel("intensity of the transformation")
    axes.set_ylabel(
        f"change of the margin of {label}" if margin else f"change of P({label}), points", **PLAIN
    )
