"""Grams in files that many workers share: each file is written in tiles of whole rows."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.memory import refused
from dmstore.errors import InputError, StorageError
from dmstore.regression.fitting.stages import Stage
from dmstore.regression.kernels.popcount import TILE
from dmstore.regression.problem.design import Design, count_rows
from dmstore.regression.problem.packing import Words

# Rows of a tile. Tiles of 16-bit counts begin at whole pages of 4 KiB whatever the row's length: a
# network file system may write back a whole page of which its client changed a part.
ROWS = 2048


@dataclass(frozen=True)
class GramTiles:
    """The Grams of the stages of a pass, on scratch that all workers see.

    Attributes
    ----------
    folder : str
        Absolute; made by :meth:`create`.
    train : int
    dtype : str
        ``uint16`` or ``int32``.
    rows : int
        Of a tile.
    """

    folder: str
    train: int
    dtype: str
    rows: int = ROWS

    @classmethod
    def create(
        cls, scratch: str | Path, fit: str, grams: int, train: int, dtype: str, rows: int = ROWS
    ) -> GramTiles:
        """Make files for some Grams in a new folder of `scratch`.

        Raises
        ------
        StorageError
            If there is no room, or nothing can be written there.
        """
        folder = Path(scratch).absolute() / f"dmstore-{fit}-{uuid.uuid4().hex[:8]}"
        made = cls(str(folder), train, dtype, rows)
        size = np.dtype(dtype).itemsize * train * train
        try:
            folder.mkdir()
            for number in range(grams):
                with made._file(number).open("xb") as file:
                    # Taken now: a full disk would end a worker when a page is written.
                    os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            made.remove()
            msg = f"{refused(scratch, grams * size, error)}; name another directory that all workers see with --scratch, or leave it out"
            raise StorageError(msg) from error
        return made

    def _file(self, number: int) -> Path:
        return Path(self.folder) / f"{number}.gram"

    def bounds(self) -> list[tuple[int, int]]:
        """First row of each tile, and the one behind its last."""
        return [
            (first, min(first + self.rows, self.train)) for first in range(0, self.train, self.rows)
        ]

    def count(
        self,
        stages: Sequence[Stage],
        words: Sequence[Words],
        first: int,
        last: int,
        *,
        threads: int,
    ) -> None:
        """Count one tile of the Gram of each stage, and write it; again, if need be.

        Parameters
        ----------
        stages : sequence of Stage
        words : sequence of (train, words) uint64
            Of each group; each is counted once, whatever stages stand on it.
        first, last : int
        threads : int

        Raises
        ------
        InputError
            If the files are not there.
        """
        # Written, not mapped: other hosts write other tiles of the same files.
        files = [self._open(number, os.O_WRONLY) for number in range(len(stages))]
        try:
            for start in range(first, last, threads * TILE):
                stop = min(start + threads * TILE, last)
                sums = np.zeros((len(stages), stop - start, self.train), dtype=self.dtype)
                for group, one in enumerate(words):
                    standing = [n for n, stage in enumerate(stages) if group in stage.groups]
                    if standing:
                        counted = np.zeros(sums.shape[1:], dtype=self.dtype)
                        count_rows(one, start, stop, counted, threads)
                        sums[standing] += counted
                for file, rows in zip(files, sums, strict=True):
                    _write(file, rows, start * rows[0].nbytes)
            for file in files:
                os.fsync(file)
        finally:
            for file in files:
                os.close(file)

    def _open(self, number: int, flags: int) -> int:
        try:
            return os.open(self._file(number), flags)
        except FileNotFoundError as error:
            msg = f"{self._file(number)}: not there; --scratch must be a directory that all workers see under the same path"
            raise InputError(msg) from error

    def designs(self, stages: Sequence[Stage], runs: Sequence[int]) -> list[Design]:
        """The designs of the stages, their Grams mapped from the files.

        Parameters
        ----------
        stages : sequence of Stage
        runs : sequence of int
            Of each group.
        """
        made = []
        for number, stage in enumerate(stages):
            with os.fdopen(self._open(number, os.O_RDWR), "r+b") as file:
                # Writable only so that the kernels need not be compiled again for what is not.
                gram: NDArray[Any] = np.memmap(
                    file, dtype=self.dtype, mode="r+", shape=(self.train, self.train)
                )
            made.append(Design(sum(runs[group] for group in stage.groups), np.asarray(gram)))
        return made

    def remove(self) -> None:
        """Delete the files; who has them mapped keeps what it sees."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(file: int, rows: NDArray[Any], offset: int) -> None:
    """All bytes of an array at a place of a file, however many calls it takes."""
    content = memoryview(rows.reshape(-1).view(np.uint8).data)
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written
