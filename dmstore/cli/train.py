"""``dmstore train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dmstore.cli import options, output
from dmstore.errors import plain

if TYPE_CHECKING:
    from dmstore.study.algorithm import Algorithm
    from dmstore.study.plan import Part
    from dmstore.study.study import Study


@click.command("train")
@options.study
@options.algorithm
@options.part_or_next
@options.data
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=None,
    help="BLAS threads of a worker, 1 by default; many workers of one thread each are faster.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=None,
    help="Start so many workers here, a process each, spread over the GPUs if there are any.",
)
@click.option(
    "--per-device",
    type=click.IntRange(1),
    default=None,
    help="Start so many workers for each GPU, or so many without one.",
)
@options.retry_failed
@options.checkpoint_every
@options.checkpoints
@options.claims_expire
@options.removal
@options.models
@options.full
@options.no_keep
@options.full_targets
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    part: Part | Literal["next"] | None,
    threads: int | None,
    workers: int | None,
    per_device: int | None,
    retry_failed: bool,
    checkpoint_every: float | None,
    checkpoints: Path | None,
    claims_expire: float,
    removal: str | None,
    models: int | None,
    full: int | None,
    keep: bool | None,
    targets: list[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the pending runs of ALGORITHM with its task, and store them.

    With --full N, train N models on all data instead, for counterfactual checks, and keep them; with --removal ID,
    models of a removal check.

    Run as many workers as you like, each with its own part (--part 3/100) or all with --part next; run one
    again after a kill. A run that fails stops no other one.

    \b
    Examples:
      dmstore train cifar.dm plain --part $SLURM_ARRAY_TASK_ID/100
      dmstore train cifar.dm plain --part next
      dmstore train cifar.dm plain --per-device 4
    Exit codes: 0 all is stored; 1 the input is bad or something was refused; 3 runs are pending still, so run
    it again (also after SIGTERM, which ends it early); 4 nothing is pending, but runs failed: see 'dmstore status'.
    """
    from dmstore.study.removal import MODELS
    from dmstore.study.study import open_study
    from dmstore.training.ending import Ending
    from dmstore.training.worker import train

    options.find_tasks_here()
    study = open_study(path)
    opened = options.runs_of(study, algorithm, removal, models)
    if full is not None:
        if removal is not None:
            raise click.UsageError("--full and --removal are two kinds of models; give one of them")
        if part == "next" or workers or per_device or retry_failed or checkpoint_every:
            msg = "--full goes with --part I/N, --threads, --keep, --no-keep and --targets alone"
            raise click.UsageError(msg)
        from dmstore.cli.full import train_full_models

        train_full_models(
            study, algorithm, full, keep, targets, part, threads or 1, quiet=quiet, as_json=as_json
        )
        return
    if keep is not None or targets:
        raise click.UsageError("--keep, --no-keep and --targets go with --full")
    if workers or per_device:
        if workers and per_device:
            msg = "--workers counts all workers, --per-device those of each device; give one of the two"
            raise click.UsageError(msg)
        if part not in (None, "next"):
            msg = (
                "several workers share what is undone, so they have no fixed part; leave --part out"
            )
            raise click.UsageError(msg)
        given = options.worker_arguments(
            retry_failed=retry_failed,
            checkpoint_every=checkpoint_every,
            checkpoints=checkpoints,
            claims_expire=claims_expire,
            removal=removal,
            models=models,
        )
        trained = _run_workers(study, opened, given, workers, per_device, threads, quiet=quiet)
        _end(study, algorithm, opened, "next", trained, as_json=as_json)
        return
    progress = output.Progress(f"train {opened.name}", quiet=quiet, unit="runs", rate=True)
    with Ending() as ending:
        trained = train(
            study,
            algorithm,
            part=part,
            threads=threads or 1,
            progress=progress,
            stop=ending.asked,
            retry_failed=retry_failed,
            checkpoint_every=checkpoint_every,
            checkpoints=checkpoints,
            claims_expire=claims_expire,
            removal=removal,
            models=opened.planned_count if removal else MODELS,
        )
    progress.close()
    _end(study, algorithm, opened, part, trained, as_json=as_json)


def _run_workers(
    study: Study,
    opened: Algorithm,
    given: list[str],
    workers: int | None,
    per_device: int | None,
    threads: int | None,
    *,
    quiet: bool,
) -> int:
    """Train by processes of their own; how many runs that were. What one of them could not do is raised."""
    from dmstore.errors import InputError
    from dmstore.training import processes

    algorithm = opened.name.partition(":")[0]
    progress = output.Progress(f"train {opened.name}", quiet=quiet, unit="runs", rate=True)

    def look() -> None:
        progress("train", opened.planned_count - len(opened.pending()), opened.planned_count)

    devices = processes.cuda_devices()
    places = processes.environments(
        devices, workers=workers, per_device=per_device, threads=threads
    )
    click.echo(
        f"{output.counted(len(places), 'worker')} on {', '.join(f'GPU {d}' for d in devices) or 'the CPU'}",
        err=True,
    )
    look()
    ends = processes.Workers([study.path, algorithm, *given], places).run(look)
    look()
    progress.close()
    for number, end in enumerate(ends, start=1):
        if end.code < 0 or end.error:
            why = end.error or f"was killed by signal {-end.code}"
            click.echo(f"worker {number}: {plain(why)}", err=True)
    errors = [end.error for end in ends if end.error]
    if errors:
        msg = f"{output.counted(len(errors), 'worker')} of {len(ends)} gave up, the last with: {errors[-1]}"
        raise InputError(msg)
    return sum(int(end.said.get("trained", 0)) for end in ends)


def _end(
    study: Study,
    algorithm: str,
    opened: Algorithm,
    part: Part | Literal["next"] | None,
    trained: int,
    *,
    as_json: bool,
) -> None:
    """Say what was done and what is left, and exit with the code for it."""
    from dmstore.study import conditions, failures

    fixed = part if part != "next" else None
    missing = opened.pending(fixed)
    failed = len(failures.failed(opened.objects, opened.prefix, missing))
    left = len(missing) - failed
    text = f"{fixed.index}/{fixed.count}" if fixed else part
    lines = [
        f"{opened.name}: {output.counted(trained, 'run')} trained and stored, {left} pending{f' in part {text}' if fixed else ''}"
    ]
    if not opened.planned_count:
        lines.append(f"no runs are planned: 'dmstore extend {study.path} {algorithm} --total N'")
    if failed:
        lines.append(
            f"{output.counted(failed, 'run')} failed: 'dmstore status {study.path} {algorithm}' says why, --retry-failed tries again"
        )
    view = opened.table.view()
    known = conditions.accuracy(opened, view)
    lines += [f"  {conditions.accuracy_text(known)}"] if known else []
    lines += conditions.mixed(conditions.stored(opened, view))
    output.emit(
        {
            "algorithm": algorithm,
            "part": text,
            "trained": trained,
            "pending": left,
            "failed": failed,
        },
        lines,
        as_json=as_json,
    )
    if left or failed:
        raise click.exceptions.Exit(3 if left else 4)
