"""Filling an empty table: the rows of one source become its first base, in one pass and all at once.

What is stored as segments is read again by a compaction. A source that is there as a whole needs no
segments: its base is written, read back, and committed by one log entry; before that nothing is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Count
from dmstore.storage.acts.compact import discard, new_path, overtaken
from dmstore.storage.table import base, log
from dmstore.storage.table.protocol import Call, CheckBase, Exclusive, FillBase, Steps
from dmstore.storage.table.rows import DIGEST_BYTES, Rows, column_dtype
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.snapshot import BaseRows, content_id, snapshot_steps
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import BLOCK


def fill(
    table: Table,
    rows: Iterable[Rows],
    count: int,
    progress: Count | None = None,
) -> log.Manifest | None:
    """Make rows the first base of a table that never had any.

    Parameters
    ----------
    table : Table
    rows : iterable of Rows
        Checked, with their digests, different run ids, and the same columns in each; read only where
        the table is empty and commits are safe on its storage.
    count : int
        At least as many as there are rows.
    progress : callable, optional
        Called with rows done and `count`.

    Returns
    -------
    Manifest or None
        None if nothing was stored: there are no rows, the table is not empty (any more), or its
        storage lets a name be created twice. The rows can be appended then.

    Raises
    ------
    CorruptionError
        If what was written does not read back; nothing is committed then.
    StorageError
        If the storage refuses.
    """

    def perform(operation: Any) -> Any:
        match operation:
            case FillBase(path):
                return _fill(table, path, rows, count, progress)
            case CheckBase(path, run, digest):
                return base.check(table, path, run, digest)
        return table.perform(operation)

    return table.run(fill_steps(table.prefix, table.infos, table.pause), perform)


def fill_steps(
    prefix: str, known: MutableMapping[str, SegmentInfo], pause: Call
) -> Steps[log.Manifest | None]:
    """What :func:`fill` does."""
    state = yield from snapshot_steps(prefix, known, pause)
    if state.manifest.version or state.tail or not (yield Exclusive()):
        return None
    path = new_path(state.manifest)
    try:
        rows: BaseRows = yield FillBase(path)
        if len(rows.run):
            yield CheckBase(path, rows.run, rows.digest)
    except GeneratorExit:
        raise
    except BaseException as error:
        yield from discard(prefix, path)
        if (yield from overtaken(prefix, state.manifest, error)):
            return None
        raise
    if len(rows.run):
        base = log.Base(path, len(rows.run), content_id(rows.run, rows.digest))
        manifest = log.Manifest(state.manifest.version + 1, "ingest", base)
        # An error of the commit leaves the base where it is: the entry may be there all the same.
        if (yield from log.commit_steps(prefix, manifest)):
            return manifest
    yield from discard(prefix, path)
    return None


def _fill(
    table: Table, path: str, rows: Iterable[Rows], count: int, progress: Count | None
) -> BaseRows:
    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        return BaseRows(np.empty(0, np.int64), np.empty((0, DIGEST_BYTES), np.uint8))
    columns = {n: column_dtype(v) for n, v in first.columns.items()}
    spec = table.spec.with_columns(columns)
    narrow: dict[str, list[NDArray[Any]]] = {}

    def note(part: Rows) -> Rows:
        gathered = {"run": part.run, "row_digest": part.digest, **part.columns}
        for name, values in gathered.items():
            assert values is not None
            narrow.setdefault(name, []).append(values)
        return part

    def gather() -> dict[str, NDArray[Any]]:
        return {name: np.concatenate(parts) for name, parts in narrow.items()}

    blocks = _blocks(map(note, itertools.chain([first], stream)))
    base.write(table, path, spec, blocks, count, gather, progress)
    gathered = gather()
    return BaseRows(gathered["run"], gathered["row_digest"])


def _blocks(parts: Iterable[Rows]) -> Iterator[dict[str, NDArray[Any]]]:
    """The arrays of rows, cut anew into blocks."""
    waiting: list[Rows] = []
    have = 0
    for part in parts:
        waiting.append(part)
        have += len(part)
        if have < BLOCK:
            continue
        # What is left over goes into the next block.
        spare = have - BLOCK
        last = waiting.pop()
        cut = len(last) - spare
        waiting.append(last.take(slice(cut)))
        yield _joined(waiting)
        waiting, have = [last.take(slice(cut, None))] if spare else [], spare
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Rows]) -> dict[str, NDArray[Any]]:
    if len(parts) == 1:
        return dict(parts[0].arrays)
    return {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
