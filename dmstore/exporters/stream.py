"""Arrays on their way into a file, one block of rows after the other, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Count
from dmstore.errors import CorruptionError

Blocks = Callable[[], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class Stream:
    """An array that is read while it is written.

    Attributes
    ----------
    name : str
    dims : tuple of str
    shape : tuple of int
    dtype : numpy.dtype
        Little-endian.
    blocks : callable
        Yields parts of the array along its first axis, in order.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Blocks

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return math.prod(self.shape) * self.dtype.itemsize

    def write(self, file: Any) -> None:
        """Write the content in C order.

        Raises
        ------
        CorruptionError
            If the blocks are not what the shape says.
        """
        written = 0
        for block in self.blocks():
            written += len(block)
            if block.shape[1:] != self.shape[1:]:
                break
            file.write(np.ascontiguousarray(block, dtype=self.dtype).reshape(-1).view(np.uint8))
        else:
            if written == self.shape[0]:
                return
        msg = f"{self.name}: the store gave other rows than it said it has; run 'dmstore verify'"
        raise CorruptionError(msg)


def whole(name: str, dims: Sequence[str], values: NDArray[Any]) -> Stream:
    """A small array in memory as a stream of one block."""
    dtype = values.dtype.newbyteorder("<")
    return Stream(name, tuple(dims), values.shape, dtype, lambda: iter([values]))


def own_names(streams: Iterable[Stream]) -> list[Stream]:
    """The streams, each under a name of its own whatever its case: of two the later gets a ``_``."""
    taken: set[str] = set()
    renamed = []
    for stream in streams:
        name = stream.name
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        renamed.append(replace(stream, name=name))
    return renamed


def metered(streams: Iterable[Stream], progress: Count | None) -> list[Stream]:
    """The same streams, which together report bytes done and bytes in all."""
    streams = list(streams)
    if progress is None:
        return streams
    total, done = sum(stream.size for stream in streams), 0

    def counted(blocks: Blocks) -> Blocks:
        def read() -> Iterator[NDArray[Any]]:
            nonlocal done
            for block in blocks():
                yield block
                done += block.nbytes
                progress(done, total)

        return read

    return [replace(stream, blocks=counted(stream.blocks)) for stream in streams]


def write_npy(file: BinaryIO, stream: Stream) -> None:
    """Write a stream as a ``.npy`` file.

    Plain writes, not a memory map: there a full disk would be a signal that kills the process.
    """
    header = {
        "descr": np.lib.format.dtype_to_descr(stream.dtype),
        "fortran_order": False,
        "shape": stream.shape,
    }
    np.lib.format.write_array_header_1_0(file, header)
    stream.write(file)
