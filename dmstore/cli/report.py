"""``dmstore report``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("report")
@options.study
@click.argument("a")
@click.argument("b")
@click.option("--comparison", metavar="ID", help="A comparison by its name; the newest by default.")
@click.option(
    "--out",
    metavar="PATH",
    help="Where to write it in the place of the study: a folder, or a file that ends in .html or .zip.",
)
@options.quiet
@options.as_json
def command(
    path: str, a: str, b: str, comparison: str | None, out: str | None, quiet: bool, as_json: bool
) -> None:
    """Write the page that shows a comparison of A and B.

    One HTML file up to 15 MB; beyond, its pictures lie in a folder beside it. Its data lie there too, as .json and .zarr.zip.
    """
    from dmstore.analysis.pages.report import report, rests_on_retracted
    from dmstore.study.study import open_study

    study = open_study(path)
    progress = output.Progress("draw the page", quiet=quiet, delay=2)
    page = report(study, a, b, comparison=comparison, out=out, progress=progress)
    progress.close()
    warnings = rests_on_retracted(study, a, b, comparison)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    output.emit({"report": page, "warnings": warnings}, [page], as_json=as_json)
