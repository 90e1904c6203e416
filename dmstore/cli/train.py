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
@options.data
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="BLAS threads of this worker; many workers of one thread each are faster.",
)
@options.quiet
@options.as_json
def command(
    path: str, algorithm: str, part: Part | None, threads: int, quiet: bool, as_json: bool
) -> None:
    """Train the pending runs of ALGORITHM with its task, and store them.

    Run as many workers as you like, each with its own part; run one again after a kill.

    \b
    Example, as a SLURM array of 100:
      dmstore train cifar.dm plain --part $SLURM_ARRAY_TASK_ID/100
    """
    from dmstore.study.study import open_study
    from dmstore.training.worker import train

    options.find_tasks_here()
    study = open_study(path)
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
