"""Figures inside a page: drawn by matplotlib, coloured by the page, so that they follow light and dark."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.plot import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = "#e5e7eb"
# Greys of the figures, which would vanish on a dark page.
_GREYS = (drawing.GREY, "#64748b")
# Dims of a list of points.
_POINTS = 2


def inline(draw: Callable[[], Axes]) -> tuple[str, str]:
    """What a function draws as an SVG element for a page, and its data as CSV.

    Ids are the figure's own, since a page holds several; black becomes the page's ink, white its paper.

    Parameters
    ----------
    draw : callable
        Draws and returns axes.
    """
    drawn: list[Axes] = []

    def keep() -> Axes:
        drawn.append(draw())
        return drawn[0]

    text = drawing.svg(keep)
    head, _, rest = text.partition(">")
    # The page names it and says how large it may be.
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    text = f'{head} aria-hidden="true">{rest}'
    text = re.sub(r'(?<=[ "])(fill|stroke): #ffffff', r"\1: var(--paper)", text)
    text = re.sub(r"(fill|stroke): #000000", r"\1: var(--ink)", text)
    text = text.replace(f"stroke: {_GRID}", "stroke: var(--line)")
    for color in _GREYS:
        text = text.replace(color, "var(--soft)")
    for color, name in zip(drawing.COLORS, ("--a", "--b"), strict=True):
        text = text.replace(color, f"var({name})")
    mark = f"f{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}-"
    text = re.sub(r'\bid="', f'id="{mark}', text)
    return re.sub(r'(href="#|url\(#)', rf"\1{mark}", text), _table(drawn[0])


def _table(axes: Axes) -> str:
    """Points of everything that has a name: lines, dots and outlines of histograms."""
    named: list[tuple[str, NDArray[Any]]] = []
    for line in axes.lines:
        named.append((str(line.get_label()), np.asarray(line.get_xydata())))
    for dots in axes.collections:
        if len(np.asarray(dots.get_offsets())) > 1 or not hasattr(dots, "get_paths"):
            named.append((str(dots.get_label()), np.asarray(dots.get_offsets())))
    for patch in axes.patches:
        if hasattr(patch, "get_xy") and np.ndim(patch.get_xy()) == _POINTS:
            named.append((str(patch.get_label()), np.asarray(patch.get_xy())))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["series", axes.get_xlabel() or "x", axes.get_ylabel() or "y"])
    for number, (label, points) in enumerate(named, start=1):
        # matplotlib's own names begin so.
        said = f"line {number}" if label.startswith("_child") else label
        for x, y in np.ma.filled(points, np.nan).tolist():
            writer.writerow([said, f"{x:.6g}", f"{y:.6g}"])
    return buffer.getvalue()
