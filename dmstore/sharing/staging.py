"""A directory that is built beside its place and moved there whole.

A killed build leaves it under a hidden name, and the next attempt goes on with what is right in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import BinaryIO

from dmstore.errors import ConflictError, ExistsError, InputError
from dmstore.storage.objects.build_aside import naming
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import is_hidden
from dmstore.storage.objects.permissions import permissions_of, share
from dmstore.storage.objects.posix import sync_path
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.published import index as indexes
from dmstore.storage.published.index import Entry


def check_free(target: Path) -> None:
    """Refuse a place where something is: ExistsError."""
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        msg = f"{target}: is there already; choose another path, or remove it first"
        raise ExistsError(msg)


class Staging:
    """The unfinished form of a directory.

    Parameters
    ----------
    target : path
        Where it is to be; free, or an empty directory.

    Raises
    ------
    ExistsError
        If something is there.
    ConflictError
        If another process is at it.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.absolute()
        check_free(self.target)
        self.path = self.target.parent / f".{self.target.name}.part"
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            msg = f"{self.path}: is in the way; remove it and run the same command again"
            raise InputError(msg)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.target.is_dir():
                share(self.path, permissions_of(self.target))
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, self.target) from error
        self.objects = LocalObjects(self.path)
        self._lock()

    def _lock(self) -> None:
        """Keep other processes out; a kill lets them in again."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            msg = f"{self.target}: another process is making it; wait for that one"
            raise ConflictError(msg) from None
        except OSError:
            # A network file system without locks: of two that build the same, one is refused at the end.
            pass
        try:
            moved = self.path.stat().st_ino != os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            moved = True
        if moved:
            self.close()
            check_free(self.target)
            msg = (
                f"{self.target}: another process has just worked there; run the same command again"
            )
            raise ConflictError(msg)

    def close(self) -> None:
        """Let other processes in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def holds(self, entry: Entry) -> bool:
        """Whether an object is there with the right bytes."""
        path = self.path / entry.name
        try:
            if path.is_symlink() or path.stat().st_size != entry.size:
                return False
            with path.open("rb") as file:
                blocks = iter(lambda: file.read(1 << 22), b"")
                return indexes.sha256(blocks) == (entry.size, entry.sha256)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False

    def write(self, name: str, blocks: Iterable[bytes]) -> Entry:
        """Write an object at once, whatever was there; what it became is returned."""
        path = self.path / name
        temporary = path.parent / f".{uuid.uuid4().hex}.part"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                size, digest = indexes.sha256(_written(file, blocks))
            temporary.replace(path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not self.path.is_dir():
                check_free(self.target)
            if error.filename is None and error.errno is None:
                raise
            raise storage_error(error, self.target / name) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return Entry(name, size, digest)

    def keep_only(self, names: Collection[str]) -> None:
        """Remove what an earlier attempt left and the finished directory does not have."""
        for info in (*self.objects.entries(""), *self.objects.leftovers()):
            if info.name not in names or is_hidden(info.name):
                self.objects.delete(info.name)

    def sync(self) -> None:
        """Make all of it durable."""
        with naming(self.target, self.path):
            self.objects.sync("")

    def finish(self) -> None:
        """Make all of it durable and move it to its place."""
        self.sync()
        try:
            self.path.rename(self.target)
            sync_path(self.target.parent)
        except OSError as error:
            check_free(self.target)
            raise storage_error(error, self.target) from error

    def discard(self) -> None:
        """Remove it, and make durable what was put at its place."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            sync_path(self.target.parent)


def _written(file: BinaryIO, blocks: Iterable[bytes]) -> Iterable[bytes]:
    for block in blocks:
        file.write(block)
        yield block
