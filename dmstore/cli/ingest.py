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
    type=click.Choice(
        [
            "auto",
            "npz",
            "datamodels",
            "datamodels-data",
            "beton",
            "bergson",
            "dattri",
            "kronfluence",
            "lira",
            "heldout-influence",
            "index-lists",
            "arrays",
            "study",
        ]
    ),
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
    "--mask-bitorder",
    type=click.Choice(["little", "big"]),
    default=None,
    help="Bit order of packed masks, where the source does not say it (numpy.packbits: big).",
)
@click.option(
    "--without",
    multiple=True,
    metavar="KEY",
    help="Array of the source that is not to be taken. May be repeated.",
)
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
    "--lists",
    type=click.Choice(["seen", "left-out"]),
    default=None,
    help="What lists of train units in place of masks hold, where the source does not say it.",
)
@click.option(
    "--train",
    type=click.IntRange(1),
    default=None,
    help="With --create: the number of train units, where lists of them do not tell it.",
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
    mask_bitorder: str | None,
    without: tuple[str, ...],
    percent: int | None,
    other: str | None,
    first_run: int,
    lists: str | None,
    train: int | None,
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
                       mask_packed (k, ceil(train/8)) uint8 with mask_bitorder ('little' or 'big'), one
                       array a declared output, any further per-run column (time: milliseconds since
                       1970); taken whole or refused whole
      datamodels       a training store of MadryLab/datamodels
      datamodels-data  its published arrays (choose one fraction with --percent)
      beton            reg_data.beton, read without ffcv
      bergson          a bank of leave-k-out models: subsets.json, and losses in query_loss_cache/
                       or validation.csv
      dattri           an LDS benchmark (--output loss=target_values_lds), or folders of retrain_lds
                       with values beside them (--output loss=FILE)
      kronfluence      masks.pt with margins.pt or losses.pt, as in its examples
      lira             shadow models: experiment-*/keep.npy and scores/; targets are train units
      heldout-influence
                       a folder per run with aux_arrays.npz, of one share of the training set
      index-lists      lists of train units in place of masks: .npz (indices, offsets), .json or .pt
                       with a list per run (--lists seen or left-out)
      arrays           masks and outputs in a folder of .npy files, one .npy (--output NAME=FILE),
                       a zarr group, .safetensors or .npz; also our own exports
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

    if not create and (examples or seed is not None or train is not None or split):
        message = "--examples, --seed, --train and --split go with --create"
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
                outputs=named,
                mask=mask,
                bitorder=mask_bitorder,
                without=without,
                percent=percent,
                algorithm=other,
                first_run=first_run,
                lists=lists,
                train=train,
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
        mask_bitorder=mask_bitorder,
        without=without,
        percent=percent,
        source_algorithm=other,
        first_run=first_run,
        lists=lists,
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
