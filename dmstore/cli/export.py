"""``dmstore export``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("export")
@options.study
@options.algorithm
@click.argument("dest", type=click.Path())
@click.option(
    "--to",
    required=True,
    type=click.Choice(["npy", "datamodels.pt", "truth", "safetensors", "plan"]),
    help="Format.",
)
@click.option(
    "--output", "outputs", multiple=True, help="Output to write (again for more); all by default."
)
@click.option("--fit", default=None, help="Fit to write; the newest finished one by default.")
@click.option("--snapshot", metavar="TAG", default=None, help="Runs as tagged; as now by default.")
@click.option(
    "--split",
    type=click.Choice(["all", "train", "holdout", "eval"]),
    default=None,
    help="Runs to write; eval in a truth, else all.",
)
@click.option(
    "--units",
    type=click.Choice(["raw", "standardised"]),
    default=None,
    help="Units of the weights in datamodels.pt; raw by default.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    dest: str,
    to: str,
    outputs: tuple[str, ...],
    fit: str | None,
    snapshot: str | None,
    split: str | None,
    units: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write ALGORITHM's runs, datamodels or plan to DEST, in another tool's format.

    \b
    npy            folder of masks.npy, margins.npy ... and spec.json (MadryLab/datamodels)
    datamodels.pt  weight [train, target], bias, lam, for torch.load
    truth          folder of mask.npy and val_margins.npy, to score attributions against
    safetensors    masks, outputs, columns, and the newest fit, in one file
    plan           what dmstore_writer.py needs where dmstore cannot be installed

    DEST must be new; it is there whole or not at all.

    \b
    Example:
      dmstore export cifar.dm plain --to npy plain-runs
    """
    from dmstore.exporters.export import export
    from dmstore.study.study import open_study

    progress = output.Progress("export", quiet=quiet)
    done = export(
        open_study(path),
        algorithm,
        to,
        dest,
        outputs=outputs,
        fit=fit,
        snapshot=snapshot,
        split=split,
        units=units,
        progress=progress,
    )
    progress.close()
    output.emit(
        {
            "algorithm": algorithm,
            "to": to,
            "files": list(done.files),
            "rows": done.rows,
            "bytes": done.size,
            "content_id": done.content_id or None,
        },
        [
            f"{dest}: {output.counted(done.rows, 'run')} of {algorithm}, "
            f"{output.counted(len(done.files), 'file')}, {output.size(done.size)}"
            + (f", content id {done.content_id}" if done.content_id else "")
        ],
        as_json=as_json,
    )
