"""``dmstore report``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("report")
@options.study
@click.argument("a")
@click.argument("b")
@options.as_json
def command(study: str, a: str, b: str, as_json: bool) -> None:
    """Write the page that shows the newest comparison of A and B: one HTML file."""
    from dmstore.analysis import report
    from dmstore.study import open_study

    path = report(open_study(study), a, b)
    output.emit({"report": path}, [path], as_json=as_json)
