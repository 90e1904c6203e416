"""How an object becomes a durable file: steps of system calls, and the driver that makes them.

The same steps run in tests on a simulated file system that loses what was not synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from dmstore.storage.objects import steps
from dmstore.storage.objects.permissions import Permissions, share

T = TypeVar("T")
# What file systems without hard links, or with broken ones, answer to a request for one.
_NO_LINKS = (
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EPERM,
    errno.EIO,
    errno.EINVAL,
    errno.EXDEV,
    errno.EMLINK,
)


class RefusedLinkError(OSError):
    """The file system refused a hard link, which the error by itself does not say."""


@dataclass(frozen=True)
class MakeDirectory:
    """mkdir; FileExistsError if it is there."""

    path: Path


@dataclass(frozen=True)
class IsDirectory:
    """Whether a path is a directory."""

    path: Path


@dataclass(frozen=True)
class SyncDirectory:
    """fsync of a directory: its entries are durable then."""

    path: Path


@dataclass(frozen=True)
class Open:
    """Create a new file for writing: a handle."""

    path: Path


@dataclass(frozen=True)
class Share:
    """Give what is at a path, or a handle, the permissions of the study, where it is one's own."""

    place: Any
    like: Permissions


@dataclass(frozen=True)
class Write:
    """Write everything to a handle."""

    handle: Any
    content: bytes


@dataclass(frozen=True)
class Sync:
    """fsync of a handle: the content is durable then."""

    handle: Any


@dataclass(frozen=True)
class Close:
    """close; network file systems report here what they could not write."""

    handle: Any


@dataclass(frozen=True)
class Link:
    """A hard link; FileExistsError if the new name is taken."""

    path: Path
    name: Path


@dataclass(frozen=True)
class SameFile:
    """Whether two names are one file; False if either is not there."""

    path: Path
    name: Path


@dataclass(frozen=True)
class Unlink:
    """Remove a name."""

    path: Path


SystemCall: TypeAlias = (
    MakeDirectory
    | IsDirectory
    | SyncDirectory
    | Open
    | Share
    | Write
    | Sync
    | Close
    | Link
    | SameFile
    | Unlink
)
Calls: TypeAlias = Generator[SystemCall, Any, T]


def create_file(
    path: Path, temporary: Path, content: bytes, like: Permissions | None = None
) -> Calls[bool]:
    """Create a file whole and durably; False if the name is taken.

    Parameters
    ----------
    path, temporary : Path
        Where it is to be, and a name beside it that nobody else has.
    content : bytes
    like : Permissions, optional
        What it is to have, whatever the umask.

    Raises
    ------
    OSError
        If a call is refused. The file may be there all the same, but was not acknowledged.
    """
    try:
        handle = yield Open(temporary)
        try:
            if like:
                yield Share(handle, like)
            yield Write(handle, content)
            yield Sync(handle)
        except GeneratorExit:
            raise
        except BaseException:
            yield from _quietly(Close(handle))
            raise
        yield Close(handle)
        made = yield from _link(temporary, path)
        if made:
            yield SyncDirectory(path.parent)
    except GeneratorExit:
        # The process is no more (in a simulation): nothing is cleaned up.
        raise
    except BaseException:
        yield from _quietly(Unlink(temporary))
        raise
    yield from _quietly(Unlink(temporary))
    return made


def _link(temporary: Path, path: Path) -> Calls[bool]:
    try:
        yield Link(temporary, path)
    except OSError as error:
        # A network file system may repeat a request whose reply was lost and then report
        # that the name exists: the inode tells whether it is our own.
        if (yield SameFile(temporary, path)):
            return True
        if isinstance(error, FileExistsError):
            return False
        if error.errno in _NO_LINKS:
            raise RefusedLinkError(error.errno, error.strerror) from error
        raise
    return True


def make_directory(
    root: Path, directory: Path, durable: set[Path], like: Permissions | None = None
) -> Calls[None]:
    """Make a directory below `root` and be sure that it and all above it are durable.

    A directory that is there may have been made a moment ago by another host that has not synced it
    yet, so each is synced once by each process; `durable` remembers which.
    """
    missing = [directory, *(p for p in directory.parents if p.is_relative_to(root) and p != root)]
    for path in reversed(missing):
        if path in durable and (yield IsDirectory(path)):
            continue
        if not (yield IsDirectory(path)):
            try:
                yield MakeDirectory(path)
            except FileExistsError:
                if not (yield IsDirectory(path)):
                    raise
        if like:
            # Also of one that was there: its maker may have died before this, or be an earlier version.
            yield Share(path, like)
        yield SyncDirectory(path.parent)
        durable.add(path)


def _quietly(call: SystemCall) -> Calls[None]:
    try:
        yield call
    except OSError:
        return


def drive(calls: Calls[T], perform: Callable[[Any], Any] | None = None) -> T:
    """Run calls to their end on this machine, or on whatever `perform` stands for."""
    return steps.drive(calls, perform or perform_call)


def perform_call(call: SystemCall) -> Any:
    """Make one system call."""
    match call:
        case MakeDirectory(path):
            return path.mkdir()
        case IsDirectory(path):
            return path.is_dir()
        case SyncDirectory(path):
            return sync_path(path)
        case Open(path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        case Share(place, like):
            return share(place, like)
        case Write(handle, content):
            return _write_all(handle, content)
        case Sync(handle):
            return os.fsync(handle)
        case Close(handle):
            return os.close(handle)
        case Link(path, name):
            return os.link(path, name)
        case SameFile(path, name):
            return _same_file(path, name)
        case Unlink(path):
            return path.unlink()


def _write_all(handle: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def sync_path(path: Path) -> None:
    """Fsync of a file or directory by name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
