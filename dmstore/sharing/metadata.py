"""Metadata of zarr arrays from strangers, checked before memory is taken by it."""

from __future__ import annotations

import json
import math
import zipfile
from typing import Any, BinaryIO

from dmstore.errors import FormatError

# What a chunk may take in memory: the most that blosc can hold.
MOST = 1 << 31
_CODECS = {"bytes", "blosc", "zstd", "crc32c", "vlen-utf8", "sharding_indexed"}


def shape(raw: bytes) -> tuple[int, ...]:
    """Shape of an array from its ``zarr.json``."""
    return tuple(json.loads(raw)["shape"])


def check(raw: bytes, where: str) -> None:
    """Refuse what dmstore never writes: other codecs, chunks of more than 2 GiB, odd shapes.

    Raises
    ------
    FormatError
        Naming the document and the value.
    """
    try:
        document = json.loads(raw)
        nodes = [document]
        consolidated = document.get("consolidated_metadata") or {}
        nodes += list((consolidated.get("metadata") or {}).values())
        for node in nodes:
            if node["node_type"] == "array":
                _check_array(node, where)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        msg = f"{where}: no metadata of a zarr group or array ({type(error).__name__}: {error})"
        raise FormatError(msg) from None


def check_archive(file: BinaryIO, where: str) -> None:
    """Refuse a zipped group that dmstore never writes: compressed members, or metadata as :func:`check` does.

    Raises
    ------
    FormatError
        Naming the member.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for info in members:
                if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                    msg = f"{where}: member {info.filename[:100]!a} is compressed or encrypted"
                    raise FormatError(msg)
                if info.filename == "zarr.json" or info.filename.endswith("/zarr.json"):
                    check(archive.read(info), f"{where}/{info.filename[:100]!a}")
    except FormatError:
        raise
    except Exception as error:  # noqa: BLE001 - a hostile archive can make the parser raise anything
        msg = f"{where}: no whole zip archive ({type(error).__name__}: {error})"
        raise FormatError(msg) from None
    if len({info.filename for info in members}) != len(members):
        msg = f"{where}: a member stands there twice"
        raise FormatError(msg)


def _check_array(node: dict[str, Any], where: str) -> None:
    outer = node["chunk_grid"]["configuration"]["chunk_shape"]
    lengths = [*node["shape"], *outer]
    names = []
    for codec in node["codecs"]:
        names.append(codec["name"])
        if codec["name"] == "sharding_indexed":
            configuration = codec["configuration"]
            lengths += configuration["chunk_shape"]
            names += [inner["name"] for inner in configuration["codecs"]]
            names += [inner["name"] for inner in configuration["index_codecs"]]
    if unknown := set(map(str, names)) - _CODECS:
        msg = f"{where}: codec {min(unknown)!r} is none that dmstore writes"
        raise FormatError(msg)
    if any(type(length) is not int or not 0 <= length < 2**62 for length in lengths):
        msg = f"{where}: {node['shape']} in chunks of {outer} is no shape of an array"
        raise FormatError(msg)
    # Shards are read in part; of an array without them a chunk is what is read.
    item = {"bool": 1, "uint8": 1, "int8": 1, "float16": 2, "float32": 4, "int32": 4}
    width = item.get(str(node["data_type"]), 8)
    inner = next((c for c in node["codecs"] if c["name"] == "sharding_indexed"), None)
    chunk = inner["configuration"]["chunk_shape"] if inner else outer
    if math.prod(chunk) * width > MOST:
        msg = f"{where}: chunks of {chunk} take more than {MOST} bytes"
        raise FormatError(msg)
