"""Stores that give zarr only what a guard has checked, and in which every chunk must be there.

zarr takes a chunk that is missing for one that holds the fill value alone, so a lost file would read as
masks that saw nothing. dmstore writes every chunk, and so can tell the two apart.
"""

from __future__ import annotations

import contextlib
import io
import stat
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zarr.buffer import cpu
from zarr.storage import LocalStore, MemoryStore, ObjectStore

from dmstore.core.zips import open_zip
from dmstore.errors import FormatError, StorageError
from dmstore.storage.objects.guard import Guard
from dmstore.storage.objects.zarr_internals import StoredZipStore

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest


class StrictLocalStore(LocalStore):
    """A directory; read only."""

    def __init__(self, root: Path | str, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)
        self._guard = Guard(str(root))

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a key; see :meth:`Guard.check`."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = Path(self.root, key).stat()
            # A pipe would be waited for, and a device has no end.
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                msg = f"{self.root}/{key}: is no plain file; do not use this store"
                raise FormatError(msg)
            if byte_range is None:
                self._guard.check_size(key, status.st_size)
        found = await super().get(key, prototype, byte_range)
        return self._guard.check(key, found, byte_range)


class StrictZipStore(StoredZipStore):
    """A zip of stored members; read only."""

    def __init__(self, path: Path | str, **options: Any) -> None:
        super().__init__(path, **options)
        self._guard = Guard(str(path))

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; see :meth:`Guard.check`."""
        found = await super().get(key, prototype, byte_range)
        return self._guard.check(key, found, byte_range)


class BucketStore(ObjectStore[Any]):
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

    def __init__(self, store: Any, prefix: str, where: str, *, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self._prefix = f"{prefix}/"
        self._where = where
        self._guard = Guard(where)

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 - as in zarr
        """The same store, writable or not."""
        return type(self)(self.store, self._prefix[:-1], self._where, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and (self._where, self.read_only) == (
            other._where,
            other.read_only,
        )

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; see :meth:`Guard.check`."""
        with _refusals(self._where, key):
            found = await super().get(self._prefix + key, prototype, byte_range)
        return self._guard.check(key, found, byte_range) if self.read_only else found

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        with _refusals(self._where, key):
            return await super().exists(self._prefix + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key."""
        with _refusals(self._where, key):
            await super().set(self._prefix + key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key that is not there."""
        with _refusals(self._where, key):
            await super().set_if_not_exists(self._prefix + key, value)

    async def delete(self, key: str) -> None:
        """Delete a key."""
        with _refusals(self._where, key):
            await super().delete(self._prefix + key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all keys below a prefix."""
        async for key in self.list_prefix(f"{prefix.rstrip('/')}/" if prefix else ""):
            await self.delete(key)

    async def list(self) -> AsyncGenerator[str, None]:
        """All keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        """All keys that begin with a prefix."""
        with _refusals(self._where, prefix):
            async for key in super().list_prefix(self._prefix + prefix):
                yield key.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """First parts of the keys below a prefix."""
        with _refusals(self._where, prefix):
            async for key in super().list_dir((self._prefix + prefix).rstrip("/")):
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


class StrictMemoryStore(MemoryStore):
    """An archive in memory; read only."""

    def __init__(self, items: dict[str, Any] | None = None, *, read_only: bool = True) -> None:
        super().__init__(items, read_only=read_only)
        self._guard = Guard("archive")

    def named(self, where: str) -> Self:
        """The same store, with a name for error texts."""
        self._guard.where = where
        return self

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a key; see :meth:`Guard.check`."""
        found = await super().get(key, prototype, byte_range)
        return self._guard.check(key, found, byte_range)


def zip_in_memory(content: bytes, where: str) -> StrictMemoryStore:
    """A read-only store on the bytes of a ZIP_STORED archive.

    Raises
    ------
    zipfile.BadZipFile
        If it is damaged, or a member is compressed (so that none is larger than the archive).
    """
    with open_zip(io.BytesIO(content), stored=True) as archive:
        items: dict[str, Any] = {
            info.filename: cpu.Buffer.from_bytes(archive.read(info)) for info in archive.infolist()
        }
    return StrictMemoryStore(items).named(where)
