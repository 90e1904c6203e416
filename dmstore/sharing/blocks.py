"""Objects read block by block, so that none needs to fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

from dmstore.errors import FormatError
from dmstore.storage.objects.local import LocalObjects
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.refusals import explain
from dmstore.storage.objects.remote import RemoteObjects
from dmstore.storage.published.published import BLOCK, IndexedObjects


def read(objects: Objects, name: str) -> Iterator[bytes]:
    """All bytes of an object.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FormatError
        If it is a symbolic link or lies behind one.
    StorageError
        If the storage refuses.
    """
    if isinstance(objects, IndexedObjects):
        yield from objects.blocks(name)
    elif isinstance(objects, LocalObjects):
        yield from _local(objects, name)
    elif isinstance(objects, RemoteObjects):
        yield from _remote(objects, name)
    else:
        yield objects.get(name)


def _local(objects: LocalObjects, name: str) -> Iterator[bytes]:
    path = objects.root
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            msg = f"{path}: is a symbolic link; a study that is shared has files only"
            raise FormatError(msg)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _remote(objects: RemoteObjects, name: str) -> Iterator[bytes]:
    import obstore

    from dmstore.errors import StorageError

    try:
        for block in obstore.get(objects.store, name).stream(min_chunk_size=BLOCK):
            yield bytes(block)
    except FileNotFoundError:
        msg = f"{objects.url}/{name}"
        raise FileNotFoundError(msg) from None
    except obstore.exceptions.BaseError as error:
        msg = f"{objects.url}/{name}: {explain(error)}; check the connection and run the same command again"
        raise StorageError(msg) from None
