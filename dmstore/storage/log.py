"""The log of a table: numbered manifests. Creating the next one is the only commit there is."""

from __future__ import annotations

import datetime
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dmstore
from dmstore import schema
from dmstore.storage.objects import Objects

_ENTRY = re.compile(r"([0-9]{20})\.json")


@dataclass(frozen=True)
class Base:
    """A committed base: its path below the table, number of runs, and content id."""

    path: str
    runs: int
    content_id: str


@dataclass(frozen=True)
class Manifest:
    """A state of a table. Version 0 is the empty table, which has no file.

    Attributes
    ----------
    absorbed : tuple of str
        Segments, still stored, whose rows are all in the base.
    removed : tuple of str
        Objects that vacuum decided to delete: readers must not look at them again.
    retracted : tuple of (int, str)
        Rows (run id, digest) that no view shows any more.
    conflicts : tuple of (int, str)
        Rows that lost against another row of the same id when the base was made.
    """

    version: int = 0
    action: str = "compact"
    base: Base | None = None
    absorbed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retracted: tuple[tuple[int, str], ...] = field(default=())
    conflicts: tuple[tuple[int, str], ...] = field(default=())


def entry_name(prefix: str, version: int) -> str:
    """Name of a log entry."""
    return f"{prefix}log/{version:020d}.json"


def versions(objects: Objects, prefix: str) -> list[int]:
    """All committed versions, oldest first."""
    matches = map(_ENTRY.fullmatch, objects.children(f"{prefix}log/"))
    return [int(match[1]) for match in matches if match]


def read(objects: Objects, prefix: str, version: int) -> Manifest:
    """Read one manifest."""
    if version == 0:
        return Manifest()
    name = entry_name(prefix, version)
    document = schema.load_document("manifest", objects.get(name), name)
    base = document["base"]
    return Manifest(
        version=document["version"],
        action=document["action"],
        base=Base(**base) if base else None,
        absorbed=tuple(document["absorbed"]),
        removed=tuple(document["removed"]),
        retracted=_pairs(document["retracted"]),
        conflicts=_pairs(document["conflicts"]),
    )


def newest(objects: Objects, prefix: str) -> Manifest:
    """The manifest in force."""
    return read(objects, prefix, max(versions(objects, prefix), default=0))


def commit(objects: Objects, prefix: str, manifest: Manifest) -> bool:
    """Create a manifest; False if another one has taken its version."""
    document: dict[str, Any] = {
        "version": manifest.version,
        "action": manifest.action,
        "base": asdict(manifest.base) if manifest.base else None,
        "absorbed": list(manifest.absorbed),
        "removed": list(manifest.removed),
        "retracted": _entries(manifest.retracted),
        "conflicts": _entries(manifest.conflicts),
        "created": utc_now(),
        "host": platform.node(),
        "software": software(),
    }
    return objects.put_if_absent(
        entry_name(prefix, manifest.version), schema.dump_document("manifest", document)
    )


def utc_now() -> str:
    """The host's time in ISO form, for people to read; nothing is decided by it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def software() -> str:
    """Name and version of this software, for provenance."""
    return f"dmstore {dmstore.__version__}"


def _pairs(entries: list[Mapping[str, Any]]) -> tuple[tuple[int, str], ...]:
    return tuple((entry["run"], entry["digest"]) for entry in entries)


def _entries(pairs: tuple[tuple[int, str], ...]) -> list[dict[str, Any]]:
    return [{"run": run, "digest": digest} for run, digest in pairs]
