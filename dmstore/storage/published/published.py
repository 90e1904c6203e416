"""A published study, read only: on any static web server, in a directory or in a bucket.

What is there is told by the index, so that no listing is needed; of an array only the byte ranges that
a query needs are fetched.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store

from dmstore.errors import CorruptionError, StorageError, StudyNotFoundError
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import ObjectInfo, check_length
from dmstore.storage.objects.refusals import explain
from dmstore.storage.objects.remote import RemoteObjects, connect
from dmstore.storage.objects.strict import StrictStore, window, zip_in_memory
from dmstore.storage.published import index as indexes
from dmstore.storage.published.index import INDEX, Index

BLOCK = 1 << 22
# Objects kept from a server that sends whole objects only.
_KEPT = 1 << 28
_log = logging.getLogger(__name__)
T = TypeVar("T")


class ReadOnly:
    """Refuses whatever would change a published study."""

    url: str

    def _refused(self) -> StorageError:
        return StorageError(
            f"{self.url}: a published study is read-only; 'dmstore pull' makes a copy that you can write to"
        )

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Refused."""
        raise self._refused()

    def replace(self, name: str, content: bytes) -> None:
        """Refused."""
        raise self._refused()

    def delete(self, name: str) -> None:
        """Refused."""
        raise self._refused()

    def now(self) -> float:
        """Refused."""
        raise self._refused()

    def writer(self, prefix: str) -> Store:
        """Refused."""
        raise self._refused()

    def sync(self, prefix: str) -> None:
        """Refused."""
        raise self._refused()


def refuse_read_only(objects: object) -> None:
    """Refuse a published study before work that would end in writing to it.

    Raises
    ------
    StorageError
    """
    if isinstance(objects, ReadOnly):
        raise objects._refused()


class PublishedDirectory(ReadOnly, LocalObjects):
    """A published study in a directory."""


class PublishedBucket(ReadOnly, RemoteObjects):  # type: ignore[misc]
    """A published study in a bucket."""


class IndexedObjects(ReadOnly):
    """Objects that an index lists and that can be read in part; see :class:`Objects`.

    Attributes
    ----------
    index : Index
    """

    index: Index

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object."""
        raise NotImplementedError

    def blocks(self, name: str) -> Iterator[bytes]:
        """All bytes of an object, block by block."""
        size = self._size(name)
        for start in range(0, size, BLOCK):
            yield self.read(name, start, min(start + BLOCK, size))

    def _size(self, name: str) -> int:
        if name not in self.index.entries:
            msg = f"{self.url}/{name}"
            raise FileNotFoundError(msg)
        return self.index.entries[name].size

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.entries`; the times are zero."""
        known = self.index.entries
        return [
            ObjectInfo(name, known[name].size, 0.0) for name in known if name.startswith(prefix)
        ]

    def leftovers(self) -> list[ObjectInfo]:
        """See :meth:`Objects.leftovers`: there are none."""
        return []

    def children(self, prefix: str) -> list[str]:
        """See :meth:`Objects.children`."""
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        names = (name for name in self.index.entries if name.startswith(prefix))
        return sorted({name.removeprefix(prefix).partition("/")[0] for name in names})

    def exists(self, name: str) -> bool:
        """See :meth:`Objects.exists`."""
        return name in self.index.entries

    def get(self, name: str) -> bytes:
        """See :meth:`Objects.get`; CorruptionError if the bytes are not those of the index."""
        check_length(name, self._size(name), self.url)
        content = b"".join(self.blocks(name))
        entry = self.index.entries[name]
        if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
            msg = f"{self.url}/{name}: is not what the index says; it was published again meanwhile (open it again) or is damaged (run 'dmstore verify')"
            raise CorruptionError(msg)
        return content

    def open(self, name: str) -> BinaryIO:
        """See :meth:`Objects.open`."""
        return io.BytesIO(self.get(name))

    def tail(self, name: str, length: int) -> bytes:
        """See :meth:`Objects.tail`."""
        size = self._size(name)
        return self.read(name, max(0, size - length), size)

    def reader(self, name: str) -> Store:
        """See :meth:`Objects.reader`."""
        if name.endswith(".zip"):
            return zip_in_memory(self.get(name), f"{self.url}/{name}")
        return IndexedStore(self, name)


