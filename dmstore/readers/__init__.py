"""Readers of what holds runs or scores: one format a module, told apart by :func:`sniff`.

A format is a module with ``sniff(path)``, which is cheap and never raises, and ``open_source(path, request)``,
which gives a :class:`~dmstore.readers.source.Source`; where a path may hold many, ``find(path)`` lists them,
with notes of what is not taken
(``ingest --create`` calls ``open_source`` alone, which reads or refuses such a path). ``source.py`` has what most need:
``ArraySource``, ``find_outputs``, ``check_ids``; ``core/strictjson.py`` reads JSON.

Imports: study and below.
To add a format, a module, its line in ``_MODULES`` (order decides; ``npz`` stays last) and in ``--format`` of
``cli/ingest.py``; a miniature of it in ``tests/data`` and its traps in ``tests/readers``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dmstore.core.given import local_path
from dmstore.errors import InputError
from dmstore.readers.source import FAULTS, Request, Source

# In the order in which they are asked; the last takes what nothing else claims.
_MODULES = {
    "study": "dmstore.readers.study",
    "datamodels": "dmstore.readers.datamodels_store",
    "datamodels-data": "dmstore.readers.datamodels_data",
    "beton": "dmstore.readers.beton",
    "bergson": "dmstore.readers.bergson",
    "dattri": "dmstore.readers.dattri",
    "kronfluence": "dmstore.readers.kronfluence_truth",
    "lira": "dmstore.readers.lira",
    "heldout-influence": "dmstore.readers.heldout",
    "index-lists": "dmstore.readers.index_lists",
    "arrays": "dmstore.readers.arrays",
    "npz": "dmstore.readers.npz",
}
FORMATS = tuple(_MODULES)


def sniff(path: str | Path) -> str:
    """Name of the format that a path looks like; ``npz`` where nothing else claims it."""
    try:
        place = local_path(path)
    except InputError:
        # Whoever opens it says what is wrong with it.
        return "npz"
    return next(name for name in FORMATS if _module(name).sniff(place))


def open_source(path: str | Path, format: str, request: Request) -> Source:
    """Open a path as a source of runs.

    Parameters
    ----------
    path : path
    format : str
        One of :data:`FORMATS`.
    request : Request
        What is known of it, and what is wanted from it.

    Raises
    ------
    InputError
        If the format is unknown, or the path does not hold it.
    """
    module = _module(format)
    _check_named(path)
    try:
        source: Source = module.open_source(local_path(path), request)
    except FAULTS:
        if local_path(path).exists():
            raise
        msg = f"{path}: no such file or directory"
        raise InputError(msg) from None
    return source


def open_sources(path: str | Path, format: str, request: Request) -> tuple[list[Source], list[str]]:
    """Open all sources at a path: one, but of a directory of workers' files each; see :func:`open_source`.

    Returns
    -------
    sources : list of Source
        Empty if a directory has no file of the format in it.
    notes : list of str
        What of a directory is not taken.
    """
    _check_named(path)
    find: Callable[[Path], tuple[list[Path], list[str]]] = getattr(
        _module(format), "find", lambda path: ([path], [])
    )
    places, notes = find(local_path(path))
    return [open_source(place, format, request) for place in places], notes


def _check_named(path: str | Path) -> None:
    # An empty path is the working directory to pathlib, and an unset variable to a shell.
    if not str(path):
        msg = "'' is no path: name the source, or '.' for all of the working directory"
        raise InputError(msg)


def _module(format: str) -> Any:
    if format not in _MODULES:
        msg = f"format {format!r} is not known; use {', '.join(FORMATS)}"
        raise InputError(msg)
    return importlib.import_module(_MODULES[format])
