"""A worker: trains the pending runs of one part of an algorithm's plan and stores them."""

from __future__ import annotations

from collections.abc import Callable

from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.study import plan
from dmstore.study.plan import Part
from dmstore.study.study import Study
from dmstore.training.task import make_task
from dmstore.training.writer import RunWriter


def train(
    study: Study,
    algorithm: str,
    *,
    part: Part | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train what is pending. Run it again after a kill: it goes on where it was.

    Parameters
    ----------
    study : Study
    algorithm : str
    part : Part, optional
        Only this part of the plan.
    threads : int
        BLAS threads of this worker; many workers with one thread each train more models an hour.
    progress : callable, optional
        Called with ``train``, runs stored and runs of the part: at the start, then after each batch.
    stop : callable
        Asked before each batch; true ends the work early, with nothing lost.

    Returns
    -------
    int
        Runs trained now.
    """
    opened = study.algorithm(algorithm)
    task = make_task(study, opened.task, opened.config, list(opened.outputs))
    outputs = {spec.name for spec in opened.table.spec.outputs()}
    total = len(plan.planned_runs(opened.blocks, part))
    trained, tell = 0, counting(progress, "train")
    with blas_threads(threads), RunWriter(study, algorithm, part=part) as writer:
        pending = opened.pending(part)
        stored = total - len(pending)
        tell(stored, total)
        for start in range(0, len(pending), task.batch):
            if stop():
                break
            runs = writer.describe(pending[start : start + task.batch])
            made = task.train(runs)
            writer.append_many(
                runs,
                {name: made[name] for name in outputs if name in made},
                {name: value for name, value in made.items() if name not in outputs},
            )
            trained += len(runs)
            tell(stored + trained, total)
    return trained
