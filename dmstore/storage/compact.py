"""Compaction: write all rows into a new base, check it, and commit it by one log entry."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmstore import schema
from dmstore.errors import CorruptionError, DmstoreError, FormatError, StorageError
from dmstore.storage import log, segment
from dmstore.storage.objects import storage_error
from dmstore.storage.table import Table
from dmstore.storage.view import BLOCK, View

_ATTEMPTS = 10
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
    """
    for _ in range(_ATTEMPTS):
        view = table.view()
        if not len(view) or (view.manifest.base and not _changed(view)):
            return Compaction(view.manifest, 0)
        path = f"base/{view.manifest.version + 1:08d}-{uuid.uuid4().hex[:8]}.zarr"
        try:
            _write(view, path, progress)
            _check(table, view, path)
            manifest = _next(view, path)
            if log.commit(table.objects, table.prefix, manifest):
                return Compaction(manifest, len(manifest.absorbed) - len(view.manifest.absorbed))
        except BaseException as error:
            _discard(table, path)
            # If the log moved, a vacuum took a segment that another compactor had absorbed, or
            # this unfinished base itself: look again.
            overtaken = isinstance(
                error, FileNotFoundError | CorruptionError | FormatError | KeyError
            )
            if (
                overtaken
                and log.newest(table.objects, table.prefix).version != view.manifest.version
            ):
                continue
            if isinstance(error, OSError) and not isinstance(error, DmstoreError):
                raise storage_error(error, f"{table.objects.url}/{table.prefix}{path}") from error
            raise
        _discard(table, path)
    msg = f"{table.prefix}: {_ATTEMPTS} compactions in a row were overtaken; run it again"
    raise StorageError(msg)


def _discard(table: Table, path: str) -> None:
    """Delete an uncommitted base; what cannot be deleted now is left to vacuum."""
    with contextlib.suppress(DmstoreError):
        table.objects.delete(f"{table.prefix}{path}")


def _changed(view: View) -> bool:
    fresh = any(info.name not in view.conflicted for info in view.tail)
    return fresh or view.content_id() != (view.manifest.base and view.manifest.base.content_id)


def _next(view: View, path: str) -> log.Manifest:
    # A segment with a row that lost a conflict stays in the tail: nothing acknowledged is dropped.
    absorbed = [info.name for info in view.tail if info.name not in view.conflicted]
    base = log.Base(path, len(view), view.content_id())
    return log.Manifest(
        version=view.manifest.version + 1,
        action="compact",
        base=base,
        absorbed=(*view.manifest.absorbed, *absorbed),
        removed=view.manifest.removed,
        retracted=view.manifest.retracted,
        conflicts=view.conflicts,
    )


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
    for start in range(0, len(view), BLOCK):
        stop = min(start + BLOCK, len(view))
        for name in wide:
            _assign(group, name, slice(start, stop), view.read([name], start, stop)[name])
        if progress:
            progress(stop, len(view))
    schema.consolidate(store)
    table.objects.sync(f"{table.prefix}{path}")


def _assign(group: Any, name: str, rows: slice, values: Any) -> None:
    group[name][rows] = values


def _check(table: Table, view: View, path: str) -> None:
    """Re-read the written base: every digest, and that it holds what the view held."""
    group: Any = table.open_base(path)
    run = np.asarray(group["run"][:])
    digest = np.asarray(group["row_digest"][:])
    if not (np.array_equal(run, view.run) and np.array_equal(digest, view.digest)):
        msg = f"{table.prefix}{path}: ids or digests are not those of the rows read; nothing was committed"
        raise CorruptionError(msg)
    for start in range(0, len(run), BLOCK):
        window = slice(start, start + BLOCK)
        bad = bad_rows(
            table.spec,
            run[window],
            digest[window],
            {array.name: np.asarray(group[array.name][window]) for array in table.spec.rows()},
        )
        if len(bad):
            msg = (
                f"{table.prefix}{path}: run {bad[0]} does not match its digest; nothing was "
                f"committed; 'dmstore verify' tells which object is damaged"
            )
            raise CorruptionError(msg)


def bad_rows(spec: schema.GroupSpec, run: Any, digest: Any, arrays: dict[str, Any]) -> Any:
    """Run ids whose content does not match their digest."""
    return run[(segment.row_digests(run, arrays, spec) != digest).any(axis=1)]
