"""Metadata of zarr groups and arrays, checked before zarr takes memory by it.

Only what dmstore itself writes is taken: three chains of codecs, plain dtypes, a regular grid. None of
them can run anything, and how much memory a chunk takes follows from the metadata alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dmstore.core import strictjson
from dmstore.errors import FormatError

# What a chunk may take in memory: the most that blosc can hold.
MOST = (1 << 31) - 1
# What the texts of a chunk may take: they are names and captions.
MOST_TEXT = 1 << 28
# Chunks of an array, and of a shard: zarr makes an object of each.
_MOST_CHUNKS, _MOST_INNER = 1 << 20, 1 << 16
_MOST_DIMS = 32
_LONGEST = 1 << 24
WIDTHS = {
    **{"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2},
    **{"int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8},
}
TEXT = "string"
_NUMBERS, _TEXTS = ("bytes", "blosc", "crc32c"), ("vlen-utf8", "zstd", "crc32c")
_SHARDED, _INDEX = ("sharding_indexed",), ("bytes", "crc32c")


@dataclass(frozen=True)
class Layout:
    """How an array lies: what a chunk holds.

    Attributes
    ----------
    shape : tuple of int
    chunk : tuple of int
        Of a sharded array the inner one.
    dtype : str
        ``string``, or a dtype of NumPy.
    inner : int
        Chunks of a shard; 0 where there are none.
    outer : tuple of int
        What lies in one object: a shard, or a chunk.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    inner: int
    outer: tuple[int, ...]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk of numbers."""
        return math.prod(self.chunk) * WIDTHS[self.dtype]


def layouts(raw: bytes, where: str) -> dict[str, Layout]:
    """Layouts of the arrays that a ``zarr.json`` describes: by name, of an array itself by ``''``.

    Raises
    ------
    FormatError
        Naming the document and the value, for anything that dmstore never writes.
    """
    try:
        document = strictjson.parse(raw, _LONGEST)
        by_path = {}
        for name, node in _nodes(document):
            if node["node_type"] == "array":
                by_path[name] = _layout(node, f"{where}: {name}" if name else where)
            elif node["node_type"] != "group":
                msg = f"{where}: {str(node['node_type'])[:40]!a} is no kind of node"
                raise FormatError(msg)
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        short = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        msg = f"{where}: no metadata of a zarr group or array ({short})"
        raise FormatError(msg) from None
    return by_path


def _nodes(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", document
    consolidated = document.get("consolidated_metadata") or {}
    yield from (consolidated.get("metadata") or {}).items()


def _layout(node: dict[str, Any], where: str) -> Layout:
    grid = node["chunk_grid"]
    shape, outer = (
        _lengths(node["shape"], 0, where),
        _lengths(grid["configuration"]["chunk_shape"], 1, where),
    )
    dtype, names = node["data_type"], _names(node["codecs"])
    text = dtype == TEXT
    if not text and (not isinstance(dtype, str) or dtype not in WIDTHS):
        msg = f"{where}: data type {str(dtype)[:40]!a} is none that dmstore writes"
        raise FormatError(msg)
    chunk, inner = outer, 0
    if names == _SHARDED and not text:
        configuration = node["codecs"][0]["configuration"]
        chunk = _lengths(configuration["chunk_shape"], 1, where)
        index = _names(configuration["index_codecs"])
        if index != _INDEX or configuration.get("index_location", "end") != "end":
            names = index
        else:
            names = _names(configuration["codecs"])
        inner = math.prod(o // c for o, c in zip(outer, chunk, strict=True))
    if names != (_TEXTS if text else _NUMBERS):
        msg = f"{where}: codecs {', '.join(names)[:100]!a} are none that dmstore writes"
        raise FormatError(msg)
    keys = node["chunk_key_encoding"]
    separator = (keys.get("configuration") or {}).get("separator", "/")
    if (
        grid["name"] != "regular"
        or (keys["name"], separator) != ("default", "/")
        or node.get("storage_transformers")
        or not len(shape) == len(outer) == len(chunk) <= _MOST_DIMS
        or any(o % c for o, c in zip(outer, chunk, strict=True))
    ):
        msg = f"{where}: its chunks do not lie as dmstore lays them"
        raise FormatError(msg)
    count = math.prod(-(-s // o) for s, o in zip(shape, outer, strict=True))
    if count > _MOST_CHUNKS or inner > _MOST_INNER:
        msg = f"{where}: {count} chunks of {inner or 'no'} parts are more than zarr can go through"
        raise FormatError(msg)
    layout = Layout(shape, chunk, dtype, inner, outer)
    if (math.prod(chunk) if text else layout.chunk_bytes) > (MOST_TEXT // 4 if text else MOST):
        msg = f"{where}: chunks of {list(chunk)} take more than {MOST} bytes"
        raise FormatError(msg)
    return layout


def _names(codecs: list[dict[str, Any]]) -> tuple[str, ...]:
    """Names of codecs; numbers of the other byte order are another codec."""
    orders = [(codec.get("configuration") or {}).get("endian", "little") for codec in codecs]
    return tuple(
        str(codec["name"]) if order == "little" else f"{codec['name']} ({order})"
        for codec, order in zip(codecs, orders, strict=True)
    )


def _lengths(values: list[int], least: int, where: str) -> tuple[int, ...]:
    if any(type(length) is not int or not least <= length < 2**62 for length in values):
        msg = f"{where}: {str(values)[:100]} is no shape of an array"
        raise FormatError(msg)
    return tuple(values)
