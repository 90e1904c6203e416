"""Stores in which every chunk must be there.

zarr takes a chunk that is missing for one that holds the fill value alone, so a lost file would read as
masks that saw nothing. dmstore writes every chunk, and so can tell the two apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zarr.storage import LocalStore, ZipStore

from dmstore.errors import MissingChunkError

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


def _present(value: Buffer | None, key: str, store: object) -> Buffer | None:
    if value is None and (key.startswith("c/") or "/c/" in key):
        msg = (
            f"{store}/{key}: is not there: vacuum removed what this view stands on (open it again), "
            f"or the store is damaged (run 'dmstore verify')"
        )
        raise MissingChunkError(msg)
    return value


class StrictLocalStore(LocalStore):
    """A directory; a missing chunk is an error."""

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Read a key; MissingChunkError for a chunk that is not there."""
        return _present(await super().get(key, prototype, byte_range), key, self.root)


class StrictZipStore(ZipStore):
    """A zip; a missing chunk is an error."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read a key; MissingChunkError for a chunk that is not there."""
        return _present(await super().get(key, prototype, byte_range), key, self.path)
