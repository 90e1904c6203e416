"""Plain arrays: a mask array and outputs by name, in ``.npy`` files, zarr, safetensors or ``.npz``.

Names are taken as they are found: ``mask``, ``masks`` or ``mask_packed``; ``margin`` or ``margins``;
``val_margins``, which is TRAK's log(p / (1 - p)); ``run`` for run ids; anything else with a value a
run is a column. Our own exports say what they hold. Packed masks come with ``mask_bitorder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import own_export, packed, zarrs
from dmstore.readers.files import TEXTS, MemoryArray, RowArray, open_npy
from dmstore.readers.own_export import Export
from dmstore.readers.safetensors import is_safetensors, open_described
from dmstore.readers.source import (
    BLOCK_BYTES,
    KEYS,
    NUMBER,
    RENAME,
    ArraySource,
    Request,
    check_ids,
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
        return (path.suffix == ".npy" and path.is_file()) or is_safetensors(path)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class _Container:
    """What a path holds.

    Attributes
    ----------
    arrays : mapping
        By their keys.
    what : str
        The path is this.
    request : Request
        With the keys of this container.
    notes : list of str
        What was left out.
    bitorder : str, optional
        Of packed masks, as the container says.
    export : Export, optional
        What an export of ours says of itself.
    """

    arrays: Mapping[str, RowArray]
    what: str
    request: Request
    notes: list[str] = field(default_factory=list)
    bitorder: str | None = None
    export: Export | None = None


def open_source(path: Path, request: Request) -> ArraySource:
    """Open plain arrays; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If there are no masks, or lengths differ.
    """
    container = _open(path, request)
    request, notes = container.request, container.notes
    arrays = request.kept(container.arrays, str(path))
    export = container.export
    if export is not None:
        arrays, request = export.own(arrays, request)
    key = request.mask or next((name for name in _MASKS if name in arrays), _MASKS[0])
    if key not in arrays:
        msg = f"{path}: no array {key!r} (it holds {', '.join(arrays) or 'no arrays'}); name the masks with --mask"
        raise InputError(msg)
    mask = arrays.pop(key)
    is_packed = key.endswith("_packed")
    if len(mask.shape) != 2 or not mask.shape[0] or (is_packed and mask.dtype != np.uint8):
        msg = f"{path}: {key} is {mask.dtype} {mask.shape}, expected one {'uint8 ' if is_packed else ''}row a run"
        raise InputError(msg)
    if mask.shape[0] > MOST_RUNS:
        msg = f"{path}: {mask.shape[0]} runs are more than a table holds ({MOST_RUNS})"
        raise InputError(msg)
    train = _train(mask.shape[1], request, packed=is_packed, where=f"{path}: {key}")
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
    declared = export.outputs if export is not None else None
    outputs, named, more = find_outputs(wide, request, None, str(path), declared)
    columns, still = find_columns(flat, str(path), stored=export is not None)
    taken = ", ".join(f"{output.key} as {name}" for name, output in outputs.items())
    order = None
    if is_packed:
        said = packed.Evidence(container.bitorder, request.bitorder).order(str(path))
        where = f"{path}: {key}"
        order = _order(mask, check_ids(ids, path), train, request, said, where)
    return ArraySource(
        FORMAT,
        f"{container.what}: {count} runs, {train} train units; {key} as mask, {taken or 'no outputs'}",
        path,
        train,
        next((array.shape[1] for array in named.values()), 0),
        outputs,
        ids,
        rows,
        mask,
        named,
        columns,
        bitorder=order,
        # What was stored was a run, also where all of it is zero.
        zero_filled=export is None,
        notes=notes + more + still,
        remedy=NUMBER if own is None else RENAME,
    )


def _order(
    mask: RowArray,
    ids: NDArray[np.int64],
    train: int,
    request: Request,
    said: str | None,
    where: str,
) -> str:
    """The bit order of packed masks, by all of their last bytes."""
    last: list[NDArray[Any]] = []
    for places in _blocks(mask):
        values = mask.rows(places)
        if said is None and not last:
            said = packed.order_of_plan(request.into, ids[0], values[0])
        last.append(values[:, -1])
    return packed.decide(np.concatenate(last), train, said, where)


def _blocks(mask: RowArray) -> Iterator[NDArray[np.int64]]:
    count, width = mask.shape
    step = max(1, BLOCK_BYTES // width)
    for start in range(0, count, step):
        yield np.arange(start, min(start + step, count), dtype=np.int64)


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


def _open(path: Path, request: Request) -> _Container:
    if path.is_dir() and zarrs.is_group(path):
        return _Container(zarrs.open_zarr(path), "zarr group", request)
    if path.is_dir():
        return _folder(path, request)
    if path.suffix == ".npz":
        return _npz(path, request)
    if path.suffix == ".npy":
        return _pair(path, request)
    if is_safetensors(path):
        return _safetensors(path, request)
    msg = f"{path}: is no .npy, .npz or .safetensors file, zarr group or folder of .npy files"
    raise InputError(msg)


def _folder(path: Path, request: Request) -> _Container:
    arrays: dict[str, RowArray] = {}
    notes: list[str] = []
    bitorder = None
    export = own_export.of_folder(path)
    for file in sorted(path.glob("*.npy")):
        if file.stem == packed.KEY:
            bitorder = str(open_npy(file, path, TEXTS).whole().item())
            continue
        try:
            arrays[file.stem] = open_npy(file, path)
        except InputError as error:
            if file.stem in (*_MASKS, *_IDS) or _wanted(file.stem, request):
                raise
            notes.append(f"{error}; left out")
    return _Container(arrays, "folder of .npy files", request, notes, bitorder, export)


def _npz(path: Path, request: Request) -> _Container:
    with NpzReader(path) as reader:
        size = sum(header.size for header in reader.headers.values())
        if size > _LARGEST_NPZ:
            msg = f"{path}: {size} bytes are too many to unpack in memory; save each array as a .npy file in a folder"
            raise InputError(msg)
        arrays = {
            name: MemoryArray(reader.load(name))
            for name, header in reader.headers.items()
            if header.shape and name != packed.KEY
        }
        return _Container(arrays, ".npz file", request, bitorder=reader.scalar(packed.KEY))


def _safetensors(path: Path, request: Request) -> _Container:
    tensors, texts = open_described(path)
    export = own_export.of_texts(texts, str(path))
    arrays: dict[str, RowArray] = {**tensors}
    if export is not None:
        # Beside the runs stand datamodels, whose first dim may be as long.
        dims, more = (_metadata(texts, key, path) for key in ("dims", "texts"))
        arrays = {n: a for n, a in arrays.items() if dims.get(n, ["run"])[0] == "run"}
        arrays |= {name: MemoryArray(np.array(values)) for name, values in more.items()}
    return _Container(
        arrays, "safetensors file", request, bitorder=texts.get(packed.KEY), export=export
    )


def _metadata(texts: Mapping[str, str], key: str, path: Path) -> dict[str, list[str]]:
    """Lists of texts that the metadata of an export of ours hold."""
    try:
        value = strictjson.parse(texts.get(key, "{}").encode())
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(
        isinstance(entry, list) and entry and all(isinstance(text, str) for text in entry)
        for entry in value.values()
    ):
        msg = f"{path}: its metadata {key!r} are no lists of texts; the file is damaged, export it again"
        raise InputError(msg)
    return value


def _pair(path: Path, request: Request) -> _Container:
    """Masks in one ``.npy`` file, and each output in another that the caller names."""
    if not request.outputs:
        msg = f"{path}: is one array; say where the outputs are with --output margin=FILE.npy"
        raise InputError(msg)
    key = "mask_packed" if path.stem.endswith("_packed") else "mask"
    arrays: dict[str, RowArray] = {key: open_npy(path)}
    for name, file in request.outputs.items():
        arrays[name] = open_npy(Path(file))
    named = replace(request, mask=key, outputs={name: name for name in request.outputs})
    return _Container(arrays, "masks in a .npy file", named)
