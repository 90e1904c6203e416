"""Figures as files of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmstore.analysis.plot.settings import own_settings
from dmstore.core.given import local_path
from dmstore.errors import InputError, StorageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = (".png", ".pdf", ".svg")


def check_figure_path(path: str | Path) -> Path:
    """Refuse a path that no figure can be written to, before anything is computed for it.

    Parameters
    ----------
    path : path

    Returns
    -------
    path

    Raises
    ------
    InputError
        If its suffix is none of a figure, or its folder is not there.
    """
    place = local_path(path)
    if place.suffix.lower() not in _KINDS:
        msg = f"{place}: figures are written as {', '.join(_KINDS)}; give the file one of these endings"
        raise InputError(msg)
    if not place.parent.is_dir():
        msg = f"{place}: no folder {place.parent}; make it first"
        raise InputError(msg)
    return place


def save_figure(path: str | Path, draw: Callable[[], Figure]) -> None:
    """Draw a figure with the page's settings and write it, in place of what is there.

    Parameters
    ----------
    path : path
        Ends in ``.png``, ``.pdf`` or ``.svg``.
    draw : callable

    Raises
    ------
    InputError
        If it cannot be a figure's.
    StorageError
        If it cannot be written.
    """
    place, buffer = check_figure_path(path), io.BytesIO()
    kind = place.suffix.lower().removeprefix(".")
    # Without the moment, the same figure is the same file.
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with own_settings():
        draw().savefig(buffer, format=kind, dpi=150, metadata=metadata.get(kind))
    try:
        place.write_bytes(buffer.getvalue())
    except OSError as error:
        msg = f"{place}: cannot be written ({error.strerror}); choose another place"
        raise StorageError(msg) from error
