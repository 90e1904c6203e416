"""Compaction: write all rows into a new base, check it, and commit it by one log entry."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmstore import schema
from dmstore.errors import CorruptionError, DmstoreError, FormatError, StorageError
from dmstore.storage import log, segment
from dmstore.storage.objects import storage_error
from dmstore.storage.protocol import Call, CheckBase, Delete, Exclusive, Steps, WriteBase
from dmstore.storage.segment import SegmentInfo
from dmstore.storage.snapshot import Snapshot, snapshot_steps
from dmstore.storage.table import Table
from dmstore.storage.view import BLOCK, View

_ATTEMPTS = 10
# A block of rows of which no second one is kept in memory.
_LARGE = 256 << 20
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: the manifest in force, and how many segments it absorbed."""

    manifest: log.Manifest
    absorbed: int


def compact(table: Table, progress: Progress | None = None) -> Compaction:
    """Bring all visible rows into one base.

    Any number of hosts may do this at once: one commits, the others find its version taken and
    look again. A kill at any moment leaves either the old state or the new one.

    Parameters
    ----------
    table : Table
    progress : callable, optional
        Called with rows done and rows in all.

    Raises
    ------
    CorruptionError
        If a row does not match its digest; nothing is committed then.
    StorageError
        If the storage refuses, or overwrites a name that exists, which makes a commit unsafe.
    """

    def perform(operation: Any) -> Any:
        match operation:
            case WriteBase(path, snapshot):
                return _write_whole(View(table, snapshot), path, progress)
            case CheckBase(path, snapshot):
                return _check(table, snapshot, path)
        return table.perform(operation)

    return table.run(compaction_steps(table.prefix, table.infos, table.pause), perform)


def compaction_steps(
    prefix: str, known: MutableMapping[str, SegmentInfo], pause: Call
) -> Steps[Compaction]:
    """What a compactor does; see :func:`compact`."""
    for _ in range(_ATTEMPTS):
        state = yield from snapshot_steps(prefix, known, pause)
        if not state.needs_compaction():
            return Compaction(state.manifest, 0)
        yield from require_exclusive(prefix)
        path = f"base/{state.manifest.version + 1:08d}-{uuid.uuid4().hex[:8]}.zarr"
        try:
            yield WriteBase(path, state)
            yield CheckBase(path, state)
        except GeneratorExit:
            raise
        except BaseException as error:
            yield from _discard(prefix, path)
            # If the log moved, a vacuum took a segment that another compactor had absorbed, or
            # this unfinished base itself: look again.
            overtaken = isinstance(
                error, FileNotFoundError | CorruptionError | FormatError | KeyError
            )
            if overtaken and (yield from log.moved(prefix, state.manifest.version)):
                continue
            raise
        manifest = _next(state, path)
        # An error of the commit leaves the base where it is: the entry may be there all the same.
        if (yield from log.commit_steps(prefix, manifest)):
            return Compaction(manifest, len(manifest.absorbed) - len(state.manifest.absorbed))
        yield from _discard(prefix, path)
    msg = f"{prefix}: {_ATTEMPTS} compactions in a row were overtaken; run it again"
    raise StorageError(msg)


def require_exclusive(prefix: str) -> Steps[None]:
    """Refuse to commit on a storage that lets a name be created twice."""
    if not (yield Exclusive()):
        msg = (
            f"{prefix}: this storage lets an existing name be overwritten, so two commits could both "
            f"succeed; ingest is safe here, but compact, vacuum, tag, retract and fit on a copy "
            f"elsewhere ('dmstore doctor' tells more)"
        )
        raise StorageError(msg)


def _discard(prefix: str, path: str) -> Steps[None]:
    """Delete an uncommitted base; what cannot be deleted now is left to vacuum."""
    try:
        yield Delete(f"{prefix}{path}")
    except DmstoreError:
        return


