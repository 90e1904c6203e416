"""The log of a table: numbered manifests. Creating the next one is the only commit there is."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dmstore import provenance
from dmstore.provenance import software, utc_now
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import (
    ManifestAction,
    ManifestBase,
    ManifestConflict,
    ManifestDocument,
    ManifestRetracted,
)
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.steps import drive
from dmstore.storage.table.protocol import Children, Exists, Get, Steps, T, create, perform

_ENTRY = re.compile(r"([0-9]{20})\.json")


@dataclass(frozen=True)
class Base:
    """A committed base: its path below the table, number of runs, and content id."""

    path: str
    runs: int
    content_id: str

    def document(self) -> ManifestBase:
        """What a manifest says of it."""
        return {"path": self.path, "runs": self.runs, "content_id": self.content_id}


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
    reason : str
        Why rows were retracted, for people.
    """

    version: int = 0
    action: ManifestAction = "compact"
    base: Base | None = None
    absorbed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    retracted: tuple[tuple[int, str], ...] = field(default=())
    conflicts: tuple[tuple[int, str], ...] = field(default=())
    reason: str = ""


def entry_name(prefix: str, version: int) -> str:
    """Name of a log entry."""
    return f"{prefix}log/{version:020d}.json"


def numbers(children: Iterable[str]) -> list[int]:
    """Versions among the names of a log, oldest first."""
    matches = map(_ENTRY.fullmatch, children)
    return sorted(int(match[1]) for match in matches if match)


def decode(raw: bytes, where: str) -> Manifest:
    """A manifest from its bytes.

    Raises
    ------
    FormatError
        If it is damaged or of another format.
    """
    document = load_document("manifest", raw, where)
    base = document["base"]
    return Manifest(
        version=document["version"],
        action=document["action"],
        base=Base(**base) if base else None,
        absorbed=tuple(document["absorbed"]),
        removed=tuple(document["removed"]),
        retracted=_pairs(document["retracted"]),
        conflicts=_pairs(document["conflicts"]),
        reason=document.get("reason", ""),
    )


def encode(manifest: Manifest) -> bytes:
    """Bytes of a manifest, which no other commit has: a token tells a lost reply from a lost race."""
    document: ManifestDocument = {
        "version": manifest.version,
        "action": manifest.action,
        "base": manifest.base.document() if manifest.base else None,
        "absorbed": list(manifest.absorbed),
        "removed": list(manifest.removed),
        "retracted": _retracted(manifest.retracted),
        "conflicts": _conflicts(manifest.conflicts),
        "reason": manifest.reason,
        "token": uuid.uuid4().hex,
        "created": utc_now(),
        "host": provenance.host(),
        "software": software(),
    }
    return dump_document("manifest", document)


def read_steps(prefix: str, version: int) -> Steps[Manifest]:
    """Read one manifest."""
    if version == 0:
        return Manifest()
    name = entry_name(prefix, version)
    return decode((yield Get(name)), name)


def newest_steps(prefix: str) -> Steps[Manifest]:
    """The manifest in force. A listing may be old, but whether the next name exists is not."""
    version = max(numbers((yield Children(f"{prefix}log/"))), default=0)
    while (yield from moved(prefix, version)):
        version += 1
    return (yield from read_steps(prefix, version))


def moved(prefix: str, version: int) -> Steps[bool]:
    """Whether a version after this one is committed."""
    return bool((yield Exists(entry_name(prefix, version + 1))))


def commit_steps(prefix: str, manifest: Manifest) -> Steps[bool]:
    """Create a manifest; False if another one has taken its version.

    An error means that it is not known whether the manifest is there: nothing that it refers to may
    be deleted then.
    """
    return (yield from create(entry_name(prefix, manifest.version), encode(manifest)))


def versions(objects: Objects, prefix: str) -> list[int]:
    """All committed versions, oldest first."""
    return numbers(objects.children(f"{prefix}log/"))


def read(objects: Objects, prefix: str, version: int) -> Manifest:
    """Read one manifest."""
    return _on(objects, read_steps(prefix, version))


def newest(objects: Objects, prefix: str) -> Manifest:
    """The manifest in force."""
    return _on(objects, newest_steps(prefix))


def commit(objects: Objects, prefix: str, manifest: Manifest) -> bool:
    """Create a manifest; see :func:`commit_steps`."""
    return _on(objects, commit_steps(prefix, manifest))


def _on(objects: Objects, steps: Steps[T]) -> T:
    return drive(steps, lambda operation: perform(operation, objects))


def _pairs(
    entries: Sequence[ManifestRetracted] | Sequence[ManifestConflict],
) -> tuple[tuple[int, str], ...]:
    return tuple((entry["run"], entry["digest"]) for entry in entries)


def _retracted(pairs: tuple[tuple[int, str], ...]) -> list[ManifestRetracted]:
    return [{"run": run, "digest": digest} for run, digest in pairs]


def _conflicts(pairs: tuple[tuple[int, str], ...]) -> list[ManifestConflict]:
    return [{"run": run, "digest": digest} for run, digest in pairs]
