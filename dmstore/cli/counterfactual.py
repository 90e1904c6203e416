"""``dmstore counterfactual``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    import xarray as xr

    from dmstore.study.study import Study


def _integers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> list[int] | None:
    try:
        return None if value is None else [int(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of integers such as 0,1") from None


@click.command("counterfactual")
@options.study
@click.argument("algorithms", nargs=-1, required=True, metavar="A B [MORE]…")
@click.option(
    "--class",
    "label",
    required=True,
    multiple=True,
    callback=options.once,
    help="Class whose confidence is watched: name or number; several with commas, or all.",
)
@click.option(
    "--targets",
    callback=options.texts,
    default=None,
    metavar="SET,SET,…",
    help="Transformed target sets on which outputs of full models are stored.",
)
@click.option(
    "--transform",
    "transformation",
    default=None,
    metavar="NAME|PKG.MOD:FN|PICTURE",
    help="Transform the targets here, and ask models that the task keeps; see 'dmstore transform'.",
)
@click.option("--rows", callback=_integers, default=None, help="A patch: its rows, such as 0,1.")
@click.option("--columns", callback=_integers, default=None, help="Columns of the patch.")
@click.option(
    "--value",
    type=click.IntRange(0, 255),
    default=255,
    show_default=True,
    help="Brightness of the patch.",
)
@click.option(
    "--name",
    default=None,
    help="What to call the transformation; by default its own name, 'patch' of a patch.",
)
@click.option(
    "--intensity",
    callback=options.numbers,
    default=None,
    help="Intensities; 0, the untouched input, is always measured too. Of target sets they are known.",
)
@click.option(
    "--on",
    type=click.Choice(["all", "others", "class"]),
    default="all",
    show_default=True,
    help="Average over all targets, as in the paper, over those of other classes, or over those of the class.",
)
@click.option(
    "--output",
    "read_from",
    default=None,
    help="With --targets: read confidence from this output; the one that says most by default.",
)
@click.option(
    "--models",
    type=click.IntRange(2),
    default=100,
    show_default=True,
    help="Models to train on all data, if fewer are kept.",
)
@options.transformation_seed
@options.bank
@options.place
@click.option("--figure", type=click.Path(), help="File to draw: .png, .pdf or .svg.")
@options.quiet
@options.as_json
def command(
    path: str,
    algorithms: tuple[str, ...],
    label: str,
    targets: list[str],
    transformation: str | None,
    rows: list[int] | None,
    columns: list[int] | None,
    value: int,
    name: str | None,
    intensity: list[float],
    on: str,
    read_from: str | None,
    models: int,
    seed: int,
    bank: str | None,
    place: str | None,
    figure: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure how a change of the inputs moves the confidence in a class, of models trained on all data with
    each algorithm.

    From stored outputs, whoever trained the models (--targets), or by models that the task keeps (--transform, or
    a patch by --rows and --columns).

    \b
    Examples:
      dmstore counterfactual birds.dm scratch pretrained --targets yellow_25,yellow_50 --class landbird
      dmstore counterfactual cifar.dm high low --transform rectangles --class truck --figure truck.png
    """
    from dmstore.counterfactual import check, from_outputs
    from dmstore.study.study import open_study

    patch = rows is not None or columns is not None
    if sum([bool(targets), transformation is not None, patch]) != 1 or (
        patch and (rows is None or columns is None)
    ):
        raise click.UsageError("give --targets, --transform, or both --rows and --columns")
    if len(algorithms) < 2:
        raise click.UsageError("give two algorithms or more")
    if targets and (
        given := [n for n in ("intensity", "models", "seed", "bank", "place") if options.given(n)]
    ):
        raise click.UsageError(
            f"--{given[0]} does not go with --targets: the sets are made already"
        )
    if read_from is not None and not targets:
        raise click.UsageError("--output goes with --targets")
    if figure is not None:
        from dmstore.analysis.plot.figure_file import check_figure_path

        check_figure_path(figure)
    options.find_tasks_here()
    study = open_study(path)
    numbers = _numbers(study, label)
    stage = "read the outputs" if targets else "ask the models"
    progress = output.Progress(stage, quiet=quiet, delay=2)
    if targets:
        result = from_outputs(
            study,
            algorithms,
            targets,
            numbers,
            name=name,
            on=on,
            output=read_from,
            progress=progress,
        )
    else:
        change, usual, called = _change(
            transformation, bank, place, {"rows": rows, "columns": columns, "value": value}
        )
        a, b, *more = algorithms
        result = check(
            study,
            a,
            b,
            change,
            numbers,
            *more,
            name=name or called,
            intensity=_from_zero(intensity) if intensity else usual,
            on=on,
            models=models,
            seed=seed,
            progress=progress,
        )
    progress.close()
    if figure is not None:
        from dmstore.analysis.plot.effects import effect_figure
        from dmstore.analysis.plot.figure_file import save_figure

        save_figure(figure, lambda: effect_figure(result))
    output.emit(_said(result, numbers, figure), _lines(result, figure), as_json=as_json)


