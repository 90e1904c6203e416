"""Headers of ``.npy`` arrays from anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as numpy_format

_LONGEST = 1 << 16


@dataclass(frozen=True)
class Header:
    """Shape and dtype of an array, read without its content."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Any) -> Header:
    """The header at the place where an opened file is; the content begins behind it.

    Raises
    ------
    ValueError
        If there is no header that :func:`numpy.save` writes.
    """
    version = numpy_format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        msg = f"version {version} of the format"
        raise ValueError(msg)
    # NumPy would read as many bytes as the length says before it looks at them.
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    if len(length) < width or int.from_bytes(length, "little") > _LONGEST:
        msg = "a header that is cut or too long"
        raise ValueError(msg)
    read = numpy_format.read_array_header_1_0 if width == 2 else numpy_format.read_array_header_2_0
    shape, fortran, dtype = read(cast(BinaryIO, _Again(length, file)))
    if any(type(length) is not int for length in shape):
        msg = f"shape {shape}"
        raise ValueError(msg)
    return Header(tuple(shape), dtype, bool(fortran) and len(shape) > 1)


class _Again:
    """A file of which some bytes that were read already come first."""

    def __init__(self, first: bytes, file: BinaryIO) -> None:
        self._first = first
        self._file = file

    def read(self, count: int) -> bytes:
        if self._first:
            given, self._first = self._first[:count], self._first[count:]
            return given
        return self._file.read(count)
