"""``dmstore init``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    from dmstore.schema.typed_documents import AboutDocument


@click.command("init")
@options.study
@click.option(
    "--examples",
    default=None,
    type=click.Path(),
    help="An .npz file with train_label and target_label.",
)
@click.option(
    "--dataset",
    default=None,
    type=click.Choice(["cifar10", "waterbirds", "living17", "imagefolder"]),
    help="A data set that lies in --root; its images stay there.",
)
@click.option("--root", default=None, type=click.Path(), help="Where the data set is.")
@click.option(
    "--limit",
    default=None,
    type=click.IntRange(1),
    help="Only the first so many examples of each class and set of --dataset, to try it out.",
)
@click.option(
    "--seed",
    type=options.SEED,
    default=None,
    help="Masks, splits and training seeds follow from it; random by default.",
)
@click.option("--title", default=None, help="Title of the study.")
@options.quiet
@options.as_json
def command(
    path: str,
    examples: str | None,
    dataset: str | None,
    root: str | None,
    limit: int | None,
    seed: int | None,
    title: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Create STUDY from an examples file, or from a data set on disk.

    \b
    The .npz holds train_label (train,) and target_label (target,) integers, and optionally
    train_image, target_image (example, height, width[, 3]) uint8, class_name (class,) text,
    train_id, target_id, target_train, and further train_… and target_… columns.

    \b
    Of a data set the study holds ids, labels, groups and thumbnails, and images of one size up to
    64 px. Larger ones stay in --root: training finds them in the folder that --data or DMSTORE_DATA
    names, as a study holds no path of one host. Nothing is downloaded.

    \b
    Examples:
      dmstore init cifar.dm --examples cifar.npz --seed 1
      dmstore init birds.dm --dataset waterbirds --root waterbird_complete95_forest2water2
    """
    from dmstore.study.creation import create_study

    about: AboutDocument | None = {"title": title} if title else None
    notes: list[str] = []
    if dataset is None:
        if examples is None or root is not None or limit is not None:
            msg = "give --examples FILE, or --dataset NAME with --root DIR"
            raise click.UsageError(msg)
        made = create_study(path, examples, seed=seed, about=about)
    else:
        if root is None or examples is not None:
            msg = "--dataset needs --root DIR, and no --examples"
            raise click.UsageError(msg)
        from dmstore.training.datasets import make_study

        progress = output.Progress("read images", quiet=quiet, unit="images")
        made, notes = make_study(
            path, dataset, root, seed=seed, limit=limit, about=about, progress=progress
        )
        progress.close()
        if "file" in made.train:
            import shlex

            from dmstore.core.given import local_path

            place = shlex.quote(str(local_path(root).resolve()))
            notes = [
                *notes,
                f"the study holds thumbnails; to train on the images say --data {place}, or export {options.DATA}={place}",
            ]
    document = made.document
    count, targets = document["train"]["count"], document["targets"]["test"]["count"]
    columns = {
        "train": sorted(map(str, made.train.data_vars)),
        "target": sorted(map(str, made.targets.data_vars)),
    }
    output.emit(
        {
            "study": made.path,
            "uuid": made.uuid,
            "seed": made.seed,
            "train": count,
            "targets": targets,
            "columns": columns,
            "target_sets": {name: entry["count"] for name, entry in made.target_sets.items()},
            "notes": notes,
        },
        [
            f"{made.path}: {output.counted(count, 'train unit')}, {output.counted(targets, 'target')}, "
            f"{document['classes']} class{'' if document['classes'] == 1 else 'es'}, seed {made.seed}",
            *(f"  {name}: {', '.join(names)}" for name, names in columns.items()),
            *(
                f"  target set {name}: {output.counted(entry['count'], 'target')}"
                for name, entry in made.target_sets.items()
                if entry["later"]
            ),
            *(f"note: {note}" for note in notes),
        ],
        as_json=as_json,
    )
