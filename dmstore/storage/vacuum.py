"""Vacuum: delete what nothing refers to any more. It commits the list before it deletes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dmstore.errors import InputError, StorageError
from dmstore.storage import log
from dmstore.storage.objects import ObjectInfo
from dmstore.storage.table import Table

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
    for _ in range(_ATTEMPTS):
        manifest = log.newest(table.objects, table.prefix)
        before = table.objects.now() - grace
        stored = _stored(table)
        segments = _old_segments(table, manifest, stored, before)
        bases = _old_bases(table, manifest, stored, before) - pinned()
        temporary = {
            info.name
            for info in table.objects.leftovers()
            if info.name.startswith(table.prefix) and info.modified <= before
        }
        if not (segments or bases or temporary):
            return Vacuum((), 0)
        if segments or bases:
            removed = {f"{table.prefix}{path}" for path in bases} | segments
            gone = {
                name for name in manifest.removed if name not in stored and not _below(name, stored)
            }
            following = replace(
                manifest,
                version=manifest.version + 1,
                action="vacuum",
                absorbed=tuple(name for name in manifest.absorbed if name not in segments),
                removed=tuple(sorted((set(manifest.removed) - gone) | removed)),
            )
            if not log.commit(table.objects, table.prefix, following):
                continue
            kept = {f"{table.prefix}{path}" for path in pinned()}
            segments |= removed - kept
        return _delete(table, sorted(segments | temporary), stored)
    msg = f"{table.prefix}: the log moved {_ATTEMPTS} times during vacuum; run it again"
    raise StorageError(msg)


def _stored(table: Table) -> dict[str, ObjectInfo]:
    found = table.objects.entries(f"{table.prefix}segments/") + table.objects.entries(
        f"{table.prefix}base/"
    )
    return {info.name: info for info in found}


def _below(name: str, stored: dict[str, ObjectInfo]) -> bool:
    return any(other.startswith(f"{name}/") for other in stored)


def _committed(table: Table, version: int) -> float:
    """When a version was committed, by the storage's clock."""
    name = log.entry_name(table.prefix, version)
    found = [info for info in table.objects.entries(f"{table.prefix}log/") if info.name == name]
    return found[0].modified if found else 0.0


def _old_segments(
    table: Table, manifest: log.Manifest, stored: dict[str, ObjectInfo], before: float
) -> set[str]:
    """Absorbed segments whose absorbing commit is older than the grace period."""
    history = _history(table)
    old: set[str] = set()
    for version, absorbed in history:
        if _committed(table, version) <= before:
            old |= absorbed
    return {name for name in manifest.absorbed if name in old and name in stored} | {
        name for name in manifest.removed if name in stored and name.endswith(".zip")
    }


def _history(table: Table) -> list[tuple[int, set[str]]]:
    numbers = log.versions(table.objects, table.prefix)
    return [
        (number, set(log.read(table.objects, table.prefix, number).absorbed)) for number in numbers
    ]


def _old_bases(
    table: Table, manifest: log.Manifest, stored: dict[str, ObjectInfo], before: float
) -> set[str]:
    """Bases not in force whose going out of force, and last change, are older than the grace."""
    last_used: dict[str, int] = {}
    numbers = log.versions(table.objects, table.prefix)
    for number in numbers:
        base = log.read(table.objects, table.prefix, number).base
        if base:
            last_used[base.path] = number
    old = set()
    for child in table.objects.children(f"{table.prefix}base/"):
        path = f"base/{child}"
        if manifest.base and path == manifest.base.path:
            continue
        changed = [
            info.modified
            for name, info in stored.items()
            if name.startswith(f"{table.prefix}{path}/")
        ]
        since = max(changed, default=0.0)
        if path in last_used:
            following = [number for number in numbers if number > last_used[path]]
            since = max(since, _committed(table, following[0]) if following else since)
        if since <= before:
            old.add(path)
    return old


def _delete(table: Table, names: list[str], stored: dict[str, ObjectInfo]) -> Vacuum:
    size = 0
    for name in names:
        size += sum(
            info.size
            for other, info in stored.items()
            if other == name or other.startswith(f"{name}/")
        )
        table.objects.delete(name)
    return Vacuum(tuple(names), size)
