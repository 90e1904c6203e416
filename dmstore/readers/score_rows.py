"""A matrix of scores that stays in its file, read some targets at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.readers.files import FileArray

_BLOCK_BYTES = 1 << 26


class ScoreRows:
    """Scores (target, train) as floats, as Dask takes them.

    Parameters
    ----------
    array : FileArray
    turned : bool
        Whether train units come first in the file.

    Attributes
    ----------
    shape, dtype, ndim
        As of an array: float64 where the file has that or wide integers, else float32.
    step : int
        Targets to read at once.
    """

    ndim = 2

    def __init__(self, array: FileArray, *, turned: bool) -> None:
        if turned:
            # The same bytes, named the other way round.
            array = replace(array, shape=array.shape[::-1], fortran=not array.fortran)
        self._array = array
        self.shape: tuple[int, int] = (array.shape[0], array.shape[1])
        self.dtype = float_type(array.dtype)
        self.step = max(1, _BLOCK_BYTES // (self.shape[1] * self.dtype.itemsize))

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        rows = np.arange(self.shape[0], dtype=np.int64)[index[0]]
        return np.asarray(self._array.rows(rows), dtype=self.dtype)[:, index[1]]

    def lazy(self) -> Any:
        """The scores as a Dask array, whole rows in a chunk."""
        import dask.array as da

        chunks = (self.step, self.shape[1])
        return da.from_array(self, chunks=chunks, name=False, asarray=False, fancy=False)

    def survey(self, path: Path) -> int:
        """Read all of it once: how many datamodels are all zero.

        Raises
        ------
        InputError
            If a score is not finite (naming the first), or the file cannot be read.
        """
        zeros, bad, first = 0, 0, None
        for low in range(0, self.shape[0], self.step):
            values = self[low : low + self.step, :]
            finite = np.isfinite(values)
            if not finite.all():
                bad += int((~finite).sum())
                row, unit = (int(place[0]) for place in np.nonzero(~finite))
                first = first or (values[row, unit], low + row, unit)
            zeros += int((~values.any(axis=1)).sum())
        if first is not None:
            raise InputError(not_finite(path, bad, *first))
        return zeros


def float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """float64 for that or wide integers, else float32, which holds float16 exactly."""
    wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float64 if wide else np.float32)


def not_finite(path: Path, count: int, value: Any, target: int, train: int) -> str:
    """What is said of scores that are not finite."""
    return (
        f"{path}: {count} scores are not finite, the first {value} at "
        f"target {target}, train unit {train}; write the file again without them"
    )
