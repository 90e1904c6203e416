"""Figures as files of their own."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmstore.analysis.plot.settings import own_settings
from dmstore.errors import InputError, StorageError
from dmstore.study.outside import outside_studies

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".pdf", ".svg")


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
    place = outside_studies(path)
    if place.suffix.lower() not in KINDS:
        msg = f"{place}: figures are written as {', '.join(KINDS)}; give the file one of these endings"
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
    place = check_figure_path(path)
    kind = place.suffix.lower()
    write_whole(place, drawn(draw, (kind,))[kind])


def drawn(draw: Callable[[], Figure], kinds: Sequence[str] = KINDS) -> dict[str, bytes]:
    """A figure with the page's settings as the content of files: ending to bytes.

    Parameters
    ----------
    draw : callable
        Called once.
    kinds : sequence of str
        Of ``.png``, ``.pdf`` and ``.svg``.
    """
    # Without the moment, the same figure is the same file.
    metadata: dict[str, Any] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    made = {}
    with own_settings():
        figure = draw()
        # Laid out once: for each kind it would be done again.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind in kinds:
            buffer = io.BytesIO()
            form = kind.removeprefix(".")
            figure.savefig(buffer, format=form, dpi=150, metadata=metadata.get(kind))
            made[kind] = buffer.getvalue()
    return made


def write_whole(place: Path, content: bytes) -> None:
    """Put a file in place of what is there, whole or not at all.

    Parameters
    ----------
    place : path
    content : bytes

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    beside = place.with_name(f".{place.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        try:
            beside.write_bytes(content)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{place}: cannot be written ({error.strerror}); choose another place"
        raise StorageError(msg) from error
