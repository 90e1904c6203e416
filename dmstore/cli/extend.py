"""``dmstore extend``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("extend")
@options.study
@options.algorithm
@click.option(
    "--runs", type=click.IntRange(1), help="Runs to add to the plan: each call adds as many."
)
@click.option(
    "--total", type=click.IntRange(1), help="Runs to have in all: the same call again adds none."
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Runs that share a mask.",
)
@options.as_json
def command(
    path: str, algorithm: str, runs: int | None, total: int | None, repeats: int, as_json: bool
) -> None:
    """Plan more runs of ALGORITHM.

    In scripts, and wherever a command may be repeated after a kill, use --total.

    \b
    Examples:
      dmstore extend cifar.dm plain --total 10000
      dmstore extend cifar.dm plain --runs 2000
    """
    from dmstore.study.study import open_study

    if (runs is None) == (total is None):
        msg = "give either --runs, how many to add, or --total, how many to have in all"
        raise click.UsageError(msg, click.get_current_context())
    opened = open_study(path).algorithm(algorithm)
    if total is not None:
        block = opened.extend_to(total, repeats=repeats)
    else:
        block = opened.extend(runs or 0, repeats=repeats)
    planned = opened.planned_count
    added = f"{output.span(block.first_run, block.runs)} added" if block else "nothing to add"
    output.emit(
        {
            "algorithm": algorithm,
            "first_run": block.first_run if block else None,
            "runs": block.runs if block else 0,
            "planned": planned,
        },
        [f"{algorithm}: {added}, {planned} planned"],
        as_json=as_json,
    )
