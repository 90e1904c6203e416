"""What is built beside its place, under a hidden name, to be renamed there when it is whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from dmstore.errors import DmstoreError
from dmstore.storage.objects.refusals import storage_error

# Whoever builds for longer without writing a byte is taken for dead.
GRACE = 86400.0


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A hidden path in the folder of `target`, at which to build it; what is there in the end goes.

    What killed builds of the same target left goes too, once nothing in it has changed for a day:
    another process may be building there now.

    Raises
    ------
    StorageError
        If the file system refuses something at that path; it names the target.
    """
    _sweep(target.absolute())
    temporary = target.absolute().parent / f".{target.name}.{uuid.uuid4().hex}.part"
    try:
        with naming(target, temporary):
            yield temporary
    finally:
        _remove(temporary)


@contextlib.contextmanager
def naming(target: Path, temporary: Path) -> Iterator[None]:
    """Have errors at or below a hidden path name the target, which is what the user gave."""
    try:
        yield
    except OSError as error:
        if str(temporary) not in f"{error.filename} {error}":
            raise
        refusal = error.__cause__ if isinstance(error, DmstoreError) else error
        if not isinstance(refusal, OSError):
            raise
        raise storage_error(refusal, target) from error


def _sweep(target: Path) -> None:
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}\.part")
    # What cannot be looked at or removed, such as another user's, is left.
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            if ours.fullmatch(path.name) and not path.is_symlink() and _age(path) > GRACE:
                _remove(path)


def _age(path: Path) -> float:
    """For how many seconds nothing in a file or folder has changed."""
    inside = (Path(top, name) for top, _, files in os.walk(path) for name in (".", *files))
    return time.time() - max(each.lstat().st_mtime for each in (path, *inside))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
