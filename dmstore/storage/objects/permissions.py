"""Who may use what is created: in a study everything takes the mode and group of the study's own directory.

A umask is one person's, a study may be a group's: with it alone, the folders that one member's umask made
would lock the others out.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Permissions:
    """Modes of directories and of files, and a group id."""

    directory: int
    file: int
    group: int

    def __str__(self) -> str:
        return f"mode {self.directory:o}, group {group_name(self.group)}"


def permissions_of(directory: Path) -> Permissions:
    """What is created below a directory is to have: its mode, files without the x bits, and its group."""
    status = directory.stat()
    # The owner, who writes there, may do so whatever the directory itself says.
    mode = status.st_mode & (stat.S_ISGID | 0o777) | 0o700
    return Permissions(mode, mode & 0o666, status.st_gid)


def share(path: Path | int, like: Permissions) -> None:
    """Give a file or directory of one's own the permissions that it is to have.

    What a file system without modes refuses is left; so is what belongs to somebody else.
    """
    status = os.stat(path)  # noqa: PTH116 - a handle too
    if status.st_uid != os.geteuid():
        return
    wanted = like.directory if stat.S_ISDIR(status.st_mode) else like.file
    with contextlib.suppress(PermissionError):
        if status.st_gid != like.group:
            os.chown(path, -1, like.group)
    with contextlib.suppress(OSError):
        if stat.S_IMODE(status.st_mode) != wanted:
            os.chmod(path, wanted)  # noqa: PTH101 - a handle too


def differing(root: Path, *, most: int = 100_000) -> Iterator[Path]:
    """Directories and files below a root whose group may do less there than in the root, or is another.

    Parameters
    ----------
    root : path
    most : int
        How many are looked at.
    """
    like = permissions_of(root)
    seen = 0
    for top, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(top, name)
            seen += 1
            if seen > most:
                return
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                wanted = like.directory if stat.S_ISDIR(status.st_mode) else like.file
                lacks = wanted & ~status.st_mode & 0o070
                if lacks or (wanted & 0o070 and status.st_gid != like.group):
                    yield path


def denied(path: Path) -> str:
    """Which file or folder on the way to a path this user may not use, and whose it is; empty if none is known."""
    try:
        for place in (*reversed(path.parents), path):
            status = place.stat()
            needed = os.X_OK if stat.S_ISDIR(status.st_mode) else os.R_OK
            if not os.access(place, needed | os.R_OK if place == path else needed):
                return _whose(place, status)
    except FileNotFoundError:
        pass
    except OSError:
        return ""
    # Where the path is not there yet, its folder may refuse it; that may have gone meanwhile.
    with contextlib.suppress(OSError):
        status = path.parent.stat()
        if not os.access(path.parent, os.W_OK):
            return _whose(path.parent, status)
    return ""


def _whose(place: Path, status: os.stat_result) -> str:
    mode = f"{stat.S_IMODE(status.st_mode):o}"
    owner, group = user_name(status.st_uid), group_name(status.st_gid)
    return f"{place} has mode {mode}, owner {owner} and group {group}"


def group_name(number: int) -> str:
    """The name of a group, or its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def user_name(number: int) -> str:
    """The name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
