"""``dmstore extend``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("extend")
@options.study
@options.algorithm
@click.option("--runs", type=int, required=True, help="Runs to add to the plan.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Runs that share a mask.")
@options.as_json
def command(study: str, algorithm: str, runs: int, repeats: int, as_json: bool) -> None:
    """Plan more runs of ALGORITHM."""
    from dmstore.study import open_study

    opened = open_study(study).algorithm(algorithm)
    block = opened.extend(runs, repeats=repeats)
    output.emit(
        {
            "algorithm": algorithm,
            "first_run": block.first_run,
            "runs": block.runs,
            "planned": opened.planned_count(),
        },
        [
            f"{algorithm}: runs {block.first_run} to {block.stop - 1} added, {opened.planned_count()} planned"
        ],
        as_json=as_json,
    )
