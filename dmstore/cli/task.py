"""``dmstore task``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("task")
@options.study
@click.argument("task", metavar="ALGORITHM|PACKAGE.MODULE:FUNCTION")
@click.option("--config", type=click.Path(), default=None, help="JSON file passed to the task.")
@click.option(
    "--output",
    "outputs",
    multiple=True,
    default=("margin",),
    show_default=True,
    help="What a task that is named by its function is to return, as 'dmstore add' has it. May be repeated.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the training set that a run of such a task sees.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=None,
    help="Say how long so many runs would take; those pending by default.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="BLAS threads, as of 'dmstore train'.",
)
@options.as_json
def command(
    path: str,
    task: str,
    config: str | None,
    outputs: tuple[str, ...],
    alpha: float,
    runs: int | None,
    threads: int,
    as_json: bool,
) -> None:
    """Try a task on three runs, store nothing, and say all that is wrong with it.

    \b
    Two runs differ by their mask alone, two by their seed alone, and one is trained twice.
    Exit code 1 where something is wrong.

    \b
    Example:
      dmstore task cifar.dm mytask:Logistic --output margin --config small.json
    """
    from dmstore.cli.add import read_config
    from dmstore.core.meter import duration
    from dmstore.study.study import open_study
    from dmstore.training.trial import try_task

    named = ":" not in task
    if named and (options.given("outputs") or options.given("alpha")):
        msg = f"{task} has its own outputs and alpha; leave --output and --alpha out"
        raise click.UsageError(msg)
    options.find_tasks_here()
    study = open_study(path)
    found = try_task(
        study,
        task,
        config=read_config(config) if config else None,
        outputs=outputs,
        alpha=alpha,
        threads=threads,
    )
    if runs is None:
        algorithm = study.algorithm(task) if named else None
        runs = len(algorithm.pending()) if algorithm and algorithm.planned else 1000
    lines = [
        f"{name}: {dtype} {shape or 'a number'} per run"
        for name, (shape, dtype) in found.shapes.items()
    ]
    if found.seconds is not None and found.shapes:
        many = (
            f", batches of {found.batch} may be faster" if found.batch and found.batch > 3 else ""
        )
        lines.append(
            f"{duration(found.seconds)} per run{many}; {output.counted(runs, 'run')} take {duration(runs * found.seconds)} on one worker like this"
        )
    if found.memory is not None:
        device = f", {output.size(found.device_memory)} on the GPU" if found.device_memory else ""
        lines.append(f"memory: {output.size(found.memory)} at most{device}")
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"fault: {fault}" for fault in found.faults]
    lines.append(
        f"{found.task}: {output.counted(len(found.faults), 'fault') if found.faults else 'nothing wrong'}"
    )
    output.emit(
        {
            "task": found.task,
            "batch": found.batch,
            "outputs": {
                name: {"shape": list(shape), "dtype": dtype}
                for name, (shape, dtype) in found.shapes.items()
            },
            "seconds_per_run": found.seconds if found.shapes else None,
            "runs": runs,
            "seconds": runs * found.seconds if found.seconds is not None and found.shapes else None,
            "memory_bytes": found.memory,
            "device_memory_bytes": found.device_memory,
            "notes": found.notes,
            "faults": found.faults,
        },
        lines,
        as_json=as_json,
    )
    if found.faults:
        raise click.exceptions.Exit(1)
