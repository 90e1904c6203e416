"""The store protocol apart from any storage: generators that yield operations and are sent results.

What writers, compactors, vacuums and readers do is stated once, as steps. :func:`drive` runs them on a
real storage; the tests run the very same steps on a simulated one, where a scheduler decides who moves
next and a fault may stand behind every answer.

The operations are those that any storage offers, and five that read or write the rows of a table
(:class:`ReadBase`, :class:`ReadInfos`, :class:`WriteBase`, :class:`FillBase`, :class:`CheckBase`),
which the protocol itself never looks into.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dmstore.storage.objects.objects import Objects
    from dmstore.storage.table.log import Base
    from dmstore.storage.table.snapshot import Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class Children:
    """First path components below a prefix: list of str."""

    prefix: str


@dataclass(frozen=True)
class Entries:
    """Objects below a prefix: list of ObjectInfo. The only operation, with Children, that may be stale."""

    prefix: str


@dataclass(frozen=True)
class Exists:
    """Whether an object is there."""

    name: str


@dataclass(frozen=True)
class Get:
    """Bytes of an object; FileNotFoundError if there is none."""

    name: str


@dataclass(frozen=True)
class Put:
    """Create an object durably if its name is free: bool."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Delete:
    """Delete an object, or all below it."""

    name: str


@dataclass(frozen=True)
class Now:
    """The storage's own clock."""


@dataclass(frozen=True)
class Leftovers:
    """Temporary objects of writers that died: list of ObjectInfo."""


@dataclass(frozen=True)
class Exclusive:
    """Whether creating a name that exists is refused by this storage, found out by trying: bool."""


@dataclass(frozen=True)
class ReadBase:
    """Ids and digests of a base: BaseRows."""

    base: Base


@dataclass(frozen=True)
class ReadInfos:
    """What segments say of themselves: list of SegmentInfo."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class WriteBase:
    """Write all rows of a snapshot below a path, durably; not atomic."""

    path: str
    snapshot: Snapshot


@dataclass(frozen=True)
class FillBase:
    """Write all rows of a source from elsewhere below a path, durably; not atomic: BaseRows."""

    path: str


@dataclass(frozen=True)
class CheckBase:
    """Read a written base back: CorruptionError if it does not hold these ids and digests."""

    path: str
    run: NDArray[np.int64]
    digest: NDArray[np.uint8]


@dataclass(frozen=True)
class Call:
    """Something only the caller knows, such as which bases are pinned."""

    function: Callable[[], Any]


Operation: TypeAlias = (
    Children
    | Entries
    | Exists
    | Get
    | Put
    | Delete
    | Now
    | Leftovers
    | Exclusive
    | ReadBase
    | ReadInfos
    | WriteBase
    | FillBase
    | CheckBase
    | Call
)
Steps: TypeAlias = Generator[Operation, Any, T]


def perform(operation: Operation, objects: Objects) -> Any:
    """Do a storage operation (not one on rows) on a real storage."""
    match operation:
        case Children(prefix):
            return objects.children(prefix)
        case Entries(prefix):
            return objects.entries(prefix)
        case Exists(name):
            return objects.exists(name)
        case Get(name):
            return objects.get(name)
        case Put(name, content):
            return objects.put_if_absent(name, content)
        case Delete(name):
            return objects.delete(name)
        case Now():
            return objects.now()
        case Leftovers():
            return objects.leftovers()
        case Call(function):
            return function()
    msg = f"{operation} is no storage operation"
    raise TypeError(msg)


def create(name: str, content: bytes) -> Steps[bool]:
    """Create an object; whether it is ours.

    A storage that repeats a request whose reply was lost reports its own success as a name that is
    taken, so equal bytes are ours: what must have one owner carries a token.
    """
    if (yield Put(name, content)):
        return True
    try:
        return bool((yield Get(name)) == content)
    except FileNotFoundError:
        return False
