"""``dmstore doctor``."""

from __future__ import annotations

import click

from dmstore.cli import options, output

_SAFE = {
    "ingest": "store runs from many writers (train, ingest, RunWriter)",
    "compact": "compact, vacuum, tag, retract and fit",
}


@click.command("doctor")
@click.argument("path", type=click.Path())
@options.as_json
def command(path: str, as_json: bool) -> None:
    """Find out what the file system or bucket at PATH guarantees, and say what is safe there.

    \b
    Creates and deletes small objects below PATH. Exit code 1 where something is not safe.

    \b
    Example:
      dmstore doctor s3://my-bucket/studies
    """
    from dmstore.upkeep.doctor import diagnose

    diagnosis = diagnose(path)
    safe = {what: diagnosis.safe(what) for what in _SAFE}
    lines = [f"{f.level:>5}  {f.name}: {f.text}" for f in diagnosis.findings]
    lines += [f"{'safe' if safe[what] else 'NOT SAFE'}: {text}" for what, text in _SAFE.items()]
    output.emit(
        {
            "path": diagnosis.path,
            "safe": safe,
            "findings": [
                {"name": f.name, "level": f.level, "text": f.text} for f in diagnosis.findings
            ],
        },
        lines,
        as_json=as_json,
    )
    if not all(safe.values()):
        raise click.exceptions.Exit(1)
