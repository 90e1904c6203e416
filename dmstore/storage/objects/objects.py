"""Where objects live: the few operations that the store protocol needs, and nothing else.

:class:`Objects` is the protocol; :class:`LocalObjects` is a local or shared POSIX file system.
An object store implements the same methods and nothing above this module changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from dmstore.errors import FormatError, StorageError, StudyNotFoundError, plain
from dmstore.storage.objects import posix

if TYPE_CHECKING:
    from zarr.abc.store import Store

_REMEDY = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; mount it for writing or copy the study elsewhere",
    errno.EACCES: "use an account that may read and write there",
    errno.EPERM: "not permitted; the file system must allow hard links and writing there",
    errno.ENOTSUP: "the file system has no hard links; keep the study on one that has",
    errno.EMLINK: "the file system refuses more links to a file",
    errno.ENAMETOOLONG: "the name is too long for the file system; use a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
}


_ATTEMPTS = 5
# The longest object read whole: documents, and what one chunk can be.
_LONGEST_DOCUMENT, _LONGEST = 1 << 26, 1 << 31


def check_length(name: str, size: int, where: str) -> None:
    """Refuse to take an absurdly long object into memory: FormatError."""
    most = _LONGEST_DOCUMENT if name.endswith(".json") else _LONGEST
    if size > most:
        msg = f"{where}/{name}: has {size} bytes, at most {most} are read; it is damaged, restore it from a copy"
        raise FormatError(msg)


@dataclass(frozen=True)
class ObjectInfo:
    """One object: its name relative to the root, its length in bytes, and when it was last
    modified by the storage's own clock (seconds since 1970).
    """

    name: str
    size: int
    modified: float


class Objects(Protocol):
    """A flat namespace of immutable objects with names like ``log/0001.json``."""

    url: str

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose names start with `prefix`, which ends in ``/``; sorted by name."""

    def children(self, prefix: str) -> list[str]:
        """The first path components below `prefix`, sorted; directories without the slash."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""

    def get(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""

    def open(self, name: str) -> BinaryIO:
        """An object as a file to read from any place; FileNotFoundError if there is none."""

    def tail(self, name: str, length: int) -> bytes:
        """The last `length` bytes of an object, or all of it if it is shorter."""

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create an object durably and at once; False, and no change, if the name is taken."""

    def replace(self, name: str, content: bytes) -> None:
        """Create an object, or put it in the place of the one that is there, durably and at once."""

    def delete(self, name: str) -> None:
        """Delete an object, or all objects below it; no error if there is none."""

    def now(self) -> float:
        """The storage's own clock: seconds since 1970."""

    def leftovers(self) -> list[ObjectInfo]:
        """Temporary objects of writers that died, and groups of which nothing but directories is left."""

    def reader(self, name: str) -> Store:
        """A read-only zarr store on a zipped object or on a prefix that holds a zarr group."""

    def writer(self, prefix: str) -> Store:
        """A zarr store that writes below an unused prefix; make it durable with :meth:`sync`."""

    def sync(self, prefix: str) -> None:
        """Make durable all that was written below `prefix`."""


def storage_error(error: OSError, path: str | Path) -> StorageError:
    """A one-line error for a refused operation, with the remedy."""
    reason = _REMEDY.get(error.errno or 0, "check the file system and run the same command again")
    return StorageError(f"{path}: {os.strerror(error.errno) if error.errno else error}: {reason}")


