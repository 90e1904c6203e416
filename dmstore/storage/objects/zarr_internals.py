"""What dmstore needs of zarr that zarr does not make public; no other module imports any of it.

``tests/storage/test_zarr_internals.py`` names each part, so that a release which moves one fails there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

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
