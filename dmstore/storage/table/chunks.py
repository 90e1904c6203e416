"""Zarr chunks encoded and decoded at once, without a pipeline: what makes small commits and long tails fast.

The metadata is zarr's own, made by zarr once for each layout and kept. Only what segments use is done
here (one chunk an array; bytes or texts, then blosc or zstd, then crc32c); whatever else a group from
elsewhere holds is left to zarr. Nothing is believed of a chunk's own length before memory is taken.
"""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numcodecs import Blosc, VLenUTF8, Zstd
from numpy.typing import NDArray

from dmstore.errors import CorruptionError, FormatError
from dmstore.schema.group_specs import ArraySpec, GroupSpec, create_group
from dmstore.storage.objects import metadata
from dmstore.storage.objects.frames import check_blosc, zstd_size

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
# The end record of a zip and its longest comment.
_TAIL = 22 + 65535
_END = b"PK\x05\x06"
# The longest list of members: some thousand arrays.
_LONGEST_LIST = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


class UnknownLayoutError(Exception):
    """The group is not laid out as segments are: zarr must read it."""


def documents(
    spec: GroupSpec, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[str, bytes], ...]:
    """The documents of a group with whole arrays, as zarr writes them: (key, content), the group first."""
    wanted = tuple(
        (name, replace(spec.arrays[name], chunks=None, shards=None), shape)
        for name, shape in shapes.items()
    )
    return _documents(spec.kind, spec.key, spec.columns, wanted)


@functools.lru_cache(maxsize=256)
def _documents(
    kind: str,
    key: str,
    columns: bool,  # noqa: FBT001 - a cached function takes no keywords
    wanted: tuple[tuple[str, ArraySpec, tuple[int, ...]], ...],
) -> tuple[tuple[str, bytes], ...]:
    from zarr.storage import MemoryStore

    from dmstore.storage.objects.zarr_internals import memory_items

    spec = GroupSpec(kind, key, {name: array for name, array, _ in wanted}, columns, "")
    store = MemoryStore()
    create_group(store, spec, {name: shape for name, _, shape in wanted}, whole=True)
    return tuple(memory_items(store))


def encode_group(spec: GroupSpec, arrays: Mapping[str, NDArray[Any]], comment: bytes) -> bytes:
    """A ZIP_STORED zarr group of whole arrays, the same bytes for the same content."""
    listed = documents(spec, {name: values.shape for name, values in arrays.items()})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for key, content in listed:
            archive.writestr(zipfile.ZipInfo(key, _EPOCH), content)
        for key, content in listed:
            name = key.removesuffix("/zarr.json")
            if name in arrays:
                values = arrays[name]
                place = "/".join([name, "c", *("0" * values.ndim)])
                archive.writestr(
                    zipfile.ZipInfo(place, _EPOCH), encode_chunk(values, _codecs(content))
                )
        archive.comment = comment
    return buffer.getvalue()


@functools.lru_cache(maxsize=1024)
def _codecs(document: bytes) -> tuple[tuple[str, Any], ...]:
    return tuple((c["name"], c.get("configuration")) for c in json.loads(document)["codecs"])


def encode_chunk(values: NDArray[Any], codecs: tuple[tuple[str, Any], ...]) -> bytes:
    """One chunk as the codecs of its array say."""
    content: Any = values
    for name, configuration in codecs:
        match name:
            case "bytes":
                content = np.ascontiguousarray(content, dtype=values.dtype.newbyteorder("<"))
            case "vlen-utf8":
                content = VLenUTF8().encode(np.asarray(content, dtype=object))
            case "blosc":
                content = Blosc(
                    configuration["cname"],
                    configuration["clevel"],
                    _SHUFFLES[configuration["shuffle"]],
                    configuration["blocksize"],
                ).encode(content)
            case "zstd":
                content = Zstd(configuration["level"]).encode(content)
            case "crc32c":
                content = bytes(content)
                content += google_crc32c.value(content).to_bytes(4, "little")
            case _:
                raise UnknownLayoutError(name)
    return bytes(content)


