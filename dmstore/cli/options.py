"""Options that several commands share, stated once."""

from __future__ import annotations

import click

study = click.argument("study", type=click.Path())
algorithm = click.argument("algorithm")
maybe_algorithm = click.argument("algorithm", required=False)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet = click.option("-Q", "--quiet", is_flag=True, help="No progress on stderr.")
threads = click.option(
    "--threads", type=click.IntRange(1), default=None, help="Threads; all cores by default."
)
part = click.option("--part", metavar="I/N", default=None, help="Only part I of N, counted from 1.")
