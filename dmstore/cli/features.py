"""``dmstore features``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("features")
@options.study
@click.option(
    "--model",
    required=True,
    help="efficientnet_lite0 (ImageNet's weights are in its package), resnet18 or resnet50 with --weights, or package.module:function.",
)
@click.option("--weights", default="", help="Weights of a ResNet: a file, or torchvision's name.")
@click.option("--name", default="features", show_default=True, help="Name of the annotation.")
@click.option(
    "--image-size",
    type=click.IntRange(0, 4096),
    default=0,
    help="Resize images to so many px; 0 leaves them as they are.",
)
@options.data
@options.quiet
@options.as_json
def command(
    path: str, model: str, weights: str, name: str, image_size: int, quiet: bool, as_json: bool
) -> None:
    """Keep features of a frozen network as an annotation of all train units and targets.

    Heads then train on them by the hundred. Run it again after a kill, or when a target set was added.

    \b
    Example:
      dmstore features cifar.dm --model efficientnet_lite0 --image-size 96
      dmstore add cifar.dm head --recipe linear-head --runs 1000
    """
    from dmstore.study.study import open_study
    from dmstore.training.features import compute_features, network

    options.find_tasks_here()
    study = open_study(path)
    frozen = network(model, weights)
    progress = output.Progress("compute features", quiet=quiet, unit="images")
    made = compute_features(study, frozen, name=name, image_size=image_size, progress=progress)
    progress.close()
    lines = [f"{part}: {count} examples, {size} features" for part, (count, size) in made.items()]
    output.emit(
        {"study": study.path, "name": name, **frozen.origin(image_size), "computed": made},
        lines or [f"{name}: all there already"],
        as_json=as_json,
    )
