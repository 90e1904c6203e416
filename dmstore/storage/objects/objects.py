"""Where objects live: the few operations that the store protocol needs, and nothing else.

:class:`Objects` is the protocol; :class:`LocalObjects` is a local or shared POSIX file system.
An object store implements the same methods and nothing above this module changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from dmstore.errors import FormatError

if TYPE_CHECKING:
    from zarr.abc.store import Store


# The longest object read whole: documents, and what one chunk can be.
_LONGEST_DOCUMENT, _LONGEST = 1 << 26, 1 << 31


def check_length(name: str, size: int, where: str) -> None:
    """Refuse to take an absurdly long object into memory: FormatError."""
    most = _LONGEST_DOCUMENT if name.endswith(".json") else _LONGEST
    if size > most:
        msg = f"{where}/{name}: has {size} bytes, at most {most} are read; it is damaged, restore it from a copy"
        raise FormatError(msg)


@dataclass(frozen=True)
class ObjectInfo:
    """One object: its name relative to the root, its length in bytes, and when it was last
    modified by the storage's own clock (seconds since 1970).
    """

    name: str
    size: int
    modified: float


class Objects(Protocol):
    """A flat namespace of immutable objects with names like ``log/0001.json``."""

    url: str

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """All objects whose names start with `prefix`, which ends in ``/``; sorted by name."""

    def children(self, prefix: str) -> list[str]:
        """The first path components below `prefix`, sorted; directories without the slash."""

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name."""

    def get(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""

    def open(self, name: str) -> BinaryIO:
        """An object as a file to read from any place; FileNotFoundError if there is none."""

    def tail(self, name: str, length: int) -> bytes:
        """The last `length` bytes of an object, or all of it if it is shorter."""

    def put_if_absent(self, name: str, content: bytes) -> bool:
        """Create an object durably and at once; False, and no change, if the name is taken."""

    def replace(self, name: str, content: bytes) -> None:
        """Create an object, or put it in the place of the one that is there, durably and at once."""

    def delete(self, name: str) -> None:
        """Delete an object, or all objects below it; no error if there is none."""

    def now(self) -> float:
        """The storage's own clock: seconds since 1970."""

    def leftovers(self) -> list[ObjectInfo]:
        """Temporary objects of writers that died, and groups of which nothing but directories is left."""

    def reader(self, name: str) -> Store:
        """A read-only zarr store on a zipped object or on a prefix that holds a zarr group."""

    def writer(self, prefix: str) -> Store:
        """A zarr store that writes below an unused prefix; make it durable with :meth:`sync`."""

    def sync(self, prefix: str) -> None:
        """Make durable all that was written below `prefix`."""


def is_hidden(name: str) -> bool:
    """Whether an object is no part of a study: one that a writer had not finished, or a file of the user's own,
    such as ``.gitattributes``.
    """
    last = name.rpartition("/")[2]
    return last.startswith(".") or last.endswith(".partial")


# A file of ours, and one that zarr writes in a group, before it gets its name.
_LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.part|.+\.[0-9a-f]{32}\.partial")


def is_leftover(name: str) -> bool:
    """Whether an object is one that a writer had not finished: nobody else gives such names."""
    return _LEFTOVER.fullmatch(name.rpartition("/")[2]) is not None