class HttpObjects(IndexedObjects):
    """A published study on a web server.

    A server that cannot send a part of an object (``python -m http.server``) works too: whole objects
    are fetched then, and the last ones kept.

    Parameters
    ----------
    url : str
        ``https://`` (or ``http://``) of the directory that holds ``index.json``.

    Raises
    ------
    StudyNotFoundError
        If there is no index.
    """

    def __init__(self, url: str) -> None:
        self.url, self._store = connect(url)
        self._whole: dict[str, bytes] = {}
        self._parts = True
        self._lock = threading.Lock()
        try:
            raw = b"".join(self._stream(INDEX, indexes.LONGEST))
        except FileNotFoundError:
            remedy = "make one with 'dmstore publish'"
            if self.url.endswith(".zip"):
                remedy = "fetch an archive first, and then open or pull the file"
            msg = f"{self.url}: no {INDEX} there, so it is no published study; {remedy}"
            raise StudyNotFoundError(msg) from None
        if raw.startswith(b"\x1f\x8b"):
            msg = f"{self.url}/{INDEX}: this server compresses what it sends (gzip), so that no part of an object can be asked for; turn that off for this folder, or fetch the files in another way"
            raise StorageError(msg)
        self.index = indexes.load(raw, f"{self.url}/{INDEX}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_whole": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def _call(self, name: str, function: Callable[[], T]) -> T:
        from obstore.exceptions import NotSupportedError

        try:
            return function()
        except FileNotFoundError:
            msg = f"{self.url}/{name}"
            raise FileNotFoundError(msg) from None
        except NotSupportedError:
            raise _WholeOnlyError from None
        except Exception as error:  # noqa: BLE001 - the client has many classes of its own
            msg = f"{self.url}/{name}: {explain(error)}; check the URL and the connection, then run the same command again"
            raise StorageError(msg) from None

    def _stream(self, name: str, most: int) -> Iterator[bytes]:
        import obstore

        reply = self._call(name, lambda: obstore.get(self._store, name))
        stream = iter(reply.stream(min_chunk_size=BLOCK))
        size = 0
        while (block := self._call(name, lambda: next(stream, None))) is not None:
            size += len(block)
            if size > most:
                msg = f"{self.url}/{name}: is longer than the {most} bytes expected; it was changed or damaged"
                raise CorruptionError(msg)
            yield bytes(block)

    def blocks(self, name: str) -> Iterator[bytes]:
        """All bytes of an object, block by block."""
        yield from self._stream(name, self._size(name))

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of an object."""
        import obstore

        size = self._size(name)
        if stop <= start:
            return b""
        if self._parts:
            try:
                return bytes(
                    self._call(
                        name, lambda: obstore.get_range(self._store, name, start=start, end=stop)
                    )
                )
            except _WholeOnlyError:
                self._parts = False
                _log.warning(
                    "%s: this server sends whole objects only; 'dmstore pull' makes a faster copy",
                    self.url,
                )
        if (start, stop) == (0, size):
            return b"".join(self.blocks(name))
        with self._lock:
            if name not in self._whole:
                content = self.get(name)
                kept = sum(map(len, self._whole.values())) + size
                while self._whole and kept > _KEPT:
                    kept -= len(self._whole.pop(next(iter(self._whole))))
                self._whole[name] = content
            return self._whole[name][start:stop]


class _WholeOnlyError(Exception):
    """The server cannot send a part of an object."""


class IndexedStore(StrictStore):
    """A read-only zarr store on what lies below a prefix; a missing chunk is an error.

    Parameters
    ----------
    objects : IndexedObjects
    prefix : str
        Without a slash at its end.
    """

    def __init__(self, objects: IndexedObjects, prefix: str) -> None:
        super().__init__(f"{objects.url}/{prefix}")
        self._objects = objects
        self._prefix = f"{prefix}/"

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        name = self._prefix + key
        entry = self._objects.index.entries.get(name)
        if entry is None:
            return None
        if byte_range is None:
            self._guard.check_size(key, entry.size)
            content = await asyncio.to_thread(self._objects.get, name)
        else:
            start, stop = window(byte_range, entry.size)
            content = await asyncio.to_thread(self._objects.read, name, start, stop)
        return prototype.buffer.from_bytes(content)

    def _refused(self) -> Exception:
        return self._objects._refused()

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return self._objects.exists(self._prefix + key)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with a prefix."""
        for info in self._objects.entries(self._prefix + prefix):
            yield info.name.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """First parts of the keys below a prefix."""
        for name in self._objects.children((self._prefix + prefix).rstrip("/")):
            yield name
