"""PyTorch files (``.pt``) without PyTorch, and without unpickling."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.given import local_path
from dmstore.core.npy import Header
from dmstore.core.strangers import stranger
from dmstore.errors import InputError
from dmstore.readers import torch_pickle
from dmstore.readers.files import FileArray
from dmstore.readers.torch_pickle import Tensor

_LEGACY = (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", b"\x80\x02]q")
# The pickle of a dict of tensors is some hundred bytes a tensor.
_LARGEST_PICKLE = 4_000_000
_LONGEST_TEXT = 1000
# Bytes of a zip member's own header before its name, and where in it the lengths of name and extra stand.
_HEADER, _NAME_LENGTHS = 30, 26
_PIECE = 1 << 22


class TorchFile:
    """An opened ``.pt`` file: headers at once, tensors on demand.

    Parameters
    ----------
    path : path
        A tensor (called ``tensor``) or a dict of tensors, written by ``torch.save``.

    Attributes
    ----------
    headers : dict
        Shape and dtype of each tensor; bfloat16 is given as float32.
    texts : dict
        Short texts that stand beside the tensors; those of a dict ``about`` as ``about/…``.

    Raises
    ------
    InputError
        If it is missing, damaged, of the format before PyTorch 1.6, or holds anything but tensors.
    """

    largest_pickle = _LARGEST_PICKLE
    takes_arrays = False

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path)
        with self._open() as archive:
            members = self._members(archive)
            self._root, self._order = self._describe(archive, members)
            raw = self._read(archive, members[f"{self._root}data.pkl"])
            content = torch_pickle.parse(raw, str(self.path), arrays=self.takes_arrays)
            self._tensors = self._named(content)
            self.texts = _texts(content)
            for name, tensor in self._tensors.items():
                self._check(name, tensor, members)
        self.headers = {
            name: Header(tensor.shape, self._dtype(tensor, decoded=True))
            for name, tensor in self._tensors.items()
        }

    def load(self, name: str) -> NDArray[Any]:
        """One tensor as an array in native byte order.

        Raises
        ------
        InputError
            If its bytes are damaged.
        """
        return next(self.load_many([name]))[1]

    def placed(self, name: str) -> FileArray | None:
        """Where a tensor lies in the file, so that it can be read by rows; None where it is in no one piece.

        Raises
        ------
        InputError
            If its bytes are damaged: all of them are read once.
        """
        tensor = self._tensors[name]
        strides = [1, *np.cumprod(tensor.shape[:0:-1]).tolist()][::-1]
        turned = [1, *np.cumprod(tensor.shape[:-1]).tolist()]
        if 0 in tensor.shape or list(tensor.strides) not in (strides, turned):
            return None
        with self._open() as archive:
            members = self._members(archive)
            self._check(name, tensor, members)
            info = members[f"{self._root}data/{tensor.storage.key}"]
            self._read_through(archive, info)
        with self.path.open("rb") as file:
            file.seek(info.header_offset + _NAME_LENGTHS)
            start = _HEADER + sum(struct.unpack("<HH", file.read(4)))
        stored = self._dtype(tensor)
        return FileArray(
            self.path,
            info.header_offset + start + tensor.offset * stored.itemsize,
            tuple(tensor.shape),
            stored,
            fortran=list(tensor.strides) != strides,
            bfloat16=tensor.storage.dtype == "bfloat16",
        )

    def load_many(self, names: Sequence[str]) -> Iterator[tuple[str, NDArray[Any]]]:
        """Tensors by name, the archive opened once for all of them; see :meth:`load`."""
        with self._open() as archive:
            members = self._members(archive)
            for name in names:
                yield name, self._load(archive, members, name)

    def _load(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
    ) -> NDArray[Any]:
        tensor = self._tensors[name]
        if 0 in tensor.shape:
            return np.empty(tensor.shape, self.headers[name].dtype)
        self._check(name, tensor, members)
        raw = self._read(archive, members[f"{self._root}data/{tensor.storage.key}"])
        flat = np.frombuffer(raw, dtype=self._dtype(tensor))
        # The stride of a dim of length 1 is never walked, whatever it says.
        strides = [
            step * flat.itemsize if length > 1 else 0
            for length, step in zip(tensor.shape, tensor.strides, strict=True)
        ]
        # Within the storage: checked above, element by element of the index.
        view = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, strides, writeable=False
        )
        if tensor.storage.dtype == "bfloat16":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return view.astype(view.dtype.newbyteorder("="))

    def _open(self) -> zipfile.ZipFile:
        try:
            with self.path.open("rb") as file:
                start = file.read(16)
            if start.startswith(_LEGACY):
                msg = f"{self.path}: in the format before PyTorch 1.6; load it once with torch and torch.save it again"
                raise InputError(msg)
            return zipfile.ZipFile(self.path)
        except FileNotFoundError:
            msg = f"{self.path}: no such file"
            raise InputError(msg) from None
        except InputError:
            raise
        except OSError as error:
            msg = f"{self.path}: cannot be read ({error.strerror or error})"
            raise InputError(msg) from None
        except Exception:  # noqa: BLE001 - a hostile archive can make the parser raise anything
            what = stranger(self.path)
            msg = f"{self.path}: {what or 'not a whole .pt file (no zip, or cut short); torch.save it again'}"
            raise InputError(msg) from None

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        size = self.path.stat().st_size
        for info in archive.infolist():
            name = info.filename
            if name in members:
                msg = f"{self.path}: member {name[:80]!r} stands there twice; the file is damaged"
                raise InputError(msg)
            if info.flag_bits & 1:
                msg = f"{self.path}: member {name[:80]!r} is encrypted; torch.save it again"
                raise InputError(msg)
            # torch.save never compresses: what is declared is what the file holds, and no more.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                msg = f"{self.path}: member {name[:80]!r} is compressed, which torch.save never does; save it again"
                raise InputError(msg)
            if info.header_offset + info.file_size > size:
                msg = f"{self.path}: member {name[:80]!r} says {info.file_size} bytes, more than the file has; it is damaged"
                raise InputError(msg)
            members[name] = info
        return members

    def _describe(
        self, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]
    ) -> tuple[str, str]:
        """The folder inside the archive, and ``<`` or ``>`` for the byte order."""
        pickles = [n for n in members if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            msg = f"{self.path}: holds {len(pickles)} data.pkl, so it is no file of torch.save; use torch.save"
            raise InputError(msg)
        if members[pickles[0]].file_size > self.largest_pickle:
            msg = f"{self.path}: data.pkl has {members[pickles[0]].file_size} bytes, too many for a dict of tensors"
            raise InputError(msg)
        root = pickles[0].removesuffix("data.pkl")
        order = b"little"
        if (info := members.get(f"{root}byteorder")) is not None:
            order = self._read(archive, info) if info.file_size <= 6 else b""
        if order not in (b"little", b"big"):
            msg = f"{self.path}: 'byteorder' is neither little nor big; torch.save it again"
            raise InputError(msg)
        return root, "<" if order == b"little" else ">"

    def _read(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        try:
            return archive.read(info)
        except Exception as error:  # noqa: BLE001 - as above
            text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            msg = (
                f"{self.path}: {info.filename[:80]!r} cannot be read ({text}); the file is damaged"
            )
            raise InputError(msg) from None

    def _read_through(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        """Hold a member against its checksum, without keeping it."""
        try:
            with archive.open(info) as member:
                while member.read(_PIECE):
                    pass
        except Exception as error:  # noqa: BLE001 - as above
            text = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            msg = (
                f"{self.path}: {info.filename[:80]!r} cannot be read ({text}); the file is damaged"
            )
            raise InputError(msg) from None

    def _named(self, content: Any) -> dict[str, Tensor]:
        if isinstance(content, Tensor):
            return {"tensor": content}
        tensors = (
            {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
            if isinstance(content, dict)
            else {}
        )
        if not tensors:
            msg = f"{self.path}: holds neither a tensor nor a dict of tensors; save one of these"
            raise InputError(msg)
        return tensors

    def _dtype(self, tensor: Tensor, *, decoded: bool = False) -> np.dtype[Any]:
        if tensor.storage.dtype == "bfloat16":
            return np.dtype(np.float32) if decoded else np.dtype(f"{self._order}u2")
        dtype = np.dtype(f"{self._order}{tensor.storage.dtype}")
        return dtype.newbyteorder("=") if decoded else dtype

    def _check(self, name: str, tensor: Tensor, members: dict[str, zipfile.ZipInfo]) -> None:
        """Refuse a tensor that reaches beyond its storage, or a storage that is not its member."""
        storage = tensor.storage
        info = members.get(f"{self._root}data/{storage.key}")
        expected = storage.numel * self._dtype(tensor).itemsize
        if info is None or info.file_size != expected:
            there = "missing" if info is None else f"{info.file_size} bytes"
            msg = f"{self.path}: storage {storage.key[:40]!r} of {name[:80]!r} should have {expected} bytes, but is {there}"
            raise InputError(msg)
        count = math.prod(tensor.shape)
        last = tensor.offset + sum(
            (length - 1) * step for length, step in zip(tensor.shape, tensor.strides, strict=True)
        )
        # A tensor with more elements than its storage is an expanded one: memory out of nothing.
        if count and (last >= storage.numel or count > storage.numel):
            msg = (
                f"{self.path}: {name[:80]!r} of shape {tensor.shape} reaches beyond its storage of {storage.numel} numbers; "
                "save tensor.contiguous()"
            )
            raise InputError(msg)


def _texts(content: Any) -> dict[str, str]:
    if not isinstance(content, dict):
        return {}
    about = content.get("about")
    nested = {f"about/{k}": v for k, v in about.items()} if isinstance(about, dict) else {}
    return {
        str(key): value
        for key, value in (*content.items(), *nested.items())
        if isinstance(value, str) and len(value) <= _LONGEST_TEXT
    }
