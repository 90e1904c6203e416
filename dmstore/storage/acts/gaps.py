"""What a table lacks although its own log, or what lies beside it, says that it has it.

A copy that was interrupted opens and reads as a smaller table, every row of it right. Names tell it: of log
entries, of bases and of segments. What only a segment itself knew, nothing can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from dmstore.errors import DmstoreError
from dmstore.storage.acts.problem import Problem
from dmstore.storage.table import log
from dmstore.storage.table.rows import pairs_of
from dmstore.storage.table.table import Table

_ATTEMPTS = 5
_VERSION = re.compile(r"([0-9]{8})-.*")
_REMEDY = "copy the study again, whole"


def gaps(table: Table, *, copied: bool = False) -> list[Problem]:
    """Gaps of a table; nothing is read but the log, and ids and digests of bases that it does not name.

    Parameters
    ----------
    table : Table
    copied : bool
        Whether it was published or pulled, so that its log begins with the entry of that state.

    Returns
    -------
    list of Problem
        Of the kinds ``missing`` (an entry or a segment) and ``unreferenced`` (a base with rows that
        the table does not show).
    """
    problems: list[Problem] = []
    for _ in range(_ATTEMPTS):
        newest = log.newest(table.objects, table.prefix).version
        problems = list(_gaps(table, newest, copied=copied))
        # What is being committed or deleted at this moment looks like a gap.
        if not problems or log.newest(table.objects, table.prefix).version == newest:
            break
    return problems


def _gaps(table: Table, newest: int, *, copied: bool) -> Iterator[Problem]:
    objects = table.objects
    listed = log.versions(objects, table.prefix)
    first = min(listed, default=1) if copied else 1
    # A listing may be old, but whether a name exists is not.
    numbers = [
        number
        for number in range(first, newest + 1)
        if number in listed or objects.exists(log.entry_name(table.prefix, number))
    ]
    for number in sorted({*range(first, newest + 1)} - {*numbers}):
        where = log.entry_name(table.prefix, number)
        yield Problem("missing", where, f"is not there, though later entries are; {_REMEDY}")
    # Listed before the view is taken, so that whatever a compactor has written by now is in the view.
    bases = [f"base/{name}" for name in objects.children(f"{table.prefix}base/")]
    entries = [log.read(objects, table.prefix, number) for number in numbers]
    stored = set(table.segment_names())
    for name in entries[-1].absorbed if entries else ():
        if name not in stored and not objects.exists(name):
            text = f"is not there, though the log says that it is stored; {_REMEDY}"
            yield Problem("missing", name, text)
    named = {entry.base.path for entry in entries if entry.base}
    named |= {name.removeprefix(table.prefix) for entry in entries for name in entry.removed}
    if unnamed := [path for path in bases if path not in named]:
        yield from _unnamed(table, unnamed, newest)


def _unnamed(table: Table, paths: Sequence[str], newest: int) -> Iterator[Problem]:
    """Bases that no log entry names: of a compactor that was killed, whose rows are all there, or of a
    log that was cut off.
    """
    try:
        view = table.view()
    except (DmstoreError, FileNotFoundError):
        # Verification says what is wrong with it.
        shown = None
    else:
        manifest = view.manifest
        shown = {*pairs_of(view.run, view.digest), *view.conflicts, *manifest.retracted}
    for path in paths:
        where = f"{table.prefix}{path}"
        try:
            rows = _rows(table, path)
        except Exception:  # noqa: BLE001 - an unfinished group can make zarr raise anything
            rows = None
        match = _VERSION.fullmatch(path.removeprefix("base/"))
        late = match is None or int(match[1]) > newest + 1
        if rows is not None and shown is not None and (lost := len(rows - shown)):
            yield Problem(
                "unreferenced",
                where,
                f"holds {lost} {'run' if lost == 1 else 'runs'} that no log entry names: an ingest that was interrupted (give the command again) or a copy ({_REMEDY})",
            )
        elif late or (rows is None and not shown):
            yield Problem(
                "unreferenced",
                where,
                f"no log entry names this base: an ingest that was interrupted (give the command again) or a copy ({_REMEDY})",
            )


def _rows(table: Table, path: str) -> set[tuple[int, str]]:
    group = table.open_base(path)
    run, digest = (np.asarray(group[name][:]) for name in ("run", "row_digest"))  # type: ignore[index]
    return set(pairs_of(run, digest))
