"""A dict of tensors as ``torch.save`` writes it, without torch and in bounded memory.

A zip of a pickle, which refers to tensors by number, and one member of raw bytes a tensor. The
pickle is put together by hand from the few opcodes that ``torch.load(weights_only=True)`` allows.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmstore.exporters.stream import Stream

_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage"}
# Where torch puts the bytes of a tensor, so that it can map them.
_ALIGNMENT = 64
# Bytes of a member's header before its name and further fields, and of the field for long sizes.
_HEADER, _LONG_SIZES = 30, 20
_TOP = "datamodels"


def write(path: Path, tensors: Sequence[Stream], values: Mapping[str, object]) -> None:
    """Write a new file that ``torch.load`` reads as a dict.

    Parameters
    ----------
    path : path
    tensors : sequence of Stream
        float32 or float64.
    values : mapping
        Further entries: texts, integers, floats, or mappings of these.
    """
    with path.open("xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _small(archive, "data.pkl", pickled(tensors, values))
        _small(archive, "byteorder", b"little")
        for number, tensor in enumerate(tensors):
            info = _member(f"data/{number}", tensor.size)
            # zipfile's own rule for a header with long sizes.
            longer = _LONG_SIZES if tensor.size * 1.05 > zipfile.ZIP64_LIMIT else 0
            start = file.tell() + _HEADER + len(info.filename) + longer
            padding = -(start + 4) % _ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            with archive.open(info, "w") as member:
                tensor.write(member)
        _small(archive, "version", b"3\n")


def _member(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{_TOP}/{name}", (1980, 1, 1, 0, 0, 0))
    info.file_size = size
    return info


def _small(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(_member(name, len(content)), content)


def pickled(tensors: Sequence[Stream], values: Mapping[str, object]) -> bytes:
    """The pickle of the dict, protocol 2."""
    entries = [
        _text(tensor.name) + _tensor(number, tensor) for number, tensor in enumerate(tensors)
    ]
    entries += [_text(name) + _value(value) for name, value in values.items()]
    return pickle.PROTO + b"\x02" + _dict(entries) + pickle.STOP


def _tensor(number: int, tensor: Stream) -> bytes:
    elements = tensor.size // tensor.dtype.itemsize
    strides = [1]
    for length in tensor.shape[:0:-1]:
        strides.insert(0, strides[0] * length)
    storage = _tuple(
        [
            _text("storage"),
            _name("torch", _STORAGES[tensor.dtype.name]),
            _text(str(number)),
            _text("cpu"),
            _integer(elements),
        ]
    )
    no_hooks = _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arguments = [
        storage + pickle.BINPERSID,
        _integer(0),
        _tuple([_integer(length) for length in tensor.shape]),
        _tuple([_integer(stride) for stride in strides]),
        pickle.NEWFALSE,
        no_hooks,
    ]
    return _name("torch._utils", "_rebuild_tensor_v2") + _tuple(arguments) + pickle.REDUCE


def _value(value: object) -> bytes:
    if isinstance(value, Mapping):
        return _dict([_text(str(key)) + _value(item) for key, item in value.items()])
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    return _text(str(value))


def _dict(entries: Sequence[bytes]) -> bytes:
    return pickle.EMPTY_DICT + pickle.MARK + b"".join(entries) + pickle.SETITEMS


def _tuple(items: Sequence[bytes]) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def _text(text: str) -> bytes:
    raw = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    raw = pickle.encode_long(value)
    return pickle.LONG1 + struct.pack("<B", len(raw)) + raw


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
