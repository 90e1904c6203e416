"""``dmstore annotate``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("annotate")
@options.study
@click.argument("set_name", metavar="SET")
@click.argument("source", type=click.Path(), metavar="SRC")
@click.option(
    "--name",
    default=None,
    help="Name of the annotation, for a file that holds one column; else the one column to take.",
)
@options.as_json
def command(path: str, set_name: str, source: str, name: str | None, as_json: bool) -> None:
    """Add labels, groups, images, texts or numbers to SET: train, test, a later set, or class.

    \b
    SRC is an .npz or .csv of columns by name, a .json object of lists, or one column:
    .npy, .txt (a line an example) or a .json list, with --name. A column "id" says which
    value is whose; without it they are in the set's order. An annotation never changes:
    doing it again with the same values changes nothing, other values are refused.

    \b
    Examples:
      dmstore annotate cifar.dm train groups.csv
      dmstore annotate cifar.dm test captions.txt --name caption
    """
    from dmstore.readers.columns import in_order, read_columns
    from dmstore.study.study import open_study

    study = open_study(path)
    ids = study.ids(set_name)
    done = study.annotate(set_name, in_order(read_columns(source, name), ids, source))
    new = [key for key, value in done.items() if value == "new"]
    present = [key for key, value in done.items() if value == "present"]
    parts = [f"{', '.join(new)} added"] * bool(new)
    parts += [f"{', '.join(present)} already there"] * bool(present)
    output.emit(
        {"study": study.path, "set": set_name, "new": new, "present": present},
        [f"{set_name}: {'; '.join(parts)}"],
        as_json=as_json,
    )
