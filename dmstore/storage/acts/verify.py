"""Verification: read everything that is stored and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dmstore.errors import DmstoreError
from dmstore.storage.acts.gaps import gaps
from dmstore.storage.acts.problem import Problem
from dmstore.storage.table import log, segment
from dmstore.storage.table.base import bad_rows, each
from dmstore.storage.table.snapshot import content_id
from dmstore.storage.table.table import Table

RowCheck = Callable[[Any, dict[str, Any]], Iterator[tuple[int, str]]]


def verify(
    table: Table,
    row_check: RowCheck | None = None,
    pinned: Sequence[log.Base] = (),
    *,
    copied: bool = False,
) -> Iterator[Problem]:
    """Check every log entry, segment and base of a table: there, readable, of this format, digests right.

    Parameters
    ----------
    table : Table
    row_check : callable, optional
        Given ids and arrays of rows, yields (run, what is wrong): the plan's own check.
    pinned : sequence of Base
        Further bases to check: those of tags and unfinished fits.
    copied : bool
        As in :func:`gaps`.

    Yields
    ------
    Problem
    """
    for number in log.versions(table.objects, table.prefix):
        try:
            log.read(table.objects, table.prefix, number)
        except DmstoreError as error:
            yield Problem(error.kind, log.entry_name(table.prefix, number), str(error))
            return
    yield from gaps(table, copied=copied)
    manifest = log.newest(table.objects, table.prefix)
    in_force = [manifest.base] if manifest.base else []
    paths = {base.path for base in in_force}
    for base in (*in_force, *(base for base in pinned if base.path not in paths)):
        yield from _verify_base(table, base, row_check)
    for name in table.segment_names():
        if name not in manifest.removed:
            yield from _verify_segment(table, name, row_check)
    try:
        conflicts = table.view().conflicts
    except (DmstoreError, FileNotFoundError) as error:
        yield Problem("unreadable", table.prefix, str(error))
        return
    for run, digest in conflicts:
        yield Problem(
            "conflict",
            table.prefix,
            f"run {run} is stored with other content too (digest {digest})",
        )


def _verify_base(table: Table, base: log.Base, row_check: RowCheck | None) -> Iterator[Problem]:
    where = f"{table.prefix}{base.path}"
    try:
        group: Any = table.open_base(base.path)
        run, digest = np.asarray(group["run"][:]), np.asarray(group["row_digest"][:])
        if (base.runs >= 0 and len(run) != base.runs) or content_id(run, digest) != base.content_id:
            yield Problem(
                "content",
                where,
                f"{len(run)} runs that do not make up content id {base.content_id}",
            )

        def look(rows: slice, arrays: dict[str, Any]) -> list[Problem]:
            problems = _row_problems(table, where, run[rows], digest[rows], arrays, row_check)
            return list(problems)

        for problems in each(table, base.path, group, _checked(table), look):
            yield from problems
        yield from _columns(table, where, group)
    except Exception as error:  # noqa: BLE001 - a hostile group can make zarr raise anything
        yield Problem(
            "unreadable",
            where,
            f"{' '.join(str(error).split())[:300] or type(error).__name__}; restore it from a copy",
        )


def _columns(table: Table, where: str, group: Any) -> Iterator[Problem]:
    """What no digest covers: every column is read, and every array has its document.

    The group's own document repeats those of its arrays, so that it opens without them.
    """
    wide = {spec.name for spec in table.spec.rows()}
    for name in sorted(group.array_keys()):
        if not table.objects.exists(f"{where}/{name}/zarr.json"):
            yield Problem(
                "missing", f"{where}/{name}/zarr.json", "is not there; restore it from a copy"
            )
        elif name not in wide:
            np.asarray(group[name][:])


def _verify_segment(table: Table, name: str, row_check: RowCheck | None) -> Iterator[Problem]:
    try:
        info = segment.read_info(table.objects, name, table.identity)
        shapes = table.shapes(["run", *_checked(table)], len(info))
        arrays = segment.read_segment(table.objects, name, shapes)
    except (DmstoreError, OSError) as error:
        yield Problem(getattr(error, "kind", "unreadable"), name, str(error))
        return
    run = arrays.pop("run")
    if not np.array_equal(run, info.run):
        yield Problem("content", name, "the ids inside are not those of the comment")
        return
    yield from _row_problems(table, name, run, info.digest, arrays, row_check)


def _checked(table: Table) -> list[str]:
    """Arrays to read: what the digests cover, and what says which runs are for what."""
    names = [spec.name for spec in table.spec.rows()]
    return names + [name for name in ("mask_id", "repeat") if name in table.spec.arrays]


def _row_problems(
    table: Table,
    where: str,
    run: Any,
    digest: Any,
    arrays: dict[str, Any],
    row_check: RowCheck | None,
) -> Iterator[Problem]:
    try:
        bad = bad_rows(table.spec, run, digest, arrays)
    except ValueError as error:
        yield Problem("content", where, str(error))
        return
    for number in bad:
        yield Problem("digest", where, f"run {number} does not match its digest")
    if row_check:
        for number, text in row_check(run, arrays):
            yield Problem("mask", where, f"run {number}: {text}")
