"""What every figure is drawn with: axes in one style, legends that take any name, and pictures of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dmstore.analysis.plot.settings import own_settings
from dmstore.errors import MissingDependencyError, plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    # What was drawn, and what it is called.
    Entries = list[tuple[Artist, str]]

# A and B: blue and vermillion are told apart with every common colour blindness, and are dark enough for text on white.
COLORS = ("#0072b2", "#b84d00")
# Beyond two: shades from light to dark would hide who is who in print, so colours apart.
MORE = (*COLORS, "#00695c", "#8e4585", "#7a6000", "#4d4d4d", "#5b4bb3", "#a3324f")
GREY = "#6b7280"
GRID = "#e5e7eb"
# Names are no mathematics, whatever stands in them, and need no TeX.
PLAIN: Any = {"parse_math": False, "usetex": False}


def figure(width: float = 5.4, height: float = 3.9, edge: float = 0.04) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the style of the report, outside of pyplot's state; `edge` in inches is left at its sides."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        msg = "figures need matplotlib; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=edge))
    axes = made.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return made, axes


def shown(text: Any, most: int = 60) -> str:
    """A text as a figure may show it: one line, no control characters, not too long."""
    line = plain(" ".join(str(text).split()))
    return line if len(line) <= most else line[: most - 1] + "…"


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


def legend_above(axes: Axes, entries: Entries, size: int, columns: int = 2) -> None:
    """A legend above the axes, where it hides nothing."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    legend(axes, entries, fontsize=size, ncols=columns, **place)


def first_of(bars: Any) -> Artist:
    """What stands for a histogram in a legend."""
    first: Artist = bars[0]
    return first


def svg(draw: Callable[[], Axes]) -> str:
    """What a function draws as an SVG element, texts kept as texts, whatever the user's settings."""
    buffer = io.StringIO()
    with own_settings():
        figure: Any = draw().get_figure()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
