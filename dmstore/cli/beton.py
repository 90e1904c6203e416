"""``dmstore beton``."""

from __future__ import annotations

from pathlib import Path

import click

from dmstore.cli import options, output


@click.command("beton")
@options.study
@click.option(
    "--data",
    type=click.Path(),
    default=None,
    envvar="DMSTORE_DATA",
    help="Folder of the images, where the study holds thumbnails; DMSTORE_DATA by default.",
)
@click.option(
    "--output",
    "-o",
    "place",
    type=click.Path(),
    default=None,
    help="The file to write; STUDY with .beton by default.",
)
@click.option(
    "--max-size",
    type=click.IntRange(8, 65535),
    default=None,
    help="Longest side of an image, in px.",
)
@click.option(
    "--jpeg-quality",
    type=click.IntRange(1, 100),
    default=90,
    show_default=True,
    help="Of images that are encoded anew; JPEG files that are small enough are taken as they are.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    data: str | None,
    place: str | None,
    max_size: int | None,
    jpeg_quality: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write the images of STUDY as one .beton file, which the loader ffcv reads.

    \b
    All sets are in it, in the order of the study, and it is known again as that of the study.
    ffcv itself is not needed to write it.

    \b
    Example:
      dmstore beton living17.dm --data imagenet --max-size 256
    """
    from dmstore.study.study import open_study
    from dmstore.training.loaders import beton

    study = open_study(path)
    target = beton.place_of(study, place)
    progress = output.Progress("write images", quiet=quiet, unit="images")
    count = beton.write(
        study, target, data=data, max_size=max_size, jpeg_quality=jpeg_quality, progress=progress
    )
    progress.close()
    size = Path(target).stat().st_size
    output.emit(
        {"study": study.path, "file": str(target), "images": count, "bytes": size},
        [f"{target}: {output.counted(count, 'image')}, {output.size(size)}"],
        as_json=as_json,
    )
