"""``dmstore demo``."""

from __future__ import annotations

import click

from dmstore.cli import options, output
from dmstore.cli.compare import STAGES

_STAGES = {
    "train": ("train", "runs"),
    "evaluate": ("evaluate", "fits"),
    **STAGES,
    "counterfactual": ("ask the models", ""),
    "report": ("draw the page", ""),
}


@click.command("demo")
@click.argument("directory", type=click.Path(), default="dmstore-demo")
@click.option(
    "--runs", type=int, default=None, help="Runs of each algorithm; 4000 unless planned otherwise."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the study."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=None,
    help="Training processes; one a core, at least two.",
)
@options.quiet
@options.as_json
def command(
    directory: str, runs: int | None, seed: int, workers: int | None, quiet: bool, as_json: bool
) -> None:
    """Run the main job in DIRECTORY (dmstore-demo by default) on real images that come with scikit-learn.

    Two learning algorithms that differ in one design choice are trained thousands of times each on
    handwritten digits with a planted mark, then stored, fitted, compared and reported. Interrupted,
    the same command goes on where it was.
    """
    from dmstore.demo import demo

    progress = output.Stages(_STAGES, quiet=quiet)
    made = demo(directory, runs=runs, seed=seed, workers=workers, report=progress)
    progress.close()
    output.emit(made.result, made.lines, as_json=as_json)
