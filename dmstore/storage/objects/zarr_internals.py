"""What dmstore needs of zarr that zarr does not make public; no other module imports any of it.

``tests/storage/test_zarr_internals.py`` names each part, so that a release which moves one fails there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import zarr
from zarr.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

if TYPE_CHECKING:
    from zarr.abc.store import Store


def read_key(store: Store, key: str) -> bytes | None:
    """The bytes of a key, outside of any array; None if it is not there."""
    value = sync(store.get(key, default_buffer_prototype()))
    return None if value is None else value.to_bytes()


def write_key(store: Store, key: str, content: bytes) -> None:
    """Set the bytes of a key, outside of any array."""
    sync(store.set(key, default_buffer_prototype().buffer.from_bytes(content)))


def consolidate(store: Store) -> None:
    """Write the documents of a group's arrays into its own, so that opening it reads one document.

    zarr does the same, and warns that the specification does not have this yet (xarray reads it). Only
    :mod:`warnings` could keep that warning back, and what it changes, it changes for all threads.
    """
    group = zarr.open_group(store, mode="r+", zarr_format=3, use_consolidated=False)
    metadata = json.loads(_written(store, "zarr.json"))
    metadata["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": {
            name: json.loads(_written(store, f"{name}/zarr.json"))
            for name in sorted(group.array_keys())
        },
    }
    # In zarr's order, so that the bytes are those that zarr writes.
    metadata["node_type"] = metadata.pop("node_type")
    write_key(store, "zarr.json", json.dumps(metadata, indent=2).encode())


def _written(store: Store, key: str) -> bytes:
    content = read_key(store, key)
    assert content is not None
    return content


def memory_items(store: MemoryStore) -> list[tuple[str, bytes]]:
    """Keys and contents of a store in memory, the group's own document first, then by name."""
    keys = sorted(store._store_dict, key=lambda key: (key != "zarr.json", key))
    return [(key, store._store_dict[key].to_bytes()) for key in keys]
