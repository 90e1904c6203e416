"""``dmstore train``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.study.plan import Part


@click.command("train")
@options.study
@options.algorithm
@options.part
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="BLAS threads of this worker; many workers of one thread each are faster.",
)
@options.full
@options.no_keep
@options.full_targets
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    part: Part | None,
    threads: int,
    full: int | None,
    keep: bool | None,
    targets: list[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the pending runs of ALGORITHM with its task, and store them.

    With --full N, train N models on all data instead, for counterfactual checks, and keep them.

    Run as many workers as you like, each with its own part; run one again after a kill.

    \b
    Example, as a SLURM array of 100:
      dmstore train cifar.dm plain --part $SLURM_ARRAY_TASK_ID/100
    """
    from dmstore.study.study import open_study
    from dmstore.training.worker import train

    options.find_tasks_here()
    study = open_study(path)
    if full is not None:
        from dmstore.cli.full import train_full_models

        train_full_models(
            study, algorithm, full, keep, targets, part, threads, quiet=quiet, as_json=as_json
        )
        return
    if keep is not None or targets:
        raise click.UsageError("--keep, --no-keep and --targets go with --full")
    progress = output.Progress(f"train {algorithm}", quiet=quiet)
    trained = train(study, algorithm, part=part, threads=threads, progress=progress)
    progress.close()
    left = len(study.algorithm(algorithm).pending(part))
    text = f"{part.index}/{part.count}" if part else None
    output.emit(
        {"algorithm": algorithm, "part": text, "trained": trained, "pending": left},
        [
            f"{algorithm}: {output.counted(trained, 'run')} trained and stored, {left} pending{f' in part {text}' if part else ''}"
        ],
        as_json=as_json,
    )
    if left:
        raise click.exceptions.Exit(3)
