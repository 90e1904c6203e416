"""What a zarr store gives to zarr, checked first: metadata, that chunks are there, and what they grow to.

Every store of ours asks a guard, so that a group from a stranger, merely opened, costs no more memory
than its metadata says, and its metadata no more than dmstore's own would.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import RangeByteRequest, SuffixByteRequest

from dmstore.errors import CorruptionError, DmstoreError, MissingChunkError
from dmstore.storage.objects import metadata
from dmstore.storage.objects.frames import check_blosc, zstd_size
from dmstore.storage.objects.metadata import Layout

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer
    from zarr.abc.store import ByteRequest

_DOCUMENT = "zarr.json"
# Documents of format 2, which dmstore never writes; zarr looks for them.
_OLD = (".zarray", ".zgroup", ".zattrs", ".zmetadata")
_CRC, _PLACE = 4, 16
_ABSENT = 2**64 - 1


class Guard:
    """Checks what is read from below one place.

    Parameters
    ----------
    where : str
        The place, for error texts.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._layouts: dict[str, Layout] = {}

    def most(self, key: str) -> int:
        """The largest size of an object that can be what its key says."""
        layout = self._layouts.get(_array(key) or "")
        if layout is None or layout.dtype == metadata.TEXT:
            return metadata.MOST_TEXT
        # blosc never makes a chunk much longer than what it holds.
        one = layout.chunk_bytes + layout.chunk_bytes // 64 + 4096
        return one * max(1, layout.inner)

    def check_size(self, key: str, size: int) -> None:
        """CorruptionError for an object that is too large to be read."""
        if size > self.most(key):
            msg = f"{self.where}/{key}: has {size} bytes, at most {self.most(key)} make sense; it is damaged, restore it from a copy"
            raise CorruptionError(msg)

    def check(
        self, key: str, value: Buffer | None, byte_range: ByteRequest | None
    ) -> Buffer | None:
        """What was read, if it may be given to zarr.

        Raises
        ------
        MissingChunkError
            For a chunk that is not there: zarr would take it for one of fill values.
        FormatError
            For metadata that dmstore never writes.
        CorruptionError
            For a chunk that would grow to other than what its array says.
        """
        if key.rpartition("/")[2] in _OLD:
            return None
        array = _array(key)
        if array is None:
            if value is not None and key.rpartition("/")[2] == _DOCUMENT:
                place = key.removesuffix(_DOCUMENT)
                layouts = metadata.layouts(value.to_bytes(), f"{self.where}/{key}")
                self._layouts |= {
                    f"{place}{name}/" if name else place: layout for name, layout in layouts.items()
                }
            return value
        if value is None:
            raise MissingChunkError(missing_text(f"{self.where}/{key}"))
        layout = self._layouts.get(array)
        if layout is None:
            msg = f"{self.where}/{key}: its array has no metadata; it is damaged, restore it from a copy"
            raise CorruptionError(msg)
        try:
            _check_chunk(key, value, layout, byte_range)
        except ValueError as error:
            msg = f"{self.where}/{key}: {error}; restore it from a copy"
            raise CorruptionError(msg) from None
        return value


def missing_text(where: str) -> str:
    """What it means that a chunk is not there."""
    return (
        f"{where}: is not there: vacuum removed what this view stands on (open it again), or the "
        f"store is damaged (run 'dmstore verify')"
    )


def _array(key: str) -> str | None:
    """The array that a chunk is of, with a slash behind it unless it is the root; None for other keys."""
    before, sign, _ = f"/{key}".rpartition("/c/")
    if sign:
        return f"{before[1:]}/" if before else ""
    return key[:-1] if key == "c" or key.endswith("/c") else None


def _check_chunk(key: str, value: Buffer, layout: Layout, byte_range: ByteRequest | None) -> None:
    if layout.dtype == metadata.TEXT:
        if zstd_size(value[:-_CRC].to_bytes()) > metadata.MOST_TEXT:
            msg = f"its texts are longer than {metadata.MOST_TEXT} bytes"
            raise ValueError(msg)
    elif not layout.inner or isinstance(byte_range, RangeByteRequest):
        _check_numbers(value, 0, len(value), layout)
    else:
        whole = not isinstance(byte_range, SuffixByteRequest)
        _check_shard(value, layout, _needed(key, layout), whole=whole)


def _check_numbers(value: Buffer, start: int, stop: int, layout: Layout) -> None:
    head = value[start : start + 16].to_bytes()
    check_blosc(head, stop - start - _CRC, layout.chunk_bytes)


def _needed(key: str, layout: Layout) -> NDArray[np.bool_]:
    """Which chunks of a shard hold a part of the array: where it ends, a shard goes on. (chunk,) bool."""
    places = map(int, f"/{key}".rpartition("/c/")[2].split("/"))
    inside = [
        at * outer + np.arange(outer // chunk) * chunk < size
        for at, outer, chunk, size in zip(
            places, layout.outer, layout.chunk, layout.shape, strict=True
        )
    ]
    return functools.reduce(np.logical_and.outer, inside).ravel()


def _check_shard(value: Buffer, layout: Layout, needed: NDArray[np.bool_], *, whole: bool) -> None:
    """The index at the end of a shard, and what it points at."""
    length = _PLACE * layout.inner + _CRC
    if len(value) < length or not (whole or len(value) == length):
        msg = f"a shard has {len(value)} bytes, its index alone {length}; it is cut or damaged"
        raise ValueError(msg)
    raw = value[len(value) - length : len(value) - _CRC].to_bytes()
    index = np.frombuffer(raw, "<u8").reshape(-1, 2)
    there = (index != _ABSENT).any(axis=1)
    if (needed & ~there).any():
        msg = "a chunk of a shard is not there"
        raise ValueError(msg)
    if not whole:
        return
    for place, count in index[there].tolist():
        if place + count > len(value):
            msg = "a chunk of a shard lies outside of it"
            raise ValueError(msg)
        _check_numbers(value, place, place + count, layout)


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """Turn whatever zarr and its codecs raise on bytes from anywhere into one line.

    Raises
    ------
    CorruptionError
        For anything but our own errors and those of the operating system.
    """
    try:
        yield
    except (DmstoreError, OSError):
        raise
    except Exception as error:
        short = " ".join(f"{error}".split())[:200] or type(error).__name__
        msg = f"{where}: cannot be read ({short}); the file is damaged, restore it from a copy"
        raise CorruptionError(msg) from error
