"""``dmstore init``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("init")
@options.study
@click.option(
    "--examples",
    required=True,
    type=click.Path(),
    help="An .npz file with train_label and target_label.",
)
@click.option(
    "--seed",
    type=options.SEED,
    default=None,
    help="Masks, splits and training seeds follow from it; random by default.",
)
@click.option("--title", default=None, help="Title of the study.")
@options.as_json
def command(path: str, examples: str, seed: int | None, title: str | None, as_json: bool) -> None:
    """Create STUDY from an examples file.

    \b
    The .npz holds train_label (train,) and target_label (target,) integers, and optionally
    train_image, target_image (example, height, width[, 3]) uint8, class_name (class,) text,
    train_id, target_id, target_train, and further train_… and target_… columns.

    \b
    Example:
      dmstore init cifar.dm --examples cifar.npz --seed 1
    """
    from dmstore.study.creation import create_study

    made = create_study(path, examples, seed=seed, about={"title": title} if title else None)
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
        },
        [
            f"{made.path}: {output.counted(count, 'train unit')}, {output.counted(targets, 'target')}, "
            f"{document['classes']} class{'' if document['classes'] == 1 else 'es'}, seed {made.seed}",
            *(f"  {name}: {', '.join(names)}" for name, names in columns.items()),
        ],
        as_json=as_json,
    )
