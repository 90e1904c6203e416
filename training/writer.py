"""``RunWriter``: how a training loop, whatever it is, stores its runs and resumes."""

from __future__ import annotations

import atexit
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from dmstore.algorithm import Algorithm, Run
from dmstore.errors import DmstoreError, InputError
from dmstore.ingest import concatenate
from dmstore.plan import Part
from dmstore.storage import segment
from dmstore.storage.segment import Rows
from dmstore.study import Study, open_study

FLUSH_RUNS = 64
FLUSH_SECONDS = 600.0
_DESCRIBED = 64


class RunWriter:
    """Writes finished runs of one algorithm.

    Runs are acknowledged once written: at 64 runs, 10 minutes after the oldest waiting one, on
    SIGTERM and SIGUSR1, on leaving the ``with`` block (an exception included), at exit, or by
    :meth:`flush`. A forked child never writes what it inherited.

    Parameters
    ----------
    study : path or Study
    algorithm : str
    part : str or Part, optional
        ``"3/100"``: only this part of the plan, counted from 1.
    flush_runs : int
        Write when this many runs wait.
    flush_seconds : float
        Write when the oldest waiting run is this old.

    Examples
    --------
    >>> with RunWriter("cifar.dm", "high-noise", part="3/100") as writer:  # doctest: +SKIP
    ...     for run in writer.pending():
    ...         writer.append(run, margin=train(run.mask, seed=run.seed))
    """

    def __init__(
        self,
        study: str | Path | Study,
        algorithm: str,
        *,
        part: str | Part | None = None,
        flush_runs: int = FLUSH_RUNS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        opened = study if isinstance(study, Study) else open_study(study)
        self.algorithm: Algorithm = opened.algorithm(algorithm)
        self.part = Part.parse(part) if isinstance(part, str) else part
        if flush_runs < 1 or not flush_seconds > 0:
            msg = f"flush at {flush_runs} runs or {flush_seconds} s: both must be positive"
            raise InputError(msg)
        self.acknowledged = 0
        self._flush_runs = flush_runs
        self._flush_seconds = flush_seconds
        self._waiting: list[Rows] = []
        self._oldest = 0.0
        self._lock = threading.RLock()
        self._busy = False
        self._signalled: list[int] = []
        self._failed: DmstoreError | None = None
        self._handlers: dict[int, Any] = {}
        self._stop = threading.Event()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._closed = False
        _at_exit(self.close)
        self._catch_signals()

    def pending(self) -> Iterator[Run]:
        """Runs of the part that are not stored yet, with masks and seeds."""
        runs = self.algorithm.pending(self.part)
        for start in range(0, len(runs), _DESCRIBED):
            yield from self.algorithm.describe(runs[start : start + _DESCRIBED])

    def append(self, run: Run | int, *, mask: Any = None, **values: Any) -> None:
        """Add one finished run.

        Parameters
        ----------
        run : Run or int
            From :meth:`pending`, or an id.
        mask : (train,) bool, optional
            Needed with a plain id of an algorithm with foreign sampling.
        **values
            Every declared output, (target[, class]); ``seed``; any further number, bool or text,
            which becomes a per-run column.

        Raises
        ------
        InputError
            If something does not fit; the run is not taken then, the writer goes on.
        """
        outputs = {spec.name for spec in self.algorithm.table.spec.outputs()}
        if isinstance(run, int) and mask is None and self.algorithm.planned:
            described = self.algorithm.describe(np.array([run], dtype=np.int64))
            run = described[0]
        number = run.id if isinstance(run, Run) else int(run)
        if mask is None:
            if not isinstance(run, Run):
                msg = f"run {number}: give its mask, the algorithm has foreign sampling"
                raise InputError(msg)
            mask = run.mask
        arrays = {
            name: np.asarray(_to_numpy(value))[None]
            for name, value in values.items()
            if name in outputs
        }
        columns = {
            name: np.array([_scalar(name, value)])
            for name, value in values.items()
            if name not in outputs
        }
        self._add([number], {"mask": np.asarray(_to_numpy(mask))[None], **arrays}, columns)

    def append_many(
        self,
        runs: Sequence[Run],
        outputs: Mapping[str, Any],
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a batch of finished runs: outputs are (run, target[, class]), columns (run,)."""
        arrays = {name: np.asarray(_to_numpy(value)) for name, value in outputs.items()}
        arrays["mask"] = np.array([run.mask for run in runs])
        self._add(
            [run.id for run in runs],
            arrays,
            {name: np.asarray(value) for name, value in (columns or {}).items()},
        )

    def _add(self, ids: list[int], arrays: dict[str, Any], columns: dict[str, Any]) -> None:
        if os.getpid() != self._pid:
            msg = "this RunWriter was made in another process; make one in each process"
            raise InputError(msg)
        if self._closed:
            msg = "this RunWriter is closed; make a new one"
            raise InputError(msg)
        count = len(ids)
        columns.setdefault("time", np.full(count, time.time_ns() // 1_000_000, dtype=np.int64))
        columns.setdefault("host", np.full(count, platform.node()))
        where = f"run {ids[0]}" if count == 1 else f"runs {ids[0]} to {ids[-1]}"
        rows = self.algorithm.complete(Rows(np.array(ids, dtype=np.int64), arrays, columns), where)
        with self._working():
            if self._failed:
                failed, self._failed = self._failed, None
                raise failed
            if not self._waiting:
                self._oldest = time.monotonic()
                self._start_timer()
            self._waiting.append(rows)
            if sum(map(len, self._waiting)) >= self._flush_runs:
                self._write()

    def flush(self) -> int:
        """Write what waits, durably.

        Returns
        -------
        int
            Runs acknowledged by this writer so far.

        Raises
        ------
        StorageError
            If the file system refuses; the runs still wait, and the call may be repeated.
        """
        if os.getpid() != self._pid:
            return 0
        with self._working():
            self._write()
        return self.acknowledged

    def close(self) -> None:
        """Write what waits and give signals and the timer back. May be called twice."""
        if os.getpid() != self._pid or self._closed:
            return
        try:
            self.flush()
        finally:
            self._closed = True
            self._stop.set()
            self._release_signals()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self) -> None:
        """Write waiting runs, in groups of the same columns, each dropped once it is stored."""
        while self._waiting:
            key = _column_key(self._waiting[0])
            same = [rows for rows in self._waiting if _column_key(rows) == key]
            merged = concatenate(same)
            self.algorithm.table.append(merged)
            self.acknowledged += len(merged)
            self._waiting = [rows for rows in self._waiting if _column_key(rows) != key]

    def _working(self) -> _Working:
        return _Working(self)

    def _start_timer(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="dmstore-flush", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._flush_seconds / 4)):
            with self._working():
                if self._waiting and time.monotonic() - self._oldest >= self._flush_seconds:
                    try:
                        self._write()
                    except DmstoreError as error:
                        # Reported by the next call of the training loop; the runs still wait.
                        self._failed = error
                        self._oldest = time.monotonic()

    def _catch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _release_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._handlers = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            os._exit(128 + number)
        if self._busy:
            # The main thread is inside append or flush: finish that first.
            self._signalled.append(number)
            return
        self._answer(number)

    def _answer(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self.flush()
            previous = self._handlers.get(number)
            if callable(previous):
                previous(number, None)
            return
        previous = self._handlers.get(number, signal.SIG_DFL)
        self.close()
        if callable(previous):
            previous(number, None)
        elif previous != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _at_exit(close: Callable[[], None]) -> None:
    """Call `close` at exit, while threads can still be started.

    ``atexit`` comes too late: zarr's thread pools are closed by then. The hook that those pools use
    themselves runs last in, first out, so zarr has to be imported before.
    """
    import zarr  # noqa: F401

    register = getattr(threading, "_register_atexit", atexit.register)
    register(close)


class _Working:
    """Holds the lock; a signal that comes meanwhile is answered afterwards."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._main = threading.current_thread() is threading.main_thread()
        self._outer = False

    def __enter__(self) -> None:
        if self._main:
            self._outer = not self._writer._busy
            self._writer._busy = True
        self._writer._lock.acquire()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._writer._lock.release()
        if self._main and self._outer:
            self._writer._busy = False
            while self._writer._signalled:
                self._writer._answer(self._writer._signalled.pop(0))


def _column_key(rows: Rows) -> tuple[tuple[str, str], ...]:
    return tuple(
        sorted((name, segment.column_dtype(values)) for name, values in rows.columns.items())
    )


def _to_numpy(value: Any) -> Any:
    """Arrays of other libraries: torch tensors (on a GPU, with a gradient) and what NumPy takes."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    return value


def _scalar(name: str, value: Any) -> Any:
    found = np.asarray(_to_numpy(value))
    if found.ndim != 0:
        msg = f"{name!r} has shape {found.shape}: it is no declared output, and a column takes one value a run"
        raise InputError(msg)
    return found[()]
