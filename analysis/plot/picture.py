"""A figure as a notebook shows it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmstore.analysis.plot.figure_file import save_figure
from dmstore.analysis.plot.panels import datamodel
from dmstore.analysis.plot.settings import own_settings

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from dmstore.analysis.explaining.explanation import Examples


class Picture:
    """A drawn figure. A notebook shows it by itself, with or without pyplot.

    Parameters
    ----------
    draw : callable
        Draws it, in dmstore's style.

    Attributes
    ----------
    axes : matplotlib axes
    """

    def __init__(self, draw: Callable[[], Axes]) -> None:
        with own_settings():
            self.axes = draw()

    @property
    def figure(self) -> Any:
        """The matplotlib figure of the axes."""
        return self.axes.get_figure()

    def save(self, path: str | Path) -> None:
        """Write it to a file that ends in ``.png``, ``.pdf`` or ``.svg``.

        Parameters
        ----------
        path : path

        Raises
        ------
        InputError
            If it cannot be a figure's.
        StorageError
            If it cannot be written.
        """
        save_figure(path, lambda: self.figure)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with own_settings():
            self.figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def of_target(weight: xr.DataArray, examples: Examples, position: int, top: int) -> Picture:
    """A target beside the train units that move it most; see :func:`dmstore.analysis.plot.datamodel`.

    Parameters
    ----------
    weight : (algorithm, train) float
    examples : Examples
    position : int
    top : int
    """
    return Picture(lambda: datamodel(weight, examples, position, top=top))
