"""``dmstore ingest``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("ingest")
@options.study
@options.algorithm
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SRC...")
@options.quiet
@options.as_json
def command(
    study: str, algorithm: str, sources: tuple[str, ...], quiet: bool, as_json: bool
) -> None:
    """Store the runs in workers' .npz files (or directories of them) under ALGORITHM.

    \b
    A file holds run (k,) ids, mask (k, train) bool or mask_packed (k, ceil(train/8)) uint8 in
    little bit order, one array a declared output, and any further per-run column. It is taken
    whole or refused whole. Doing it again changes nothing.
    """
    from dmstore.ingest import ingest
    from dmstore.study import open_study

    progress = output.Progress("ingest", quiet=quiet)
    opened = open_study(study).algorithm(algorithm)
    result = ingest(opened, sources, progress)
    progress.close()
    counts = {
        "new": result.new,
        "present": result.present,
        "conflicting": result.conflicting,
        "refused": result.refused,
    }
    for line in result.errors:
        click.echo(f"error: {line}", err=True)
    output.emit(
        {"algorithm": algorithm, "files": result.files, **counts, "errors": result.errors},
        [
            f"{algorithm}: {result.new} runs new, {result.present} already there, "
            f"{result.conflicting} conflicting, {result.refused} refused; "
            f"{result.files - len(result.errors)} of {result.files} files taken"
        ],
        as_json=as_json,
    )
    if result.errors:
        raise click.exceptions.Exit(1)
