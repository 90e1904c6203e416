"""Stores that give zarr only what a guard has checked, and in which every chunk must be there.

zarr takes a chunk that is missing for one that holds the fill value alone, so a lost file would read as
masks that saw nothing. dmstore writes every chunk, and so can tell the two apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import stat
import threading
import zipfile
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore, ObjectStore

from dmstore.core.zips import open_zip
from dmstore.errors import FormatError, StorageError
from dmstore.storage.objects.guard import Guard

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest


class StrictStore(Store):
    """A store that asks a guard about every read.

    It is derived from zarr's abstract store and from none of the concrete ones: those can be read in
    ways beside ``get`` (without an event loop, several ranges as one), zarr takes whichever a store
    has, and its next release may bring another. What the abstract store brings ends in ``get``.

    Parameters
    ----------
    where : str
        The place, for error texts.
    read_only : bool
        What may be written to is not checked: who writes reads what is half done.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, where: str, *, read_only: bool = True) -> None:
        super().__init__(read_only=read_only)
        self._guard = Guard(where)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, StrictStore)
            and type(self) is type(other)
            and (self._guard.where, self.read_only) == (other._guard.where, other.read_only)
        )

    def __str__(self) -> str:
        return self._guard.where

    def __repr__(self) -> str:
        # zarr's errors show it.
        return f"{type(self).__name__}({self._guard.where!r})"

    @abstractmethod
    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        """What is there, unchecked; None if nothing is."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; see :meth:`Guard.check`."""
        value = await self._fetch(key, prototype, byte_range)
        return self._guard.check(key, value, byte_range) if self.read_only else value

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of keys."""
        reads = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*reads))

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **_: Any,
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Read parts of one key, each as it is asked for.

        zarr would read neighbours as one, which is no chunk that a guard can check; and it would take
        an error in its group of errors for a chunk that may be missing.
        """
        values = await self.get_partial_values(prototype, [(key, part) for part in byte_ranges])
        yield list(enumerate(values))

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        raise self._refused()

    async def delete(self, key: str) -> None:
        """Refused."""
        raise self._refused()

    def _refused(self) -> Exception:
        return ValueError(f"{self}: is open to be read only")

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key


def window(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """First byte, and the one after the last, of what is asked for of an object of `size` bytes."""
    match byte_range:
        case None:
            return 0, size
        case RangeByteRequest(start, stop):
            return start, min(stop, size)
        case OffsetByteRequest(start):
            return start, size
        case SuffixByteRequest(length):
            return max(0, size - length), size
    raise TypeError(byte_range)


class StrictLocalStore(StrictStore):
    """A directory; read only."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(str(root))
        self._plain = LocalStore(root, read_only=True)

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = Path(self._plain.root, key).stat()
            # A pipe would be waited for, and a device has no end.
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                msg = f"{self}/{key}: is no plain file; do not use this store"
                raise FormatError(msg)
            if byte_range is None:
                self._guard.check_size(key, status.st_size)
        return await self._plain.get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return await self._plain.exists(key)

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with a prefix."""
        return self._plain.list_prefix(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """First parts of the keys below a prefix."""
        return self._plain.list_dir(prefix)


class _MembersStore(StrictStore):
    """Named contents of which all names are known."""

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """All keys."""

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._names()

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with a prefix."""
        for name in self._names():
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """First parts of the keys below a prefix."""
        before = f"{prefix.rstrip('/')}/" if prefix else ""
        names = (name.removeprefix(before) for name in self._names() if name.startswith(before))
        for first in dict.fromkeys(name.partition("/")[0] for name in names):
            yield first


class StrictZipStore(_MembersStore):
    """A zip of stored members, so that none outgrows it; read only, opened when it is first read."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path))
        self._path = path
        self._archive: zipfile.ZipFile | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": threading.RLock()}

    def _opened(self) -> zipfile.ZipFile:
        with self._lock:
            if self._archive is None:
                self._archive = open_zip(self._path, stored=True)
            return self._archive

    def close(self) -> None:
        """Close the archive; a later read opens it again."""
        with self._lock:
            if self._archive is not None:
                self._archive.close()
                self._archive = None
        super().close()

    def _names(self) -> Iterable[str]:
        return self._opened().NameToInfo

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        with self._lock:
            archive = self._opened()
            if key not in archive.NameToInfo:
                return None
            start, stop = window(byte_range, archive.getinfo(key).file_size)
            with archive.open(key) as file:
                file.seek(start)
                return prototype.buffer.from_bytes(file.read(max(0, stop - start)))


class StrictMemoryStore(_MembersStore):
    """Contents in memory; read only."""

    def __init__(self, contents: dict[str, bytes], where: str) -> None:
        super().__init__(where)
        self.contents = contents

    def _names(self) -> Iterable[str]:
        return self.contents

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        if key not in self.contents:
            return None
        content = self.contents[key]
        start, stop = window(byte_range, len(content))
        return prototype.buffer.from_bytes(content[start:stop])


class BucketStore(StrictStore):
    """What lies below a prefix of an object store; checked where it is read only.

    Parameters
    ----------
    store : obstore store
    prefix : str
        Without a slash at its end.
    where : str
        For error texts.
    read_only : bool
    """

    supports_writes = True
    supports_deletes = True

    def __init__(self, store: Any, prefix: str, where: str, *, read_only: bool = False) -> None:
        super().__init__(where, read_only=read_only)
        self._plain: ObjectStore[Any] = ObjectStore(store, read_only=read_only)
        self._prefix = f"{prefix}/"
        self._where = where

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 - as in zarr
        """The same store, writable or not."""
        return type(self)(self._plain.store, self._prefix[:-1], self._where, read_only=read_only)

    async def _fetch(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None
    ) -> Buffer | None:
        with _refusals(self._where, key):
            return await self._plain.get(self._prefix + key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with _refusals(self._where, key):
            return await self._plain.exists(self._prefix + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key."""
        with _refusals(self._where, key):
            await self._plain.set(self._prefix + key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key that is not there."""
        with _refusals(self._where, key):
            await self._plain.set_if_not_exists(self._prefix + key, value)

    async def delete(self, key: str) -> None:
        """Delete a key."""
        with _refusals(self._where, key):
            await self._plain.delete(self._prefix + key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys below a prefix."""
        async for key in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else ""):
            await self.delete(key)

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """All keys that begin with a prefix."""
        with _refusals(self._where, prefix):
            async for key in self._plain.list_prefix(self._prefix + prefix):
                yield key.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """First parts of the keys below a prefix."""
        with _refusals(self._where, prefix):
            async for key in self._plain.list_dir((self._prefix + prefix).rstrip("/")):
                yield key


@contextlib.contextmanager
def _refusals(where: str, key: str) -> Iterator[None]:
    """Turn what a client raises into one line."""
    from obstore.exceptions import BaseError

    from dmstore.storage.objects.refusals import explain

    try:
        yield
    except BaseError as error:
        msg = (
            f"{where}/{key}: {explain(error)}; check the connection and run the same command again"
        )
        raise StorageError(msg) from None


def zip_in_memory(content: bytes, where: str) -> StrictMemoryStore:
    """A read-only store on the bytes of a ZIP_STORED archive.

    Raises
    ------
    zipfile.BadZipFile
        If it is damaged, or a member is compressed (so that none is larger than the archive).
    """
    with open_zip(io.BytesIO(content), stored=True) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    return StrictMemoryStore(contents, where)
