"""One ``.safetensors`` file: eight bytes of header length, a JSON header, then the arrays.

The package of that name wants all arrays in memory; the format is small enough to stream.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from dmstore.core.progress import Count
from dmstore.errors import InputError
from dmstore.exporters.stream import Stream, metered

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}
# The package refuses longer headers.
_LONGEST_HEADER = 100_000_000


def write(
    path: Path,
    streams: Iterable[Stream],
    metadata: Mapping[str, object],
    progress: Count | None = None,
) -> None:
    """Write arrays as a new file.

    Parameters
    ----------
    path : path
    streams : iterable of Stream
        Texts have no dtype there: they go into the metadata, as JSON under ``texts``.
    metadata : mapping
        Texts as they are, anything else as JSON.

    Raises
    ------
    InputError
        If the texts are longer than the format allows.
    """
    streams = list(streams)
    texts = {s.name: next(s.blocks()).tolist() for s in streams if s.dtype.kind == "U"}
    # The widest first, so that every array is aligned to its items.
    numbers = sorted(
        (s for s in streams if s.dtype.kind != "U"), key=lambda s: (-s.dtype.itemsize, s.name)
    )
    dims = {stream.name: list(stream.dims) for stream in numbers}
    stated = {**metadata, "dims": dims, "texts": texts}
    header: dict[str, object] = {
        "__metadata__": {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in stated.items()
        }
    }
    offset = 0
    for stream in numbers:
        header[stream.name] = {
            "dtype": _DTYPES[stream.dtype.name],
            "shape": list(stream.shape),
            "data_offsets": [offset, offset + stream.size],
        }
        offset += stream.size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > _LONGEST_HEADER:
        msg = f"texts of {len(raw)} bytes ({', '.join(texts)}) are too long for safetensors; use --to npy"
        raise InputError(msg)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for stream in metered(numbers, progress):
            stream.write(file)