def _next(state: Snapshot, path: str) -> log.Manifest:
    # A segment with a row that lost a conflict stays in the tail: nothing acknowledged is dropped.
    absorbed = [info.name for info in state.tail if info.name not in state.conflicted]
    return log.Manifest(
        version=state.manifest.version + 1,
        action="compact",
        base=log.Base(path, len(state.run), state.content_id()),
        absorbed=(*state.manifest.absorbed, *absorbed),
        removed=state.manifest.removed,
        retracted=state.manifest.retracted,
        conflicts=state.conflicts,
    )


def _write_whole(view: View, path: str, progress: Progress | None) -> None:
    where = f"{view.table.prefix}{path}"
    try:
        _write(view, path, progress)
    except FileNotFoundError as error:
        # What it reads or writes was vacuumed, or is lost: the log tells which.
        msg = f"{where}: {error}"
        raise CorruptionError(msg) from error
    except OSError as error:
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, f"{view.table.objects.url}/{where}") from error


def _write(view: View, path: str, progress: Progress | None) -> None:
    table = view.table
    spec = view.spec()
    store = table.objects.writer(f"{table.prefix}{path}")
    sizes = {**table.sizes, "run": len(view), "byte": segment.DIGEST_BYTES}
    shapes = {name: tuple(sizes[dim] for dim in array.dims) for name, array in spec.arrays.items()}
    group = schema.create_group(store, spec, shapes, attrs=table.identity)
    wide = [array.name for array in spec.rows()]
    narrow = [name for name in shapes if name not in wide]
    # Whole columns first: they are small, and one chunk must have one writer.
    for name, values in view.read(narrow).items():
        _assign(group, name, slice(None), values)
    size = sum(np.dtype(a.dtype).itemsize * math.prod(shapes[a.name][1:]) for a in spec.rows())
    for start, rows in _ahead(lambda start: view.read(wide, start, start + BLOCK), len(view), size):
        stop = min(start + BLOCK, len(view))
        for name in wide:
            _assign(group, name, slice(start, stop), rows.pop(name))
        if progress:
            progress(stop, len(view))
    schema.consolidate(store)
    table.objects.sync(f"{table.prefix}{path}")


def _ahead(
    read: Callable[[int], dict[str, Any]], rows: int, row_bytes: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Blocks of rows, each read while the one before is worked on, unless two are too large."""
    starts = range(0, rows, BLOCK)
    if BLOCK * row_bytes > _LARGE:
        yield from ((start, read(start)) for start in starts)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for start in starts:
            following = (start, pool.submit(read, start))
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], waiting[1].result()


def _assign(group: Any, name: str, rows: slice, values: Any) -> None:
    group[name][rows] = values


def _check(table: Table, snapshot: Snapshot, path: str) -> None:
    """Re-read the written base: every digest, and that it holds what the view held."""
    group: Any = table.open_base(path)
    run = np.asarray(group["run"][:])
    digest = np.asarray(group["row_digest"][:])
    if not (np.array_equal(run, snapshot.run) and np.array_equal(digest, snapshot.digest)):
        msg = f"{table.prefix}{path}: ids or digests are not those of the rows read; nothing was committed"
        raise CorruptionError(msg)
    wide = [array.name for array in table.spec.rows()]
    size = sum(group[name].dtype.itemsize * math.prod(group[name].shape[1:]) for name in wide)

    def read(start: int) -> dict[str, Any]:
        window = slice(start, start + BLOCK)
        return {name: np.asarray(group[name][window]) for name in wide}

    for start, rows in _ahead(read, len(run), size):
        window = slice(start, start + BLOCK)
        bad = bad_rows(table.spec, run[window], digest[window], rows)
        if len(bad):
            msg = (
                f"{table.prefix}{path}: run {bad[0]} does not match its digest; nothing was "
                f"committed; 'dmstore verify' tells which object is damaged"
            )
            raise CorruptionError(msg)


def bad_rows(spec: schema.GroupSpec, run: Any, digest: Any, arrays: dict[str, Any]) -> Any:
    """Run ids whose content does not match their digest."""
    return run[(segment.row_digests(run, arrays, spec) != digest).any(axis=1)]
