"""``RunWriter``: how a training loop, whatever it is, stores its runs and resumes."""

from __future__ import annotations

import logging
import numbers
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, overload

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.core import times
from dmstore.core.meter import Meter
from dmstore.core.progress import Progress, counting
from dmstore.errors import ConflictError, DmstoreError, InputError
from dmstore.storage.table.rows import Rows, column_key, concatenate, row_digests
from dmstore.study import removal as removals
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.plan import Part
from dmstore.study.study import Study, open_study
from dmstore.training.destination import Destination
from dmstore.training.flusher import Flusher
from dmstore.training.given import sort_given
from dmstore.training.pending import Batch, Pending, in_batches, one_by_one

FLUSH_RUNS = 64
FLUSH_SECONDS = 600.0


class RunWriter:
    """Writes finished runs of one algorithm.

    Runs are acknowledged once written: at 64 runs, 10 minutes after the oldest waiting one, on
    SIGTERM, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU, on leaving the ``with`` block (an exception included), at exit, or by
    :meth:`flush`. A forked child never writes what it inherited.

    An error of the storage (a full disk, say) leaves every run that was appended waiting: it is
    written by the next :meth:`append` or :meth:`flush` that succeeds. Appending a run again with
    the same content does nothing.

    Parameters
    ----------
    study : path or Study
    algorithm : str
    part : str or Part, optional
        ``"3/100"``: only this part of the plan, counted from 1.
    target_set : str, optional
        A target set that was added later: pending are then the stored runs that have no outputs on it
        yet, and what is appended are their outputs on it, from kept checkpoints.
    full : bool or int
        The runs are models trained on all data, for counterfactual checks: so many, or the paper's 500. They are no
        runs of the algorithm, their masks are all ones, and ``logit`` is among their outputs where there are classes.
    removal : str, optional
        The runs are models trained without some train units, or the controls of such, under the name that 'dmstore removal'
        gives. They are no runs of the algorithm either.
    models : int
        How many of a removal there are to be.
    flush_runs : int
        Write when this many runs wait.
    flush_seconds : float
        Write when the oldest waiting run is this old.

    Examples
    --------
    >>> with RunWriter("digits.dm", "plain", part="3/100") as writer:
    ...     for run in writer.pending():
    ...         writer.append(run, margin=train(run.mask, seed=run.seed))
    """

    def __init__(
        self,
        study: str | Path | Study,
        algorithm: str,
        *,
        part: str | Part | None = None,
        target_set: str | None = None,
        full: bool | int = False,
        removal: str | None = None,
        models: int = removals.MODELS,
        flush_runs: int = FLUSH_RUNS,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        opened = study if isinstance(study, Study) else open_study(study)
        self._destination = Destination.of(
            opened, algorithm, target_set=target_set, full=full, removal=removal, models=models
        )
        self.algorithm: Algorithm = self._destination.algorithm
        self.part = Part.parse(part) if isinstance(part, str) else part
        if flush_runs < 1 or not flush_seconds > 0:
            msg = f"flush at {flush_runs} runs or {flush_seconds} s: both must be positive"
            raise InputError(msg)
        self.acknowledged = 0
        self._flush_runs = flush_runs
        self._flush_seconds = flush_seconds
        self._waiting: list[Rows] = []
        self._digests: dict[int, bytes] = {}
        self._described: dict[int, NDArray[np.bool_]] = {}
        self._oldest = 0.0
        self._overdue = False
        self._closed = False
        self._meter = Meter(self._destination.name, quiet=True)
        self._count = counting(None, "")
        self._done = self._total = 0
        self._lock = threading.RLock()
        # Whoever may not write here should know before the first run is trained.
        self.algorithm.objects.now()
        self._flusher = Flusher(self._when_due, min(1.0, flush_seconds / 4), self._close_at_exit)

    @overload
    def pending(self, *, batch: None = None, progress: bool | Progress = False) -> Pending[Run]: ...
    @overload
    def pending(self, *, batch: int, progress: bool | Progress = False) -> Pending[Batch]: ...
    def pending(
        self, *, batch: int | None = None, progress: bool | Progress = False
    ) -> Pending[Run] | Pending[Batch]:
        """Runs of the part that are neither stored (or have outputs on the target set) nor wait in this writer.

        A run that your loop gives up is given again the next time, since nobody but the loop knows why it failed; those that
        'dmstore train' recorded as failed are given too. Skip by id what you do not want to train.

        Parameters
        ----------
        batch : int, optional
            Give them out so many at a time; masks are made batch by batch.
        progress : bool or callable
            Show on stderr how many runs are stored, of how many, at which rate, and the time left, as runs are appended. A
            callable is told instead: the algorithm's name, runs done, runs in all.

        Returns
        -------
        Pending
            An iterator with a length, of :class:`~dmstore.study.algorithm.Run` (``id``, ``mask``, ``seed``), or of
            :class:`~dmstore.training.pending.Batch` (a sequence of runs with ``id``, ``mask`` and ``seed`` as arrays).

        Raises
        ------
        InputError
            If the algorithm is foreign, so that nothing is planned, or `batch` is no whole number from 1.

        Examples
        --------
        >>> with RunWriter("cifar.dm", "high-noise") as writer:  # doctest: +SKIP
        ...     for runs in writer.pending(batch=64, progress=True):
        ...         writer.append_many(runs, margin=train(runs.mask, runs.seed))
        """
        with self._lock:
            waiting = [run for rows in self._waiting for run in rows.run.tolist()]
        ids = self._destination.pending(self.part)
        ids = ids[~np.isin(ids, waiting)]
        for run in ids.tolist():
            # Retracted since: this writer may be given it again.
            self._digests.pop(run, None)
        made = (
            one_by_one(ids, self.describe)
            if batch is None
            else in_batches(ids, self.describe, batch)
        )
        if progress:
            self._show(len(ids), progress)
        return made

    def _show(self, pending: int, progress: bool | Progress) -> None:  # noqa: FBT001 - as pending() has it
        """Tell from now on how many runs are done."""
        total = self._destination.total(self.part, pending)
        self._meter.close()
        self._meter = Meter(
            self._destination.name, quiet=progress is not True, unit="runs", rate=True
        )
        tell = self._meter if progress is True else progress
        self._count = counting(None if isinstance(tell, bool) else tell, self._destination.name)
        self._done, self._total = total - pending, total
        self._count(self._done, total)

    def describe(self, run_ids: NDArray[np.int64]) -> list[Run]:
        """What planned runs are to see; what comes back as it is needs no check.

        Parameters
        ----------
        run_ids : (run,) int64

        Returns
        -------
        list of Run
            Mask, seed, mask id and repeat of each.

        Raises
        ------
        InputError
            If one is not in the plan.
        """
        runs = self._destination.describe(run_ids)
        # Copies: what is given out may be changed, and is compared with these when it comes back.
        self._described.update((run.id, run.mask.copy()) for run in runs)
        return runs

    def append(self, run: Run | int, *, mask: Any = None, **values: Any) -> None:
        """Add one finished run. What is given is copied: buffers may be used again.

        Parameters
        ----------
        run : Run or int
            From :meth:`pending`, or an id.
        mask : (train,) bool, optional
            Needed with a plain id of an algorithm with foreign sampling.
        **values
            Every declared output, (target[, class]): torch tensors on any device, jax arrays, lists and all that NumPy
            takes. ``seed``; any further number, bool or text, which becomes a per-run column; ``time``, in milliseconds
            since 1970, is now unless given.

        Raises
        ------
        InputError
            If something does not fit; the run is not taken then, the writer goes on.
        ConflictError
            If this writer took the run before, with other content.
        StorageError
            If the file system refuses; the run is taken, and waits like the others.
        """
        self._take([run], None if mask is None else [mask], values, count=None)

    def append_many(self, runs: Sequence[Run | int], /, *, mask: Any = None, **values: Any) -> None:
        """Add a batch of finished runs, given as :meth:`append` takes one, with the run as first axis.

        Parameters
        ----------
        runs : sequence of Run or int
            A batch of :meth:`pending`, other runs of it, or ids.
        mask : (run, train) bool, optional
            Needed with plain ids of an algorithm with foreign sampling.
        **values
            Every declared output, (run, target[, class]); further numbers, bools or texts, (run,) each.

        Raises
        ------
        InputError
            If something does not fit; none of the runs is taken then, the writer goes on.
        ConflictError
            If this writer took a run before, with other content.
        StorageError
            If the file system refuses; the runs are taken, and wait like the others.
        """
        if isinstance(runs, Run):
            msg = f"run {runs.id}: append_many takes a list of runs; give one run to append"
            raise InputError(msg)
        if len(runs):
            self._take(runs, mask, values, count=len(runs))

    def _take(
        self, runs: Sequence[Run | int], mask: Any, values: Mapping[str, Any], count: int | None
    ) -> None:
        """Check and add runs; without a `count` it is one, and its values have no axis for it."""
        for run in runs:
            if not isinstance(run, Run | numbers.Integral):
                many = "; append_many takes batches" if isinstance(run, Sequence) else ""
                msg = f"run {run!r} is no run of pending() and no integer id{many}"
                raise InputError(msg)
        ids = [run.id if isinstance(run, Run) else int(run) for run in runs]
        where = f"run {ids[0]}" if len(ids) == 1 else f"runs {ids[0]} to {ids[-1]}"
        if mask is not None and not self._destination.has_masks:
            msg = f"{where}: the mask is stored with the run; give its outputs alone"
            raise InputError(msg)
        table = self._destination.table
        arrays, columns = sort_given(values, table.spec.outputs(), table.sizes, count, where)
        if self._destination.has_masks:
            arrays["mask"] = self._destination.masks(runs, mask, where)
        self._add(ids, arrays, columns, where, ours=mask is None and self._is_ours(runs))

    def _is_ours(self, runs: Sequence[Run | int]) -> bool:
        """Whether these are runs that this writer described, with the masks that it gave them."""
        kept = [self._described.get(run.id) if isinstance(run, Run) else None for run in runs]
        return all(
            mask is not None and isinstance(run, Run) and np.array_equal(mask, run.mask)
            for run, mask in zip(runs, kept, strict=True)
        )

    def _add(
        self,
        ids: list[int],
        arrays: dict[str, Any],
        columns: dict[str, Any],
        where: str,
        *,
        ours: bool,
    ) -> None:
        if self._flusher.inherited:
            msg = "this RunWriter was made in another process; make one in each process"
            raise InputError(msg)
        count = len(ids)
        if "time" in columns and times.unit_of(columns["time"]) != "milliseconds":
            msg = f"{where}: 'time' is no time in milliseconds since 1970, between 2000 and 2100; give time.time_ns() // 10**6, leave it out, or call the column something else"
            raise InputError(msg)
        columns.setdefault("time", np.full(count, time.time_ns() // 1_000_000, dtype=np.int64))
        columns.setdefault("host", np.full(count, provenance.host()))
        with self._lock:
            if self._closed:
                msg = "this RunWriter is closed; make a new one"
                raise InputError(msg)
            rows = Rows(np.array(ids, dtype=np.int64), arrays, columns)
            rows = self._fresh(self._destination.complete(rows, where, planned_masks=ours), where)
            for run in ids:
                self._described.pop(run, None)
            if len(rows):
                if not self._waiting:
                    self._oldest = time.monotonic()
                self._waiting.append(rows)
            self._done += len(rows)
            if self._overdue or sum(map(len, self._waiting)) >= self._flush_runs:
                self._write()
            self._count(min(self._done, self._total), self._total)

    def _fresh(self, rows: Rows, where: str) -> Rows:
        """The rows that this writer has not taken before."""
        digests = row_digests(rows.run, rows.arrays, self._destination.table.spec)
        own = [digest.tobytes() for digest in digests]
        known = [self._digests.get(int(run)) for run in rows.run]
        for run, old, new in zip(rows.run, known, own, strict=True):
            if old is not None and old != new:
                msg = f"{where}: run {run} was appended before with other content; train each run once"
                raise ConflictError(msg)
        self._digests.update(zip(rows.run.tolist(), own, strict=True))
        rows = replace(rows, digest=digests)
        return rows.take(np.array([old is None for old in known], dtype=bool))

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
        if self._flusher.inherited:
            return 0
        with self._lock:
            self._write()
            return self.acknowledged

    def close(self) -> None:
        """Write what waits and give the signals back. May be called twice, and again after an error.

        Raises
        ------
        StorageError
            If the file system refuses; the writer stays open then, with its runs.
        """
        if self._flusher.inherited:
            return
        with self._lock:
            if self._closed:
                return
            self._write()
            self._closed = True
            self._meter.close()
        self._flusher.stop()

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except Exception as error:  # noqa: BLE001 - nothing else would tell of these runs
            waiting = sum(map(len, self._waiting))
            logging.getLogger(__name__).error("%d runs could not be stored: %s", waiting, error)

    def __reduce__(self) -> NoReturn:
        msg = "a RunWriter cannot be sent to another process; send the study's path and make one RunWriter in each process"
        raise InputError(msg)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._say_stored()

    def _say_stored(self) -> None:
        """Tell whoever watches, and stops it, that nothing is lost."""
        self._meter.say(
            f"{self._destination.name}: {self._done:,} of {self._total:,} runs are stored; the next start goes on from there"
        )

    def _write(self) -> None:
        """Write waiting runs, in groups of the same columns, each dropped once it is stored."""
        self._overdue = True
        if self._waiting:
            self.algorithm.require()
        failure: DmstoreError | None = None
        for key in dict.fromkeys(map(column_key, self._waiting)):
            merged = concatenate([rows for rows in self._waiting if column_key(rows) == key])
            try:
                self._destination.table.append(merged)
            except DmstoreError as error:
                # The runs with other columns may be stored all the same.
                failure = error
                continue
            self._destination.restore(merged)
            self.acknowledged += len(merged)
            self._waiting = [rows for rows in self._waiting if column_key(rows) != key]
        if failure:
            raise failure
        self._overdue = False

    def _when_due(self, asked: bool) -> None:  # noqa: FBT001 - a flusher calls it
        with self._lock:
            late = time.monotonic() - self._oldest >= self._flush_seconds
            try:
                if self._waiting and (late or asked):
                    self._write()
                if asked:
                    self._say_stored()
            except Exception as error:  # noqa: BLE001 - the next append tries again and raises
                self._oldest = time.monotonic()
                logging.getLogger(__name__).warning("runs wait: %s", error)
