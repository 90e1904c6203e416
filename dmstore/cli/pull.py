"""``dmstore pull``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("pull")
@click.argument("source", type=click.Path())
@options.study
@options.quiet
@options.as_json
def command(source: str, path: str, quiet: bool, as_json: bool) -> None:
    """Copy the published study at SOURCE to STUDY, and check all of it.

    SOURCE is a directory, a .zip, or the URL of a bucket or a web server. The copy can be extended with
    runs of its own, whose ids no other lab uses. Repeat a killed command: it goes on where it was.

    \b
    Example:
      dmstore pull https://example.org/cifar-published cifar.dm
    """
    from dmstore.sharing.pulling import pull

    bar = output.Progress("pull", quiet=quiet)
    try:
        made = pull(source, path, progress=bar)
    finally:
        bar.close()
    output.emit(
        made,
        [
            f"{made['study']}: {output.counted(made['objects'], 'object')}, {output.size(made['bytes'])}, "
            f"{made['fetched']} fetched now, all verified",
            *(
                f"  {name}: {output.counted(e['runs'], 'run')}, version {e['version']}, content id {e['content_id'] or '-'}"
                for name, e in made["algorithms"].items()
            ),
        ],
        as_json=as_json,
    )
