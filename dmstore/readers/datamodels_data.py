"""Published arrays of MadryLab/datamodels-data: masks and margins of one subsampling fraction.

``train_masks_{PCT}pct.npy`` with ``test_margins_``, ``test_logits_`` and ``train_margins_`` files.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dmstore.errors import InputError
from dmstore.readers.files import open_npy
from dmstore.readers.source import ArraySource, Request, find_outputs, positions

FORMAT = "datamodels-data"
_MASKS = re.compile(r"train_masks_(\d{1,2})pct\.npy")


def sniff(path: Path) -> bool:
    """Whether a path is a folder with ``train_masks_…pct.npy``, or such a file."""
    try:
        return bool(_percents(path))
    except (OSError, ValueError):
        return False


def _percents(path: Path) -> list[int]:
    names = [file.name for file in path.iterdir()] if path.is_dir() else [path.name]
    return sorted(int(match[1]) for match in map(_MASKS.fullmatch, names) if match)


def open_source(path: Path, request: Request) -> ArraySource:
    """Open published arrays; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If there are several fractions and none is chosen, or a file is missing or does not fit.
    """
    percents = _percents(path)
    percent = request.percent if len(percents) != 1 or request.percent is not None else percents[0]
    if percent not in percents:
        several = ", ".join(map(str, percents)) or "none"
        msg = f"{path}: holds masks of {several} percent; choose one with --percent"
        raise InputError(msg)
    folder = path if path.is_dir() else path.parent
    mask = open_npy(folder / f"train_masks_{percent}pct.npy", folder)
    if len(mask.shape) != 2:
        msg = f"{mask.path}: has shape {mask.shape}, expected (model, train)"
        raise InputError(msg)
    arrays = {}
    for file in sorted(folder.glob(f"test_*_{percent}pct.npy")):
        array = open_npy(file, folder)
        if array.shape[:1] != mask.shape[:1]:
            msg = f"{file}: has shape {array.shape}, but there are {mask.shape[0]} masks; is the download whole?"
            raise InputError(msg)
        arrays[file.name.removesuffix(f"_{percent}pct.npy")] = array
    arrays = request.kept(arrays, str(path))
    outputs, kept, notes = find_outputs(arrays, request, None, str(path))
    for file in sorted(folder.glob(f"train_*_{percent}pct.npy")):
        if file != mask.path:
            notes.append(f"{file.name} is of the train units as targets; left out")
    rows = np.arange(mask.shape[0], dtype=np.int64)
    return ArraySource(
        FORMAT,
        f"published arrays of MadryLab/datamodels-data at {percent} percent: {len(rows)} models, "
        f"{mask.shape[1]} train units",
        path,
        mask.shape[1],
        next((array.shape[1] for array in kept.values()), 0),
        outputs,
        positions(rows, request),
        rows,
        mask,
        kept,
        notes=notes,
    )
