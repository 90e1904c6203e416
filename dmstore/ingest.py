"""Ingest: workers' files into an algorithm, from many processes and hosts at once, idempotent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dmstore.algorithm import Algorithm
from dmstore.errors import DmstoreError, InputError
from dmstore.outputs import TargetOutputs
from dmstore.readers.npz import read_outputs, read_rows
from dmstore.storage import segment
from dmstore.storage.segment import Rows
from dmstore.storage.table import Table

BATCH_RUNS = 512
BATCH_BYTES = 64 << 20


@dataclass
class Ingest:
    """What an ingest did, in rows.

    Attributes
    ----------
    new, present, conflicting, refused : int
        Rows stored now; there already with the same content; there with other content; in files
        that were refused for another reason, or beside a conflicting row.
    errors : list of str
        One line a refused file.
    """

    new: int = 0
    present: int = 0
    conflicting: int = 0
    refused: int = 0
    files: int = 0
    errors: list[str] = field(default_factory=list)


def ingest(
    algorithm: Algorithm,
    sources: Iterable[str | Path],
    progress: Callable[[int, int], None] | None = None,
    *,
    outputs: TargetOutputs | None = None,
) -> Ingest:
    """Store the runs of workers' files, or their outputs on a later target set.

    A file is taken whole or refused whole. Rows that are there already are counted and left alone,
    so that the same call may be repeated after a kill.

    Parameters
    ----------
    algorithm : Algorithm
    sources : iterable of path
        ``.npz`` files, or directories that are searched for them.
    progress : callable, optional
        Called with files done and files in all.
    outputs : TargetOutputs, optional
        The files hold outputs of stored runs on this target set, and no masks.

    Raises
    ------
    InputError
        If there is no file at all.
    StorageError
        If the file system refuses; what was stored before stays stored.
    """
    files = _files(sources)
    batch = _Batch((outputs or algorithm).table)
    result = Ingest()
    for path in files:
        try:
            rows = read_outputs(path, outputs) if outputs else read_rows(path, algorithm)
        except InputError as error:
            result.errors.append(str(error))
            result.refused += _count(path)
        else:
            batch.add(rows, str(path), result)
        result.files += 1
        if progress:
            progress(result.files, len(files))
    batch.flush(result)
    return result


def _files(sources: Iterable[str | Path]) -> Sequence[Path]:
    files: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(source.rglob("*.npz"))
            if not inside:
                msg = f"{source}: no .npz file in this directory"
                raise InputError(msg)
            files += inside
        else:
            files.append(source)
    if not files:
        msg = "no files to ingest; name .npz files or directories"
        raise InputError(msg)
    return files


def _count(path: Path) -> int:
    """Rows that a refused file claims to hold, 0 where that cannot be told."""
    from dmstore.npz import NpzReader

    try:
        with NpzReader(path) as reader:
            shape = reader.headers["run"].shape
            return shape[0] if len(shape) == 1 else 0
    except (DmstoreError, KeyError):
        return 0


class _Batch:
    """Rows on their way into segments of a good size, whatever the sizes of the files."""

    def __init__(self, table: Table) -> None:
        self._table = table
        view = self._table.view()
        self._known = {
            int(run): digest.tobytes() for run, digest in zip(view.run, view.digest, strict=True)
        }
        self._waiting: list[Rows] = []

    def add(self, rows: Rows, where: str, result: Ingest) -> None:
        digests = segment.row_digests(rows.run, rows.arrays, self._table.spec)
        found = [self._known.get(int(run)) for run in rows.run]
        own = [digest.tobytes() for digest in digests]
        conflicts = [
            int(run)
            for run, old, new in zip(rows.run, found, own, strict=True)
            if old is not None and old != new
        ]
        if conflicts:
            result.conflicting += len(conflicts)
            result.refused += len(rows) - len(conflicts)
            result.errors.append(
                f"{where}: run {conflicts[0]} is stored with other content"
                f"{f' (and {len(conflicts) - 1} more runs)' if len(conflicts) > 1 else ''}; "
                f"give new runs new ids, or leave out the ones stored"
            )
            return
        fresh = np.array([old is None for old in found], dtype=bool)
        result.present += int((~fresh).sum())
        if not fresh.any():
            return
        self._known.update((int(rows.run[i]), own[i]) for i in np.flatnonzero(fresh))
        self._waiting.append(rows.take(fresh))
        size = sum(sum(v.nbytes for v in part.arrays.values()) for part in self._waiting)
        if sum(map(len, self._waiting)) >= BATCH_RUNS or size >= BATCH_BYTES:
            self.flush(result)

    def flush(self, result: Ingest) -> None:
        groups: dict[tuple[tuple[str, str], ...], list[Rows]] = {}
        for rows in self._waiting:
            groups.setdefault(column_key(rows), []).append(rows)
        for parts in groups.values():
            merged = concatenate(parts)
            self._table.append(merged)
            result.new += len(merged)
        self._waiting = []


def column_key(rows: Rows) -> tuple[tuple[str, str], ...]:
    """What rows must share to stand in one segment: names and dtypes of their columns."""
    return tuple(sorted((n, segment.column_dtype(v)) for n, v in rows.columns.items()))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of the same arrays and columns, one after the other."""
    return Rows(
        np.concatenate([part.run for part in parts]),
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
    )
