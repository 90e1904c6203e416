"""Examples in rows: images where there are any, else texts, with a caption under each. One pair of axes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.plot.drawing import GREY, GRID, PLAIN, figure, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Height of a caption, of a row's title and of the space between rows, over the width of a cell.
_CAPTION, _TITLE, _SPACE = 0.2, 0.3, 0.12
_INCHES, _WIDE = 0.92, 1.9
_FONT = 6.5
# Letters of a text that are looked at, its lines in a cell, and letters to a line of a narrow and of a wide cell.
_LETTERS, _LINES, _NARROW_LINE, _WIDE_LINE = 400, 6, 14, 30


@dataclass(frozen=True)
class Cell:
    """One example.

    Attributes
    ----------
    image : (height, width[, channel]) uint8, optional
    text : str
        Shown where there is no image.
    captions : sequence of str
        Lines below it.
    color : str
        Of a frame around it; none where empty.
    """

    image: NDArray[np.uint8] | None = None
    text: str = ""
    captions: tuple[str, ...] = ()
    color: str = ""


def cells(
    examples: xr.Dataset,
    dim: str,
    positions: Sequence[int] | NDArray[np.int64],
    class_names: Sequence[str],
    *,
    weights: NDArray[np.floating] | None = None,
    colors: tuple[str, str] | None = None,
) -> list[Cell]:
    """Examples of a set as cells; positions of -1 are left out.

    Parameters
    ----------
    examples : Dataset
        With the coordinate `dim`; ``image`` and ``label`` where they are known, and texts.
    dim : str
        ``train`` or ``target``.
    positions : sequence of int
    class_names : sequence of str
    weights : (position,) float, optional
        One each of `positions`, put into the caption.
    colors : pair of str, optional
        Of frames around those of positive and of negative weight.
    """
    given = np.asarray(positions, dtype=np.int64)
    there = np.flatnonzero(given >= 0)
    chosen = given[there]
    ids = examples[dim].values[chosen]
    labels = examples["label"].values[chosen] if "label" in examples else None
    images = None
    if "image" in examples and len(chosen):
        images = examples["image"].isel({dim: chosen}).values
    texts = None if images is not None else _texts(examples, dim, chosen)
    made = []
    for k, place in enumerate(there):
        first = [] if labels is None else [_class(int(labels[k]), class_names)]
        color = ""
        if weights is not None:
            weight = float(weights[place])
            first.append(f"{weight:+.2g}")
            color = "" if colors is None else colors[0] if weight > 0 else colors[1]
        captions = ("  ".join(first),) if first else ()
        made.append(
            Cell(
                None if images is None else images[k],
                "" if texts is None else texts[k],
                (*captions, shown(ids[k], 16)),
                color,
            )
        )
    return made


def _class(label: int, class_names: Sequence[str]) -> str:
    named = 0 <= label < len(class_names)
    return shown(class_names[label], 14) if named else f"class {label}"


def _texts(examples: xr.Dataset, dim: str, chosen: NDArray[np.int64]) -> list[str] | None:
    """The longest texts that examples have; None where they have none."""
    best: tuple[float, list[str]] | None = None
    for name, array in examples.data_vars.items():
        if array.dims == (dim,) and array.dtype.kind in "UTO" and name != "label":
            texts = [str(one)[:_LETTERS] for one in array.isel({dim: chosen}).values]
            length = float(np.mean([len(one) for one in texts])) if texts else 0.0
            if best is None or length > best[0]:
                best = length, texts
    return best[1] if best else None


def mosaic(
    rows: Sequence[tuple[str, str, Sequence[Cell]]], axes: Axes | None = None, title: str = ""
) -> Axes:
    """Rows of examples, each with a title above it.

    Parameters
    ----------
    rows : sequence of (title, color, cells)
    axes : matplotlib axes, optional
    title : str

    Returns
    -------
    matplotlib axes
    """
    most = max((len(one) for _, _, one in rows), default=1) or 1
    everything = [cell for _, _, one in rows for cell in one]
    wide = bool(everything) and all(cell.image is None for cell in everything)
    width = _WIDE if wide else 1.0
    lines = max((len(cell.captions) for cell in everything), default=0)
    height = _TITLE + 1.0 + lines * _CAPTION + _SPACE
    if axes is None:
        axes = _axes(most * width * 1.06, len(rows) * height, 0.32 if title else 0.05)
    axes.set_axis_off()
    axes.set_xlim(0, most * width * 1.06)
    axes.set_ylim(len(rows) * height, 0)
    axes.set_aspect("equal")
    axes.set_anchor("W")
    if title:
        axes.set_title(title, fontsize=10, loc="left", **PLAIN)
    for number, (name, color, some) in enumerate(rows):
        top = number * height
        axes.text(
            0, top + _TITLE - 0.06, name, fontsize=8.5, color=color or "black", va="bottom", **PLAIN
        )
        if not some:
            axes.text(0, top + _TITLE + 0.5, "none", fontsize=8, color=GREY, va="center")
        for place, cell in enumerate(some):
            _draw(axes, cell, place * width * 1.06, top + _TITLE, width)
    return axes


def _axes(width: float, height: float, head: float) -> Axes:
    """Axes that fill a figure of their own but for a title; what they hold is laid out already."""
    made, axes = figure(max(width * _INCHES, 5.2), (height + head) * _INCHES)
    made.set_layout_engine("none")
    axes.set_position((0.005, 0.0, 0.99, height / (height + head)))
    return axes


def _draw(axes: Axes, cell: Cell, left: float, top: float, width: float) -> None:
    from matplotlib.patches import Rectangle

    if cell.image is not None:
        grey = cell.image.ndim == 2 or cell.image.shape[2] == 1
        high, across = cell.image.shape[:2]
        # Images keep their shape: the longer side fills the cell.
        size = np.array([across, high]) / max(across, high)
        x, y = left + (1 - size[0]) / 2, top + (1 - size[1]) / 2
        options: Any = {"cmap": "gray", "vmin": 0, "vmax": 255} if grey else {}
        axes.imshow(
            cell.image.reshape(high, across) if grey else cell.image,
            extent=(x, x + size[0], y + size[1], y),
            # Pixels as they are: models see no smoothing either, and a vector format takes them once.
            interpolation="none" if max(high, across) < 128 else "antialiased",
            aspect="equal",
            **options,
        )
    else:
        axes.add_patch(
            Rectangle((left, top), width, 1, facecolor="#f8fafc", edgecolor=GRID, lw=0.6)
        )
        text = shown(cell.text, _LETTERS) or "no image, no text"
        parts = textwrap.wrap(
            text, _WIDE_LINE if width > 1 else _NARROW_LINE, max_lines=_LINES, placeholder=" …"
        )
        axes.text(
            left + 0.05,
            top + 0.05,
            "\n".join(parts),
            fontsize=_FONT,
            va="top",
            clip_on=True,
            **PLAIN,
        )
    if cell.color:
        axes.add_patch(Rectangle((left, top), width, 1, fill=False, edgecolor=cell.color, lw=1.6))
    for line, caption in enumerate(cell.captions):
        axes.text(
            left + width / 2,
            top + 1.03 + line * _CAPTION,
            caption,
            fontsize=_FONT,
            color="black" if line == 0 else GREY,
            ha="center",
            va="top",
            **PLAIN,
        )
