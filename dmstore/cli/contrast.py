"""``dmstore contrast``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dmstore.cli import options, output

if TYPE_CHECKING:
    import xarray as xr

_SHOWN = 20
_FIGURES = ("effect", "standard_error", "low", "high", "p", "q")


@click.command("contrast", options_metavar="[OPTIONS]")
@options.study
@click.argument("a")
@click.argument("b", required=False)
@click.option(
    "--by",
    multiple=True,
    metavar="NAME|NAME=VALUE|FILE",
    help="Groups of train units, and of targets where they have the annotation. Repeat for more.",
)
@click.option(
    "--train-by",
    multiple=True,
    metavar="...",
    help="The same for train units alone, in place of --by.",
)
@click.option(
    "--targets-by",
    multiple=True,
    metavar="...",
    help="The same for targets alone, in place of --by.",
)
@click.option(
    "--output",
    "target_output",
    default=None,
    help="Output to measure; margin by default, or the only one.",
)
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="False discovery rate of what is marked as beyond chance.",
)
@click.option(
    "--fits/--no-fits",
    default=True,
    show_default=True,
    help="Use fits that there are, to make intervals narrower.",
)
@options.threads
@options.quiet
@options.as_json
def command(
    path: str,
    a: str,
    b: str | None,
    by: tuple[str, ...],
    train_by: tuple[str, ...],
    targets_by: tuple[str, ...],
    target_output: str | None,
    fdr: float,
    fits: bool,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say how much one more train unit of a group moves the mean output of a group of targets, under A,
    under B, and how the two differ. It reads the runs alone: nothing has to be fitted.

    \b
    A group is
      marked            each value of an annotation is a group
      marked=true       a condition: =, !=, <, <=, > or >=; several with " & " between
      ids.txt           a file of ids, one a line
      direction.npy     one number a train unit (or .csv of id and value): how much of each is added

    Masks of one size hold a fixed number of units, so the unit stands in the place of another, drawn at
    random. A star marks what is beyond chance at the false discovery rate.

    \b
    Examples:
      dmstore contrast digits.dm plain pasted --by marked
      dmstore contrast digits.dm plain --train-by "label=nine & marked=true" --targets-by label
    """
    from dmstore.analysis import contrast
    from dmstore.study.study import open_study

    if not (by or train_by):
        msg = "no group of train units; give --by or --train-by, such as --by label"
        raise click.UsageError(msg, click.get_current_context())
    tell = output.Stages(
        {"masks": ("read the masks", ""), "contrast": ("measure the effects", "")},
        quiet=quiet,
        delay=2,
    )
    found = contrast(
        open_study(path),
        a,
        b,
        by=list(by) or None,
        train_by=list(train_by) or None,
        targets_by=list(targets_by) or None,
        output=target_output,
        fdr=fdr,
        fits=fits,
        threads=threads,
        progress=tell,
    )
    tell.close()
    output.emit(_result(found), _lines(found), as_json=as_json)


def _result(found: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in found["of"].values]
    pairs = []
    for train, target in _pairs(found):
        one = found.isel(train_group=train, target_group=target)
        pairs.append(
            {
                "train_group": str(one["train_group"].values),
                "target_group": str(one["target_group"].values),
                "of": {
                    name: {
                        **{key: float(one[key].values[i]) for key in _FIGURES},
                        "beyond_chance": bool(one["beyond_chance"].values[i]),
                    }
                    for i, name in enumerate(names)
                },
            }
        )
    counts = {
        key: dict(zip(map(str, found[key].values), found[count].values.tolist(), strict=True))
        for key, count in (("train_group", "train_count"), ("target_group", "target_count"))
    }
    return {
        "algorithms": [str(name) for name in found["algorithm"].values],
        **found.attrs,
        "masks": found["masks"].values.tolist(),
        "train_groups": counts["train_group"],
        "target_groups": counts["target_group"],
        "pairs": pairs,
    }


def _pairs(found: xr.Dataset) -> list[tuple[int, int]]:
    """All pairs of groups, those that are most surely beyond chance first."""
    import numpy as np

    p, effect = found["p"].values[-1], np.abs(found["effect"].values[-1])
    # A group and all that is not in it move together, in masks of one size: the larger effect first.
    order = np.lexsort((-effect.ravel(), np.log10(np.maximum(p, 1e-300)).round(1).ravel()))
    rows, columns = np.unravel_index(order, found["p"].shape[1:])
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _small(p: float) -> str:
    """A probability; far out no distribution is known to so many digits."""
    return "< 1e-6" if p < 1e-6 else f"{p:.2g}"


def _lines(found: xr.Dataset) -> list[str]:
    attrs = found.attrs
    names = [str(name) for name in found["of"].values]
    unit = f", in {attrs['units']}" if "units" in attrs else ""
    meaning = f" ({attrs['orientation']})" if "orientation" in attrs else ""
    lines = [
        f"one more train unit of a group, and the mean {attrs['output']}{meaning} of targets{unit}, the surest first:"
    ]
    pairs = _pairs(found)
    for train, target in pairs[:_SHOWN]:
        one = found.isel(train_group=train, target_group=target)
        lines.append(
            f"  {one['train_group'].values} ({output.counted(int(one['train_count']), 'train unit')}) on "
            f"{one['target_group'].values} ({output.counted(int(one['target_count']), 'target')})"
        )
        width = max(map(len, names))
        for i, name in enumerate(names):
            effect, _, low, high, p, q = (float(one[key].values[i]) for key in _FIGURES)
            star = " *" if one["beyond_chance"].values[i] else ""
            lines.append(
                f"    {name:{width}}  {effect:+.4g} (95 % {low:+.4g} to {high:+.4g}), p {_small(p)}, q {_small(q)}{star}"
            )
    if len(pairs) > _SHOWN:
        lines.append(f"  and {len(pairs) - _SHOWN} further pairs, less sure; --json has them all")
    masks = ", ".join(
        f"{name} {count}"
        for name, count in zip(
            found["algorithm"].values, found["masks"].values.tolist(), strict=True
        )
    )
    lines.append(
        f"  masks: {masks}; q over {output.counted(len(pairs), 'pair')}; * beyond chance at a false discovery rate of {attrs['fdr']:g}"
    )
    return lines + [f"  {note}" for note in attrs["notes"]]
