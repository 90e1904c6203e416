"""The training store of MadryLab/datamodels: one ``.npy`` file a key, and ``spec.json``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dmstore.core.progress import Count
from dmstore.exporters.source import Source
from dmstore.exporters.stream import metered, own_names, whole, write_npy

_KEYS = {"mask": "masks", "margin": "margins"}


def write(folder: Path, source: Source, progress: Count | None = None) -> None:
    """Write a store of the incumbent's layout into a new folder.

    ``masks.npy``, ``margins.npy``, any further output and per-run column under its own name, all
    runs first; ``_completed.npy``, all true; ``spec.json`` with the keys' shapes and NumPy's names
    of their dtypes; and ``dmstore.json``, which that layout has no place for: study, alpha, meaning
    of the outputs, content id, and what each file is called in a store.
    """
    folder.mkdir()
    all_streams = [*source.wide(), *source.columns()]
    streams = own_names(
        replace(stream, name=_KEYS.get(stream.name, stream.name)) for stream in all_streams
    )
    names = {new.name: old.name for new, old in zip(streams, all_streams, strict=True)}
    completed = whole("_completed", ("run",), np.ones(len(source), dtype=bool))
    for stream in metered([*streams, completed], progress):
        with (folder / f"{stream.name}.npy").open("xb") as file:
            write_npy(file, stream)
    spec = {
        "num_models": len(source),
        "schema": {
            stream.name: {"shape": list(stream.shape[1:]), "dtype": _numpy_name(stream.dtype)}
            for stream in streams
        },
    }
    about = {**source.about(), "arrays": names}
    for name, document in (("spec.json", spec), ("dmstore.json", about)):
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _numpy_name(dtype: np.dtype[Any]) -> str:
    """The attribute of numpy that the incumbent looks a dtype up by."""
    return {"b": "bool_", "U": "str_"}.get(dtype.kind, dtype.name)
