"""``dmstore ingest``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("ingest")
@options.study
@options.algorithm
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SRC...")
@click.option(
    "--targets",
    "target_set",
    default=None,
    metavar="SET",
    help="The files hold outputs of stored runs on this later target set, and no masks.",
)
@options.quiet
@options.as_json
def command(
    study: str,
    algorithm: str,
    sources: tuple[str, ...],
    target_set: str | None,
    quiet: bool,
    as_json: bool,
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
    opened = open_study(study)
    outputs = opened.target_outputs(algorithm, target_set) if target_set else None
    result = ingest(opened.algorithm(algorithm), sources, progress, outputs=outputs)
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
        {
            "algorithm": algorithm,
            "target_set": target_set,
            "files": result.files,
            **counts,
            "errors": result.errors,
        },
        [
            f"{outputs.name if outputs else algorithm}: {result.new} runs new, {result.present} already there, "
            f"{result.conflicting} conflicting, {result.refused} refused; "
            f"{result.files - len(result.errors)} of {result.files} files taken"
        ],
        as_json=as_json,
    )
    if result.errors:
        raise click.exceptions.Exit(1)
