"""A zarr store to write to, whose files and directories have the permissions of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore

from dmstore.storage.objects.permissions import Permissions, share

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer


class SharedStore(LocalStore):
    """A directory that a group may look into, and delete, before it is finished too.

    What zarr writes in another way than by ``set`` gets its permissions in the end, when it is synced.

    Parameters
    ----------
    root : Path
    like : Permissions
    """

    def __init__(self, root: Path, like: Permissions, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._like = like
        self._made = {Path(root)}

    def with_read_only(self, read_only: bool = False) -> SharedStore:  # noqa: FBT001, FBT002 - as in zarr
        """The same store, writable or not."""
        return type(self)(Path(self.root), self._like, read_only=read_only)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key."""
        path = self._prepared(key)
        await super().set(key, value)
        share(path, self._like)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key that is not there."""
        path = self._prepared(key)
        await super().set_if_not_exists(key, value)
        share(path, self._like)

    def _prepared(self, key: str) -> Path:
        """The file of a key, in a directory that is there and shared."""
        path = Path(self.root, key)
        missing = [p for p in path.parents if p.is_relative_to(self.root) and p not in self._made]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            share(folder, self._like)
            self._made.add(folder)
        return path
