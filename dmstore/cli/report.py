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
@click.option(
    "--figures",
    type=click.Path(),
    metavar="DIR",
    help="Write every figure into DIR too, as PNG, SVG and PDF; files of the same names are replaced.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    a: str,
    b: str,
    comparison: str | None,
    out: str | None,
    figures: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the page that shows a comparison of A and B.

    One HTML file up to 15 MB; beyond, its pictures lie in a folder beside it. Its data lie there too, as .json and .zarr.zip.
    """
    from dmstore.analysis.pages.figures import check_folder, save_figures
    from dmstore.analysis.pages.report import report, rests_on_retracted
    from dmstore.study.study import open_study

    study = open_study(path)
    if figures is not None:
        check_folder(figures)
    progress = output.Progress("draw the page", quiet=quiet, delay=2)
    page = report(study, a, b, comparison=comparison, out=out, progress=progress)
    written = (
        save_figures(study, a, b, figures, comparison=comparison, progress=progress)
        if figures is not None
        else []
    )
    progress.close()
    warnings = rests_on_retracted(study, a, b, comparison)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    result = {"report": page, "warnings": warnings}
    lines = [page]
    if figures is not None:
        result["figures"] = [str(one) for one in written]
        lines.append(f"{len(written) // 3} figures in {figures}, each as PNG, SVG and PDF")
    output.emit(result, lines, as_json=as_json)
