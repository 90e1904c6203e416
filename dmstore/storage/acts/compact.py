"""Compaction: write all rows into a new base, check it, and commit it by one log entry."""

from __future__ import annotations

import uuid
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from dmstore.core.progress import Count
from dmstore.errors import CorruptionError, DmstoreError, FormatError, StorageError
from dmstore.storage.table import base, log
from dmstore.storage.table.protocol import Call, CheckBase, Delete, Exclusive, Steps, WriteBase
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.snapshot import Snapshot, snapshot_steps
from dmstore.storage.table.table import Table
from dmstore.storage.table.view import BLOCK, View

_ATTEMPTS = 10


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: the manifest in force, and how many segments it absorbed."""

    manifest: log.Manifest
    absorbed: int


def compact(table: Table, progress: Count | None = None) -> Compaction:
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
                return write_view(View(table, snapshot), path, progress)
            case CheckBase(path, run, digest):
                return base.check(table, path, run, digest)
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
        path = new_path(state.manifest)
        try:
            yield WriteBase(path, state)
            yield CheckBase(path, state.run, state.digest)
        except GeneratorExit:
            raise
        except BaseException as error:
            yield from discard(prefix, path)
            if (yield from overtaken(prefix, state.manifest, error)):
                continue
            raise
        manifest = _next(state, path)
        # An error of the commit leaves the base where it is: the entry may be there all the same.
        if (yield from log.commit_steps(prefix, manifest)):
            return Compaction(manifest, len(manifest.absorbed) - len(state.manifest.absorbed))
        yield from discard(prefix, path)
    msg = f"{prefix}: {_ATTEMPTS} compactions in a row were overtaken; run it again"
    raise StorageError(msg)


def overtaken(prefix: str, manifest: log.Manifest, error: BaseException) -> Steps[bool]:
    """Whether an error may be that of a base which was overtaken: if the log moved, a vacuum took a
    segment that another compactor had absorbed, or the unfinished base itself.
    """
    missing = isinstance(error, FileNotFoundError | CorruptionError | FormatError | KeyError)
    return missing and (yield from log.moved(prefix, manifest.version))


def require_exclusive(prefix: str) -> Steps[None]:
    """Refuse to commit on a storage that lets a name be created twice."""
    if not (yield Exclusive()):
        msg = (
            f"{prefix}: this storage lets an existing name be overwritten, so two commits could both "
            f"succeed; ingest is safe here, but compact, vacuum, tag, retract and fit on a copy "
            f"elsewhere ('dmstore doctor' tells more)"
        )
        raise StorageError(msg)


def new_path(manifest: log.Manifest) -> str:
    """A path for the base of the next version, which nobody else has."""
    return f"base/{manifest.version + 1:08d}-{uuid.uuid4().hex[:8]}.zarr"


def discard(prefix: str, path: str) -> Steps[None]:
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


def write_view(view: View, path: str, progress: Count | None = None) -> None:
    """Write the rows of a view below a path; see :func:`dmstore.storage.table.base.write`."""
    spec = view.spec()
    wide = [array.name for array in spec.rows()]
    narrow = [name for name in spec.arrays if name not in wide]
    blocks = (view.read(wide, start, start + BLOCK) for start in range(0, len(view), BLOCK))
    base.write(view.table, path, spec, blocks, len(view), lambda: view.read(narrow), progress)
