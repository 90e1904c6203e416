"""Shadow models of LiRA, as the code of tensorflow/privacy's mi_lira_2021 leaves them.

A folder ``experiment-…`` a model: ``keep.npy`` (train,) bool says what it was trained on; ``logits/EPOCH.npy``
(example, shift, augmentation, class) and ``scores/EPOCH.npy`` (example, augmentation) say what it makes of the first
examples of the training set itself, so that targets are train units. A score is log(p / (1 - p)) of the label.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.errors import InputError
from dmstore.readers.assembling import FilePerRun, assemble
from dmstore.readers.files import FileArray, MemoryArray, RowArray, open_npy
from dmstore.readers.source import ArraySource, Request

FORMAT = "lira"
_KEEP, _ABOUT = "keep.npy", "hparams.json"
_DIMS = {"scores": "(example, augmentation)", "logits": "(example, shift, augmentation, class)"}
_NUMBERED = re.compile(r"experiment-(\d{1,9})_\d+")
_LOG_ODDS = {
    "function": "log(p / (1 - p)) of the label's probability p, as LiRA scores it",
    "orientation": "larger is more confident in the label",
    "units": "logit",
}
_SAID = {
    "masks": "keep.npy: the units that a model was trained on",
    "targets": "train units, also those that a model was trained on",
}


def sniff(path: Path) -> bool:
    """Whether a path is a folder of folders with ``keep.npy``."""
    try:
        return next(path.glob(f"*/{_KEEP}"), None) is not None
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open shadow models; see :class:`~dmstore.readers.source.ArraySource`.

    Outputs have the keys ``scores`` and ``logits`` where there is one augmentation, else ``scores/0``, ``scores/1``
    and so on, ``scores/mean`` over them, and ``logits/0`` and so on.

    Raises
    ------
    InputError
        If there are several augmentations and none is chosen, or files do not fit each other.
    """
    kinds = sorted({key.partition("/")[0] for key in request.outputs.values()} or {"scores"})
    if not set(kinds) <= _DIMS.keys():
        msg = f"{path}: no {next(k for k in kinds if k not in _DIMS)!r}; models of LiRA have scores and logits"
        raise InputError(msg)
    folders, notes = _complete(path, kinds)
    files = {kind: [_last(folder / kind) for folder in folders] for kind in kinds}
    keyed: dict[str, RowArray] = {}
    for kind in kinds:
        keyed |= _by_augmentation(kind, files[kind])
    if not request.outputs:
        if "scores" not in keyed:
            msg = f"{path}: its scores are under {len(keyed) - 1} augmentations of each image; choose one with --output log_odds=scores/0 (the first), or their mean with --output log_odds=scores/mean"
            raise InputError(msg)
        request = replace(request, outputs={"log_odds": "scores"})
    wanted = list(request.outputs.values())
    if strange := [key for key in wanted if key not in keyed]:
        msg = f"{path}: no {strange[0]!r}; it holds {', '.join(keyed)}"
        raise InputError(msg)
    mask = _stacked([open_npy(folder / _KEEP, folder) for folder in folders], lambda keep: keep)
    if len(mask.shape) != 2 or mask.shape[1] < keyed[wanted[0]].shape[1]:
        msg = f"{path}: keep.npy has shape {mask.shape[1:]}, but there are {keyed[wanted[0]].shape[1]} examples in the {kinds[0]}"
        raise InputError(msg)
    numbers = _numbers(folders)
    columns = {"seed": _seeds(folders), "epoch": _epochs(files[kinds[-1]])}
    return assemble(
        FORMAT,
        "shadow models of LiRA",
        path,
        mask,
        {key: keyed[key] for key in wanted}
        | {name: MemoryArray(values) for name, values in columns.items() if values is not None},
        request,
        ids=np.arange(len(folders)) if numbers is None else np.array(numbers, dtype=np.int64),
        about={key: _about(key) for key in wanted if key.startswith("scores")},
        conventions=_SAID,
        target_train=np.arange(keyed[wanted[0]].shape[1]),
        notes=notes,
    )


