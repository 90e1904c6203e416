"""``dmstore ingest``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.schema.typed_documents import AlgorithmSplit


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
@click.option(
    "--format",
    "kind",
    type=click.Choice(["auto", "npz", "datamodels", "datamodels-data", "beton", "arrays", "study"]),
    default="auto",
    show_default=True,
    help="What the sources are.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="NAME=KEY",
    help="Which array of the source is the output NAME (a file where SRC is a .npy). May be repeated.",
)
@click.option("--mask", default=None, metavar="KEY", help="Which array of the source is the masks.")
@click.option(
    "--percent",
    type=click.IntRange(1, 100),
    default=None,
    help="Which fraction of datamodels-data.",
)
@click.option("--from", "other", default=None, help="Which algorithm of another study.")
@click.option(
    "--first-run",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Run id of a source's first row, where rows are numbered by position.",
)
@click.option(
    "--create", is_flag=True, help="Make the study and the algorithm from the source if missing."
)
@click.option(
    "--examples", type=click.Path(), default=None, help="With --create: the examples file."
)
@click.option(
    "--seed", type=options.SEED, default=None, help="With --create: the seed of a new study."
)
@click.option(
    "--split",
    type=click.Choice(["eval"]),
    default=None,
    help="With --create: all runs of a new algorithm are for evaluation.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    sources: tuple[str, ...],
    target_set: str | None,
    kind: str,
    outputs: tuple[str, ...],
    mask: str | None,
    percent: int | None,
    other: str | None,
    first_run: int,
    create: bool,
    examples: str | None,
    seed: int | None,
    split: AlgorithmSplit | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Store runs that are there already under ALGORITHM. Doing it again changes nothing.

    \b
    SRC is one of
      npz              workers' files or directories of them: run (k,) ids, mask (k, train) bool or
                       mask_packed (k, ceil(train/8)) uint8 in little bit order, one array a declared
                       output, any further per-run column; taken whole or refused whole
      datamodels       a training store of MadryLab/datamodels
      datamodels-data  its published arrays (choose one fraction with --percent)
      beton            reg_data.beton, read without ffcv
      arrays           masks and outputs in a folder of .npy files, one .npy (--output NAME=FILE),
                       a zarr group, .safetensors or .npz
      study            another study of the same examples (--from ALGORITHM)
    All but npz are read block by block. Into an algorithm without runs a source goes whole or not at
    all; else a killed ingest goes on when it is repeated.

    \b
    Examples:
      dmstore ingest cifar.dm plain results/*.npz
      dmstore ingest cifar.dm plain training-store --create
    """
    from dmstore.intake.ingest import ingest
    from dmstore.readers.source import Request
    from dmstore.study.study import open_study

    if not create and (examples or seed is not None or split):
        message = "--examples, --seed and --split go with --create"
        raise click.UsageError(message)
    named = _pairs(outputs)

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    if create:
        from dmstore.intake.adopt import adopt

        adopt(
            path,
            algorithm,
            sources[0],
            format=kind,
            request=Request(
                outputs=named, mask=mask, percent=percent, algorithm=other, first_run=first_run
            ),
            examples=examples,
            seed=seed,
            split=split,
            say=say,
        )
    progress = output.Progress("ingest", quiet=quiet)
    later = None if create else target_set
    result = ingest(
        open_study(path),
        algorithm,
        sources,
        target_set=later,
        format=kind,
        outputs=named,
        mask=mask,
        percent=percent,
        source_algorithm=other,
        first_run=first_run,
        say=say,
        progress=progress,
    )
    progress.close()
    for line in result.warnings:
        click.echo(f"warning: {line}", err=True)
    for line in result.errors:
        click.echo(f"error: {line}", err=True)
    output.emit(
        {"algorithm": algorithm, "target_set": target_set, **asdict(result)},
        [
            f"{f'{algorithm}:{later}' if later else algorithm}: {output.counted(result.new, 'run')} new, {result.present} already there, "
            f"{result.conflicting} conflicting, {result.refused} refused"
            f"{f', {result.skipped} skipped' if result.skipped else ''}; "
            f"{result.files - len(result.errors)} of {output.counted(result.files, 'file')} taken"
        ],
        as_json=as_json,
    )
    if result.errors:
        raise click.exceptions.Exit(1)


def _pairs(outputs: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in outputs:
        name, equals, key = text.partition("=")
        if not (name and equals and key) or name in pairs:
            message = (
                f"--output {text!r} is not of the form NAME=KEY, or its name stands there twice"
            )
            raise click.UsageError(message)
        pairs[name] = key
    return pairs
