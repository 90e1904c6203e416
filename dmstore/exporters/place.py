"""Where an export goes: built beside its place, renamed there when it is whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from dmstore.errors import DmstoreError, ExistsError, InputError
from dmstore.storage.objects.build_aside import beside
from dmstore.storage.objects.posix import sync_path
from dmstore.storage.objects.refusals import storage_error
from dmstore.study.outside import outside_studies


@contextlib.contextmanager
def building(dest: str | Path) -> Iterator[Path]:
    """A path to build a file or folder at; on success it becomes `dest`, durably and at once.

    What a killed export to the same `dest` left beside it is removed after a day.

    Raises
    ------
    ExistsError
        If there is something at `dest`: an export never replaces anything.
    InputError
        If the folder that `dest` is to stand in is not there.
    StorageError
        If the file system refuses.
    """
    target = outside_studies(dest)
    _check_free(target)
    if not target.absolute().parent.is_dir():
        msg = f"{target}: the folder {target.parent} is not there; make it first"
        raise InputError(msg)
    try:
        with beside(target) as temporary:
            yield temporary
            _sync(temporary)
            _check_free(target)
            temporary.rename(target)
        sync_path(target.absolute().parent)
    except DmstoreError:
        raise
    except OSError as error:
        raise storage_error(error, error.filename or target) from error


def _check_free(target: Path) -> None:
    if not target.name or os.path.lexists(target):
        msg = f"{target}: is there already; an export replaces nothing, give a new name"
        raise ExistsError(msg)


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.iterdir():
            sync_path(child)
    sync_path(path)
