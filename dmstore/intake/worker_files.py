"""Ingest: runs into an algorithm, from many processes and hosts at once, idempotent.

Workers' files are small and many: each is taken whole or refused whole, and their rows are put
together into segments of a good size. Everything else is a source of any size, which is read block
by block; what a killed ingest stored stays stored, and the same call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmstore import readers
from dmstore.errors import DmstoreError, InputError
from dmstore.intake.sources import FAULTS, retracted_text, skipped_text, take
from dmstore.readers.npz import read_outputs, read_rows
from dmstore.readers.source import Request, Source
from dmstore.readers.study import StudySource
from dmstore.storage.table.rows import Rows, column_key, concatenate, pairs_of, row_digests
from dmstore.storage.table.table import Table
from dmstore.study.algorithm import Algorithm
from dmstore.study.target_outputs import TargetOutputs

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
    skipped : int
        Rows of sources that are no runs: NaN or infinite outputs, or zeros that nobody wrote; and
        rows that were retracted here.
    files : int
        Files and sources looked at.
    errors, warnings : list of str
        One line a refused file or source; one line a reason for which something was left out.
    sources : list of dict
        ``path``, ``format`` and ``title`` of everything that is no worker's file.
    """

    new: int = 0
    present: int = 0
    conflicting: int = 0
    refused: int = 0
    skipped: int = 0
    files: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sources: list[dict[str, str]] = field(default_factory=list)


def ingest(
    algorithm: Algorithm,
    sources: Iterable[str | Path],
    progress: Callable[[int, int], None] | None = None,
    *,
    format: str = "auto",
    request: Request | None = None,
    say: Callable[[str], None] | None = None,
    outputs: TargetOutputs | None = None,
) -> Ingest:
    """Store the runs of workers' files and of other sources, or outputs on a later target set.

    A worker's file is taken whole or refused whole; another source is refused whole if a row of it
    is stored with other content. Rows that are there already are counted and left alone, so that the
    same call may be repeated after a kill.

    Parameters
    ----------
    algorithm : Algorithm
    sources : iterable of path
        ``.npz`` files, or directories that are searched for them; and whatever ``format`` names.
    progress : callable, optional
        Called with what is done and what there is in all: workers' files, and runs of sources.
    format : str
        One of :data:`dmstore.readers.FORMATS`, or ``auto``.
    request : Request, optional
        What to take from sources.
    say : callable, optional
        Called with a line on each source that was recognised.
    outputs : TargetOutputs, optional
        The sources are workers' files with outputs of stored runs on this target set, and no masks.

    Raises
    ------
    InputError
        If there is no file at all.
    StorageError
        If the file system refuses; what was stored before stays stored.
    """
    result = Ingest()
    wanted = replace(request or Request(), into=algorithm, train=algorithm.train)
    # Outputs on a later set come in workers' files alone.
    kind = readers.NPZ if outputs else format
    files, opened = _open(sources, kind, wanted, result, say)
    total = len(files) + sum(len(source.ids) for source in opened)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    reason = (
        "retracted here with their runs; a column run_digest says that they are of the present ones"
        if outputs
        else retracted_text(algorithm.name)
    )
    if outputs:
        # Outputs of models that were replaced make room for those of the present ones.
        outputs.retire()
    batch = _Batch((outputs or algorithm).table, reason)
    for path in files:
        try:
            rows = read_outputs(path, outputs) if outputs else read_rows(path, algorithm)
        except InputError as error:
            result.errors.append(str(error))
            result.refused += _count(path)
        else:
            batch.add(rows, str(path), result)
        result.files += 1
        advance(1)
    batch.flush(result)
    for source in opened:
        result.files += 1
        accept = (
            partial(algorithm.adopt, source.blocks) if isinstance(source, StudySource) else None
        )
        taken = take(algorithm, source, advance, accept)
        for name, value in vars(taken).items():
            setattr(result, name, getattr(result, name) + value)
    return result


def _open(
    sources: Iterable[str | Path],
    format: str,
    request: Request,
    result: Ingest,
    say: Callable[[str], None] | None,
) -> tuple[list[Path], list[Source]]:
    """Workers' files, and all other sources opened."""
    files: list[Path] = []
    opened: list[Source] = []
    for path in map(Path, sources):
        kind = readers.sniff(path) if format == "auto" else format
        if kind == readers.NPZ:
            files += _files(path)
            continue
        try:
            source = readers.open_source(path, kind, request)
        except FAULTS as error:
            result.errors.append(str(error))
            result.files += 1
            continue
        opened.append(source)
        result.sources.append({"path": str(path), "format": source.format, "title": source.title})
        if say:
            say(f"{path}: {source.format}: {source.title}")
        result.warnings += [f"{path}: {note}" for note in source.notes]
    if not files and not opened and not result.errors:
        msg = "no files to ingest; name .npz files, directories or other sources"
        raise InputError(msg)
    return files, opened


def _files(source: Path) -> Sequence[Path]:
    if not source.is_dir():
        return [source]
    inside = sorted(source.rglob("*.npz"))
    if not inside:
        msg = f"{source}: no .npz file in this directory, and nothing else that is known; say what it is with --format"
        raise InputError(msg)
    return inside


def _count(path: Path) -> int:
    """Rows that a refused file claims to hold, 0 where that cannot be told."""
    from dmstore.core.npz import NpzReader

    try:
        with NpzReader(path) as reader:
            shape = reader.headers["run"].shape
            return shape[0] if len(shape) == 1 else 0
    except (DmstoreError, KeyError):
        return 0


class _Batch:
    """Rows on their way into segments of a good size, whatever the sizes of the files."""

    def __init__(self, table: Table, reason: str) -> None:
        self._table = table
        self._reason = reason
        view = self._table.view()
        self._retracted = set(view.manifest.retracted)
        self._known = {
            int(run): digest.tobytes() for run, digest in zip(view.run, view.digest, strict=True)
        }
        self._waiting: list[Rows] = []

    def add(self, rows: Rows, where: str, result: Ingest) -> None:
        digests = row_digests(rows.run, rows.arrays, self._table.spec)
        out = self._are_retracted(rows, digests)
        if out.any():
            # Outputs of another model that says the same have been let in since.
            self._retracted = set(self._table.newest().retracted)
            out = self._are_retracted(rows, digests)
        if out.any():
            result.skipped += int(out.sum())
            result.warnings.append(skipped_text(where, rows.run[out].tolist(), self._reason))
            rows, digests = rows.take(~out), digests[~out]
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
        rows = replace(rows, digest=digests)
        fresh = np.array([old is None for old in found], dtype=bool)
        result.present += int((~fresh).sum())
        if not fresh.any():
            return
        self._known.update((int(rows.run[i]), own[i]) for i in np.flatnonzero(fresh))
        self._waiting.append(rows.take(fresh))
        size = sum(sum(v.nbytes for v in part.arrays.values()) for part in self._waiting)
        if sum(map(len, self._waiting)) >= BATCH_RUNS or size >= BATCH_BYTES:
            self.flush(result)

    def _are_retracted(self, rows: Rows, digests: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return np.array([pair in self._retracted for pair in pairs_of(rows.run, digests)], bool)

    def flush(self, result: Ingest) -> None:
        groups: dict[tuple[tuple[str, str], ...], list[Rows]] = {}
        for rows in self._waiting:
            groups.setdefault(column_key(rows), []).append(rows)
        for parts in groups.values():
            merged = concatenate(parts)
            self._table.append(merged)
            result.new += len(merged)
        self._waiting = []
