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
@click.option("--dry-run", is_flag=True, help="Only say what is taken, and as what.")
@options.as_json
def command(
    path: str, set_name: str, source: str, name: str | None, dry_run: bool, as_json: bool
) -> None:
    """Add labels, groups, images, texts or numbers to SET: train, test, a later set, or class.

    \b
    SRC is an .npz or .csv of columns by name, a .json object of lists, or one column:
    .npy, .txt (a line per example) or a .json list, with --name. A column "id" says which
    value is whose; without it they are in the set's order. An annotation never changes:
    doing it again with the same values changes nothing, other values are refused. A
    .csv column is bool, int64, float64 (NaN where a value is empty or NA) or text: look
    at what is printed, with --dry-run before anything is stored.

    \b
    Examples:
      dmstore annotate cifar.dm train groups.csv --dry-run
      dmstore annotate cifar.dm test captions.txt --name caption
    """
    from dmstore.readers.columns import in_order, read_columns
    from dmstore.study.annotation import described
    from dmstore.study.study import open_study

    study = open_study(path)
    ids = study.ids(set_name)
    columns = in_order(read_columns(source, name), ids, source)
    act = study.check_annotations if dry_run else study.annotate
    done = act(set_name, columns)
    new = [key for key, value in done.items() if value == "new"]
    present = [key for key, value in done.items() if value == "present"]
    parts = [f"{', '.join(new)} {'would be ' * dry_run}added"] * bool(new)
    parts += [f"{', '.join(present)} already there"] * bool(present)
    kinds = {key: described(columns[key]) for key in done}
    output.emit(
        {
            "study": study.path,
            "set": set_name,
            "new": new,
            "present": present,
            "columns": kinds,
            "dry_run": dry_run,
        },
        [
            f"{set_name}: {'; '.join(parts)}",
            *(f"  {key}: {value}" for key, value in kinds.items()),
        ],
        as_json=as_json,
    )
