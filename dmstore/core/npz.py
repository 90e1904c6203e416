"""Reading ``.npz`` archives from elsewhere without trusting anything in them.

Nothing is unpickled; an array's header must fit the size of its member before memory is taken.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.npy import Header, read_header
from dmstore.core.strangers import stranger, unusable
from dmstore.core.zips import open_zip
from dmstore.errors import InputError

_KINDS = "biufUS"
# Compression of real arrays stays far below this; a bomb is at a thousand.
_MOST_EXPANSION, _SMALL = 200, 1 << 28
# The longest list of members: some thousand arrays.
_LONGEST_LIST = 1 << 20


class NpzReader:
    """An opened ``.npz`` file: headers at once, arrays on demand.

    Parameters
    ----------
    path : path

    Raises
    ------
    InputError
        If the file is missing, empty, cut, no zip, or holds object arrays.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path)
        if self.path.is_dir():
            msg = f"{path}: is a directory; give .npz files"
            raise InputError(msg)
        try:
            if self.path.stat().st_size == 0:
                msg = f"{path}: is empty; write the file again"
                raise InputError(msg)
            self._archive = open_zip(self.path, longest=_LONGEST_LIST)
        except FileNotFoundError:
            msg = f"{path}: no such file"
            raise InputError(msg) from None
        except OSError as error:
            msg = f"{path}: cannot be read ({error.strerror or error})"
            raise InputError(msg) from None
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - a hostile archive can make the parser raise anything
            if what := stranger(self.path):
                msg = f"{path}: {what}"
                raise InputError(msg) from None
            msg = f"{path}: not a whole .npz file (no zip, or cut short: {_short(error)}); write it again with numpy.savez"
            raise InputError(msg) from None
        try:
            self._members = self._list()
            self.headers = {name: self._header(name) for name in self._members}
        except BaseException:
            self._archive.close()
            raise

    def _list(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in self._archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename or name in members:
                msg = (
                    f"{self.path}: member {info.filename[:80]!r} is no array or stands there twice"
                )
                if info.filename.endswith("data.pkl"):
                    msg = f"{self.path}: is a file of torch.save, of which runs are not read; save its tensors with numpy.savez (scores in it go into 'dmstore compare')"
                raise InputError(msg)
            members[name] = info
        return members

    def _header(self, name: str) -> Header:
        info = self._members[name]
        try:
            with self._archive.open(info) as member:
                header = read_header(member)
                start = member.tell()
        except Exception as error:  # noqa: BLE001 - as above
            msg = f"{self.path}: {name!r} is no NumPy array ({_short(error)}); write the file again with numpy.savez"
            raise InputError(msg) from None
        if header.dtype.hasobject or header.dtype.kind not in _KINDS:
            msg = f"{self.path}: {name!r} has dtype {header.dtype}, {unusable(header.dtype)}"
            raise InputError(msg)
        if any(length < 0 for length in header.shape) or start + header.size != info.file_size:
            msg = f"{self.path}: {name!r} says {header.size} bytes but holds {info.file_size - start}; the file is damaged"
            raise InputError(msg)
        return header

    def load(self, name: str) -> NDArray[Any]:
        """One array.

        Raises
        ------
        InputError
            If its content is damaged, or absurdly compressed.
        """
        stored, size = self._members[name].compress_size, self.headers[name].size
        if size > max(_SMALL, _MOST_EXPANSION * stored):
            msg = f"{self.path}: {name!r} would grow from {stored} to {size} bytes; save it with numpy.savez, not compressed"
            raise InputError(msg)
        try:
            with self._archive.open(self._members[name]) as member:
                return np.asarray(npy.read_array(member, allow_pickle=False))
        except Exception as error:  # noqa: BLE001 - as above
            msg = f"{self.path}: {name!r} cannot be read ({_short(error)}); the file is damaged, write it again"
            raise InputError(msg) from None

    def scalar(self, name: str) -> str | None:
        """A one-element text member, or None if there is none."""
        if name not in self.headers:
            return None
        if math.prod(self.headers[name].shape) != 1 or self.headers[name].dtype.kind not in "US":
            msg = f"{self.path}: {name!r} must be one text, not {self.headers[name].dtype} {self.headers[name].shape}"
            raise InputError(msg)
        value = self.load(name).reshape(-1)[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def __enter__(self) -> NpzReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._archive.close()


def _short(error: Exception) -> str:
    """One short line of whatever a parser had to say."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]
