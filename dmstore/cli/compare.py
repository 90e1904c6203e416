"""``dmstore compare``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from dmstore.analysis.comparison.codes import direction_code
from dmstore.analysis.comparison.parameters import ComparisonParameters
from dmstore.cli import options, output
from dmstore.cli.likeness import coherent, outlasts, several

_DEFAULT = ComparisonParameters()

if TYPE_CHECKING:
    import xarray as xr

# What is done, in words, and what is counted.
STAGES = {
    "compare": ("find directions", ""),
    "read": ("read the masks", ""),
    "propose": ("find directions of halves", ""),
    "measure": ("measure the difference", "targets"),
}
_FOR_SCORES = (
    "examples",
    "out",
    "name",
    "key",
    "experiment",
    "orientation",
    "units",
    "alpha",
    "runs",
)


def _each(name: str, help: str, **settings: Any) -> Callable[[FC], FC]:
    """An option of score files: given once for both, or twice, for A and for B."""
    return click.option(
        name, multiple=True, help=f"{help} Once for both, or twice: A, B.", **settings
    )


@click.command("compare", options_metavar="[OPTIONS]")
@click.argument("items", nargs=-1, metavar="STUDY A B [C…] | A.pt B.npy")
@click.option(
    "--components",
    type=click.IntRange(1),
    default=_DEFAULT.components,
    show_default=True,
    help="Directions each way.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=_DEFAULT.top,
    show_default=True,
    help="Targets in a subpopulation; a page shows at most 64 of them.",
)
@click.option(
    "--center/--no-center",
    default=_DEFAULT.center,
    show_default=True,
    help="Subtract the mean residual before PCA.",
)
@click.option(
    "--random-state",
    type=click.IntRange(0),
    default=_DEFAULT.random_state,
    show_default=True,
    help="Seed of contrasts, and of the sketch of many train units.",
)
@click.option(
    "--fdr",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_DEFAULT.fdr,
    show_default=True,
    help="False discovery rate at which a difference is called beyond chance.",
)
@click.option(
    "--examples",
    type=click.Path(),
    help="Files: ids, labels and images, from an .npz examples file or a study.",
)
@click.option(
    "--out", type=click.Path(), help="Files: directory of the result; A-against-B-ID by default."
)
@click.option("--name", nargs=2, metavar="A B", help="Files: what to call the two.")
@_each("--key", help="Files: name of the matrix inside a file.")
@_each("--experiment", help="Files: experiment of a folder with several.")
@_each(
    "--orientation",
    type=click.Choice(["target-train", "train-target"]),
    help="Files: what rows by columns are, where sizes and format do not say it.",
)
@_each(
    "--units",
    type=click.Choice(["raw", "standardised"]),
    help="Files: units of weights; standardised for a .pt with weight, bias and lam, else kept as they are.",
)
@_each(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Files: share of the training set that a run saw, for standardised weights (.5 by default).",
)
@_each(
    "--runs",
    type=click.Path(),
    help="Files: folder with masks.npy and margins.npy, to measure the units with.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION | FILE",
    help="Only targets with label=9, type=mono (any column; several with commas), or listed in FILE, an id per line.",
)
@click.option(
    "--agree",
    is_flag=True,
    help="Only targets for which most runs of both predict the same class; takes the output 'prediction'.",
)
@click.option(
    "--coherence",
    is_flag=True,
    help="Tell too whether the top targets of directions are coherent: found by half of the runs, measured on the other half.",
)
@options.memory
@options.threads
@options.quiet
@options.as_json
def command(
    items: tuple[str, ...],
    components: int,
    top: int,
    center: bool,
    random_state: int,
    fdr: float,
    where: tuple[str, ...],
    agree: bool,
    coherence: bool,
    memory: str | None,
    threads: int | None,
    quiet: bool,
    as_json: bool,
    **files: Any,
) -> None:
    """Find where two algorithms use different features (ModelDiff).

    Of a study, by name, once both are fitted; or from two files of attribution scores alone
    (datamodels.pt and other .pt, .npy, .npz, .safetensors, folders of TRAK, kronfluence or bergson), with
    no runs and no study, which writes a directory with the result and its report. Of three algorithms or more it tells
    how alike they are, each with each, and keeps nothing.

    \b
    Examples:
      dmstore compare digits.dm plain pasted
      dmstore compare digits.dm plain pasted --where label=9 --memory 4GB
      dmstore compare digits.dm plain pasted --agree
      dmstore compare cifar.dm high medium low
      dmstore compare A.pt B.npy --examples digits.npz
    """
    from dmstore.core.threads import blas_threads, cores
    from dmstore.readers.scores import is_scores
    from dmstore.study.algorithm import ANCHOR

    progress = output.Stages(STAGES, quiet=quiet, delay=2)
    settings: Any = {
        "progress": progress,
        "where": where,
        "memory": memory,
        "threads": threads,
        "components": components,
        "top": top,
        "center": center,
        "random_state": random_state,
        "fdr": fdr,
    }
    asked = [name for name, there in (("agree", agree), ("coherence", coherence)) if there]
    if len(items) >= 3:
        given = [name for name in _FOR_SCORES if files[name]]
        _without(given, "is for two files of scores; leave it out for algorithms of a study")
    if len(items) > 3:
        _without(asked, "is for two algorithms; leave it out for more")
        several(items, where, threads, random_state, quiet=quiet, as_json=as_json)
        return
    if len(items) == 3:
        settings["agree"] = agree
        with blas_threads(threads or cores()):
            comparison = _of_study(items, settings)
    elif len(items) == 2:
        _without(asked, "needs runs; leave it out for two files of scores")
        if not any(map(is_scores, items)):
            if Path(items[0], ANCHOR).exists():
                msg = f"{items[0]} is a study; give two of its algorithms, or more"
            else:
                msg = f"neither {items[0]!r} nor {items[1]!r} is a file of scores; give STUDY A B, or two files"
            raise click.UsageError(msg, click.get_current_context())
        with blas_threads(threads or cores()):
            comparison = _of_scores(items, files, settings)
    else:
        msg = f"{len(items)} arguments; give STUDY A B, or two files of scores"
        raise click.UsageError(msg, click.get_current_context())
    progress.close()
    result, lines = _summary(comparison, _explained(comparison, items, files["examples"]))
    if len(items) == 3 and not comparison.attrs.get("kept", True):
        lines.append(
            "  not kept: a published study is read-only; 'dmstore pull' makes a copy that keeps comparisons and writes their pages"
        )
    elif len(items) == 3:
        if agree:
            more, table = outlasts(comparison, items)
            result |= {"outlasts": more}
            lines += table
        if coherence:
            told, table = coherent(items, result["comparison"])
            result |= {"coherence": told}
            lines += table
        kept_in = f"{items[0].rstrip('/')}/comparisons/{result['comparison']}"
        lines += [
            f"  kept in {kept_in}; write its page with:",
            f"dmstore report {shlex.join(items)}{_among_others(items, result['comparison'])}",
        ]
    if "sources" in comparison.attrs:
        kept = ("path", "report", "sources", "transposed")
        result |= {key: comparison.attrs[key] for key in kept}
        targets, train = comparison.sizes["target"], comparison.sizes["train"]
        counts = f"{output.counted(targets, 'target')}, {output.counted(train, 'train unit')}"
        said = [
            f"{name}: {source['file']}, {source['format']}; {counts} ({source['orientation']}); units: {source['units']}"
            for name, source in zip(result["algorithms"], comparison.attrs["sources"], strict=True)
        ]
        lines = [
            *said,
            *lines,
            *([f"  {result['transposed']}"] if result["transposed"] else []),
            "  from scores alone: without the runs behind them nothing says how much of this is noise; a uniform factor",
            "  in the scores, as units are, changes their magnitudes but nothing that stands here",
            comparison.attrs["report"],
        ]
    output.emit(result, lines, as_json=as_json)


def _without(given: Sequence[str], why: str) -> None:
    """Refuse options that do not go with what is compared, by the first of them."""
    if given:
        raise click.UsageError(f"--{given[0]} {why}", click.get_current_context())


def _among_others(items: tuple[str, ...], comparison: str) -> str:
    """What tells `report` which comparison is meant, where it is not the newest of the two."""
    from dmstore.study.results import newest_comparison
    from dmstore.study.study import open_study

    newest = newest_comparison(open_study(items[0]).objects, *items[1:])["comparison"]
    return "" if comparison == newest else f" --comparison {comparison}"


def _of_study(items: tuple[str, ...], settings: dict[str, Any]) -> xr.Dataset:
    from dmstore.analysis import compare
    from dmstore.study.study import open_study

    study, a, b = items
    return compare(open_study(study), a, b, **settings)


def _of_scores(
    items: tuple[str, ...],
    files: dict[str, Any],
    settings: dict[str, Any],
) -> xr.Dataset:
    from dmstore.analysis import compare_scores

    pairs: dict[str, Any] = {}
    for name in ("key", "experiment", "orientation", "units", "alpha", "runs"):
        values = files[name]
        if len(values) > 2:
            msg = f"--{name} was given {len(values)} times; give it once for both files, or twice"
            raise click.UsageError(msg, click.get_current_context())
        pairs[name] = {0: (None, None), 1: values * 2, 2: values}[len(values)]
    names = files["name"] or (None, None)
    a, b = items
    return compare_scores(
        a, b, files["examples"], out=files["out"], names=names, **pairs, **settings
    )


def _explained(
    comparison: xr.Dataset, items: tuple[str, ...], examples: str | None
) -> list[list[dict[str, Any]]]:
    """What explains each direction; nothing where nothing is known of the examples."""
    from dmstore.analysis.explaining.lines import best
    from dmstore.readers.labels import positions, read_labels
    from dmstore.study.study import open_study

    if len(items) == 3:
        return best(comparison.load(), open_study(items[0]))
    sizes = comparison.sizes["train"], comparison.sizes["target"]
    return best(comparison, read_labels(examples) if examples else positions(*sizes))


def _summary(
    comparison: xr.Dataset, because: list[list[dict[str, Any]]]
) -> tuple[dict[str, Any], list[str]]:
    """A comparison as a result for programs and as lines for people."""
    import numpy as np

    from dmstore.analysis.comparison.answer import answer, plain
    from dmstore.analysis.comparison.modeldiff import likeness, rank
    from dmstore.analysis.comparison.sentences import direction_text, verdict
    from dmstore.analysis.comparison.where import left_out

    said = answer(comparison)
    names = [str(name) for name in comparison["algorithm"].values]
    a, b = names
    explained, delta = comparison["explained_variance"].values, comparison["delta"].values
    cosine = float(np.nanmean(comparison["cosine"].values))
    alike, ranks = likeness(comparison), rank(comparison)
    lines = [f"{a} against {b}"]
    if alike:
        lines.append(f"  {alike}")
    if said.measured:
        lines += verdict(said)
    else:
        lines.append(f"  mean cosine similarity of the datamodels {cosine:.3f}, noise included")
    left, about = left_out(comparison), comparison.attrs.get("targets", comparison.sizes["target"])
    where = comparison.attrs.get("where")
    if where:
        lines.insert(0, f"of {about} of {comparison.sizes['target']} targets, where {where}:")
    if left:
        lines.append(f"  {left} of {about} targets left out: no datamodel under one of the two")
    for row, name in enumerate(names):
        rounding = ""
        if ranks[row] < delta.shape[1]:
            rounding = f" ({ranks[row]} of {delta.shape[1]}; the others are rounding alone)"
        claims = [one for one in said.directions if one.algorithm == name]
        if claims and not any(np.isfinite(one.estimate) for one in claims):
            lines.append(
                f"  no direction of {name} less {names[1 - row]} is shown: with these runs nothing tells them from noise"
            )
            continue
        lines.append(f"  directions of {name} less {names[1 - row]}{rounding}:")
        for k in range(min(3, ranks[row])):
            code = direction_code(row, k)
            if said.measured:
                lines.append(f"    {code}: {direction_text(claims[k], names)}")
            else:
                lines.append(
                    f"    {code}: {explained[row, k, 0]:.2%} of {a}'s datamodels, {explained[row, k, 1]:.2%} of {b}'s, in sample"
                )
            told = not said.measured or np.isfinite(claims[k].estimate)
            if told and because[row][k]["line"]:
                lines.append(f"        {because[row][k]['line']}")
    result = {
        "comparison": comparison.attrs["comparison"],
        "algorithms": names,
        "cosine": cosine,
        "likeness": alike,
        "rank": ranks,
        "explained_variance": explained.tolist(),
        "delta": delta.tolist(),
        "explained_by": because,
        "left_out": left,
        **plain(said),
        "where": where,
        "targets": about,
        "kept": bool(comparison.attrs.get("kept", True)),
    }
    return result, lines
