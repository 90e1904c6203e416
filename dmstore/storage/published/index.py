"""``index.json`` of a published study: every object with its length and sha256.

Nothing in it is trusted: names are held to what a store itself writes, so that no copy is ever made
outside of its place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dmstore.errors import FormatError
from dmstore.schema.documents import dump_document, load_document
from dmstore.schema.typed_documents import IndexAlgorithm, IndexDocument, IndexObject
from dmstore.storage.objects.objects import is_hidden

INDEX = "index.json"
# What stands in a published study for people, and what only a copy has.
FOR_PEOPLE = ("README.md", "CITATION.cff")
ORIGIN = "origin.json"
# The longest index read: some three hundred thousand objects.
LONGEST = 1 << 26
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One object: its name, its length in bytes, its sha256 in hex."""

    name: str
    size: int
    sha256: str

    def document(self) -> IndexObject:
        """What an index says of it."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class Index:
    """A parsed index.

    Attributes
    ----------
    study : str
        The study's uuid.
    algorithms : mapping
        Name to ``version``, ``runs`` and ``content_id`` of the published snapshot.
    entries : mapping
        Name to entry, in order of names.
    """

    study: str
    algorithms: Mapping[str, IndexAlgorithm]
    entries: Mapping[str, Entry]


def is_safe(name: str) -> bool:
    """Whether an object may have this name: relative, plain ASCII parts, no hidden or temporary one."""
    parts = name.split("/")
    return len(name) <= 1000 and all(map(_PART.fullmatch, parts)) and not is_hidden(name)


def load(raw: bytes, where: str) -> Index:
    """Parse and check an index.

    Raises
    ------
    FormatError
        If it is no index, or a name in it is unsafe, stands there twice or lies inside another object.
    """
    document = load_document("index", raw, where)
    entries: dict[str, Entry] = {}
    for item in document["objects"]:
        name = item["name"]
        if not is_safe(name) or name in (INDEX, ORIGIN):
            msg = f"{where}: {name[:100]!r} is no name that a study's object can have; do not use this study"
            raise FormatError(msg)
        if name in entries:
            msg = f"{where}: {name!r} stands there twice; publish the study again"
            raise FormatError(msg)
        entries[name] = Entry(name, int(item["size"]), item["sha256"])
    check_places(entries, where)
    ordered = {name: entries[name] for name in sorted(entries)}
    return Index(document["study"], document["algorithms"], ordered)


def check_places(names: Iterable[str], where: str) -> None:
    """Refuse names that cannot stand in one directory: one inside another, or differing in case alone."""
    seen: dict[str, str] = {}
    for name in names:
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            place = "/".join(parts[:count])
            kind = place + ("" if count == len(parts) else "/")
            if seen.setdefault(place.lower(), kind) != kind:
                msg = f"{where}: {name!r} and {seen[place.lower()]!r} cannot stand in one directory on every system; one of them must be left out"
                raise FormatError(msg)


def dump(index: Index, created: str, software: str) -> bytes:
    """Bytes of an index."""
    document: IndexDocument = {
        "study": index.study,
        "created": created,
        "software": software,
        "algorithms": dict(index.algorithms),
        "objects": [index.entries[name].document() for name in sorted(index.entries)],
    }
    return dump_document("index", document)


def sha256(blocks: Iterable[bytes]) -> tuple[int, str]:
    """Length and sha256 of an object that comes in blocks."""
    state, size = hashlib.sha256(), 0
    for block in blocks:
        state.update(block)
        size += len(block)
    return size, state.hexdigest()


def limited(blocks: Iterable[bytes], entry: Entry, where: str) -> Iterator[bytes]:
    """The same blocks; FormatError as soon as they are more than the entry says."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > entry.size:
            break
        yield block
    if size != entry.size:
        more = "more than " if size > entry.size else f"{size}, not "
        msg = f"{where}/{entry.name}: has {more}the {entry.size} bytes of the index; it was changed or damaged, publish the study again"
        raise FormatError(msg)
