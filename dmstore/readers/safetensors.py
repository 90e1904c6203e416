"""Arrays in a ``.safetensors`` file: eight bytes of length, a JSON header, then the bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dmstore.core import strictjson
from dmstore.core.strangers import stranger
from dmstore.errors import InputError
from dmstore.readers.files import FileArray, check_size, file_size

_DTYPES = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}
_LONGEST = 1 << 25


def is_safetensors(path: Path) -> bool:
    """Whether a file is called so, or begins like one: exports may have any name."""
    if path.suffix == ".safetensors":
        return path.is_file()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        length, brace = int.from_bytes(file.read(8), "little"), file.read(1)
    return brace == b"{" and 2 <= length <= path.stat().st_size - 8


def open_safetensors(path: Path) -> dict[str, FileArray]:
    """Open a file: every tensor's name, dtype, shape and place checked, no content read.

    Raises
    ------
    InputError
        If the header does not fit the file, or tensors overlap.
    """
    return open_described(path)[0]


def open_described(path: Path) -> tuple[dict[str, FileArray], dict[str, str]]:
    """Open a file, and what its metadata say; see :func:`open_safetensors`.

    Raises
    ------
    InputError
        If the header does not fit the file, or tensors overlap.
    """
    size = file_size(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(_LONGEST, size - 8):
            if what := stranger(path):
                msg = f"{path}: {what}"
                raise InputError(msg)
            msg = f"{path}: says that its header has {length} bytes, but the file has {size}; it is no safetensors file, or cut"
            raise InputError(msg)
        raw = file.read(length)
    try:
        header = strictjson.parse(raw, _LONGEST)
        metadata = header.pop("__metadata__", None) or {}
        texts = {str(k): text for k, text in metadata.items() if isinstance(text, str)}
        tensors = {name: _tensor(path, name, entry, 8 + length) for name, entry in header.items()}
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: its header is no safetensors header ({type(error).__name__}: {error}); the file is damaged"
        raise InputError(" ".join(msg.split())[:300]) from None
    place = 8 + length
    for start, stop, name in sorted(tensor.span for tensor in tensors.values()):
        if start != place:
            msg = f"{path}: {name!r} begins at byte {start}, expected {place}; tensors overlap or leave a gap, so the file is damaged"
            raise InputError(msg)
        place = stop
    if place != size:
        msg = f"{path}: its tensors end at byte {place}, but the file has {size}; it is cut or damaged"
        raise InputError(msg)
    return {name: tensor.array for name, tensor in tensors.items()}, texts


class _Tensor:
    """A tensor, and where it lies."""

    def __init__(self, array: FileArray, span: tuple[int, int, str]) -> None:
        self.array = array
        self.span = span


def _tensor(path: Path, name: str, entry: Any, start: int) -> _Tensor:
    kind = entry["dtype"]
    if kind not in _DTYPES:
        msg = f"{path}: {name!r} has dtype {kind!r}, which NumPy does not have; store it as F32"
        raise InputError(msg)
    shape, (low, high) = entry["shape"], entry["data_offsets"]
    numbers = [*shape, low, high]
    if any(type(number) is not int or number < 0 for number in numbers) or high < low:
        msg = f"{path}: {name!r} has shape {shape} at {low} to {high}; the file is damaged"
        raise InputError(msg)
    dtype = np.dtype(_DTYPES[kind])
    check_size(f"{path}: {name!r}", shape, dtype, high - low)
    array = FileArray(path, start + low, tuple(shape), dtype, bfloat16=kind == "BF16")
    return _Tensor(array, (start + low, start + high, name))
