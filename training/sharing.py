"""What a worker trains next: the runs of a fixed part in order, or slots of the plan that nobody else works on."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import DmstoreError, InputError
from dmstore.study import failures
from dmstore.study.algorithm import Algorithm
from dmstore.study.claims import EXPIRES, Claim, Claims
from dmstore.study.plan import Part

# A claim is renewed so many times before it would be void.
_RENEWALS = 4
# Free slots among which a worker draws for each that is taken, so that workers rarely want the same one.
_CHOICE = 2
# A plan has so many slots at least, so that the first worker does not take all of a small one as its batch.
_SLOTS = 8
# So many times as long as a claim lasts without renewal a worker waits for others.
_WAIT = 2.0


def untried(
    algorithm: Algorithm, part: Part | None, *, failed_before: float | None = None
) -> NDArray[np.int64]:
    """Runs to train: those that are not stored, without the ones that failed.

    Parameters
    ----------
    algorithm : Algorithm
    part : Part, optional
    failed_before : float, optional
        With those whose last failure was recorded before this moment of the storage's clock: to try each of them once more.

    Returns
    -------
    (run,) int64
    """
    missing = algorithm.pending(part)
    if not len(missing):
        return missing
    recorded = failures.recorded(algorithm.objects, algorithm.prefix)
    bad = [
        run
        for run, infos in recorded.items()
        if failed_before is None or max(info.modified for info in infos) >= failed_before
    ]
    return missing[~np.isin(missing, np.array(bad, dtype=np.int64))]


class SharedWork:
    """Batches of what is still undone, shared with other workers by claims.

    Inside the block a thread renews the claims that are held. A claim is held until its runs are stored
    (:meth:`release`), so that nobody begins what only waits to be written.

    Parameters
    ----------
    algorithm : Algorithm
    width : int
        Runs a batch, fewer where the plan is small.
    todo : callable
        The runs to train, read anew at each call.
    stop : callable
        Whether to end early.
    flush : callable
        Called before waiting for others, so that they see what is finished.
    expires : float
        See :class:`dmstore.study.claims.Claims`.

    Raises
    ------
    InputError
        If `expires` is not positive.

    Attributes
    ----------
    left : int
        Runs to train that were not stored when it looked last.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        width: int,
        todo: Callable[[], NDArray[np.int64]],
        *,
        stop: Callable[[], bool],
        flush: Callable[[], object],
        expires: float = EXPIRES,
    ) -> None:
        if not expires > 0:
            msg = f"claims that expire after {expires} s: give more than 0 seconds, longer than hosts' clocks and listings are apart"
            raise InputError(msg)
        self._algorithm = algorithm
        # Of the plan, not of what is left: workers whose slots have other widths do not see each other
        # (as where a small plan is extended meanwhile: at worst a run is trained twice).
        width = max(1, min(width, -(-len(algorithm.wanted()) // _SLOTS)))
        self._claims = Claims(algorithm.objects, algorithm.prefix, algorithm.uuid, width, expires)
        self._todo = todo
        self._stop = stop
        self._flush = flush
        self.left = 0
        self._held: dict[int, Claim] = {}
        self._tried: set[int] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="dmstore-claims", daemon=True)

    def __enter__(self) -> SharedWork:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        with contextlib.suppress(DmstoreError, OSError):
            self.release()

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Runs to train together, until nothing is left or `stop` says so.

        Yields
        ------
        (run,) int64
        """
        waited = 0.0
        while not self._stop():
            claimed = self._next()
            if claimed is not None:
                waited = 0.0
                if len(claimed):
                    yield claimed
                continue
            self._flush()
            self.release()
            if not len(self._open()):
                return
            # Others work on what is left. What they leave, because they die, is for us.
            pause = min(5.0, self._claims.expires / 10)
            if waited > _WAIT * self._claims.expires:
                return
            time.sleep(pause)
            waited += pause

    def _open(self) -> NDArray[np.int64]:
        todo = self._todo()
        self.left = len(todo)
        return todo[~np.isin(todo, np.fromiter(self._tried, dtype=np.int64))]

    def _next(self) -> NDArray[np.int64] | None:
        """Claim a slot: its runs that are to be trained, none if they were stored meanwhile; None where no slot is free."""
        todo = self._open()
        slots = self._slots(todo)
        taken, generations = self._claims.taken()
        free = [slot for slot in np.unique(slots).tolist() if slot not in taken | self._held.keys()]
        near = free[: _CHOICE * (len(taken) + 1)]
        random.shuffle(near)
        for slot in near:
            runs: NDArray[np.int64] = todo[slots == slot]
            claim = self._claims.claim(slot, generations.get(slot, 0) + 1, runs.tolist())
            if claim is None:
                continue
            with self._lock:
                self._held[slot] = claim
            # Whoever had it before may have stored it between our two looks.
            still = self._open()
            runs = runs[np.isin(runs, still)]
            self._tried.update(runs.tolist())
            if not len(runs):
                self._let_go([slot])
            return runs
        # Somebody was faster with each of those: look again, unless there is none.
        return np.empty(0, dtype=np.int64) if near else None

    def _slots(self, runs: NDArray[np.int64]) -> NDArray[np.int64]:
        planned = self._algorithm.wanted()
        order = np.argsort(planned, kind="stable")
        return order[np.searchsorted(planned[order], runs)] // self._claims.width

    def release(self) -> None:
        """Give back all claims; called when what they stood for is stored or given up."""
        with self._lock:
            slots = list(self._held)
        self._let_go(slots)

    def _let_go(self, slots: list[int]) -> None:
        for slot in slots:
            with self._lock:
                claim = self._held.pop(slot)
                self._claims.release(claim)

    def _renew(self) -> None:
        while not self._over.wait(self._claims.expires / _RENEWALS):
            with self._lock:
                for claim in self._held.values():
                    # The next time may succeed; at worst another worker trains the same.
                    with contextlib.suppress(DmstoreError, OSError):
                        self._claims.renew(claim)
