"""``dmstore train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.study.plan import Part
    from dmstore.study.study import Study


@click.command("train")
@options.study
@options.algorithm
@options.part_or_next
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="BLAS threads of this worker; many workers of one thread each are faster.",
)
@options.retry_failed
@options.checkpoint_every
@options.checkpoints
@options.claims_expire
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    part: Part | Literal["next"] | None,
    threads: int,
    retry_failed: bool,
    checkpoint_every: float | None,
    checkpoints: Path | None,
    claims_expire: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the pending runs of ALGORITHM with its task, and store them.

    Run as many workers as you like, each with its own part (--part 3/100) or all with --part next; run one
    again after a kill. A run that fails stops no other one.

    \b
    Examples:
      dmstore train cifar.dm plain --part $SLURM_ARRAY_TASK_ID/100
      dmstore train cifar.dm plain --part next
    Exit codes: 0 all is stored; 1 the input is bad or something was refused; 3 runs are pending still, so run
    it again (also after SIGTERM, which ends it early); 4 nothing is pending, but runs failed: see 'dmstore status'.
    """
    from dmstore.study.study import open_study
    from dmstore.training.ending import Ending
    from dmstore.training.worker import train

    options.find_tasks_here()
    study = open_study(path)
    progress = output.Progress(f"train {algorithm}", quiet=quiet)
    with Ending() as ending:
        trained = train(
            study,
            algorithm,
            part=part,
            threads=threads,
            progress=progress,
            stop=ending.asked,
            retry_failed=retry_failed,
            checkpoint_every=checkpoint_every,
            checkpoints=checkpoints,
            claims_expire=claims_expire,
        )
    progress.close()
    _end(study, algorithm, part, trained, as_json=as_json)


def _end(
    study: Study, algorithm: str, part: Part | Literal["next"] | None, trained: int, *, as_json: bool
) -> None:
    """Say what was done and what is left, and exit with the code for it."""
    from dmstore.study import failures

    opened = study.algorithm(algorithm)
    fixed = part if part != "next" else None
    missing = opened.pending(fixed)
    failed = len(failures.failed(opened.objects, opened.prefix, missing))
    left = len(missing) - failed
    text = f"{fixed.index}/{fixed.count}" if fixed else part
    lines = [
        f"{algorithm}: {output.counted(trained, 'run')} trained and stored, {left} pending{f' in part {text}' if fixed else ''}"
    ]
    if failed:
        lines.append(
            f"{output.counted(failed, 'run')} failed: 'dmstore status {study.path} {algorithm}' says why, --retry-failed tries again"
        )
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
