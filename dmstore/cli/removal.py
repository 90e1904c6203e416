"""``dmstore removal``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.plan import Part


@click.command("removal")
@options.study
@click.argument("algorithms", nargs=-1, required=True, metavar="A [B …]")
@click.option(
    "--direction",
    default=None,
    metavar="A1|B2",
    help="Units of this direction of the comparison of A and B; its subpopulation is looked at.",
)
@click.option(
    "--target", default=None, metavar="ID", help="Units that weigh most for this target under A."
)
@click.option(
    "--share",
    type=float,
    default=5,
    show_default=True,
    help="Percent of the train units to leave out, up to 50.",
)
@click.option(
    "--end",
    type=click.Choice(["top", "bottom"]),
    default="top",
    show_default=True,
    help="End of the direction, or of the target's weights.",
)
@click.option(
    "--models",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Models without the units, and as many controls at least.",
)
@click.option(
    "--as-runs",
    is_flag=True,
    help="Let each model see as many units as the algorithm's runs, so that stored runs are the controls.",
)
@click.option(
    "--no-train", "train", flag_value=False, default=True, help="Measure, and train nothing."
)
@options.part_or_next
@options.data
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="BLAS threads."
)
@options.quiet
@options.as_json
def command(
    path: str,
    algorithms: tuple[str, ...],
    direction: str | None,
    target: str | None,
    share: float,
    end: str,
    models: int,
    as_runs: bool,
    train: bool,
    part: Part | Literal["next"] | None,
    threads: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train models without the train units that weigh most, and say what that costs them.

    They are compared with controls, which leave out as many units at random. Models and controls that are stored
    are not trained again. An algorithm without a task is trained by its own loop, and the command says how.

    \b
    Examples:
      dmstore removal cifar.dm high-noise low-noise --direction A1 --share 5
      dmstore removal cifar.dm high-noise --target 17 --share 2 --models 20
    Exit codes: 0 measured; 1 the input is bad; 3 models are pending still.
    """
    from dmstore.counterfactual import removal
    from dmstore.study.study import open_study
    from dmstore.training.ending import Ending

    if (direction is None) == (target is None):
        raise click.UsageError("give --direction or --target, and one of the two")
    options.find_tasks_here()
    progress = output.Progress("train for the removal", quiet=quiet, delay=2)
    with Ending() as ending:
        result = removal(
            open_study(path),
            *algorithms,
            direction=direction,
            target=target,
            share=share,
            end=end,
            models=models,
            as_runs=as_runs,
            train=train,
            part=part,
            threads=threads,
            progress=progress,
            stop=ending.asked,
        )
    progress.close()
    output.emit(_said(result), _lines(result), as_json=as_json)


def _said(result: xr.Dataset) -> dict[str, Any]:
    numbers = ("effect", "effect_low", "effect_high", "p", "predicted")
    counts = ("models", "controls", "seen")
    return {
        **{key: result.attrs[key] for key in ("name", "output", "share", "kept")},
        "units": result.sizes["unit"],
        "targets": result.sizes["measured"],
        "effects": {
            str(name): {
                **{key: float(result[key].values[row]) for key in numbers},
                **{key: int(result[key].values[row]) for key in counts},
            }
            for row, name in enumerate(result["algorithm"].values)
        },
    }


def _lines(result: xr.Dataset) -> list[str]:
    said = _said(result)
    lines = [
        f"without the {said['name']} ({output.counted(said['units'], 'train unit')}), mean {said['output']} of {output.counted(said['targets'], 'target')}, against random removals:"
    ]
    for name, one in said["effects"].items():
        lines.append(
            f"  {name}: {one['effect']:+.4g} (95 % {one['effect_low']:+.4g} to {one['effect_high']:+.4g}), p {one['p']:.2g}; datamodels predict {one['predicted']:+.4g}"
        )
        lines.append(
            f"    {output.counted(one['models'], 'model')} against {output.counted(one['controls'], 'control')}, of {output.counted(one['seen'], 'train unit')} each"
        )
    return lines
