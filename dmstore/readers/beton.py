"""Regression data as FFCV stores it (``reg_data.beton``), read without ffcv.

A header, a table of fields, an entry a sample (numbers by value, arrays by their address), pages of
array bytes, and at the end a table of all allocations. Every address is checked against that table
and the length of the file before a byte is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.core.strangers import stranger
from dmstore.errors import InputError
from dmstore.readers.files import file_size
from dmstore.readers.source import (
    KEYS,
    ArraySource,
    Request,
    check_ids,
    find_columns,
    find_outputs,
    positions,
)
from dmstore.storage.table.rows import MOST_RUNS

FORMAT = "beton"
_VERSION = 2
_MOST_FIELDS = 64
_HEADER = np.dtype(
    [("version", "<u2"), ("fields", "<u2"), ("page", "<u4"), ("samples", "<u8"), ("table", "<u8")],
    align=True,
)
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
_ALLOCATION = np.dtype([("sample", "<u8"), ("address", "<u8"), ("size", "<u8")])
_ARRAY_ARGUMENTS = np.dtype([("shape", "<u8", 32), ("length", "<u8")])
# Types of fields: numbers by value, and arrays by their address.
_FLOAT, _INT, _ARRAY = 0, 1, 4
_ENTRY = {_FLOAT: "<f8", _INT: "<i8", _ARRAY: "<u8"}


@dataclass(frozen=True)
class _Addressed:
    """An array of which each row lies somewhere in the file."""

    path: Path
    address: NDArray[np.uint64]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers."""
        values = np.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        raw = values.reshape(len(index), -1).view(np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for row, place in zip(raw, self.address[index].tolist(), strict=True):
                if os.preadv(file.fileno(), [row.data], place) != row.nbytes:
                    msg = f"{self.path}: became shorter while it was read; start again"
                    raise InputError(msg)
        return values


def sniff(path: Path) -> bool:
    """Whether a path is a ``.beton`` file."""
    try:
        return path.suffix == ".beton" and path.is_file()
    except (OSError, ValueError):
        return False


def open_source(path: Path, request: Request) -> ArraySource:
    """Open a ``.beton`` file; see :class:`~dmstore.readers.source.ArraySource`.

    Run ids are the field ``idx``: samples stand in order of completion.

    Raises
    ------
    InputError
        If the file is cut, an address lies outside of it, or a field is missing.
    """
    arrays, numbers = _fields(path)
    fields = request.kept({**arrays, **numbers}, str(path))
    arrays = {name: array for name, array in arrays.items() if name in fields}
    numbers = {name: values for name, values in numbers.items() if name in fields}
    key = request.mask or "mask"
    mask = arrays.pop(key, None)
    if mask is None or len(mask.shape) != 2:
        held = ", ".join((*arrays, *numbers)) or "nothing else"
        msg = f"{path}: no array {key!r} of train units (it holds {held}); name it with --mask"
        raise InputError(msg)
    if not request.outputs and "targets" in arrays:
        request = replace(request, outputs=_targets(path, arrays, request))
    outputs, named, notes = find_outputs(arrays, request, None, str(path))
    rows = np.arange(len(mask.address), dtype=np.int64)
    ids = positions(rows, request)
    if "idx" in numbers:
        ids = check_ids(numbers.pop("idx"), path) + request.first_run
    columns, more = find_columns(numbers, str(path))
    taken = ", ".join(f"{output.key} as {name}" for name, output in outputs.items())
    return ArraySource(
        FORMAT,
        f"FFCV file: {len(rows)} samples, {mask.shape[1]} train units; {taken or 'no outputs'}",
        path,
        mask.shape[1],
        next((array.shape[1] for array in named.values()), 0),
        outputs,
        ids,
        rows,
        mask,
        named,
        columns,
        notes=notes + more,
    )


def _targets(path: Path, arrays: dict[str, _Addressed], request: Request) -> dict[str, str]:
    """Which output the field ``targets`` is: the one that is declared and has no field of its own name."""
    if request.into is None:
        return {"margin": "targets"}
    named = {KEYS.get(name, name) for name in arrays}
    rest = sorted(name for name in request.into.outputs if name not in named)
    if len(rest) > 1:
        msg = f"{path}: its field 'targets' may be any of {', '.join(rest)}; say which with --output NAME=targets"
        raise InputError(msg)
    return dict.fromkeys(rest, "targets")


def _fields(path: Path) -> tuple[dict[str, _Addressed], dict[str, NDArray[Any]]]:
    """Arrays and numbers of all samples, by field."""
    size = file_size(path)
    with path.open("rb", buffering=0) as file:
        header = _take(file.fileno(), path, _HEADER, 1, 0, size)[0]
        count, samples, table = (int(header[name]) for name in ("fields", "samples", "table"))
        if int(header["version"]) != _VERSION:
            if what := stranger(path):
                msg = f"{path}: {what}"
                raise InputError(msg)
            msg = f"{path}: is no FFCV file of version {_VERSION} (it says {header['version']})"
            raise InputError(msg)
        if not 1 <= count <= _MOST_FIELDS or not 1 <= samples <= MOST_RUNS:
            msg = f"{path}: says {count} fields and {samples} samples; the file is damaged"
            raise InputError(msg)
        fields = _take(file.fileno(), path, _FIELD, count, _HEADER.itemsize, size)
        start = _HEADER.itemsize + count * _FIELD.itemsize
        unknown = [int(field["type"]) for field in fields if int(field["type"]) not in _ENTRY]
        if unknown:
            msg = f"{path}: has a field of type {unknown[0]}; regression data has numbers and arrays alone"
            raise InputError(msg)
        entry = np.dtype([("", _ENTRY[int(field["type"])]) for field in fields], align=True)
        entries = _take(file.fileno(), path, entry, samples, start, size)
        stop = start + samples * entry.itemsize
        if not stop <= table <= size or (size - table) % _ALLOCATION.itemsize:
            msg = f"{path}: its table of allocations is at {table} of {size} bytes; it was cut, or never finished"
            raise InputError(msg)
        length = (size - table) // _ALLOCATION.itemsize
        allocated = _take(file.fileno(), path, _ALLOCATION, length, table, size)
    allocated = allocated[np.argsort(allocated["address"], kind="stable")]
    arrays: dict[str, _Addressed] = {}
    numbers: dict[str, NDArray[Any]] = {}
    for field, slot in zip(fields, entry.names or (), strict=True):
        name = bytes(field["name"]).rstrip(b"\0").decode("ascii", "replace")
        if name in arrays or name in numbers:
            msg = f"{path}: the field {name!r} stands there twice; the file is damaged"
            raise InputError(msg)
        if int(field["type"]) != _ARRAY:
            numbers[name] = np.ascontiguousarray(entries[slot])
            continue
        shape, dtype = _array_type(field["arguments"], path, name)
        width = dtype.itemsize * int(np.prod(shape, dtype=object))
        _check_addresses(path, name, entries[slot], width, allocated, (stop, table))
        arrays[name] = _Addressed(
            path, np.ascontiguousarray(entries[slot]), (samples, *shape), dtype
        )
    return arrays, numbers


def _take(
    descriptor: int, path: Path, dtype: np.dtype[Any], count: int, place: int, size: int
) -> NDArray[Any]:
    """`count` records at `place`, if the file reaches that far."""
    length = dtype.itemsize * count
    if place + length > size:
        msg = f"{path}: has {size} bytes, but its header speaks of {place + length}; the file is cut or damaged"
        raise InputError(msg)
    buffer = np.empty(count, dtype=dtype)
    view, done = memoryview(buffer.view(np.uint8).data), 0
    while done < length:
        got = os.preadv(descriptor, [view[done:]], place + done)
        if not got:
            msg = f"{path}: became shorter while it was read; start again"
            raise InputError(msg)
        done += got
    return buffer


def _array_type(arguments: Any, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array field from its arguments."""
    raw = bytes(arguments)
    head = np.frombuffer(raw, dtype=_ARRAY_ARGUMENTS, count=1)[0]
    shape = [int(length) for length in head["shape"]]
    while shape and not shape[-1]:
        shape.pop()
    text = raw[_ARRAY_ARGUMENTS.itemsize :][: min(int(head["length"]), len(raw))]
    try:
        ((_, kind),) = strictjson.parse(text)
        dtype = np.dtype(str(kind))
    except (ValueError, TypeError):
        msg = f"{path}: the field {name!r} does not say what it holds; the file is damaged"
        raise InputError(msg) from None
    if dtype.hasobject or dtype.kind not in "biuf" or not shape or 0 in shape:
        msg = f"{path}: the field {name!r} is {dtype} {tuple(shape)}; expected an array of numbers or bools"
        raise InputError(msg)
    return tuple(shape), dtype


def _check_addresses(
    path: Path,
    name: str,
    address: NDArray[np.uint64],
    width: int,
    allocated: NDArray[Any],
    room: tuple[int, int],
) -> None:
    """Every row must be an allocation of the right size between the entries and the table."""
    low, high = room
    if width <= high - low:
        place = np.searchsorted(allocated["address"], address)
        known = place < len(allocated)
        known[known] = allocated["address"][place[known]] == address[known]
        known[known] = allocated["size"][place[known]] == width
        # Sizes are below the file's length here, so that no sum overflows.
        known &= (address >= low) & (address <= high - width)
        if known.all():
            return
        row = int(np.flatnonzero(~known)[0])
    else:
        row = 0
    msg = f"{path}: {name!r} of sample {row} is not where the file says ({width} bytes at {int(address[row])}); the file is damaged or was never finished"
    raise InputError(msg)
