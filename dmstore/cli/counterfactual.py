"""``dmstore counterfactual``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


def _integers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of integers such as 0,1") from None


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    try:
        return [float(item) for item in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 0,0.5,1") from None


@click.command("counterfactual")
@options.study
@click.argument("a")
@click.argument("b")
@click.option(
    "--class",
    "label",
    required=True,
    help="Class whose probability is watched: name or number.",
)
@click.option("--name", default="patch", show_default=True, help="What to call the transformation.")
@click.option("--rows", callback=_integers, required=True, help="Rows of the patch, such as 0,1.")
@click.option("--columns", callback=_integers, required=True, help="Columns of the patch.")
@click.option(
    "--value",
    type=click.IntRange(0, 255),
    default=255,
    show_default=True,
    help="Brightness of the patch.",
)
@click.option(
    "--intensity",
    callback=_numbers,
    default="0,0.25,0.5,0.75,1",
    show_default=True,
    help="Intensities, from 0.",
)
@click.option(
    "--models",
    type=click.IntRange(2),
    default=100,
    show_default=True,
    help="Models to train on all data.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    a: str,
    b: str,
    label: str,
    name: str,
    rows: list[int],
    columns: list[int],
    value: int,
    intensity: list[float],
    models: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Paste a patch on the targets that are not of the class, and measure how models trained on all
    data with A and with B change their probability of the class.
    """
    import functools

    from dmstore.counterfactual import check
    from dmstore.study.study import open_study
    from dmstore.training.transformations import paste

    options.find_tasks_here()
    study = open_study(path)
    number = study.class_number(label)
    change = functools.partial(paste, rows=rows, columns=columns, value=value)
    progress = output.Progress("counterfactual", quiet=quiet, delay=2)
    result = check(
        study,
        a,
        b,
        change,
        number,
        name=name,
        intensity=intensity,
        models=models,
        progress=progress,
    )
    progress.close()
    ends = {
        str(n): [
            float(result[key].values[i, -1]) for key in ("effect", "effect_low", "effect_high")
        ]
        for i, n in enumerate(result["algorithm"].values)
    }
    output.emit(
        {"class": number, "name": name, "effect": ends},
        [
            f"{n}: P({study.class_names[number]}) changes by {e[0]:+.4f} ({_interval(*e[1:])})"
            for n, e in ends.items()
        ],
        as_json=as_json,
    )


def _interval(low: float, high: float) -> str:
    return f"95 % {low:+.4f} to {high:+.4f}" if low == low else "one model says nothing of others"
