"""``dmstore removal``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.plan import Part


# Standard deviations of what runs miss, beyond which next to no run is.
_FAR = 3.0
# Of each algorithm, and of the first less each other.
_NUMBERS = (
    *("effect", "effect_low", "effect_high", "p", "predicted"),
    *("spread", "scaled", "scaled_low", "scaled_high"),
    *("expected", "expected_low", "expected_high"),
    *("surplus", "surplus_low", "surplus_high", "missed", "missed_deviation"),
)
_COUNTS = ("models", "controls", "seen", "spread_masks")
_LESS = ("difference", "difference_low", "difference_high", "difference_p")


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
@click.option(
    "--comparison",
    metavar="ID",
    help="A comparison by its name, whose direction is meant and which keeps the result; the newest by default.",
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
    comparison: str | None,
    part: Part | Literal["next"] | None,
    threads: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train models without the train units that weigh most, and say what that costs them.

    They are compared with controls, which leave out as many units at random. Models and controls that are stored
    are not trained again. An algorithm without a task is trained by its own loop, and the command says how.
    Outputs of two algorithms need not be on one scale: compare effects in spreads, which are measured on the runs.

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
            comparison=comparison,
            part=part,
            threads=threads,
            progress=progress,
            stop=ending.asked,
        )
    progress.close()
    output.emit(_said(result), _lines(result), as_json=as_json)


def _said(result: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in result["algorithm"].values]
    return {
        **{key: result.attrs[key] for key in ("name", "output", "share", "kept")},
        "units": result.sizes["unit"],
        "targets": result.sizes["measured"],
        "effects": {
            name: {
                **{key: float(result[key].values[row]) for key in _NUMBERS},
                **{key: int(result[key].values[row]) for key in _COUNTS},
            }
            for row, name in enumerate(names)
        },
        "differences": [
            {
                "of": names[0],
                "less": name,
                **{key: float(result[key].values[row]) for key in _LESS},
            }
            for row, name in enumerate(names)
            if row
        ],
    }


def _lines(result: xr.Dataset) -> list[str]:
    said = _said(result)
    lines = [
        f"without the {said['name']} ({output.counted(said['units'], 'train unit')}), mean {said['output']} of {output.counted(said['targets'], 'target')}, against random removals:"
    ]
    for name, one in said["effects"].items():
        lines.append(f"  {name}: {_between(one, 'effect')}, p {one['p']:.2g}")
        if math.isfinite(one["scaled"]):
            lines.append(
                f"    = {_between(one, 'scaled')} spreads; a spread, {one['spread']:.3g}, is how much one such target varies with a random half of the train units"
            )
        else:
            lines.append(
                "    in spreads: not measured, its runs are too few or draw units together"
            )
        if math.isfinite(one["expected"]):
            lines.append(
                f"    expected if single effects add up: {_between(one, 'expected')}, from runs that no fit saw; datamodels predict {one['predicted']:+.4g}; {_surplus(one)}"
            )
        else:
            lines.append(
                f"    datamodels predict {one['predicted']:+.4g}; too few runs are left to check that"
            )
        lines.append(
            f"    {output.counted(one['models'], 'model')} against {output.counted(one['controls'], 'control')}, of {output.counted(one['seen'], 'train unit')} each"
        )
    for less in said["differences"]:
        if math.isfinite(less["difference"]):
            lines.append(
                f"  {less['of']} less {less['less']}: {_between(less, 'difference')} spreads, p {less['difference_p']:.2g}"
            )
    return [*lines, *_far(said)]


def _between(one: dict[str, Any], key: str) -> str:
    return f"{one[key]:+.4g} (95 % {one[f'{key}_low']:+.4g} to {one[f'{key}_high']:+.4g})"


def _surplus(one: dict[str, Any]) -> str:
    """Whether what happens is what was expected."""
    if one["surplus_low"] <= 0 <= one["surplus_high"]:
        return "what happens agrees"
    more = (one["surplus"] > 0) == (one["expected"] > 0)
    return f"{'more' if more else 'less'} happens, by {_between(one, 'surplus')}"


def _far(said: dict[str, Any]) -> list[str]:
    """That models without all of the units are unlike any run, where they are."""
    for one in said["effects"].values():
        if said["units"] - one["missed"] > _FAR * one["missed_deviation"]:
            return [
                f"  runs miss {one['missed']:.0f} of these {said['units']} units, give or take {one['missed_deviation']:.1f}, and never all: a prediction so far out is rough,",
                "  because effects need not add up; a smaller --share with --as-runs is nearer to the runs",
            ]
    return []
