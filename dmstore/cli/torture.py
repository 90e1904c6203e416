"""``dmstore torture``."""

from __future__ import annotations

from dataclasses import asdict

import click

from dmstore.cli import options, output


@click.command("torture")
@click.argument("path", type=click.Path())
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=60.0, show_default=True, help="How long."
)
@click.option(
    "--kills",
    type=click.IntRange(0),
    default=None,
    help="How many kills; two per second by default.",
)
@click.option(
    "--writers", type=click.IntRange(1), default=8, show_default=True, help="Writing processes."
)
@click.option(
    "--compactors",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Compacting processes.",
)
@click.option(
    "--grace",
    type=options.DURATION,
    default="0",
    show_default=True,
    help="Of the vacuums; give 90s on a network file system, whose listings may be old.",
)
@click.option("--seed", type=int, default=None, help="Seed of the kills.")
@click.option("--keep", is_flag=True, help="Leave the study there when nothing was wrong.")
@options.quiet
@options.as_json
def command(
    path: str,
    seconds: float,
    kills: int | None,
    writers: int,
    compactors: int,
    grace: float,
    seed: int | None,
    keep: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Try to make the storage at PATH lose runs: write, compact and vacuum at once, and kill -9.

    \b
    PATH is a directory or the URL of a bucket; a study of its own is made there, and deleted again.
    Exit code 0 only where nothing was lost, duplicated or torn.

    \b
    Example:
      dmstore torture /mnt/nfs/scratch --seconds 300
    """
    from dmstore.upkeep.torture import torture

    progress = output.Progress("kill workers", quiet=quiet)
    outcome = torture(
        path,
        seconds=seconds,
        kills=kills,
        writers=writers,
        compactors=compactors,
        grace=grace,
        seed=seed,
        keep=keep,
        progress=progress,
    )
    progress.close()
    verdict = (
        "nothing was lost" if outcome.passed else f"FAILED; the study stays at {outcome.study}"
    )
    lines = [
        f"{output.counted(outcome.acknowledged, 'run')} acknowledged by {output.counted(writers, 'writer')} in {outcome.seconds:.0f} s, {outcome.visible} visible",
        f"{outcome.lost} lost, {outcome.duplicated} duplicated, {outcome.torn} torn; {output.counted(outcome.kills, 'kill')}, "
        f"{outcome.compactions} compactions, {outcome.errors} processes stopped by an error",
    ]
    if not outcome.compacted and compactors:
        lines.append("compactors took no part: this storage lets an existing name be overwritten")
    if not outcome.acknowledged:
        lines.append("nothing was acknowledged, so nothing was tried: give more --seconds")
    lines += [f"  {line}" for line in (*outcome.messages, *outcome.problems)]
    output.emit({**asdict(outcome), "passed": outcome.passed}, [*lines, verdict], as_json=as_json)
    if not outcome.passed:
        raise click.exceptions.Exit(1)
