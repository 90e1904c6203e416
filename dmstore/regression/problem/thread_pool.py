"""Threads that take a target each, within a bound of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.memory import available
from dmstore.core.threads import blas_threads


class Work:
    """Threads that take a target each, with memory that every one of them keeps.

    Parameters
    ----------
    threads : int
    cancelled : callable
        Asked before each target; the rest is left undone once it says so.
    memory : int, optional
        Bytes for the working sets of all threads; half of what is free by default.
    """

    def __init__(
        self,
        threads: int = 1,
        cancelled: Callable[[], bool] = lambda: False,
        memory: int | None = None,
    ) -> None:
        self.threads = max(1, threads)
        self._cancelled = cancelled
        self._share = (available() // 2 if memory is None else memory) // self.threads
        self._kept = threading.local()
        self._pool = ThreadPoolExecutor(self.threads)

    def each(self, one: Callable[[int], None], targets: int) -> None:
        """Call `one` for every target."""

        def unless(target: int) -> None:
            if not self._cancelled():
                one(target)

        # What a thread adds up must not depend on how many there are.
        with blas_threads(1):
            futures = [self._pool.submit(unless, target) for target in range(targets)]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()
                wait(futures)

    def flat(self, dtype: Any, train: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Memory of this thread for a working set; pages are taken when they are written to.

        Parameters
        ----------
        dtype : dtype
            Whatever was asked for before is lost.
        train : int
            A working set has no more columns.

        Returns
        -------
        flat : (number,) of dtype
        place : (2,) int64
            See :mod:`dmstore.regression.kernels.working_set`.
        """
        kept = vars(self._kept)
        size = max(min(self._share, 8 * train * train), 8)
        if "memory" not in kept or len(kept["memory"]) < size:
            kept["memory"] = np.empty(size // 8 * 8, dtype=np.uint8)
        name = np.dtype(dtype).name
        return kept["memory"].view(dtype), kept.setdefault(name, np.zeros(2, dtype=np.int64))

    def rows(self, count: int, width: int) -> NDArray[np.uint64]:
        """As many rows of words of this thread; those that were there when fewer were asked for stay.

        Returns
        -------
        (count, width) uint64
        """
        kept = vars(self._kept)
        before: NDArray[np.uint64] = kept.get("rows", np.empty((0, width), dtype=np.uint64))
        if before.shape[1] != width:
            before = np.empty((0, width), dtype=np.uint64)
        if len(before) < max(count, 1):
            kept["rows"] = np.empty((max(count, len(before) * 4 // 3), width), dtype=np.uint64)
            kept["rows"][: len(before)] = before
        return np.asarray(kept["rows"][:count])
