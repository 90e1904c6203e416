"""The wide arrays of a base without a pipeline: what makes columns, checks, imports and fits fast.

zarr decodes a chunk into memory of its own, copies it and copies it again, and asks an event loop
about each. On a local file a chunk is read, checked and decoded here in the memory of the caller; on
any other storage, where many requests at once are what counts, the reading is left to zarr. Shards
are written whole.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from dmstore.errors import CorruptionError, MissingChunkError
from dmstore.storage.objects import guard, metadata
from dmstore.storage.objects.frames import check_blosc
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.zarr_internals import read_key, write_key
from dmstore.storage.table.chunks import encode_chunk

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

_CRC, _PLACE = 4, 16
_ABSENT = 2**64 - 1
Window = tuple[slice, ...]


class Tiles(Protocol):
    """An array of a base; any number of threads may read it at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; runs first."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """What is decoded at once."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""

    def read(self, window: Window) -> NDArray[Any]:
        """A part of it: slices with step 1 of the first dims, all of the others.

        Raises
        ------
        CorruptionError, FormatError
            If a chunk is damaged.
        MissingChunkError
            If one is not there.
        """


def open_tiles(objects: Objects, where: str, group: zarr.Group, name: str) -> Tiles:
    """An array of the group that lies below `where` and was opened there.

    Raises
    ------
    CorruptionError, FormatError
        If its metadata is damaged, or none that dmstore writes.
    """
    array: Any = group[name]
    if not isinstance(objects, LocalObjects):
        return _ZarrTiles(array)
    key = f"{where}/{name}/zarr.json"
    try:
        layout = metadata.layouts(objects.get(key), key)[""]
    except FileNotFoundError as error:
        raise MissingChunkError(guard.missing_text(key)) from error
    if (layout.dtype, layout.shape) != (array.dtype.name, array.shape) or not layout.shape:
        msg = f"{key}: says {layout.dtype} {layout.shape}, its group {array.dtype} {array.shape}; restore it from a copy"
        raise CorruptionError(msg)
    return _LocalTiles(objects, f"{where}/{name}", layout)


class _ZarrTiles:
    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = array.shape
        self.chunk: tuple[int, ...] = array.chunks
        self.dtype: np.dtype[Any] = array.dtype

    def read(self, window: Window) -> NDArray[Any]:
        with guard.readable(f"{self._array.store_path}"):
            return np.asarray(self._array[window])


