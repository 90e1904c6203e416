"""Objects as files below a directory of a local or shared POSIX file system."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dmstore.errors import FormatError, StudyNotFoundError, plain
from dmstore.storage.objects import posix
from dmstore.storage.objects.objects import ObjectInfo, check_length, is_hidden, is_leftover
from dmstore.storage.objects.permissions import permissions_of, share
from dmstore.storage.objects.refusals import storage_error

if TYPE_CHECKING:
    from zarr.abc.store import Store


_ATTEMPTS = 5
_PAUSE = 0.02


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
        self._plain: set[str] = set()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

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
        for count in range(1, len(parts) + name.endswith("/")):
            folder = "/".join(parts[:count])
            if folder not in self._plain:
                if (path := Path(self.root, folder)).is_symlink():
                    raise _linked(path)
                self._plain.add(folder)
        return Path(self.root, *parts)

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.entries`."""
        return [info for info in self._walk(prefix) if not is_hidden(info.name)]

    def leftovers(self) -> list[ObjectInfo]:
        """See :meth:`Objects.leftovers`."""
        return [info for info in self._walk("") if is_leftover(info.name)] + self._hollow()

    def _hollow(self) -> list[ObjectInfo]:
        """Directories of groups without an object: a writer died at once, or whoever deleted them."""
        directories: list[ObjectInfo] = []
        filled: set[Path] = set()
        for top, folders, files in os.walk(self.root, topdown=False):
            directory = Path(top)
            inside = [directory / name for name in (*folders, *files)]
            if not all(map(is_leftover, files)) or filled.intersection(inside):
                filled.add(directory)
            elif directory.suffix == ".zarr":
                with contextlib.suppress(FileNotFoundError):
                    changed = max(path.stat().st_mtime for path in (directory, *inside))
                    name = directory.relative_to(self.root).as_posix()
                    directories.append(ObjectInfo(name, 0, changed))
        return directories

    def _walk(self, prefix: str) -> list[ObjectInfo]:
        infos: list[ObjectInfo] = []
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
                            infos.append(ObjectInfo(name, status.st_size, status.st_mtime))
        return sorted(infos, key=lambda info: info.name)

    def children(self, prefix: str) -> list[str]:
        """See :meth:`Objects.children`."""
        try:
            names = [path.name for path in self.path(prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if not is_hidden(name))

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
                like = permissions_of(self.root)
                posix.drive(posix.make_directory(self.root, path.parent, self._durable, like))
                return posix.drive(posix.create_file(path, temporary, content, like))
            except OSError as error:
                # A vacuum without grace takes the unfinished file for one of a dead writer. A folder
                # that somebody else makes at this moment is not yet open to its group.
                passing = isinstance(error, FileNotFoundError | PermissionError)
                if not passing or attempt == _ATTEMPTS - 1:
                    raise storage_error(error, path) from error
                if isinstance(error, PermissionError):
                    time.sleep(_PAUSE)
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
            posix.sync_path(path.parent)
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
            return StrictLocalStore(path)
        return StrictZipStore(path)

    def writer(self, prefix: str) -> Store:
        """See :meth:`Objects.writer`."""
        from dmstore.storage.objects.shared_store import SharedStore

        self._check_anchor(prefix)
        path = self.path(prefix)
        try:
            like = permissions_of(self.root)
            posix.drive(posix.make_directory(self.root, path.parent, self._durable, like))
            path.mkdir()
            share(path, like)
        except OSError as error:
            raise storage_error(error, path) from error
        return SharedStore(path, like)

    def sync(self, prefix: str) -> None:
        """See :meth:`Objects.sync`."""
        top = self.path(prefix)
        try:
            like = permissions_of(self.root)
            for directory, _, files in os.walk(top):
                for path in (*(Path(directory, file) for file in files), Path(directory)):
                    share(path, like)
                    posix.sync_path(path)
            posix.sync_path(top.parent)
        except FileNotFoundError:
            # Somebody deleted it: what that means, the caller knows.
            raise
        except OSError as error:
            raise storage_error(error, top) from error


def _linked(path: Path) -> FormatError:
    return FormatError(
        f"{path}: is a link to a directory, and what is there may not belong to the study; put the directory itself there"
    )
