"""What a storage really guarantees, found out by trying."""

from __future__ import annotations

import contextlib
import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor

from dmstore.errors import StorageError
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects

RACERS = 8
_known: weakref.WeakKeyDictionary[Objects, bool] = weakref.WeakKeyDictionary()


def exclusive(objects: Objects) -> bool:
    """Whether at most one of several who create the same name at once succeeds.

    Asked once for each storage opened; see :func:`race`.
    """
    if objects not in _known:
        # A file system either knows exclusive links or does not: two in turn tell. A bucket may
        # check first and write then, which only a race shows.
        local = isinstance(objects, LocalObjects)
        # Asked again before it is denied: a vacuum without grace may take the probe away.
        refuses = not _overwrites(objects) or not _overwrites(objects)
        _known[objects] = refuses and (local or race(objects) == 1)
    return _known[objects]


def _overwrites(objects: Objects) -> bool:
    name = f".{uuid.uuid4().hex}.part"
    try:
        return objects.put_if_absent(name, b"1") and objects.put_if_absent(name, b"2")
    finally:
        _forget(objects, name)


def _forget(objects: Objects, name: str) -> None:
    """Delete a probe; where that is not permitted, vacuum will say so."""
    with contextlib.suppress(StorageError):
        objects.delete(name)


def race(objects: Objects, racers: int = RACERS) -> int:
    """Have several threads create the same name at the same moment.

    Returns
    -------
    int
        How many believe that they made it: 1 where creation is exclusive.
    """
    name = f".{uuid.uuid4().hex}.part"
    start = threading.Barrier(racers)

    def attempt(number: int) -> bool:
        start.wait()
        return objects.put_if_absent(name, f"{number}\n".encode())

    try:
        with ThreadPoolExecutor(racers) as pool:
            return sum(pool.map(attempt, range(racers)))
    finally:
        _forget(objects, name)
