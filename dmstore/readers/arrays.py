"""Plain arrays: a mask array and outputs by name, in ``.npy`` files, zarr, safetensors or ``.npz``.

Names are taken as they are found: ``mask``, ``masks`` or ``mask_packed``; ``margin`` or ``margins``;
``val_margins``, which is TRAK's log(p / (1 - p)); ``run`` for run ids; anything else with a value a
run is a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import zarrs
from dmstore.readers.files import MemoryArray, RowArray, open_npy
from dmstore.readers.safetensors import open_safetensors
from dmstore.readers.source import (
    KEYS,
    NUMBER,
    RENAME,
    ArraySource,
    Request,
    find_columns,
    find_outputs,
    positions,
)
from dmstore.schema.group_specs import known_outputs
from dmstore.storage.table.rows import MOST_RUNS

FORMAT = "arrays"
_MASKS = ("mask", "masks", "mask_packed", "masks_packed")
_IDS = ("run", "runs", "run_id")
_LARGEST_NPZ = 1 << 30


def sniff(path: Path) -> bool:
    """Whether a path is a ``.npy`` or ``.safetensors`` file, an ``.npz`` of masks without run ids,
    a zarr group, or a folder with ``.npy`` files and no workers' files.
    """
    try:
        if path.is_dir():
            return zarrs.is_group(path) or (any(path.glob("*.npy")) and not any(path.glob("*.npz")))
        if path.suffix == ".npz":
            with NpzReader(path) as reader:
                return "run" not in reader.headers and any(n in reader.headers for n in _MASKS)
        return path.suffix in (".npy", ".safetensors") and path.is_file()
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open plain arrays; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If there are no masks, or lengths differ.
    """
    arrays, request, notes, what = _arrays(path, request)
    key = request.mask or next((name for name in _MASKS if name in arrays), _MASKS[0])
    if key not in arrays:
        msg = f"{path}: no array {key!r} (it holds {', '.join(arrays) or 'no arrays'}); name the masks with --mask"
        raise InputError(msg)
    mask = arrays.pop(key)
    packed = key.endswith("_packed")
    if len(mask.shape) != 2 or not mask.shape[0] or (packed and mask.dtype != np.uint8):
        msg = f"{path}: {key} is {mask.dtype} {mask.shape}, expected one {'uint8 ' if packed else ''}row a run"
        raise InputError(msg)
    if mask.shape[0] > MOST_RUNS:
        msg = f"{path}: {mask.shape[0]} runs are more than a table holds ({MOST_RUNS})"
        raise InputError(msg)
    train = _train(mask.shape[1], request, packed=packed, where=f"{path}: {key}")
    count = mask.shape[0]
    for name, array in list(arrays.items()):
        if array.shape[:1] != (count,):
            if name in _IDS or _wanted(name, request):
                msg = f"{path}: {name} has shape {array.shape}, but there are {count} masks"
                raise InputError(msg)
            notes.append(f"{name} has shape {array.shape}, and there are {count} runs; left out")
            del arrays[name]
    rows = np.arange(count, dtype=np.int64)
    flat = {n: a.rows(rows) for n, a in arrays.items() if len(a.shape) == 1}
    wide = {name: array for name, array in arrays.items() if len(array.shape) > 1}
    own = next((name for name in _IDS if name in flat), None)
    ids = positions(rows, request) if own is None else flat.pop(own)
    outputs, named, more = find_outputs(wide, request, None, str(path))
    columns, still = find_columns(flat, str(path))
    taken = ", ".join(f"{output.key} as {name}" for name, output in outputs.items())
    return ArraySource(
        FORMAT,
        f"{what}: {count} runs, {train} train units; {key} as mask, {taken or 'no outputs'}",
        path,
        train,
        next((array.shape[1] for array in named.values()), 0),
        outputs,
        ids,
        rows,
        mask,
        named,
        columns,
        packed=packed,
        notes=notes + more + still,
        remedy=NUMBER if own is None else RENAME,
    )


def _train(width: int, request: Request, *, packed: bool, where: str) -> int:
    if not packed:
        return width
    if request.train is None:
        msg = f"{where}: packed bits do not tell the number of train units; give --examples, or the masks as bool"
        raise InputError(msg)
    if width != -(-request.train // 8):
        msg = f"{where}: {width} bytes a row cannot be {request.train} train units"
        raise InputError(msg)
    return request.train


def _wanted(name: str, request: Request) -> bool:
    """Whether an array is one that the runs cannot do without."""
    known = {*KEYS, *known_outputs()} if not request.outputs else set()
    return name in known or name in request.outputs.values() or name == request.mask


def _arrays(path: Path, request: Request) -> tuple[dict[str, RowArray], Request, list[str], str]:
    """All arrays by name, the request with its names, notes, and what the path is."""
    if path.is_dir() and zarrs.is_group(path):
        return zarrs.open_zarr(path), request, [], "zarr group"
    if path.is_dir():
        folder, notes = _folder(path, request)
        return folder, request, notes, "folder of .npy files"
    if path.suffix == ".safetensors":
        return {**open_safetensors(path)}, request, [], "safetensors file"
    if path.suffix == ".npz":
        return {**_npz(path)}, request, [], ".npz file"
    if path.suffix == ".npy":
        return *_pair(path, request), [], "masks in a .npy file"
    msg = f"{path}: is no .npy, .npz or .safetensors file, zarr group or folder of .npy files"
    raise InputError(msg)


def _folder(path: Path, request: Request) -> tuple[dict[str, RowArray], list[str]]:
    arrays: dict[str, RowArray] = {}
    notes = []
    for file in sorted(path.glob("*.npy")):
        try:
            arrays[file.stem] = open_npy(file, path)
        except InputError as error:
            if file.stem in (*_MASKS, *_IDS) or _wanted(file.stem, request):
                raise
            notes.append(f"{error}; left out")
    return arrays, notes


def _npz(path: Path) -> Mapping[str, RowArray]:
    with NpzReader(path) as reader:
        size = sum(header.size for header in reader.headers.values())
        if size > _LARGEST_NPZ:
            msg = f"{path}: {size} bytes are too many to unpack in memory; save each array as a .npy file in a folder"
            raise InputError(msg)
        return {
            name: MemoryArray(reader.load(name))
            for name, header in reader.headers.items()
            if header.shape
        }


def _pair(path: Path, request: Request) -> tuple[dict[str, RowArray], Request]:
    """Masks in one ``.npy`` file, and each output in another that the caller names."""
    if not request.outputs:
        msg = f"{path}: is one array; say where the outputs are with --output margin=FILE.npy"
        raise InputError(msg)
    packed = path.stem.endswith("_packed")
    key: Any = "mask_packed" if packed else "mask"
    arrays: dict[str, RowArray] = {key: open_npy(path)}
    for name, file in request.outputs.items():
        arrays[name] = open_npy(Path(file))
    return arrays, replace(request, mask=key, outputs={name: name for name in request.outputs})
