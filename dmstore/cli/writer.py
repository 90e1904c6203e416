"""``dmstore writer``."""

from __future__ import annotations

import importlib.resources

import click


@click.command("writer")
def command() -> None:
    """Print dmstore_writer.py, for workers that cannot install dmstore.

    \b
    It is one file that needs NumPy 1.17 and Python 3.8 or newer. What it writes, 'dmstore ingest' takes.

    \b
    Example:
      dmstore writer > dmstore_writer.py
      dmstore export cifar.dm plain --to plan plan.json
    """
    folder = importlib.resources.files("dmstore.training.standalone")
    click.echo(folder.joinpath("dmstore_writer.py").read_text(encoding="utf-8"), nl=False)
