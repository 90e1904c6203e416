"""Training stores of MadryLab/datamodels: one memory-mapped ``.npy`` a key, a row per model.

``_completed.npy`` says which rows were finished. Nothing was ever checked when they were written:
a routine that forgot a key leaves zeros in a row that is marked complete. Our own exports have this layout too,
and say their run ids and names in ``dmstore.json``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.errors import InputError
from dmstore.readers import own_export
from dmstore.readers.files import NUMBERS, FileArray, check_inside, open_npy
from dmstore.readers.source import (
    NUMBER,
    RENAME,
    ArraySource,
    Request,
    find_columns,
    find_outputs,
    positions,
)

FORMAT = "datamodels"
_COMPLETED = "_completed"
# Names that NumPy 2 no longer has.
_OLD_DTYPES = {
    "bool8": "bool",
    "float_": "float64",
    "int0": "intp",
    "uint0": "uintp",
    "string_": "bytes_",
}
_LONGEST = 64 << 20


def sniff(path: Path) -> bool:
    """Whether a path is a folder with a ``_completed.npy``."""
    try:
        return (path / f"{_COMPLETED}.npy").is_file()
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open a training store; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If masks are missing, lengths differ, or ``spec.json`` says something else.
    """
    completed = open_npy(path / f"{_COMPLETED}.npy", path)
    if len(completed.shape) != 1:
        msg = f"{completed.path}: has shape {completed.shape}, expected one value per model"
        raise InputError(msg)
    arrays = request.kept(_arrays(path, completed.shape[0]), str(path))
    export = own_export.of_folder(path)
    key = request.mask or "masks"
    if export is not None:
        renamed = not (request.outputs or request.mask)
        arrays, request = export.own(arrays, request)
        key = "mask" if renamed else key
    mask = arrays.pop(key, None)
    if mask is None or len(mask.shape) != 2:
        msg = f"{path}: no {key}.npy of shape (model, train); name the masks with --mask"
        raise InputError(msg)
    done = completed.rows(np.arange(completed.shape[0])) != 0
    rows = np.flatnonzero(done).astype(np.int64)
    wide = {name: array for name, array in arrays.items() if len(array.shape) > 1}
    declared = export.outputs if export is not None else None
    outputs, named, notes = find_outputs(wide, request, None, str(path), declared)
    flat = {n: a.rows(rows) for n, a in arrays.items() if len(a.shape) == 1}
    commands = _commands(path, rows)
    if commands is not None:
        flat.setdefault("command", commands)
    ids = flat.pop("run", None) if export is not None else None
    if "run" in flat:
        notes.append("runs are numbered by their place in the store, and run.npy is left out")
        del flat["run"]
    columns, more = find_columns(flat, str(path), stored=export is not None)
    what = "an export of dmstore" if export is not None else "training store of MadryLab/datamodels"
    return ArraySource(
        FORMAT,
        f"{what}: {len(rows)} of {len(done)} models completed, {mask.shape[1]} train units",
        path,
        mask.shape[1],
        next((named[name].shape[1] for name in named), 0),
        outputs,
        positions(rows, request) if ids is None else ids,
        rows,
        mask,
        named,
        columns,
        # What was stored was a run, also where all of it is zero.
        zero_filled=export is None,
        notes=notes + more,
        remedy=NUMBER if ids is None else RENAME,
    )


def _arrays(path: Path, models: int) -> dict[str, FileArray]:
    """All arrays of the store, or those of its ``spec.json`` where that is there."""
    described = _spec(path, models)
    if described is None:
        names = sorted(file.stem for file in path.glob("*.npy") if file.stem != _COMPLETED)
    else:
        names = list(described)
    arrays = {}
    for name in names:
        array = open_npy(path / f"{name}.npy", path, NUMBERS + "U")
        if array.dtype.kind == "U" and len(array.shape) != 1:
            msg = f"{array.path}: is text of shape {array.shape}, and only numbers and bools are taken, or text with one value per model; take it out of the store"
            raise InputError(msg)
        if array.shape[:1] != (models,):
            msg = f"{array.path}: has shape {array.shape}, but _completed.npy has {models} models"
            raise InputError(msg)
        if described is not None:
            shape, dtype = described[name]
            # A spec names text without its length.
            alike = array.stored == dtype or (
                dtype.itemsize == 0 and array.stored.kind == dtype.kind
            )
            if array.shape[1:] != shape or not alike:
                msg = f"{array.path}: is {array.stored} {array.shape[1:]} a model, but spec.json says {dtype} {shape}"
                raise InputError(msg)
        arrays[name] = array
    return arrays


def _spec(path: Path, models: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]] | None:
    """Shape and dtype of each key by ``spec.json``; None where there is none."""
    where = path / "spec.json"
    if not where.is_file():
        return None
    check_inside(where, path)
    try:
        if where.stat().st_size > _LONGEST:
            msg = f"{where}: too long for a spec; remove it"
            raise InputError(msg)
        document = strictjson.parse(where.read_bytes())
        described = {
            str(name): (tuple(int(n) for n in entry["shape"]), _dtype(entry["dtype"], where))
            for name, entry in document["schema"].items()
        }
        count = document["num_models"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        msg = f"{where}: is no spec of a training store ({type(error).__name__}: {error}); mend or remove it"
        raise InputError(" ".join(msg.split())) from None
    for name in described:
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
            msg = f"{where}: the key {name!r} is no file name; mend or remove the spec"
            raise InputError(msg)
    if count != models:
        msg = f"{where}: says {count} models, but _completed.npy has {models}; it belongs to another store"
        raise InputError(msg)
    described.pop(_COMPLETED, None)
    return described


def _dtype(name: Any, where: Path) -> np.dtype[Any]:
    """A dtype from the name that a NumPy attribute has or had."""
    text = _OLD_DTYPES.get(str(name), str(name))
    try:
        dtype: np.dtype[Any] = np.dtype(getattr(np, text))
    except (AttributeError, TypeError):
        msg = (
            f"{where}: the dtype {name!r} is not known to NumPy; write its name as in numpy.float16"
        )
        raise InputError(msg) from None
    return dtype


def _commands(path: Path, rows: NDArray[np.int64]) -> NDArray[Any] | None:
    """The last command that each model was made with, from ``cmds.txt``."""
    where = path / "cmds.txt"
    try:
        if not where.is_file() or where.stat().st_size > _LONGEST:
            return None
        check_inside(where, path)
        lines = where.read_text("utf-8", "replace").split("\n")
    except OSError:
        return None
    commands: dict[int, str] = {}
    for line in lines:
        match = re.search(r"--worker\.index[= ](\d{1,18})\b", line)
        if match:
            commands[int(match[1])] = line
    return (
        np.array([commands.get(int(row), "") for row in rows], dtype=object) if commands else None
    )
