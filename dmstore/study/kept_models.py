"""Models trained on all data, kept one a file in the safetensors format, so that training them is resumed one by one."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson
from dmstore.errors import CorruptionError, InputError
from dmstore.storage.objects.objects import Objects

Model = dict[str, NDArray[Any]]
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
_NAMES = {code: name for name, code in _DTYPES.items()}
_LONGEST_HEADER = 1 << 25
_FILE = re.compile(r"[0-9]{6,12}\.safetensors", re.ASCII)


def place(algorithm: str, number: int) -> str:
    """Where a model is kept."""
    return f"algorithms/{algorithm}/full/models/{number:06d}.safetensors"


def names(objects: Objects, algorithm: str) -> dict[int, str]:
    """The kept models of an algorithm: number to the object that holds it, by number."""
    children = objects.children(f"algorithms/{algorithm}/full/models/")
    numbers = sorted(int(child.partition(".")[0]) for child in children if _FILE.fullmatch(child))
    return {number: place(algorithm, number) for number in numbers}


def write(objects: Objects, algorithm: str, number: int, seed: int, model: Model) -> bool:
    """Keep a model, whole or not at all; False if one is kept under this number.

    Raises
    ------
    InputError
        If a parameter has a dtype that the format does not know.
    """
    return objects.put_if_absent(place(algorithm, number), encode(model, {"seed": str(seed)}))


def read(objects: Objects, where: str) -> tuple[Model, int]:
    """A kept model, and its training seed.

    Raises
    ------
    CorruptionError
        If the file is damaged.
    """
    model, metadata = decode(objects.get(where), where)
    if not metadata.get("seed", "").isdecimal():
        msg = f"{where}: does not say its model's seed; restore it from a copy"
        raise CorruptionError(msg)
    return model, int(metadata["seed"])


def encode(model: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A model as the bytes of a file: the same bytes for the same content, with a digest of its parameters."""
    header: dict[str, Any] = {}
    # The widest first, so that every array is aligned to its items.
    ordered = sorted(model.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    parts, offset = [], 0
    for name, values in ordered:
        if values.dtype.name not in _DTYPES or name == "__metadata__":
            msg = f"model parameter {name!r} is {values.dtype}, which a safetensors file does not hold; keep it as float32"
            raise InputError(msg)
        raw = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _DTYPES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        parts.append(raw)
        offset += len(raw)
    data = b"".join(parts)
    header["__metadata__"] = {**metadata, "blake2b_128": _digest(data)}
    said = json.dumps(header, sort_keys=True).encode()
    said += b" " * (-len(said) % 8)
    return struct.pack("<Q", len(said)) + said + data


def decode(raw: bytes, where: str) -> tuple[Model, dict[str, str]]:
    """A model and its metadata from the bytes of a file; CorruptionError if they are not whole."""
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or not 2 <= length <= min(_LONGEST_HEADER, len(raw) - 8):
        msg = f"{where}: is no whole safetensors file; restore it from a copy"
        raise CorruptionError(msg)
    data = raw[8 + length :]
    try:
        header = strictjson.parse(raw[8 : 8 + length], _LONGEST_HEADER)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        model = {str(name): _parameter(entry, data) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{where}: its header is damaged ({type(error).__name__}); restore it from a copy"
        raise CorruptionError(msg) from None
    if metadata.get("blake2b_128", _digest(data)) != _digest(data):
        msg = f"{where}: its parameters are not those that were written; restore it from a copy"
        raise CorruptionError(msg)
    return model, metadata


def _parameter(entry: Mapping[str, Any], data: bytes) -> NDArray[Any]:
    dtype = np.dtype(_NAMES[entry["dtype"]]).newbyteorder("<")
    start, stop = entry["data_offsets"]
    if not 0 <= start <= stop <= len(data):
        msg = "out of the file"
        raise ValueError(msg)
    return np.frombuffer(data[start:stop], dtype=dtype).reshape(entry["shape"]).copy()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
