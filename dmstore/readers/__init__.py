"""Readers of what holds runs or scores: one format a module, told apart by :func:`sniff`.

A format is a module with ``TITLE``, ``sniff(path)``, which is cheap and never raises, and
``open_source(path, request)``, which gives a :class:`~dmstore.readers.source.Source`.

Imports: study and below.
To add a format, a module and its line in ``_MODULES``; a miniature of it in ``tests/data`` and its traps in ``tests/readers``.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from dmstore.errors import InputError
from dmstore.readers.source import Request, Source

# In the order in which they are asked; workers' files are what is left.
_MODULES = {
    "study": "dmstore.readers.study",
    "datamodels": "dmstore.readers.datamodels_store",
    "datamodels-data": "dmstore.readers.datamodels_data",
    "beton": "dmstore.readers.beton",
    "arrays": "dmstore.readers.arrays",
}
NPZ = "npz"
FORMATS = (NPZ, *_MODULES)


def sniff(path: str | Path) -> str:
    """Name of the format that a path looks like; ``npz`` where nothing else claims it."""
    for name, module in _MODULES.items():
        if importlib.import_module(module).sniff(Path(path)):
            return name
    return NPZ


def open_source(path: str | Path, format: str, request: Request) -> Source:
    """Open a path as a source of runs.

    Raises
    ------
    InputError
        If the format is unknown, or the path does not hold it.
    """
    if format not in _MODULES:
        msg = f"format {format!r} is not known; use {', '.join(FORMATS)}"
        raise InputError(msg)
    if not Path(path).exists():
        msg = f"{path}: no such file or directory"
        raise InputError(msg)
    source: Source = importlib.import_module(_MODULES[format]).open_source(Path(path), request)
    return source
