"""Masks packed along runs, as kernels take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.regression.kernels import popcount

_CHUNK = 1024


Words = NDArray[np.uint64]


def padded(words: Words) -> Words:
    """Words in whole vectors, as the kernels take them; the same array where they are already."""
    count = max(1, -(-words.shape[1] // popcount.LANES)) * popcount.LANES
    if words.shape[1] == count:
        return np.ascontiguousarray(words)
    wider = np.zeros((len(words), count), dtype=np.uint64)
    wider[:, : words.shape[1]] = words
    return wider


class RunPacker:
    """Packs masks that come in blocks along the run axis, with one unpacked block in memory.

    Parameters
    ----------
    train : int
        Number of train units.
    """

    def __init__(self, train: int) -> None:
        self.runs = 0
        self._train = train
        self._parts: list[Words] = []
        self._waiting: list[NDArray[np.bool_]] = []

    def add(self, block: NDArray[np.bool_]) -> None:
        """Add masks: (run, train) bool."""
        self._waiting.append(np.asarray(block, dtype=bool))
        self.runs += len(block)
        count = sum(map(len, self._waiting))
        whole = count - count % bits.WORD
        if whole >= _CHUNK:
            merged = np.concatenate(self._waiting)
            self._parts.append(bits.pack_runs(merged[:whole]))
            self._waiting = [merged[whole:]]

    def finish(self) -> Words:
        """All words: (train, ceil(run / 64)) uint64."""
        parts = list(self._parts)
        if self._waiting:
            parts.append(bits.pack_runs(np.concatenate(self._waiting)))
        if not parts:
            return np.zeros((self._train, 0), dtype=np.uint64)
        return np.ascontiguousarray(np.concatenate(parts, axis=1))
