"""A published study against its index."""

from __future__ import annotations

from collections.abc import Iterator

from dmstore.errors import DmstoreError, FormatError
from dmstore.sharing import blocks
from dmstore.storage.acts.problem import Problem
from dmstore.storage.objects.objects import Objects
from dmstore.storage.published import index as indexes
from dmstore.storage.published.archive import ZipObjects
from dmstore.storage.published.index import INDEX, Index
from dmstore.storage.published.published import IndexedObjects


def read_index(objects: Objects) -> Index | None:
    """The index of a published study; None where there is none.

    Raises
    ------
    FormatError
        If it is damaged or unsafe.
    """
    if isinstance(objects, IndexedObjects):
        return objects.index
    try:
        raw = b"".join(_bounded(objects))
    except FileNotFoundError:
        return None
    return indexes.load(raw, f"{objects.url}/{INDEX}")


def _bounded(objects: Objects) -> Iterator[bytes]:
    size = 0
    for block in blocks.read(objects, INDEX):
        size += len(block)
        if size > indexes.LONGEST:
            msg = f"{objects.url}/{INDEX}: is longer than {indexes.LONGEST} bytes; do not use this study"
            raise FormatError(msg)
        yield block


def check_index(objects: Objects, index: Index) -> Iterator[Problem]:
    """Read every object of a published study, and say what is missing, surplus, or not what the index says.

    A web server cannot be asked for what is surplus.

    Parameters
    ----------
    objects : Objects
        Of the study.
    index : Index
        From :func:`read_index`.

    Yields
    ------
    Problem

    Raises
    ------
    StorageError
        If the storage refuses.
    """
    if isinstance(objects, ZipObjects):
        present = set(objects.members)
    else:
        present = {info.name for info in objects.entries("")}
    for name in sorted(present - index.entries.keys() - {INDEX}):
        yield Problem("surplus", name, "is not in the index; remove it, or do not rely on it")
    for name, entry in index.entries.items():
        try:
            size, digest = indexes.sha256(
                indexes.limited(blocks.read(objects, name), entry, objects.url)
            )
        except FileNotFoundError:
            yield Problem("missing", name, "is in the index and not there; publish the study again")
            continue
        except (DmstoreError, OSError) as error:
            yield Problem(getattr(error, "kind", "unreadable"), name, str(error))
            continue
        if digest != entry.sha256:
            yield Problem(
                "content",
                name,
                f"has sha256 {digest}, not the index's {entry.sha256} ({size} bytes); publish the study again",
            )
