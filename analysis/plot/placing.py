"""Where labels of points stand, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.plot.drawing import PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Distances from a point that are tried, in points, and in so many directions.
_RADII = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0, 64.0)
_WAYS = 16
# Beyond this distance a line says which point a label is of.
_LINE = 11.0
# Pixels between labels, and a marker's half width, in points.
_GAP, _MARKER = 1.0, 3.5


def place_labels(
    axes: Axes,
    points: NDArray[np.float64],
    labels: Sequence[str],
    colors: Sequence[str],
    *,
    size: float = 9,
) -> int:
    """Write labels beside points, each where it covers no other label and as few points as may be.

    Call it last: limits and scales of the axes decide where points are. A label for which there is no room is left out.

    Parameters
    ----------
    axes : matplotlib axes
    points : (point, 2) float
        In data coordinates; those without a label, after those with one, are kept free too.
    labels : sequence of str
        Of the first points; those that matter most first.
    colors : sequence of str
    size : float
        Of the font, in points.

    Returns
    -------
    int
        How many labels are left out.
    """
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    unit = figure.dpi / 72
    pixels = axes.transData.transform(points)
    frame = axes.get_window_extent()
    angles = np.linspace(0, 2 * np.pi, _WAYS, endpoint=False) + np.pi / 4
    taken: list[tuple[float, float, float, float]] = []
    lost = 0
    for at, label, color in zip(pixels, labels, colors, strict=False):
        text = axes.annotate(
            label,
            (0, 0),
            xycoords="figure pixels",
            fontsize=size,
            color=color,
            ha="center",
            va="center",
            annotation_clip=False,
            **PLAIN,
        )
        text.set_in_layout(False)
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2
        best: tuple[float, NDArray[np.float64], float] | None = None
        for radius in _RADII:
            for angle in angles:
                way = np.array([np.cos(angle), np.sin(angle)])
                middle = at + way * (radius * unit + half * np.abs(way))
                low, high = middle - half - _GAP, middle + half + _GAP
                inside = (low >= (frame.x0, frame.y0)).all() and (
                    high <= (frame.x1, frame.y1)
                ).all()
                if not inside or any(_overlap(low, high, other) for other in taken):
                    continue
                near = (pixels > low - _MARKER * unit) & (pixels < high + _MARKER * unit)
                cost = 40.0 * np.count_nonzero(near.all(axis=1)) + radius
                if best is None or cost < best[0]:
                    best = cost, middle, radius
            if best is not None and best[0] <= radius:
                break
        if best is None:
            text.remove()
            lost += 1
            continue
        _, middle, radius = best
        # Held to the point, so that a figure of another resolution has it at the same place.
        text.xy = tuple(axes.transData.inverted().transform(at))
        text.xycoords = "data"
        text.xyann = tuple((middle - at) / unit)
        text.anncoords = "offset points"
        if radius > _LINE:
            _line(axes, text, color)
        low, high = middle - half - _GAP, middle + half + _GAP
        taken.append((low[0], low[1], high[0], high[1]))
    return lost


def _line(axes: Axes, text: Any, color: str) -> None:
    """A thin line from a label to its point."""
    axes.annotate(
        "",
        text.xy,
        xytext=text.xyann,
        textcoords="offset points",
        arrowprops={
            "arrowstyle": "-",
            "color": color,
            "linewidth": 0.6,
            "alpha": 0.6,
            "shrinkA": 6,
            "shrinkB": 3,
        },
    ).set_in_layout(False)


def _overlap(
    low: NDArray[np.float64], high: NDArray[np.float64], other: tuple[float, float, float, float]
) -> bool:
    return bool(
        low[0] < other[2] and high[0] > other[0] and low[1] < other[3] and high[1] > other[1]
    )
