"""``dmstore remove``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("remove")
@options.study
@options.algorithm
@click.option("--reason", default="", help="Why; needed where any run is stored.")
@click.option("--restore", is_flag=True, help="Take a removed algorithm back.")
@options.as_json
def command(path: str, algorithm: str, reason: str, restore: bool, as_json: bool) -> None:
    """Take ALGORITHM out of STUDY: nothing lists, trains, fits or publishes it any more.

    Its name stays taken, and nothing is deleted: --restore takes it back with all its runs.

    \b
    Example:
      dmstore remove cifar.dm plan --reason "trained on the wrong labels"
    """
    from dmstore.study.study import open_study

    study = open_study(path)
    if restore:
        study.restore_algorithm(algorithm, reason=reason)
    else:
        study.remove_algorithm(algorithm, reason=reason)
    output.emit(
        {"study": study.path, "algorithm": algorithm, "removed": not restore, "reason": reason},
        [f"{algorithm}: {'there again' if restore else 'removed, its name stays taken'}"],
        as_json=as_json,
    )
