"""Runs that are still to train, given out one by one or in batches, with their masks made as they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.study.algorithm import Run

T = TypeVar("T")
# Runs whose masks are made at once where runs are given out one by one.
_AT_ONCE = 64


class Batch(Sequence[Run]):
    """Some runs to train together: a sequence of them, and their parts as arrays.

    Attributes
    ----------
    id : (run,) int64
    mask : (run, train) bool
        What each may see.
    seed : (run,) uint64
        The training seed of each.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.id = np.array([run.id for run in runs], dtype=np.int64)
        self.mask: NDArray[np.bool_] = np.stack([run.mask for run in runs])
        self.seed = np.array([run.seed for run in runs], dtype=np.uint64)
        # Masks of the runs are rows of the batch's, so they are there once.
        self._runs = [replace(run, mask=row) for run, row in zip(runs, self.mask, strict=True)]

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> Run: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Run]: ...
    def __getitem__(self, index: int | slice) -> Run | Sequence[Run]:
        return self._runs[index]

    def __repr__(self) -> str:
        return f"Batch({len(self)} runs, {self._runs[0].id} to {self._runs[-1].id})"


class Pending(Iterator[T], Generic[T]):
    """What is still to train: an iterator of runs or batches, whose length is how many it has yet to give.

    Parameters
    ----------
    ids : (run,) int64
    describe : callable
        Makes runs of some ids; may leave out those that are gone.
    pack : callable
        Makes of described runs what is given out.
    at_once : int
        Runs described at once.
    each : int
        Runs in one thing that is given out.
    """

    def __init__(
        self,
        ids: NDArray[np.int64],
        describe: Callable[[NDArray[np.int64]], Sequence[Run]],
        pack: Callable[[Sequence[Run]], Sequence[T]],
        at_once: int,
        each: int,
    ) -> None:
        self._ids, self._describe, self._pack = ids, describe, pack
        self._at_once, self._each = at_once, each
        self._ready: list[T] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ready) + -(-len(self._ids) // self._each)

    def __next__(self) -> T:
        with self._lock:
            while not self._ready:
                if not len(self._ids):
                    raise StopIteration
                now, self._ids = self._ids[: self._at_once], self._ids[self._at_once :]
                runs = self._describe(now)
                self._ready = list(self._pack(runs))[::-1] if len(runs) else []
            return self._ready.pop()

    def __repr__(self) -> str:
        what = "runs" if self._each == 1 else f"batches of {self._each} runs"
        return f"Pending({len(self)} {what})"


def one_by_one(
    ids: NDArray[np.int64], describe: Callable[[NDArray[np.int64]], Sequence[Run]]
) -> Pending[Run]:
    """Runs, one after the other."""
    return Pending(ids, describe, list, _AT_ONCE, 1)


def in_batches(
    ids: NDArray[np.int64],
    describe: Callable[[NDArray[np.int64]], Sequence[Run]],
    batch: int,
) -> Pending[Batch]:
    """Runs in batches, the last of which may be smaller.

    Raises
    ------
    InputError
        If `batch` is no whole number from 1.
    """
    if not isinstance(batch, int | np.integer) or isinstance(batch, bool) or batch < 1:
        msg = f"batch {batch!r}: give a whole number of runs from 1"
        raise InputError(msg)
    return Pending(ids, describe, lambda runs: [Batch(runs)], int(batch), int(batch))
