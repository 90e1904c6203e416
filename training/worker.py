"""A worker: trains the pending runs of one part of an algorithm's plan, or what nobody else works on, and stores them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.study import failures
from dmstore.study import removal as removals
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.claims import EXPIRES
from dmstore.study.outside import outside_studies
from dmstore.study.plan import Part
from dmstore.study.study import Study
from dmstore.training.checkpoint import Checkpoints, default_place
from dmstore.training.ending import Ended
from dmstore.training.failures import Isolation
from dmstore.training.sharing import SharedWork, untried
from dmstore.training.task import ResumableTask, Task, conditions_of, make_task, warn_of_unlike
from dmstore.training.writer import RunWriter


def train(
    study: Study,
    algorithm: str,
    *,
    part: Part | Literal["next"] | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    retry_failed: bool = False,
    checkpoint_every: float | None = None,
    checkpoints: Path | None = None,
    claims_expire: float = EXPIRES,
    removal: str | None = None,
    models: int = removals.MODELS,
) -> int:
    """Train what is pending. Run it again after a kill: it goes on where it was.

    A run that fails is recorded and stops no other one; it is not tried again unless that is asked for.

    Parameters
    ----------
    study : Study
    algorithm : str
    part : Part or "next", optional
        Only this part of the plan; with ``next`` what is still undone, batch by batch, shared by claims with
        all others that do the same.
    threads : int
        BLAS threads of this worker; many workers with one thread each train more models an hour.
    progress : callable, optional
        Called with ``train``, runs stored and runs of the part: at the start, then after each batch.
    stop : callable
        Asked before each batch and at each checkpoint; true ends the work early, with nothing lost.
    retry_failed : bool
        Try runs that failed before once more.
    checkpoint_every : float, optional
        Seconds after which a run that is not finished is saved, so that it goes on after a kill. The
        task needs ``train_resumable``.
    checkpoints : Path, optional
        Directory for that; by default beside the study.
    claims_expire : float
        Seconds after which the runs of a worker that was killed are free for others.
    removal : str, optional
        Train models of a removal instead, under its name.
    models : int
        How many of these there are to be.

    Returns
    -------
    int
        Runs trained now.

    Raises
    ------
    InputError
        If the task cannot be made or used, or so many runs in a row fail that it is no fault of theirs.
    StorageError
        If the storage refuses; what was finished waits until the process ends, and is stored if that becomes possible.
    """
    opened: Algorithm = study.algorithm(algorithm)
    if removal is not None:
        opened = study.removal_runs(algorithm, removal, models)
    task = make_task(study, opened.task, opened.config, list(opened.outputs))
    saved = None
    if checkpoint_every is not None:
        resumable = _resumable(task, opened.task)
        place = outside_studies(checkpoints or default_place(study))
        saved = Checkpoints(opened, place, checkpoint_every, stop, conditions_of(task))
        saved.tidy(opened.pending())
    fixed = part if isinstance(part, Part) else None
    total = len(opened.wanted(fixed))
    if fixed and not total and removal is None:
        planned = opened.planned_count
        msg = f"part {fixed.index}/{fixed.count}: algorithm {algorithm!r} has {planned} runs planned, so this part has none; give at most {planned} parts, or '--part next'"
        raise InputError(msg)
    failed_before = opened.objects.now() if retry_failed else None
    tell = counting(progress, "train")
    trained = 0
    unsaved: list[Run] = []

    def todo() -> NDArray[np.int64]:
        return untried(opened, fixed, failed_before=failed_before)

    def train_batch(runs: Sequence[Run]) -> Mapping[str, Any]:
        if saved is None:
            return task.train(runs)
        return resumable.train_resumable(runs, saved.of(runs))

    def forget(runs: Sequence[Run]) -> None:
        if saved is not None:
            saved.forget(runs)

    def settle() -> None:
        """Everything that is finished stored, failures too, and what was kept for it let go."""
        writer.flush()
        isolation.settle()
        forget(unsaved)
        unsaved.clear()

    with contextlib.ExitStack() as stack:
        shared: SharedWork | None = None
        stack.enter_context(blas_threads(threads))
        if part == "next":
            shared = SharedWork(
                opened, task.batch, todo, stop=stop, flush=settle, expires=claims_expire
            )
            stack.enter_context(shared)
        # Left before the claims: what is finished is stored while they stand.
        writer = stack.enter_context(
            RunWriter(study, algorithm, part=fixed, removal=removal, models=models)
        )

        def store(runs: Sequence[Run], made: Mapping[str, Any]) -> None:
            writer.append_many(runs, **made)

        bad = failures.recorded(opened.objects, opened.prefix) if retry_failed else {}
        isolation = Isolation(opened, train_batch, store, forget, bad)
        pending = todo()
        if len(pending):
            # What a removal's models say is compared with what the runs say.
            warn_of_unlike(task, study.algorithm(algorithm), *([opened] if removal else []))
        tell(total - len(pending), total)
        try:
            for ids in shared.batches() if shared else _batches(pending, task.batch, stop):
                runs = writer.describe(ids)
                trained += isolation.do(runs)
                unsaved += runs
                if writer.acknowledged == trained:
                    forget(unsaved)
                    unsaved.clear()
                    if shared and not isolation.suspected:
                        shared.release()
                left = shared.left if shared else len(pending) - trained - isolation.failed
                tell(total - left, total)
            settle()
        except Ended:
            writer.flush()
    return trained


def _batches(
    runs: NDArray[np.int64], width: int, stop: Callable[[], bool]
) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(runs), width):
        if stop():
            return
        yield runs[start : start + width]


def _resumable(task: Task, name: str | None) -> ResumableTask:
    if not isinstance(task, ResumableTask):
        msg = f"task {name!r} has no 'train_resumable', so its runs cannot be saved half-way; leave --checkpoint-every out"
        raise InputError(msg)
    return task
