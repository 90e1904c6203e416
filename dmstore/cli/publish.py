"""``dmstore publish``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.schema.typed_documents import AboutDocument


@click.command("publish")
@options.study
@click.argument("destination", type=click.Path())
@click.option(
    "--algorithm", "algorithms", multiple=True, help="Only this algorithm. May be repeated."
)
@click.option("--tag", default=None, help="The tagged state of each algorithm, not the newest.")
@click.option("--no-images", is_flag=True, help="Leave images and pages that show them out.")
@click.option(
    "--no-ids", is_flag=True, help="Withhold ids: positions stand for them, their hash stays."
)
@click.option("--no-datamodels", is_flag=True, help="Leave fits and comparisons out.")
@click.option("--no-comparisons", is_flag=True, help="Leave comparisons out.")
@click.option(
    "--without-columns",
    "without_columns",
    multiple=True,
    metavar="NAME",
    help="Leave this per-run column out. May be repeated.",
)
@click.option("--title", default=None, help="Title of what is published.")
@click.option("--author", "authors", multiple=True, help="An author. May be repeated.")
@click.option("--licence", default=None, help="Licence, such as CC-BY-4.0.")
@click.option("--citation", default=None, help="How to cite it.")
@click.option("--doi", default=None, help="Its DOI.")
@options.quiet
@options.as_json
def command(
    path: str,
    destination: str,
    algorithms: tuple[str, ...],
    tag: str | None,
    no_images: bool,
    no_ids: bool,
    no_datamodels: bool,
    no_comparisons: bool,
    without_columns: tuple[str, ...],
    title: str | None,
    authors: tuple[str, ...],
    licence: str | None,
    citation: str | None,
    doi: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Publish STUDY to DESTINATION: a directory, one .zip, or a bucket's URL.

    What is published is compacted, checked row by row, listed in index.json with sha256, and plain zarr.
    Repeat a killed command: it goes on where it was.

    \b
    Example:
      dmstore publish cifar.dm cifar-published --licence CC-BY-4.0 --author "A. Lab"
    """
    from dmstore.sharing.contents import Selection
    from dmstore.sharing.publishing import publish
    from dmstore.study.study import open_study

    selection = Selection(
        algorithms,
        tag,
        images=not no_images,
        ids=not no_ids,
        datamodels=not no_datamodels,
        comparisons=not no_comparisons,
        without_columns=without_columns,
    )
    # What is empty is not stated anew.
    about: AboutDocument = {
        "title": title or "",
        "authors": list(authors),
        "licence": licence or "",
        "citation": citation or "",
        "doi": doi or "",
    }
    bar = output.Progress("publish", quiet=quiet, unit="files")
    try:
        made = publish(open_study(path), destination, selection, about=about, progress=bar)
    finally:
        bar.close()
    done = f"{made['written']} written now" if made["written"] else "all there already"
    output.emit(
        made,
        [
            f"{made['destination']}: {output.counted(made['objects'], 'object')}, {output.size(made['bytes'])}, {done}",
            *(
                f"  {name}: {output.counted(e['runs'], 'run')}, version {e['version']}, content id {e['content_id'] or '-'}"
                for name, e in made["algorithms"].items()
            ),
        ],
        as_json=as_json,
    )