class LocalObjects:
    """Objects as files below a directory of a POSIX file system.

    An object is written to a temporary name, fsynced, hard-linked to its name (which fails if the
    name is taken, on NFS too) and made durable by an fsync of the directory.

    Parameters
    ----------
    root : path
        Must exist.
    anchor : str, optional
        An object without which nothing else may be created, so that a writer does not bring a
        deleted study half back.
    """

    def __init__(self, root: str | Path, anchor: str | None = None) -> None:
        # Absolute, so that a later chdir does not move the study.
        self.root = Path(root).absolute()
        self.url = str(root)
        self._anchor = anchor
        self._durable: set[Path] = set()
        # Directories that are no links.
        self._plain: set[Path] = set()

    def path(self, name: str) -> Path:
        """The file of an object, or the directory of a prefix.

        Raises
        ------
        FormatError
            If the name would lead out of the root: by itself, or behind a linked directory.
        """
        parts = name.rstrip("/").split("/") if name else []
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            msg = (
                f"{self.url}: {plain(name)[:100]!r} is no name of an object; do not use this study"
            )
            raise FormatError(msg)
        path = self.root
        for number, part in enumerate(parts, start=1):
            path /= part
            if (number < len(parts) or name.endswith("/")) and path not in self._plain:
                if path.is_symlink():
                    raise _linked(path)
                self._plain.add(path)
        return path

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.entries`."""
        return [info for info in self._walk(prefix) if not is_temporary(info.name)]

    def leftovers(self) -> list[ObjectInfo]:
        """See :meth:`Objects.leftovers`."""
        return [info for info in self._walk("") if is_temporary(info.name)] + self._hollow()

    def _hollow(self) -> list[ObjectInfo]:
        """Directories of groups without an object: a writer died at once, or whoever deleted them."""
        found: list[ObjectInfo] = []
        filled: set[Path] = set()
        for top, folders, files in os.walk(self.root, topdown=False):
            directory = Path(top)
            inside = [directory / name for name in (*folders, *files)]
            if not all(map(is_temporary, files)) or filled.intersection(inside):
                filled.add(directory)
            elif directory.suffix == ".zarr":
                with contextlib.suppress(FileNotFoundError):
                    changed = max(path.stat().st_mtime for path in (directory, *inside))
                    name = directory.relative_to(self.root).as_posix()
                    found.append(ObjectInfo(name, 0, changed))
        return found

    def _walk(self, prefix: str) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        stack = [self.path(prefix)]
        while stack:
            directory = stack.pop()
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(directory) as entries,
            ):
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_dir():
                            if entry.is_symlink():
                                raise _linked(Path(entry.path))
                            stack.append(Path(entry.path))
                        else:
                            status = entry.stat()
                            name = Path(entry.path).relative_to(self.root).as_posix()
                            found.append(ObjectInfo(name, status.st_size, status.st_mtime))
        return sorted(found, key=lambda info: info.name)

    def children(self, prefix: str) -> list[str]:
        """See :meth:`Objects.children`."""
        try:
            names = [path.name for path in self.path(prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not is_temporary(name))

    def exists(self, name: str) -> bool:
        """See :meth:`Objects.exists`."""
        return self.path(name).is_file()

    def get(self, name: str) -> bytes:
        """See :meth:`Objects.get`."""
        with self._open(name) as file:
            check_length(name, os.fstat(file.fileno()).st_size, self.url)
            return file.read()

    def _open(self, name: str) -> BinaryIO:
        path = self.path(name)
        # A pipe would be waited for, and a device has no end.
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            msg = f"{path}: is no plain file; do not use this study"
            raise FormatError(msg)
        return path.open("rb")

    def open(self, name: str) -> BinaryIO:
        """See :meth:`Objects.open`."""
        return self._open(name)

    def tail(self, name: str, length: int) -> bytes:
        """See :meth:`Objects.tail`."""
        with self._open(name) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - length))
            return file.read()

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """See :meth:`Objects.put_if_absent`."""
        path = self.path(name)
        for attempt in range(_ATTEMPTS):
            self._check_anchor(name)
            temporary = path.parent / f".{uuid.uuid4().hex}.part"
            try:
                posix.drive(posix.make_directory(self.root, path.parent, self._durable))
                return posix.drive(posix.create_file(path, temporary, content))
            except OSError as error:
                # A vacuum without grace takes the unfinished file for one of a dead writer.
                if not isinstance(error, FileNotFoundError) or attempt == _ATTEMPTS - 1:
                    raise storage_error(error, path) from error
        raise AssertionError(name)

    def _check_anchor(self, name: str) -> None:
        if self._anchor and name != self._anchor and not self.path(self._anchor).is_file():
            msg = f"{self.root}: {self._anchor} is gone, so the study was deleted or moved; nothing was written"
            raise StudyNotFoundError(msg)

    def replace(self, name: str, content: bytes) -> None:
        """See :meth:`Objects.replace`."""
        path = self.path(name)
        hidden = path.parent / f".{uuid.uuid4().hex}.part"
        self.put_if_absent(hidden.relative_to(self.root).as_posix(), content)
        try:
            hidden.replace(path)
            posix.sync_path(path.parent, os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, path) from error

    def delete(self, name: str) -> None:
        """See :meth:`Objects.delete`."""
        path = self.path(name)
        for attempt in range(_ATTEMPTS):
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                # Another host deletes the same tree: it is gone, or the rest of it is left.
                continue
            except OSError as error:
                # A writer that does not know yet that it lost may still add to the tree.
                if error.errno != errno.ENOTEMPTY or attempt == _ATTEMPTS - 1:
                    raise storage_error(error, path) from error
            else:
                return

    def now(self) -> float:
        """See :meth:`Objects.now`: the time that the file system gives to a new file."""
        probe = self.root / f".{uuid.uuid4().hex}.part"
        try:
            probe.touch(exist_ok=False)
            try:
                return probe.stat().st_mtime
            finally:
                probe.unlink()
        except OSError as error:
            raise storage_error(error, self.root) from error

    def reader(self, name: str) -> Store:
        """See :meth:`Objects.reader`."""
        from dmstore.storage.objects.strict import StrictLocalStore, StrictZipStore

        path = self.path(name)
        if stat.S_ISDIR(path.stat().st_mode):
            return StrictLocalStore(path, read_only=True)
        return StrictZipStore(path, mode="r")

    def writer(self, prefix: str) -> Store:
        """See :meth:`Objects.writer`."""
        from zarr.storage import LocalStore

        self._check_anchor(prefix)
        path = self.path(prefix)
        try:
            posix.drive(posix.make_directory(self.root, path.parent, self._durable))
            path.mkdir()
        except OSError as error:
            raise storage_error(error, path) from error
        return LocalStore(path)

    def sync(self, prefix: str) -> None:
        """See :meth:`Objects.sync`."""
        top = self.path(prefix)
        try:
            for directory, _, files in os.walk(top):
                for file in files:
                    posix.sync_path(Path(directory, file))
                posix.sync_path(Path(directory), os.O_DIRECTORY)
            posix.sync_path(top.parent, os.O_DIRECTORY)
        except FileNotFoundError:
            # Somebody deleted it: what that means, the caller knows.
            raise
        except OSError as error:
            raise storage_error(error, top) from error


def _linked(path: Path) -> FormatError:
    return FormatError(
        f"{path}: is a link to a directory, and what is there may not belong to the study; put the directory itself there"
    )


def is_temporary(name: str) -> bool:
    """Whether an object is one that a writer had not finished."""
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.endswith(".partial")
