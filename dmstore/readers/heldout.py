"""Models of google-research/heldout-influence-estimation: a folder per run with ``aux_arrays.npz``.

``subsample_idx`` lists the units that a run was trained on; ``correctness_test``, ``correctness_train`` and
``correctness_removed`` say whether the label was predicted, in the order of ``index_test`` and so on. The last two
are of the training set together. Runs of one share of the training set are in one folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import lists
from dmstore.readers.assembling import FilePerRun, assemble
from dmstore.readers.source import ArraySource, Request

FORMAT = "heldout-influence"
_FILE = "aux_arrays.npz"
_TEST, _TRAIN = KEYS = ("correctness_test", "correctness_train")
_ABOUT = {
    "function": "1 where the label was predicted, else 0",
    "orientation": "larger is more confident in the label",
    "units": "correct or not",
}


def sniff(path: Path) -> bool:
    """Whether a path is a folder with ``aux_arrays.npz`` in it, or in folders one or two levels below."""
    try:
        return _files(path) != [] or next(path.glob(f"*/*/{_FILE}"), None) is not None
    except (OSError, ValueError):
        return False


def _files(path: Path) -> list[Path]:
    own = path / _FILE
    return [own] if own.is_file() else sorted(path.glob(f"*/{_FILE}"))


def open_source(path: Path, request: Request) -> ArraySource:
    """Open runs of one share of the training set; see :class:`~dmstore.readers.source.ArraySource`.

    Outputs have the keys ``correctness_test``, which is taken by default, and ``correctness_train``, of the whole
    training set, whose targets are train units.

    Raises
    ------
    InputError
        If there are several shares, both keys are asked for, or a file does not fit.
    """
    files = _files(path)
    if not files:
        shares = sorted({file.parents[1].name for file in path.glob(f"*/*/{_FILE}")})
        what = f"holds runs of the shares {', '.join(shares)}" if shares else f"has no {_FILE}"
        msg = f"{path}: {what}; name the folder of one share, with a folder per run"
        raise InputError(msg)
    request = replace(request, outputs=request.outputs or {_TEST: _TEST})
    key = next(iter(request.outputs.values()))
    if key not in KEYS or len(request.outputs) > 1:
        msg = f"{path}: outputs are {_TEST} or {_TRAIN}, one at a time, as their targets differ; say --output NAME={_TEST} or --output NAME={_TRAIN}"
        raise InputError(msg)
    files, numbers = _numbered(files)
    train, seen = _training_sets(files)
    if request.train not in (None, train):
        msg = f"{path}: has {train} train units, but the study has {request.train}"
        raise InputError(msg)
    mask = lists.masks(seen, train, left_out=False, where=f"{path}: subsample_idx")
    load: Callable[[Path], NDArray[np.bool_]] = _on_test if key == _TEST else _on_train
    first = load(files[0])
    values = FilePerRun(
        (len(files), len(first)), first.dtype, functools.partial(_row, files, load, len(first))
    )
    return assemble(
        FORMAT,
        "runs of heldout-influence-estimation",
        path,
        mask,
        {key: values},
        request,
        ids=numbers,
        about={key: _ABOUT},
        conventions={"masks": "subsample_idx: the units that a run was trained on"},
        target_train=np.arange(train) if key == _TRAIN else None,
    )


def _numbered(files: Sequence[Path]) -> tuple[list[Path], NDArray[np.int64]]:
    """Files in the order of their run ids, which are the names of their folders where these are numbers."""
    names = [file.parent.name for file in files]
    if not all(name.isdecimal() and len(name) < 18 for name in names) or len(
        {int(name) for name in names}
    ) < len(names):
        return list(files), np.arange(len(files))
    order = np.argsort([int(name) for name in names])
    return [files[place] for place in order], np.array([int(names[place]) for place in order])


def _training_sets(files: Sequence[Path]) -> tuple[int, lists.Lists]:
    """The number of train units, and what each run was trained on."""
    sizes, seen = [], []
    for file in files:
        arrays = _load(file, "subsample_idx", "index_train", "index_removed")
        units, trained, removed = (np.asarray(a) for a in arrays)
        if not np.array_equal(np.sort(units), np.sort(trained)):
            msg = f"{file}: subsample_idx and index_train name different units; the file is damaged"
            raise InputError(msg)
        sizes.append(len(trained) + len(removed))
        seen.append(units)
    if len(set(sizes)) > 1:
        odd = next(place for place, size in enumerate(sizes) if size != sizes[0])
        msg = f"{files[odd]}: is of {sizes[odd]} train units, but {files[0]} of {sizes[0]}; ingest runs of one data set at a time"
        raise InputError(msg)
    return sizes[0], lists.of_rows(seen, f"{files[0].parent.parent}: subsample_idx")


def _row(
    files: Sequence[Path], load: Callable[[Path], NDArray[np.bool_]], count: int, row: int
) -> NDArray[np.bool_]:
    values = load(files[row])
    if len(values) != count:
        msg = f"{files[row]}: has {len(values)} examples, but {files[0]} has {count}; ingest runs of one data set at a time"
        raise InputError(msg)
    return values


def _on_test(file: Path) -> NDArray[np.bool_]:
    return _ordered(file, *_load(file, _TEST, "index_test"))


def _on_train(file: Path) -> NDArray[np.bool_]:
    saw, where_saw, left, where_left = _load(
        file, _TRAIN, "index_train", "correctness_removed", "index_removed"
    )
    return _ordered(file, np.concatenate([saw, left]), np.concatenate([where_saw, where_left]))


def _ordered(file: Path, values: NDArray[Any], index: NDArray[Any]) -> NDArray[np.bool_]:
    """Values in the order of their examples, which `index` names."""
    if values.shape != index.shape or not np.array_equal(np.sort(index), np.arange(len(index))):
        msg = f"{file}: its index does not name each of {len(values)} examples once; the file is damaged"
        raise InputError(msg)
    if not np.isin(values, (0, 1)).all():
        msg = f"{file}: correctness holds other values than 0 and 1; the file is damaged"
        raise InputError(msg)
    ordered = np.empty(len(values), dtype=np.bool_)
    ordered[index] = values.astype(np.bool_)
    return ordered


def _load(file: Path, *names: str) -> list[NDArray[Any]]:
    with NpzReader(file) as reader:
        for name in names:
            header = reader.headers.get(name)
            whole = "biu" if name.startswith(("subsample", "index")) else "biuf"
            if header is None or len(header.shape) != 1 or header.dtype.kind not in whole:
                found = "missing" if header is None else f"{header.dtype} {header.shape}"
                msg = f"{file}: {name!r} is {found}, expected one number per example"
                raise InputError(msg)
        return [reader.load(name) for name in names]