class _LocalTiles:
    def __init__(self, objects: LocalObjects, where: str, layout: metadata.Layout) -> None:
        self._objects = objects
        self._where = where
        self._layout = layout
        self.shape = layout.shape
        self.chunk = layout.chunk
        self.dtype = np.dtype(layout.dtype).newbyteorder("<")
        self._per = tuple(o // c for o, c in zip(layout.outer, layout.chunk, strict=True))
        self._scratch = threading.local()

    def read(self, window: Window) -> NDArray[Any]:
        bounds = [part.indices(size)[:2] for part, size in zip(window, self.shape, strict=False)]
        bounds += [(0, size) for size in self.shape[len(bounds) :]]
        values = np.empty([max(0, high - low) for low, high in bounds], dtype=self.dtype)
        if not values.size:
            return values
        outer = [
            range(low // length, -(-high // length))
            for (low, high), length in zip(bounds, self._layout.outer, strict=True)
        ]
        for shard in itertools.product(*outer):
            key = f"{self._where}/c/{'/'.join(map(str, shard))}"
            try:
                with self._objects.open(key) as file:
                    self._fill(values, bounds, shard, file)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise MissingChunkError(guard.missing_text(key)) from error
            except IsADirectoryError:
                msg = f"{key}: is a directory; restore it from a copy"
                raise CorruptionError(msg) from None
            except ValueError as error:
                msg = f"{key}: {error}; restore it from a copy"
                raise CorruptionError(msg) from None
        return values

    def _fill(
        self,
        values: NDArray[Any],
        bounds: list[tuple[int, int]],
        shard: tuple[int, ...],
        file: BinaryIO,
    ) -> None:
        """Decode the chunks of one shard that the bounds touch."""
        index = self._index(file) if self._layout.inner else None
        for chunk in itertools.product(*self._touched(bounds, shard)):
            number = 0
            for at, per in zip(chunk, self._per, strict=True):
                number = number * per + at % per
            content = _piece(file, index, number, self._layout)
            source, target = [], []
            whole = True
            for (low, high), at, length in zip(bounds, chunk, self.chunk, strict=True):
                first, last = max(low, at * length), min(high, (at + 1) * length)
                source.append(slice(first - at * length, last - at * length))
                target.append(slice(first - low, last - low))
                whole = whole and last - first == length
            part = values[tuple(target)]
            if whole and part.flags.c_contiguous:
                _decode(content, part)
            else:
                part[...] = self._decode(content)[tuple(source)]

    def _touched(self, bounds: list[tuple[int, int]], shard: tuple[int, ...]) -> Iterator[range]:
        for (low, high), at, length, per in zip(bounds, shard, self.chunk, self._per, strict=True):
            yield range(max(low // length, at * per), min(-(-high // length), (at + 1) * per))

    def _decode(self, content: bytes) -> NDArray[Any]:
        """A whole chunk, in memory that the next one of this thread takes."""
        if not hasattr(self._scratch, "values"):
            self._scratch.values = np.empty(self.chunk, dtype=self.dtype)
        values: NDArray[Any] = self._scratch.values
        _decode(content, values)
        return values

    def _index(self, file: BinaryIO) -> NDArray[np.uint64]:
        """Place and length of each chunk of a shard: (chunk, 2)."""
        length = _PLACE * self._layout.inner
        size = file.seek(0, 2)
        if size < length + _CRC:
            msg = f"a shard has {size} bytes, its index alone {length + _CRC}; it is cut or damaged"
            raise ValueError(msg)
        file.seek(size - length - _CRC)
        raw = _checked(file.read(length + _CRC))
        return np.frombuffer(raw, "<u8").reshape(-1, 2)


def _piece(
    file: BinaryIO, index: NDArray[np.uint64] | None, number: int, layout: metadata.Layout
) -> bytes:
    """The compressed bytes of one chunk, of which it is known that they become its size."""
    expected = layout.chunk_bytes
    size = file.seek(0, 2)
    place, length = (0, size) if index is None else map(int, index[number])
    if place == length == _ABSENT:
        msg = "a chunk of a shard is not there"
        raise ValueError(msg)
    if not _CRC < length <= expected + expected // 64 + 4096:
        msg = f"a chunk has {length} bytes, which cannot become {expected}; it is damaged"
        raise ValueError(msg)
    if place + length > size:
        msg = "a chunk of a shard lies outside of it"
        raise ValueError(msg)
    file.seek(place)
    content = _checked(file.read(length))
    check_blosc(content, len(content), expected)
    return content


def _decode(content: bytes, out: NDArray[Any]) -> None:
    try:
        Blosc().decode(content, out=out)
    except RuntimeError as error:
        msg = f"a chunk is damaged ({error})"
        raise ValueError(msg) from None


def _checked(raw: bytes) -> bytes:
    """Bytes without the checksum behind them."""
    content = raw[:-_CRC]
    if google_crc32c.value(content).to_bytes(_CRC, "little") != raw[-_CRC:]:
        msg = "the checksum of a chunk is wrong"
        raise ValueError(msg)
    return content


class ShardWriter:
    """Writes whole shards of an array that zarr has made.

    Parameters
    ----------
    store : zarr store
    name : str
        Of the array; each of its shards holds some rows whole.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        document = _get(store, f"{name}/zarr.json")
        self._layout = metadata.layouts(document, name)[""]
        parsed = json.loads(document)
        sharding = parsed["codecs"][0]["configuration"]
        self._codecs = tuple((c["name"], c.get("configuration")) for c in sharding["codecs"])
        self._fill = np.dtype(self._layout.dtype).type(parsed["fill_value"])

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Write the shard that begins with row `start`; as many rows as there are for it."""
        outer = self._layout.outer
        places = [
            -(-size // length) for size, length in zip(outer, self._layout.chunk, strict=True)
        ]
        index = np.full((self._layout.inner, 2), _ABSENT, dtype="<u8")
        pieces: list[bytes] = []
        length = 0
        for number, chunk in enumerate(np.ndindex(*places)):
            content = self._encode(values, chunk)
            if content is not None:
                index[number] = length, len(content)
                pieces.append(content)
                length += len(content)
        raw = index.tobytes()
        pieces += [raw, google_crc32c.value(raw).to_bytes(_CRC, "little")]
        place = "/".join([str(start // outer[0]), *("0" * (len(outer) - 1))])
        write_key(self._store, f"{self._name}/c/{place}", b"".join(pieces))

    def _encode(self, values: NDArray[Any], chunk: tuple[int, ...]) -> bytes | None:
        """One chunk, filled up where the array ends; None where there is nothing of it."""
        lengths = self._layout.chunk
        window = tuple(
            slice(at * length, (at + 1) * length) for at, length in zip(chunk, lengths, strict=True)
        )
        part = values[window]
        if not part.size:
            return None
        if part.shape != lengths:
            whole = np.full(lengths, self._fill, dtype=values.dtype)
            whole[tuple(slice(size) for size in part.shape)] = part
            part = whole
        return encode_chunk(np.ascontiguousarray(part), self._codecs)


def _get(store: Store, key: str) -> bytes:
    raw = read_key(store, key)
    assert raw is not None
    return raw