def read_group(
    file: BinaryIO,
    where: str,
    names: list[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Some arrays of a zipped group of whole arrays.

    Parameters
    ----------
    file : binary file
    where : str
        For error texts.
    names : list of str
    shapes : mapping, optional
        What shapes they must have, so that nothing larger is ever decoded.

    Raises
    ------
    CorruptionError
        If the archive, its metadata or a chunk is damaged.
    UnknownLayoutError
        If the group is laid out in another way.
    """
    try:
        archive = _Archive(file)
        return {name: _read_array(archive, name, (shapes or {}).get(name)) for name in names}
    except UnknownLayoutError:
        raise
    except KeyError as error:
        msg = f"{where}: no {str(error)[:200]}; the file is damaged, restore it from a copy"
        raise CorruptionError(msg) from None
    except Exception as error:
        short = " ".join(f"{error}".split())[:200] or type(error).__name__
        msg = f"{where}: cannot be read ({short}); the file is damaged, restore it from a copy"
        raise CorruptionError(msg) from error


class _Archive:
    """The members of a ZIP_STORED archive, from its directory alone.

    Parameters
    ----------
    file : binary file

    Raises
    ------
    ValueError
        If the directory is damaged, or says what a stored archive cannot.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(max(0, self._size - _TAIL))
        tail = file.read(_TAIL)
        end = end_of_zip(tail)
        *_, count, length, start, _ = struct.unpack_from("<4s4H2LH", tail, end)
        origin = self._size - len(tail)
        if start + length > origin + end or not count * 46 <= length <= _LONGEST_LIST:
            msg = "the archive's directory lies outside the file"
            raise ValueError(msg)
        if start >= origin:
            raw = tail[start - origin : start - origin + length]
        else:
            file.seek(start)
            raw = file.read(length)
        self._members: dict[str, tuple[int, int, int]] = {}
        place = 0
        for _ in range(count):
            place = self._entry(raw, place)

    def _entry(self, raw: bytes, place: int) -> int:
        fields: tuple[Any, ...] = struct.unpack_from("<4s6H3L5H2L", raw, place)
        magic, flags, method = fields[0], fields[3], fields[4]
        crc, packed, size = fields[7:10]
        name_length, extra, comment, offset = (int(fields[i]) for i in (10, 11, 12, 16))
        name = raw[place + 46 : place + 46 + name_length].decode("ascii")
        if magic != b"PK\x01\x02" or method or flags & ~0x800 or packed != size:
            msg = f"{name!r} is not simply stored"
            raise ValueError(msg)
        if name in self._members or offset + 30 + size > self._size:
            msg = f"{name!r} stands there twice or lies outside the file"
            raise ValueError(msg)
        self._members[name] = (offset, size, crc)
        return place + 46 + name_length + extra + comment

    def read(self, name: str, most: int) -> bytes:
        """A member of at most so many bytes, its checksum compared."""
        offset, size, crc = self._members[name]
        if size > most:
            msg = f"{name!r} has {size} bytes, at most {most} make sense"
            raise ValueError(msg)
        self._file.seek(offset)
        header = self._file.read(30)
        name_length, extra = struct.unpack_from("<2H", header, 26)
        self._file.seek(offset + 30 + name_length + extra)
        content = self._file.read(size)
        if header[:4] != b"PK\x03\x04" or len(content) != size or zlib.crc32(content) != crc:
            msg = f"{name!r} is cut or its checksum is wrong"
            raise ValueError(msg)
        return content


def end_of_zip(tail: bytes) -> int:
    """Where the end record of a zip begins in its last bytes; its comment must end with them.

    Raises
    ------
    ValueError
        If there is none.
    """
    end = tail.rfind(_END)
    while end >= 0 and end + 22 + int.from_bytes(tail[end + 20 : end + 22], "little") != len(tail):
        end = tail.rfind(_END, 0, end)
    if end < 0:
        msg = "no end of a zip"
        raise ValueError(msg)
    return end


def _read_array(archive: _Archive, name: str, expected: tuple[int, ...] | None) -> NDArray[Any]:
    layout = _layout(archive.read(f"{name}/zarr.json", 1 << 20))
    if expected is not None and layout.shape != expected:
        msg = f"{name!r} has shape {layout.shape}, expected {expected}"
        raise ValueError(msg)
    place = "/".join([name, "c", *("0" * len(layout.shape))])
    # A chunk of blosc is never much longer than what it holds.
    text = layout.dtype == metadata.TEXT
    most = metadata.MOST_TEXT if text else layout.chunk_bytes + layout.chunk_bytes // 8 + 4096
    return decode_chunk(archive.read(place, most), layout)


@functools.lru_cache(maxsize=1024)
def _layout(document: bytes) -> metadata.Layout:
    try:
        layout = metadata.layouts(document, "array")[""]
    except (FormatError, KeyError) as error:
        raise UnknownLayoutError(error) from None
    if layout.inner or layout.chunk != layout.shape or not layout.shape:
        raise UnknownLayoutError(layout)
    return layout


def decode_chunk(raw: bytes, layout: metadata.Layout) -> NDArray[Any]:
    """Undo :func:`encode_chunk`.

    Parameters
    ----------
    raw : bytes
    layout : Layout
        Of an array of one chunk.

    Raises
    ------
    ValueError
        If the chunk does not hold what its array says.
    """
    content, checksum = raw[:-4], raw[-4:]
    if google_crc32c.value(content).to_bytes(4, "little") != checksum:
        msg = "the checksum of a chunk is wrong"
        raise ValueError(msg)
    if layout.dtype != metadata.TEXT:
        check_blosc(content, len(content), layout.chunk_bytes)
        values = np.frombuffer(
            Blosc().decode(content), dtype=np.dtype(layout.dtype).newbyteorder("<")
        )
        return values.reshape(layout.shape)
    if zstd_size(content) > metadata.MOST_TEXT:
        msg = f"a chunk of texts is longer than {metadata.MOST_TEXT} bytes"
        raise ValueError(msg)
    decoded = Zstd().decode(content)
    count = int.from_bytes(decoded[:4], "little")
    if (count,) != layout.shape:
        msg = f"{count} texts for an array of shape {layout.shape}"
        raise ValueError(msg)
    return np.asarray(VLenUTF8().decode(decoded), dtype=object)