def _numbers(study: Study, label: str) -> list[int]:
    if label == "all" and "all" not in study.class_names:
        return list(range(len(study.class_names)))
    if label in study.class_names:
        return [study.class_number(label)]
    return [study.class_number(one.strip()) for one in label.split(",")]


def _change(
    text: str | None, bank: str | None, place: str | None, patch: dict[str, Any]
) -> tuple[Callable[..., Any] | Any, list[float], str]:
    """What changes the inputs, its usual intensities, and what it is called."""
    import functools

    from dmstore.training.transformations import choose, paste

    if text is None:
        return functools.partial(paste, **patch), [0, 0.25, 0.5, 0.75, 1], "patch"
    chosen = choose(text, bank=bank, place=place)
    return chosen, list(chosen.intensities), chosen.name


def _from_zero(intensity: list[float]) -> list[float]:
    """Intensities with the untouched input first, as effects are measured from it."""
    return [0.0, *(one for one in intensity if one != 0)]


def _said(result: xr.Dataset, numbers: list[int], figure: str | None) -> dict[str, Any]:
    ends = ("effect", "effect_low", "effect_high")
    classes = [str(one) for one in result["class"].values]
    whole = {
        str(algorithm): {
            one: [
                [float(result[key].values[row, step, column]) for key in ends]
                for step in range(result.sizes["intensity"])
            ]
            for column, one in enumerate(classes)
        }
        for row, algorithm in enumerate(result["algorithm"].values)
    }
    return {
        "class": numbers[0] if len(numbers) == 1 else numbers,
        "classes": classes,
        "name": result.attrs["name"],
        "measure": result.attrs["measure"],
        "on": result.attrs["on"],
        "intensity": [float(x) for x in result["intensity"].values],
        "models": dict(zip(whole, result["models"].values.tolist(), strict=True)),
        "examples": dict(zip(classes, result["examples"].values.tolist(), strict=True)),
        # At full intensity, of the first class.
        "effect": {one: by_class[classes[0]][-1] for one, by_class in whole.items()},
        "effects": whole,
        **{
            key: {
                str(algorithm): dict(zip(classes, result[key].values[row].T.tolist(), strict=True))
                for row, algorithm in enumerate(result["algorithm"].values)
            }
            for key in ("delta", "epsilon")
        },
        "kept": result.attrs["kept"],
        "figure": figure,
    }


def _lines(result: xr.Dataset, figure: str | None) -> list[str]:
    """Effects, and where they distinguish at full intensity."""
    lines = []
    what = "P({})" if result.attrs["measure"] == "probability" else "the margin of {}"
    names = [str(one) for one in result["algorithm"].values]
    for column, one in enumerate(map(str, result["class"].values)):
        last = result.isel({"intensity": -1, "class": column})
        for row, algorithm in enumerate(names):
            effect, low, high = (
                float(last[key].values[row]) for key in ("effect", "effect_low", "effect_high")
            )
            lines.append(
                f"{algorithm}: {what.format(one)} changes by {effect:+.4f} ({_interval(low, high)})"
                + _weaker(result["effect"][row, :, column])
            )
        for row, algorithm in enumerate(names):
            delta, epsilon = float(last["delta"].values[row]), float(last["epsilon"].values[row])
            # An effect that is not above 0 for sure is no use of a feature, though others fall further.
            if delta > max(epsilon, 0.0):
                others = " and ".join(other for other in names if other != algorithm)
                lines.append(
                    f"  distinguishes {algorithm} from {others}: epsilon {epsilon:+.4f}, delta {delta:+.4f}"
                )
    counts = ", ".join(f"{n} of {a}" for a, n in zip(names, result["models"].values, strict=True))
    on = sorted(set(result["examples"].values.tolist()))
    shown = str(on[0]) if len(on) == 1 else f"{on[0]} to {on[-1]}"
    strength = float(result["intensity"].values[-1])
    lines.append(f"  at intensity {strength:g}, over {shown} targets, and full models: {counts}")
    if not result.attrs["kept"]:
        lines.append(f"  not kept: {names[0]} and {names[1]} have not been compared")
    return [*lines, *([f"  drawn: {figure}"] if figure else [])]


def _weaker(effect: xr.DataArray) -> str:
    """The effect at each intensity between none and the last."""
    between = effect[:-1].where(effect["intensity"][:-1] > 0, drop=True)
    said = [
        f"{value:+.4f} at {strength:g}"
        for strength, value in zip(between["intensity"].values, between.values, strict=True)
    ]
    return f"; {', '.join(said)}" if said else ""


def _interval(low: float, high: float) -> str:
    return f"95 % {low:+.4f} to {high:+.4f}" if low == low else "one model says nothing of others"
