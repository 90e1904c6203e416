"""Arrays in files, read by rows: headers are checked against the file before memory is taken."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.core.npy import read_header
from dmstore.core.strangers import stranger, unusable
from dmstore.errors import InputError
from dmstore.storage.table.rows import MOST_RUNS

NUMBERS, TEXTS = "biuf", "US"
LARGEST_ROW = 1 << 30
_MAPPED = 1 << 26


class RowArray(Protocol):
    """An array that is read some rows at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; runs first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what :meth:`rows` gives."""

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers, which ascend."""


@dataclass(frozen=True)
class MemoryArray:
    """An array that is in memory already."""

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        return self.values.dtype

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers."""
        return self.values[index]


@dataclass(frozen=True)
class FileArray:
    """An array that lies in one piece in a file.

    Attributes
    ----------
    path : Path
    offset : int
        Where its first byte is.
    shape : tuple of int
    stored : numpy.dtype
        As it lies in the file.
    fortran : bool
        Whether the first axis varies fastest.
    bfloat16 : bool
        Whether the 16-bit words are bfloat16; rows are given as float32, which holds them exactly.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    fortran: bool = False
    bfloat16: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of what :meth:`rows` gives."""
        return np.dtype(np.float32) if self.bfloat16 else self.stored

    def rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """The rows of these numbers, which ascend.

        Raises
        ------
        InputError
            If the file cannot be read or has become shorter.
        """
        try:
            values = self._columns(index) if self.fortran else self._rows(index)
        except OSError as error:
            msg = f"{self.path}: cannot be read ({error.strerror or error})"
            raise InputError(msg) from None
        if self.bfloat16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def whole(self) -> NDArray[Any]:
        """All of it.

        Raises
        ------
        InputError
            If the file cannot be read or has become shorter.
        """
        # An array without dims is read as one row of them.
        rows = self if self.shape else replace(self, shape=(1,))
        return rows.rows(np.arange(rows.shape[0], dtype=np.int64)).reshape(self.shape)

    def _rows(self, index: NDArray[np.int64]) -> NDArray[Any]:
        # Read, not mapped: pages of a mapping count as this process's memory, and a file that is
        # cut while it is mapped ends the process.
        values = np.empty((len(index), *self.shape[1:]), dtype=self.stored)
        if not values.size:
            return values
        # Not of found[0]: a text alone is as long as its content.
        width = values.nbytes // len(values)
        view = memoryview(values.reshape(-1).view(np.uint8).data)
        with self.path.open("rb", buffering=0) as file:
            for low, high in stretches(index):
                place = self.offset + int(index[low]) * width
                _read_into(file.fileno(), view[low * width : high * width], place, self.path)
        return values

    def _columns(self, index: NDArray[np.int64]) -> NDArray[Any]:
        values = np.empty((len(index), *self.shape[1:]), dtype=self.stored)
        row = math.prod(self.shape[:-1]) * self.stored.itemsize
        step = max(1, _MAPPED // max(1, row)) if len(self.shape) > 1 else self.shape[-1]
        # Some at a time: pages that are mapped count as this process's memory.
        for low in range(0, self.shape[-1], step):
            shape = (*self.shape[:-1], min(step, self.shape[-1] - low))
            mapped = np.memmap(
                self.path, self.stored, "r", self.offset + low * row, shape, order="F"
            )
            if len(shape) == 1:
                return np.ascontiguousarray(mapped[index])
            values[..., low : low + shape[-1]] = mapped[index]
        return values


def stretches(index: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where in `index` numbers follow one another without a gap: (low, high) places."""
    if not len(index):
        return []
    cuts = np.flatnonzero(np.diff(index) != 1) + 1
    edges = [0, *cuts.tolist(), len(index)]
    return list(itertools.pairwise(edges))


def _read_into(descriptor: int, view: memoryview, place: int, path: Path) -> None:
    while len(view):
        count = os.preadv(descriptor, [view], place)
        if not count:
            msg = f"{path}: became shorter while it was read; start again when nobody writes to it"
            raise InputError(msg)
        view, place = view[count:], place + count


def open_npy(path: Path, inside: Path | None = None, kinds: str = NUMBERS) -> FileArray:
    """Open a ``.npy`` file: its header checked against its size, nothing else read.

    Parameters
    ----------
    path : Path
    inside : Path, optional
        A directory that the file must lie in, links followed.
    kinds : str
        Kinds of dtypes that are taken: numbers and bools, and text too where :data:`TEXTS` are added.

    Raises
    ------
    InputError
        If it is no whole array of such a dtype, or lies elsewhere.
    """
    if inside is not None:
        check_inside(path, inside)
    size = file_size(path)
    try:
        with path.open("rb") as file:
            header = read_header(file)
            start = file.tell()
    except Exception as error:  # noqa: BLE001 - a hostile header can make the parser raise anything
        short = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        what = stranger(path) or f"is no NumPy array ({short}); write it again with numpy.save"
        msg = f"{path}: {what}"
        raise InputError(msg) from None
    dtype = header.dtype
    if dtype.hasobject or dtype.kind not in kinds:
        why = unusable(dtype)
        if dtype.kind in TEXTS:
            why = "and only numbers and bools are taken"
        msg = f"{path}: has dtype {dtype}, {why}"
        raise InputError(msg)
    check_size(str(path), header.shape, dtype, size - start)
    return FileArray(path, start, header.shape, dtype, header.fortran)


def check_size(what: str, shape: Sequence[int], dtype: np.dtype[Any], actual: int) -> None:
    """Refuse a header that does not fit the bytes that are there, or is absurd: a sparse file may
    have any length.
    """
    size = math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or size != actual:
        msg = f"{what}: its header says {size} bytes ({dtype} {tuple(shape)}), but there are {actual}; the file is cut or damaged"
        raise InputError(msg)
    if 0 in shape or (shape and (shape[0] > MOST_RUNS or size // shape[0] > LARGEST_ROW)):
        msg = f"{what}: has shape {tuple(shape)}; from 1 to {MOST_RUNS} rows of at most {LARGEST_ROW} bytes are taken"
        raise InputError(msg)


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a file that is a link out of its folder."""
    try:
        within = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        within = False
    if not within:
        msg = f"{path}: is a link out of {folder}; put the file there, or name it by itself"
        raise InputError(msg)


def file_size(path: Path) -> int:
    """Length of a file in bytes.

    Raises
    ------
    InputError
        If it is missing, empty or no plain file.
    """
    try:
        if not path.is_file():
            msg = f"{path}: {'is no plain file' if path.exists() else 'no such file'}"
            raise InputError(msg)
        size = path.stat().st_size
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror or error})"
        raise InputError(msg) from None
    if not size:
        msg = f"{path}: is empty; write the file again"
        raise InputError(msg)
    return size
