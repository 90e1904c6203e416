"""Models trained on all data: training them one by one, keeping them, and asking them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.progress import Progress, counting
from dmstore.core.tensors import to_numpy
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.storage.table import groups
from dmstore.study import kept_models
from dmstore.study.algorithm import Algorithm, Run
from dmstore.study.full import MODELS, FullModels
from dmstore.study.plan import Part
from dmstore.study.study import Study
from dmstore.training.outputs import FUNCTIONS
from dmstore.training.task import Models, ModelTask, SetTask, Task, make_task, warn_of_unlike
from dmstore.training.transformed import images_of
from dmstore.training.writer import RunWriter


def train_full(
    study: Study,
    algorithm: str,
    count: int = MODELS,
    *,
    keep: bool | None = None,
    part: Part | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train models on all data, keep them, and store what they say on the study's targets.

    Each is there or not: run it again after a kill, and it goes on where it was.

    Parameters
    ----------
    study : Study
    algorithm : str
    count : int
        How many there are to be.
    keep : bool, optional
        Whether to keep the models too, so that they can be asked about transformed targets later; by default where
        the task can.
    part : Part, optional
        Only this part of them.
    threads : int
        BLAS threads.
    progress : callable, optional
        Called with ``full``, models stored and models of the part.
    stop : callable
        Asked before each batch; true ends the work early, with nothing lost.

    Returns
    -------
    int
        Models trained now.

    Raises
    ------
    InputError
        If the task cannot keep its models and is to, or computes no outputs that are needed.
    """
    models = study.full_models(algorithm, count)
    task = make_task(study, models.task, models.config, list(models.outputs))
    keeping = isinstance(task, ModelTask) if keep is None else keep
    if keeping:
        _require_models(task, models)
        _known(models)
    trained, tell = 0, counting(progress, "full")
    diverged: dict[int, str] = {}
    total = len(models.wanted(part))
    with blas_threads(threads), RunWriter(study, algorithm, part=part, full=count) as writer:
        pending = models.pending(part)
        tell(total - len(pending), total)
        if len(pending):
            # They are asked what datamodels of the runs predict.
            warn_of_unlike(task, study.algorithm(algorithm))
        done = total - len(pending)
        for ids in _batches(pending, task):
            if stop():
                break
            runs = writer.describe(ids)
            made: Mapping[str, Any]
            if keeping:
                assert isinstance(task, ModelTask)
                count_now, bad = _keep(study, models, task, runs)
                runs = [run for run in runs if run.id not in bad]
                trained += count_now
                made = (
                    _say(study, models, task, _kept(study, models, runs), models.target_set)
                    if runs
                    else {}
                )
            else:
                made, bad = _without_diverged(task.train(runs), runs, models.outputs)
                runs = [run for run in runs if run.id not in bad]
                trained += len(runs)
            diverged |= bad
            writer.append_many(runs, **made)
            done += len(runs)
            tell(done, total)
    _require_finite(diverged)
    return trained


