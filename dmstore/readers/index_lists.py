"""Lists of train units in place of masks, one a run and of any length, as many scripts save them.

``.npz`` with ``indices`` (n,) and ``offsets`` (run + 1,), or ``indices`` (run, k); ``.json`` with a list of lists, or
an object with ``indices``; ``.pt`` with a list of tensors, or a dict with ``indices``. Outputs stand beside them, or in
files of their own. Nothing in such a file says whether the lists hold what a run saw or what was left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmstore.core import strictjson
from dmstore.core.npz import NpzReader
from dmstore.errors import InputError
from dmstore.readers import lists
from dmstore.readers.assembling import assemble, outputs_beside
from dmstore.readers.files import MemoryArray, RowArray, file_size
from dmstore.readers.lists import Lists
from dmstore.readers.source import ArraySource, Request
from dmstore.readers.torch_content import ALONE, TorchContent

FORMAT = "index-lists"
KEY, OFFSETS = "indices", "offsets"
_MASKS = ("mask", "masks", "mask_packed", "masks_packed")
# A list of a hundred subsets of 50,000 units is 40 MB of JSON; a value takes some 40 bytes of memory.
_LONGEST, _MOST_VALUES = 1 << 28, 1 << 25


def sniff(path: Path) -> bool:
    """Whether a path is an ``.npz`` file with ``indices`` and no masks, or a ``.json`` file of lists."""
    try:
        if path.suffix == ".npz":
            with NpzReader(path) as reader:
                return KEY in reader.headers and not any(n in reader.headers for n in _MASKS)
        if path.suffix == ".json" and path.is_file():
            with path.open("rb") as file:
                # No other format here is JSON, so this one says what is wrong with a file.
                return file.read(4096).lstrip()[:1] in (b"[", b"{")
        return path.suffix == ".pt" and path.is_file()
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open lists of train units; see :class:`~dmstore.readers.source.ArraySource`.

    Raises
    ------
    InputError
        If there are no lists, nothing says what they hold or how many train units there are, or an index is none.
    """
    key = request.mask or KEY
    readers = {".npz": _npz, ".json": _json, ".pt": _torch, ".pth": _torch}
    if path.suffix not in readers:
        msg = f"{path}: lists of train units are read from .npz, .json and .pt files; save them as one of these"
        raise InputError(msg)
    given, arrays = readers[path.suffix](path, key)
    if not arrays:
        arrays, request = outputs_beside(request, path)
    train = lists.needed(request, str(path))
    left_out = lists.meaning(request, str(path))
    mask = lists.masks(given, train, left_out=left_out, where=f"{path}: {key}")
    meant = lists.LEFT_OUT if left_out else lists.SEEN
    return assemble(
        FORMAT,
        "lists of train units",
        path,
        mask,
        arrays,
        request,
        conventions={"masks": f"lists of units {meant}, as given"},
    )


def _npz(path: Path, key: str) -> tuple[Lists, Mapping[str, RowArray]]:
    with NpzReader(path) as reader:
        arrays = {name: reader.load(name) for name in reader.headers}
    if key not in arrays:
        msg = f"{path}: no array {key!r} (it holds {', '.join(arrays) or 'no arrays'}); name the lists with --mask"
        raise InputError(msg)
    units = arrays.pop(key)
    offsets = arrays.pop(OFFSETS, None)
    beside = {name: MemoryArray(values) for name, values in arrays.items() if values.ndim}
    if units.ndim == 2:
        return lists.of_matrix(units, f"{path}: {key}"), beside
    if offsets is None:
        msg = f"{path}: {key} {units.shape} are lists one behind the other, and nothing says where each begins; add 'offsets' (run + 1,)"
        raise InputError(msg)
    return lists.of_flat(units, offsets, f"{path}: {key}"), beside


def _json(path: Path, key: str) -> tuple[Lists, Mapping[str, RowArray]]:
    document = read_json(path)
    beside: dict[str, Any] = {}
    if isinstance(document, dict):
        beside = {name: _array(path, name, v) for name, v in document.items() if name != key}
        document = document.get(key)
    if not isinstance(document, list) or not all(isinstance(row, list) for row in document):
        msg = f"{path}: no list of lists {key!r}; a .json file is a list with a list of train units a run, or an object with one as {key!r}"
        raise InputError(msg)
    return lists.of_rows(document, f"{path}: {key}"), beside


def read_json(path: Path) -> Any:
    """A ``.json`` file of numbers in lists.

    Raises
    ------
    InputError
        If it is none, or too long.
    """
    file_size(path)
    try:
        return strictjson.parse(path.read_bytes(), _LONGEST, _MOST_VALUES)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})"
        raise InputError(msg) from None
    except ValueError as error:
        msg = f"{path}: no JSON that can be read ({error}); save long lists as .npz with 'indices' and 'offsets'"
        raise InputError(msg) from None


def _array(path: Path, name: str, values: Any) -> RowArray:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biufU" or not array.ndim:
        msg = f"{path}: {name!r} is no array of numbers with a row per run; take it out"
        raise InputError(msg)
    return MemoryArray(array)


def _torch(path: Path, key: str) -> tuple[Lists, Mapping[str, RowArray]]:
    file = TorchContent(path)
    name = "" if "" in file.listed else key
    inside = f"{name}/" if name else ""
    beside = (
        {
            n: MemoryArray(file.load(n))
            for n, header in file.headers.items()
            if n != key and not n.startswith(inside) and header.shape
        }
        if name
        else {}
    )
    if name in file.listed and name not in file.headers:
        return lists.of_rows(file.items(name), f"{path}: {key}"), beside
    if name in file.headers or ALONE in file.headers:
        whole = name if name in file.headers else ALONE
        beside.pop(whole, None)
        return lists.of_matrix(file.load(whole), f"{path}: {key}"), beside
    msg = (
        f"{path}: no {key!r} (it holds {', '.join(file.headers)[:200]}); name the lists with --mask"
    )
    raise InputError(msg)
