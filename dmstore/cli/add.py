"""``dmstore add``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.schema.typed_documents import AlgorithmMasks, AlgorithmSampling, AlgorithmSplit


# What an algorithm that is there has been declared with.
_DECLARED = ("alpha", "runs", "repeats", "sampling", "masks", "outputs", "split")


@click.command("add")
@options.study
@options.algorithm
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the training set that a run sees.",
)
@click.option("--runs", type=click.IntRange(0), default=0, help="Runs to plan.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs that share a mask.",
)
@click.option(
    "--sampling",
    type=click.Choice(["planned", "foreign"]),
    default="planned",
    show_default=True,
    help="Whether masks are the plan's or made elsewhere.",
)
@click.option(
    "--masks",
    type=click.Choice(["shared", "independent"]),
    default="shared",
    show_default=True,
    help="Whether mask m is the same for all algorithms of the study.",
)
@click.option(
    "--split",
    type=click.Choice(["eval"]),
    default=None,
    help="All runs are for evaluation, as of a benchmark made elsewhere; by default a hash of each mask decides.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    default=("margin",),
    show_default=True,
    help="Declared output: margin, log_odds, loss, probability, prediction, logit; NAME:float16 for another dtype. May be repeated.",
)
@click.option(
    "--task",
    default=None,
    help="package.module:function that makes the training task, such as dmstore.training.tasks:dense.",
)
@click.option("--config", type=click.Path(), default=None, help="JSON file passed to the task.")
@click.option(
    "--recipe",
    default=None,
    help="A learning algorithm that comes with dmstore; see 'dmstore recipes'.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    help="KEY=VALUE: another value of the recipe or of the config. May be repeated.",
)
@options.data
@options.as_json
def command(
    path: str,
    algorithm: str,
    alpha: float,
    runs: int,
    repeats: int,
    sampling: AlgorithmSampling,
    masks: AlgorithmMasks,
    split: AlgorithmSplit | None,
    outputs: tuple[str, ...],
    task: str | None,
    config: str | None,
    recipe: str | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Add ALGORITHM to STUDY. One that is there without a task is given one with --task alone.

    \b
    Example:
      dmstore add cifar.dm low-noise --recipe cifar10-low-noise --set epochs=50 --runs 10000
      dmstore add cifar.dm plain --runs 10000 --task dmstore.training.tasks:dense --config plain.json
    """
    from dmstore.study.study import open_study

    study = open_study(path)
    task, values = _asked(task, config, recipe, settings)
    if task:
        options.find_tasks_here()
    later = algorithm in study.algorithms and not any(map(options.given, _DECLARED))
    if task:
        _refuse_missing(task, later=later)
    if task and later:
        made = study.algorithm(algorithm)
        made.give_task(task, values)
    else:
        made = study.add_algorithm(
            algorithm,
            alpha=alpha,
            runs=0 if sampling == "foreign" and not runs else runs,
            repeats=repeats,
            sampling=sampling,
            masks=masks,
            outputs=list(outputs),
            task=task,
            config=values,
            split=split,
        )
    if task:
        _try_task(study, made)
    unplanned = made.planned and not made.planned_count
    planned = (
        f"{output.counted(made.planned_count, 'run')} planned" if made.planned else "foreign masks"
    )
    output.emit(
        {
            "study": study.path,
            "algorithm": algorithm,
            "alpha": made.alpha,
            "sampling": made.document["sampling"],
            "planned": made.planned_count if made.planned else None,
            "split": split,
            "outputs": list(made.outputs),
        },
        [
            f"{algorithm}: {planned}, alpha {made.alpha}, outputs {', '.join(made.outputs)}{', for evaluation only' if split else ''}",
            *[f"plan some with 'dmstore extend {path} {algorithm} --total N'"] * unplanned,
        ],
        as_json=as_json,
    )


def _asked(
    task: str | None, config: str | None, recipe: str | None, settings: tuple[str, ...]
) -> tuple[str | None, dict[str, Any]]:
    """Task and config that the options come to."""
    from dmstore.errors import InputError
    from dmstore.training import recipe as known

    changes = known.settings(settings)
    if recipe is None:
        if changes and not task:
            msg = "--set changes values of a recipe or of a task's config; give --recipe or --task"
            raise InputError(msg)
        return task, {**read_config(config), **changes}
    if task:
        msg = f"--recipe {recipe} names its task; leave --task out"
        raise InputError(msg)
    return known.TASK, known.resolve(recipe, {**read_config(config), **changes})


def _refuse_missing(task: str, *, later: bool) -> None:
    """Refuse a function that its module certainly does not have: a task cannot be changed later.

    What is added anew may be meant for hosts that have the module; a name given to one that is there is tried.
    """
    import importlib

    from dmstore.errors import InputError

    module, _, function = task.partition(":")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a module of the user's can raise anything
        if later:
            msg = f"task {task!r}: {module} cannot be imported here ({error}); a task is given once, so give it where it can"
            raise InputError(msg) from None
        return
    if not hasattr(imported, function):
        msg = f"task {task!r}: {module} has no {function!r}; nothing was added"
        raise InputError(msg)


def _try_task(study: Any, algorithm: Any) -> None:
    """Warn at once of a task that cannot be made here; it may be meant for another host."""
    from dmstore.errors import DmstoreError
    from dmstore.training.task import make_task

    try:
        make_task(study, algorithm.task, algorithm.config, list(algorithm.outputs))
    except DmstoreError as error:
        click.echo(f"warning: {error}", err=True)
        click.echo(
            f"  {algorithm.name} was added, as another host may be able to train it; if it is wrong, "
            f"'dmstore remove {study.path} {algorithm.name}' takes it out",
            err=True,
        )


def read_config(path: str | None) -> dict[str, Any]:
    """A task's config from its file; empty without one."""
    from dmstore.core import strictjson
    from dmstore.errors import InputError

    if path is None:
        return {}
    try:
        value = strictjson.parse(Path(path).read_bytes())
    except FileNotFoundError:
        msg = f"{path}: no such file"
        raise InputError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"{path}: not valid JSON ({error})"
        raise InputError(msg) from None
    if not isinstance(value, dict):
        msg = f"{path}: holds no JSON object; a config is one"
        raise InputError(msg)
    return value
