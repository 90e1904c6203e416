"""A worker: trains the pending runs of one part of an algorithm's plan and stores them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmstore.core.progress import Progress, counting
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.schema.group_specs import group_spec
from dmstore.storage.table import groups
from dmstore.storage.table.rows import MAX_RUN
from dmstore.study import plan
from dmstore.study.plan import Part
from dmstore.study.study import Study
from dmstore.training.task import Models, ModelTask, make_task
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
            writer.append_many(runs, **made)
            trained += len(runs)
            tell(stored + trained, total)
    return trained


def full_models(study: Study, algorithm: str, count: int = 100) -> tuple[ModelTask, Models]:
    """Models trained on all data, for counterfactual checks: trained once, then kept.

    Parameters
    ----------
    study : Study
    algorithm : str
    count : int
        How many, if they are not there yet.

    Returns
    -------
    task : ModelTask
    models : dict
        Parameters, the model as first axis.

    Raises
    ------
    InputError
        If the task cannot keep its models.
    """
    opened = study.algorithm(algorithm)
    task = make_task(study, opened.task, opened.config, list(opened.outputs))
    if not isinstance(task, ModelTask):
        msg = f"task {opened.document['task']!r} has no 'models' and 'logits', so no counterfactual can be computed"
        raise InputError(msg)
    name = f"{opened.prefix}full/models.zarr.zip"
    if not study.objects.exists(name):
        # Seeds of runs that no plan reaches, so that no stored run shares one.
        seeds = [
            plan.training_seed(study.seed, opened.name, MAX_RUN + number) for number in range(count)
        ]
        with blas_threads(1):
            made = task.models(np.ones((count, opened.train), dtype=bool), seeds)
        arrays = {
            "seed": np.array(seeds, dtype=np.uint64),
            **{f"parameter_{k}": v for k, v in made.items()},
        }
        dims = {
            key: ("model", *(f"{key}_{axis}" for axis in range(1, value.ndim)))
            for key, value in arrays.items()
            if key != "seed"
        }
        groups.write_zip(study.objects, name, group_spec("models"), arrays, dims=dims)
    arrays = groups.read(study.objects, name)
    return task, {
        key.removeprefix("parameter_"): value for key, value in arrays.items() if key != "seed"
    }
