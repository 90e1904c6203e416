"""``dmstore report``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("report")
@options.study
@click.argument("a")
@click.argument("b")
@options.quiet
@options.as_json
def command(study: str, a: str, b: str, quiet: bool, as_json: bool) -> None:
    """Write the page that shows the newest comparison of A and B: one HTML file."""
    from dmstore.analysis.pages.report import report, rests_on_retracted
    from dmstore.study.study import open_study

    opened = open_study(study)
    progress = output.Progress("report", quiet=quiet, delay=2)
    path = report(opened, a, b, progress=progress)
    progress.close()
    warnings = rests_on_retracted(opened, a, b)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    output.emit({"report": path, "warnings": warnings}, [path], as_json=as_json)
