"""Runs that could not be trained: one immutable document an attempt, by the run's id in its name.

Nothing that is stored depends on them. A run that is stored has not failed, whatever was recorded before.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.errors import DmstoreError, FormatError, plain
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import FailureDocument
from dmstore.storage.objects.objects import ObjectInfo, Objects

_NAME = re.compile(r"([0-9]{19})-[0-9a-f]{32}\.json")
_LONGEST = 500


def one_line(error: BaseException) -> str:
    """Type and message of an error, in one line of printable text.

    Parameters
    ----------
    error : exception
    """
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return plain(said.encode(errors="backslashreplace").decode())[:_LONGEST]


def record(objects: Objects, prefix: str, algorithm: str, run: int, error: str) -> None:
    """Record that a run failed, durably.

    Parameters
    ----------
    objects : Objects
    prefix : str
        Of the algorithm; ends in ``/``.
    algorithm : str
        Its uuid.
    run : int
    error : str
        One line, as :func:`one_line` makes it.

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    document: FailureDocument = {
        "algorithm": algorithm,
        "run": run,
        "error": error,
        "time": time.time_ns() // 1_000_000,
        "host": provenance.host(),
        "software": provenance.software(),
    }
    name = f"{prefix}failures/{run:019d}-{uuid.uuid4().hex}.json"
    objects.put_if_absent(name, dump_document("failure", document))


def recorded(objects: Objects, prefix: str) -> dict[int, list[ObjectInfo]]:
    """The attempts recorded of each run, whether it was stored since or not; from names alone."""
    attempts: dict[int, list[ObjectInfo]] = {}
    for info in objects.entries(f"{prefix}failures/"):
        if match := _NAME.fullmatch(info.name.rpartition("/")[2]):
            attempts.setdefault(int(match[1]), []).append(info)
    return attempts


def failed(objects: Objects, prefix: str, missing: NDArray[np.int64]) -> NDArray[np.int64]:
    """Runs that failed and were not stored since.

    Parameters
    ----------
    objects : Objects
    prefix : str
    missing : (run,) int64
        Runs that are not stored.

    Returns
    -------
    (run,) int64
    """
    known = np.fromiter(recorded(objects, prefix), dtype=np.int64)
    return missing[np.isin(missing, known)]


def read(
    objects: Objects, prefix: str, algorithm: str, runs: Iterable[int], most: int | None = None
) -> list[FailureDocument]:
    """The last failure of each of some runs, newest first.

    Parameters
    ----------
    objects : Objects
    prefix, algorithm : str
        As in :func:`record`.
    runs : iterable of int
    most : int, optional
        Read no more than this many runs, those recorded last by the storage's clock.

    Raises
    ------
    FormatError
        If a document is damaged, or not where it belongs.
    """
    attempts = recorded(objects, prefix)
    last = [
        max(attempts[run], key=lambda info: (info.modified, info.name))
        for run in runs
        if run in attempts
    ]
    last.sort(key=lambda info: info.modified, reverse=True)
    said = [_load(objects, info.name, algorithm) for info in last[:most]]
    return sorted(said, key=lambda one: -one["time"])


def check(objects: Objects, prefix: str, algorithm: str) -> Iterator[tuple[str, str]]:
    """Documents that cannot be read or do not belong where they are: the name and what is wrong.

    Yields
    ------
    tuple of str
    """
    for infos in recorded(objects, prefix).values():
        for info in infos:
            try:
                _load(objects, info.name, algorithm)
            except FileNotFoundError:
                continue
            except (DmstoreError, OSError) as error:
                yield info.name, str(error)


def settled(
    attempts: Mapping[int, list[ObjectInfo]], missing: NDArray[np.int64]
) -> list[ObjectInfo]:
    """Records of runs that were stored since, which a vacuum may take.

    Parameters
    ----------
    attempts : mapping
        From :func:`recorded`.
    missing : (run,) int64
        Runs that are not stored.
    """
    open_runs = set(missing.tolist())
    return [info for run, infos in attempts.items() if run not in open_runs for info in infos]


def _load(objects: Objects, name: str, algorithm: str) -> FailureDocument:
    said = load_document("failure", objects.get(name), name)
    if said["algorithm"] != algorithm or f"{said['run']:019d}" not in name:
        msg = f"{name}: is of run {said['run']} of algorithm {said['algorithm']}, so it does not belong here; delete it"
        raise FormatError(msg)
    return said
