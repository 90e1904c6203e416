"""What dmstore needs of zarr that zarr does not make public; no other module imports any of it.

``tests/storage/test_zarr_internals.py`` names each part, so that a release which moves one fails there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore, ZipStore

from dmstore.core.zips import open_zip

if TYPE_CHECKING:
    from zarr.abc.store import Store


def read_key(store: Store, key: str) -> bytes | None:
    """The bytes of a key, outside of any array; None if it is not there."""
    found = sync(store.get(key, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def write_key(store: Store, key: str, content: bytes) -> None:
    """Set the bytes of a key, outside of any array."""
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def memory_items(store: MemoryStore) -> list[tuple[str, bytes]]:
    """Keys and contents of a store in memory, the group's own document first, then by name."""
    keys = sorted(store._store_dict, key=lambda key: (key != "zarr.json", key))
    return [(key, store._store_dict[key].to_bytes()) for key in keys]


class StoredZipStore(ZipStore):
    """A zip store whose members must be stored, not compressed, so that none outgrows the archive."""

    def _sync_open(self) -> None:
        if self._is_open:
            msg = "the store is open already"
            raise ValueError(msg)
        self._lock = threading.RLock()
        self._zf: Any = open_zip(self.path, stored=True)
        self._is_open = True
