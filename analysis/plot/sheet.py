"""A contact sheet: examples by intensity of a transformation, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.plot.drawing import PLAIN
from dmstore.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 1.25


def contact_sheet(
    images: NDArray[np.uint8], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Draw images as a table.

    Parameters
    ----------
    images : (column, row, height, width[, channel]) uint8
    rows, columns : sequence of str
        What they are called.
    title : str

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
        msg = "a contact sheet needs matplotlib; pip install 'dmstore[analysis]'"
        raise MissingDependencyError(msg) from error
    width, height = _CELL * (len(columns) + 0.5), _CELL * (len(rows) + 0.4)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=10, **PLAIN)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, label in enumerate(rows):
        for column, head in enumerate(columns):
            one, place = images[column, row], axes[row, column]
            grey = one.ndim == 2 or one.shape[2] == 1
            # Pixels as they are: models see no smoothing either.
            place.imshow(
                one.reshape(one.shape[:2]) if grey else one,
                cmap="gray" if grey else None,
                vmin=0,
                vmax=255,
                interpolation="nearest" if max(one.shape[:2]) < 128 else "antialiased",
            )
            place.set_xticks([])
            place.set_yticks([])
            place.spines[:].set_visible(False)
            if not row:
                place.set_title(head, fontsize=8, **PLAIN)
            if not column:
                place.set_ylabel(label, fontsize=7, **PLAIN)
    return figure