def ask_full(
    study: Study,
    algorithm: str,
    target_set: str,
    *,
    part: Part | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> int:
    """Store what kept models say on a target set that was added later, such as a transformed one.

    Parameters
    ----------
    study : Study
    algorithm : str
    target_set : str
        With images.
    part : Part, optional
        Only this part of the models.
    threads : int
        BLAS threads.
    progress : callable, optional
        Called with ``ask``, models done and models to ask.

    Returns
    -------
    int
        Models asked now.

    Raises
    ------
    InputError
        If the task keeps no models, one of those whose outputs are stored is not kept, or the set has no images.
    """
    models = study.full_models(algorithm)
    task = make_task(study, models.task, models.config, list(models.outputs))
    asked, tell = _require_models(task, models), counting(progress, "ask")
    _known(models)
    done = 0
    with (
        blas_threads(threads),
        RunWriter(study, algorithm, part=part, target_set=target_set, full=True) as writer,
    ):
        pending = study.target_outputs(algorithm, target_set, full=True).pending(part)
        for ids in _batches(pending, task):
            runs = writer.describe(ids)
            made = _say(study, models, asked, _kept(study, models, runs), target_set)
            writer.append_many(runs, **made)
            done += len(runs)
            tell(done, len(pending))
    return done


def kept(study: Study, algorithm: str, count: int) -> Iterator[tuple[ModelTask, Models]]:
    """Models trained on all data, a batch of the task's size at a time; those that are not kept yet are trained first.

    Parameters
    ----------
    study : Study
    algorithm : str
    count : int
        How many, if fewer are kept. An earlier version kept all in one file: these are taken as they are.

    Yields
    ------
    task : ModelTask
    models : dict
        Parameters, the model as first axis.

    Raises
    ------
    InputError
        If the task cannot keep its models.
    """
    models = study.full_models(algorithm, count)
    task = _require_models(
        make_task(study, models.task, models.config, list(models.outputs)), models
    )
    together = f"{models.prefix}models.zarr.zip"
    if study.objects.exists(together):
        arrays = groups.read(study.objects, together)
        yield (
            task,
            {key.removeprefix("parameter_"): v for key, v in arrays.items() if key != "seed"},
        )
        return
    have = kept_models.names(study.objects, algorithm)
    numbers = list(have) if len(have) >= count else list(range(count))
    for ids in _batches(np.array(numbers, dtype=np.int64), task):
        runs = models.describe(ids)
        with blas_threads(1):
            _require_finite(_keep(study, models, task, runs)[1])
            yield task, _kept(study, models, runs)


def _batches(numbers: NDArray[np.int64], task: Task) -> Iterator[NDArray[np.int64]]:
    """All of them, so many at a time as the task likes: fewer once it ran out of memory."""
    start = 0
    while start < len(numbers):
        some = numbers[start : start + task.batch]
        yield some
        start += len(some)


def _require_models(task: Task, algorithm: Algorithm) -> ModelTask:
    if not isinstance(task, ModelTask):
        msg = f"task {algorithm.task!r} has no 'models' and 'logits', so no model can be kept or asked again; train with --no-keep, or store outputs with RunWriter(…, full=True, target_set=SET)"
        raise InputError(msg)
    return task


def _known(models: FullModels) -> None:
    """Refuse outputs that do not follow from logits: only the task's own training says them."""
    unknown = [name for name in models.outputs if name not in FUNCTIONS]
    if unknown:
        msg = f"output {unknown[0]!r} does not follow from logits, so kept models cannot be asked for it; train with --no-keep"
        raise InputError(msg)


def _keep(
    study: Study, models: FullModels, task: ModelTask, runs: Sequence[Run]
) -> tuple[int, dict[int, str]]:
    """Train and keep those of some models that are not kept: how many these were, and where others diverged."""
    name = models.document["name"]
    have = kept_models.names(study.objects, name)
    missing = [run for run in runs if run.id not in have]
    diverged: dict[int, str] = {}
    if missing:
        made = task.models(np.array([run.mask for run in missing]), [run.seed for run in missing])
        for row, run in enumerate(missing):
            one = {key: np.asarray(values[row]) for key, values in made.items()}
            if where := [key for key, values in one.items() if not _is_finite(values)]:
                diverged[run.id] = f"parameter {where[0]!r}"
                continue
            kept_models.write(study.objects, name, run.id, run.seed, one)
    return len(missing) - len(diverged), diverged


def _without_diverged(
    made: Mapping[str, Any], runs: Sequence[Run], outputs: Iterable[str]
) -> tuple[Mapping[str, Any], dict[int, str]]:
    """What is finite of what a task says of its models, and where others diverged."""
    said = {name: to_numpy(made[name], name) for name in outputs if name in made}
    if any(np.shape(values)[:1] != (len(runs),) for values in said.values()):
        # The writer says what is wrong.
        return made, {}
    diverged = {
        run.id: name
        for row, run in enumerate(runs)
        for name, values in said.items()
        if not _is_finite(values[row])
    }
    if not diverged:
        return made, {}
    rows = [row for row, run in enumerate(runs) if run.id not in diverged]
    return {key: to_numpy(values, key)[rows] for key, values in made.items()}, diverged


def _is_finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


def _require_finite(diverged: Mapping[int, str]) -> None:
    if diverged:
        number, where = next(iter(diverged.items()))
        msg = f"full model {number} diverged, {len(diverged)} in all, and is not kept: {where} has NaN or infinite values; the others are stored; train the algorithm at a lower learning rate"
        raise InputError(msg)


def _kept(study: Study, models: FullModels, runs: Sequence[Run]) -> Models:
    """Some kept models together: parameters, the model as first axis."""
    name, parts = models.document["name"], []
    for run in runs:
        where = kept_models.place(name, run.id)
        try:
            parts.append(kept_models.read(study.objects, where)[0])
        except FileNotFoundError:
            msg = f"{study.path}/{where}: full model {run.id} is not kept, so it cannot be asked; whoever has it stores its outputs with RunWriter(…, full=True, target_set=SET)"
            raise InputError(msg) from None
    return {key: np.stack([part[key] for part in parts]) for key in parts[0]}


def _say(
    study: Study, models: FullModels, task: ModelTask, made: Models, target_set: str
) -> dict[str, Any]:
    """What models say on a target set: every output."""
    targets = study.target_set(target_set)
    if isinstance(task, SetTask):
        logit = task.logits_on(made, target_set)
    else:
        logit = task.logits(made, np.asarray(images_of(study, targets, target_set)))
    label = study.label(target_set)
    return {name: FUNCTIONS[name](logit, label) for name in models.outputs}
