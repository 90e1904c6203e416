"""``dmstore tag``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("tag")
@options.study
@options.algorithm
@click.argument("name")
@options.as_json
def command(path: str, algorithm: str, name: str, as_json: bool) -> None:
    """Call the current state of ALGORITHM's runs NAME. Tags never move, and vacuum keeps their bases."""
    from dmstore.schema.names import check_name
    from dmstore.storage.acts import tag
    from dmstore.storage.acts.compact import compact
    from dmstore.study.study import open_study

    table = open_study(path).algorithm(algorithm).table
    check_name(name, "tag")
    compact(table)
    made = tag.create(table, name)
    output.emit(
        made,
        [
            f"{name}: {output.counted(made['runs'], 'run')}, version {made['version']}, content id {made['content_id']}"
        ],
        as_json=as_json,
    )
