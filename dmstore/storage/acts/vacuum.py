"""Vacuum: delete what nothing refers to any more. It commits the list before it deletes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dmstore.errors import InputError, StorageError
from dmstore.storage.acts.compact import require_exclusive
from dmstore.storage.objects.objects import ObjectInfo
from dmstore.storage.table import log
from dmstore.storage.table.protocol import Call, Delete, Entries, Leftovers, Now, Steps
from dmstore.storage.table.table import Table

DAY = 86400.0
GRACE = 7 * DAY
_ATTEMPTS = 10


@dataclass(frozen=True)
class Vacuum:
    """What a vacuum deleted: names relative to the study, and bytes."""

    removed: tuple[str, ...]
    size: int


def vacuum(table: Table, pinned: Callable[[], set[str]], *, grace: float = GRACE) -> Vacuum:
    """Delete absorbed segments, bases that nothing refers to, and leftovers of dead writers.

    Parameters
    ----------
    table : Table
    pinned : callable
        Paths of the bases that tags and unfinished fits refer to. Asked again after the commit,
        so that a tag made meanwhile keeps its base.
    grace : float
        Seconds for which nothing is deleted after it went out of use, by the storage's own clock:
        longer than any reader holds a view and any listing may be stale.

    Raises
    ------
    InputError
        If `grace` is negative or not a number.
    """
    if not grace >= 0:
        msg = f"grace of {grace} is not allowed; give 0 or more seconds"
        raise InputError(msg)
    return table.run(vacuum_steps(table.prefix, Call(pinned), grace))


def vacuum_steps(prefix: str, pinned: Call, grace: float) -> Steps[Vacuum]:
    """What a vacuum does; see :func:`vacuum`."""
    for _ in range(_ATTEMPTS):
        manifest = yield from log.newest_steps(prefix)
        before = (yield Now()) - grace
        history = yield from _history(prefix, manifest.version)
        stored = yield from _stored(prefix)
        segments = _old_segments(manifest, history, stored, before)
        bases = _old_bases(prefix, manifest, history, stored, before) - (yield pinned)
        temporary = {
            info.name
            for info in (yield Leftovers())
            if info.name.startswith(prefix) and info.modified <= before
        }
        if not (segments or bases or temporary):
            return Vacuum((), 0)
        if segments or bases:
            yield from require_exclusive(prefix)
            removed = {f"{prefix}{path}" for path in bases} | segments
            # A name is forgotten only when no listing can be so old that it still shows it.
            settled = {
                name for e in history if e.committed <= before for name in e.manifest.removed
            }
            gone = {name for name in settled if name not in stored and not _below(name, stored)}
            following = replace(
                manifest,
                version=manifest.version + 1,
                action="vacuum",
                absorbed=tuple(name for name in manifest.absorbed if name not in segments),
                removed=tuple(sorted((set(manifest.removed) - gone) | removed)),
                reason="",
            )
            if not (yield from log.commit_steps(prefix, following)):
                continue
            kept = {f"{prefix}{path}" for path in (yield pinned)}
            segments |= removed - kept
        names = sorted(segments | temporary)
        for name in names:
            yield Delete(name)
        return Vacuum(tuple(names), _size(names, stored))
    msg = f"{prefix}: the log moved {_ATTEMPTS} times during vacuum; run it again"
    raise StorageError(msg)


@dataclass(frozen=True)
class _Entry:
    """A committed version and when it was committed, by the storage's clock."""

    manifest: log.Manifest
    committed: float


def _history(prefix: str, newest: int) -> Steps[list[_Entry]]:
    """The log, oldest first.

    A listing may be too old to show its end: when that was committed is not known, so not long ago.
    """
    entries: list[_Entry] = []
    for info in (yield Entries(f"{prefix}log/")):
        for version in log.numbers([info.name.rpartition("/")[2]]):
            entries.append(_Entry((yield from log.read_steps(prefix, version)), info.modified))
    listed = entries[-1].manifest.version if entries else 0
    for version in range(listed + 1, newest + 1):
        entries.append(_Entry((yield from log.read_steps(prefix, version)), math.inf))
    return entries


def _stored(prefix: str) -> Steps[dict[str, ObjectInfo]]:
    segments = yield Entries(f"{prefix}segments/")
    bases = yield Entries(f"{prefix}base/")
    return {info.name: info for info in (*segments, *bases)}


def _below(name: str, stored: dict[str, ObjectInfo]) -> bool:
    return any(other.startswith(f"{name}/") for other in stored)


def _old_segments(
    manifest: log.Manifest, history: list[_Entry], stored: dict[str, ObjectInfo], before: float
) -> set[str]:
    """Absorbed segments whose absorbing commit is older than the grace period."""
    old = {
        name for entry in history if entry.committed <= before for name in entry.manifest.absorbed
    }
    return {name for name in manifest.absorbed if name in old and name in stored} | {
        name for name in manifest.removed if name in stored and name.endswith(".zip")
    }


def _old_bases(
    prefix: str,
    manifest: log.Manifest,
    history: list[_Entry],
    stored: dict[str, ObjectInfo],
    before: float,
) -> set[str]:
    """Bases not in force whose going out of force, and last change, are older than the grace.

    While no manifest is there, a base is one of an ingest that was interrupted, or its log is still to be
    copied: none is taken.
    """
    if not manifest.version:
        return set()
    changed: dict[str, float] = {}
    for name, info in stored.items():
        if name.startswith(f"{prefix}base/"):
            path = "/".join(name.removeprefix(prefix).split("/")[:2])
            changed[path] = max(changed.get(path, 0.0), info.modified)
    for used, following in itertools.pairwise(history):
        base, after = used.manifest.base, following.manifest.base
        if base and base.path in changed and (after is None or after.path != base.path):
            changed[base.path] = max(changed[base.path], following.committed)
    in_force = manifest.base.path if manifest.base else None
    return {path for path, since in changed.items() if since <= before and path != in_force}


def _size(names: Iterable[str], stored: dict[str, ObjectInfo]) -> int:
    wanted = set(names)
    return sum(
        info.size
        for name, info in stored.items()
        if name in wanted or any(name.startswith(f"{other}/") for other in wanted)
    )