def _complete(path: Path, kinds: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Folders of models that have all kinds of results, in order, and a note on the others."""
    all_folders = sorted(file.parent for file in path.glob(f"*/{_KEEP}"))
    folders = [f for f in all_folders if all(any((f / kind).glob("*.npy")) for kind in kinds)]
    if not folders:
        msg = f"{path}: {len(all_folders)} models with keep.npy, and none with {' and '.join(kinds)}; run LiRA's inference.py and score.py first"
        raise InputError(msg)
    if (numbers := _numbers(folders)) is not None:
        folders = [folder for _, folder in sorted(zip(numbers, folders, strict=True))]
    left = len(all_folders) - len(folders)
    return folders, [f"{left} models have no {' and '.join(kinds)}; left out"] if left else []


def _numbers(folders: Sequence[Path]) -> list[int] | None:
    """The number of each experiment; None where they have none of their own."""
    matches = [_NUMBERED.fullmatch(folder.name) for folder in folders]
    numbers = [int(match[1]) for match in matches if match]
    return numbers if len(set(numbers)) == len(folders) else None


def _last(folder: Path) -> Path:
    """The file of the last epoch, which LiRA itself takes: names are epochs, mostly with leading zeros."""
    return max(
        folder.glob("*.npy"),
        key=lambda file: (int(file.stem) if file.stem.isdecimal() else -1, file.name),
    )


def _by_augmentation(kind: str, files: Sequence[Path]) -> dict[str, RowArray]:
    opened = [open_npy(file) for file in files]
    first = opened[0]
    dims = 2 if kind == "scores" else 4
    if len(first.shape) != dims or (kind == "logits" and first.shape[1] != 1):
        msg = f"{files[0]}: has shape {first.shape}, expected {_DIMS[kind]}{' with one shift' if dims == 4 else ''}"
        raise InputError(msg)
    count = first.shape[-1] if kind == "scores" else first.shape[-2]
    take: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        kind if count == 1 else f"{kind}/{place}": functools.partial(_take, place=place)
        for place in range(count)
    }
    if kind == "scores" and count > 1:
        take[f"{kind}/mean"] = _mean
    return {key: _stacked(opened, one) for key, one in take.items()}


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    means: NDArray[Any] = values.mean(axis=1)
    return means


def _take(values: NDArray[Any], place: int) -> NDArray[Any]:
    return values[:, place] if values.ndim == 2 else values[:, 0, place]


def _stacked(
    files: Sequence[FileArray], take: Callable[[NDArray[Any]], NDArray[Any]]
) -> FilePerRun:
    """An array of a row a file, once all files have one shape and dtype."""
    first = files[0]
    for file in files:
        if file.shape != first.shape or file.dtype != first.dtype:
            msg = f"{file.path}: is {file.dtype} {file.shape}, but {first.path} is {first.dtype} {first.shape}; ingest models of one kind at a time"
            raise InputError(msg)
    empty = take(np.empty((1, *first.shape[1:]), dtype=first.dtype))
    shape = (len(files), first.shape[0], *empty.shape[1:])
    return FilePerRun(shape, first.dtype, lambda row: take(files[row].whole()))


def _about(key: str) -> Mapping[str, str]:
    _, _, part = key.partition("/")
    if not part:
        return _LOG_ODDS
    how = "mean over augmentations" if part == "mean" else f"augmentation {part}"
    return {**_LOG_ODDS, "function": f"{_LOG_ODDS['function']}; {how}"}


def _seeds(folders: Sequence[Path]) -> NDArray[Any] | None:
    """Training seeds of ``hparams.json``; None where a model has none."""
    seeds = []
    for folder in folders:
        try:
            seed = strictjson.parse((folder / _ABOUT).read_bytes(), 1 << 20)["seed"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if type(seed) is not int or not 0 <= seed < 2**64:
            return None
        seeds.append(seed)
    return np.array(seeds, dtype=np.uint64)


def _epochs(files: Sequence[Path]) -> NDArray[Any] | None:
    if not all(re.fullmatch(r"\d{1,18}", file.stem) for file in files):
        return None
    return np.array([int(file.stem) for file in files])
