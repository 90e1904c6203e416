"""``dmstore evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import click
from click.decorators import FC

from dmstore.cli import options, output


def _each(name: str, help: str, **settings: Any) -> Callable[[FC], FC]:
    """An option of score files: given once for all of them, or once for each, in their order."""
    return click.option(
        name, multiple=True, help=f"{help} Once for all --scores, or once for each.", **settings
    )


@click.command("evaluate")
@options.study
@options.algorithm
@click.option("--fit", default=None, help="Fit to score; the newest by default.")
@click.option(
    "--output",
    "target_output",
    default=None,
    help="Output to predict; that of the fit by default, margin without a fit.",
)
@click.option(
    "--scores",
    "files",
    type=click.Path(),
    multiple=True,
    help="Attribution scores to judge beside the fit: .pt, .npy, .npz, .safetensors, folders of TRAK and bergson. Repeat for more.",
)
@_each("--key", help="Name of the matrix inside a file.")
@_each("--experiment", help="Experiment of a TRAK folder.")
@_each(
    "--orientation",
    help="What rows by columns are, where sizes and format do not say it.",
    type=click.Choice(["target-train", "train-target"]),
)
@_each(
    "--units",
    help="Units of weights with a bias, for R2 and MSE; LDS does not need them.",
    type=click.Choice(["raw", "standardised"]),
)
@_each(
    "--larger",
    help="What larger scores mean: better models, as TRAK's and kronfluence's do, or more of the output.",
    type=click.Choice(["better", "output"]),
)
@click.option(
    "--baselines/--no-baselines",
    default=True,
    show_default=True,
    help="Judge mean, class mean and empirical influence too; they read all runs.",
)
@click.option("--curve", is_flag=True, help="Fit growing numbers of runs too: the learning curve.")
@click.option(
    "--targets",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Targets of the learning curve, drawn at random.",
)
@click.option(
    "--shares",
    default=None,
    metavar="S1,S2,...",
    help="Shares of the runs that the learning curve fits, ascending; 1/16 to 1, each twice the last, by default.",
)
@click.option(
    "--resamples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Bootstrap resamples.",
)
@click.option(
    "--random-state",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of resamples, of splits of repeats, and of the curve's runs and targets.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Score on runs that were fitted on, where nothing else can be had.",
)
@click.option(
    "--all-runs",
    is_flag=True,
    help="Judge --scores alone, by all runs that they do not say they were fitted on.",
)
@options.threads
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    fit: str | None,
    target_output: str | None,
    files: tuple[str, ...],
    baselines: bool,
    curve: bool,
    targets: int,
    shares: str | None,
    resamples: int,
    random_state: int,
    force: bool,
    all_runs: bool,
    threads: int | None,
    quiet: bool,
    as_json: bool,
    **each: tuple[str, ...],
) -> None:
    """Judge datamodels and other attribution scores by the runs of ALGORITHM kept for evaluation.

    Nothing was fitted on these, and lam was not chosen on them. LDS is the rank correlation, over
    their masks, of what scores predict and what models did.

    \b
    Examples:
      dmstore evaluate digits.dm plain --curve
      dmstore evaluate digits.dm plain --scores trak-folder --scores influence.npy
    """
    from dmstore.analysis import benchmark, learning_curve
    from dmstore.analysis.comparison.enough import enough, enough_text
    from dmstore.analysis.evaluation.benchmark_summary import summarise
    from dmstore.analysis.evaluation.curve_summary import keep_curve
    from dmstore.analysis.evaluation.evaluate import keep
    from dmstore.analysis.evaluation.learning_curve import SHARES, check_curve
    from dmstore.study.study import open_study

    settings = _options(files, each)
    idle = [name for name in ("targets", "shares") if options.given(name) and not curve]
    if idle:
        msg = f"--{idle[0]} is of the learning curve; give --curve too, or leave it out"
        raise click.UsageError(msg)
    if all_runs and (not files or fit or force or curve):
        msg = "--all-runs judges --scores that were made elsewhere; leave --fit, --force and --curve out"
        raise click.UsageError(msg)
    if curve and force:
        msg = "--curve is judged by eval runs alone; leave --force or --curve out"
        raise click.UsageError(msg)
    study = open_study(path)
    steps = _shares(shares) if shares is not None else SHARES
    if curve:
        check_curve(study, algorithm, steps)
    bar = output.Progress(f"baselines of {algorithm}", quiet=quiet)
    judged = benchmark(
        study,
        algorithm,
        scores=files,
        options=settings,
        fit=fit,
        output=target_output,
        baselines=baselines,
        resamples=resamples,
        random_state=random_state,
        force=force,
        all_runs=all_runs,
        threads=threads,
        progress=bar,
    )
    bar.close()
    table = summarise(judged)
    kept = keep(study, judged) if judged.attrs["fit"] else {"algorithm": algorithm, "fit": None}
    result: dict[str, Any] = {**kept, "output": judged.attrs["output"], **table}
    lines = _lines(algorithm, kept, table)
    if kept["fit"] and not table["on_fitted_runs"]:
        said = enough(study, algorithm, kept["fit"], threads=threads)
        result |= asdict(said)
        lines.append(f"  {enough_text(said)}")
    if curve:
        bar = output.Progress(f"learning curve of {algorithm}", quiet=quiet)
        grown = learning_curve(
            study,
            algorithm,
            fit=fit,
            output=target_output,
            targets=targets,
            shares=steps,
            resamples=resamples,
            random_state=random_state,
            threads=threads,
            progress=bar,
        )
        bar.close()
        result["curve"] = keep_curve(study, grown)
        lines += _curve_lines(result["curve"])
    refused = kept.get("not_kept") or result.get("curve", {}).get("not_kept")
    if refused:
        lines.append(f"  not kept beside the fit: {refused}")
    output.emit(result, lines, as_json=as_json)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(Fraction(part)) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        msg = f"--shares {text!r}: give numbers with commas between, such as 1/10,0.5,1"
        raise click.UsageError(msg) from error


def _options(
    files: tuple[str, ...], each: dict[str, tuple[str, ...]]
) -> list[dict[str, str | None]]:
    """Options of each score file."""
    for name, values in each.items():
        if len(values) not in (0, 1, len(files)) or (values and not files):
            msg = f"--{name} is given {len(values)} times for {len(files)} --scores; give it once, or once for each"
            raise click.UsageError(msg)
    return [
        {
            name: None if not values else values[row if len(values) > 1 else 0]
            for name, values in each.items()
        }
        for row in range(len(files))
    ]


def _lines(algorithm: str, kept: dict[str, Any], table: dict[str, Any]) -> list[str]:
    lines = []
    if table["on_fitted_runs"]:
        lines.append(
            f"warning: no runs of {algorithm} are reserved, so these figures are of all runs (--force); of what was fitted on them they are no evidence"
        )
    lines += [
        f"warning: {entry['method']} {entry['seen']} (--force); its figures are no evidence"
        for entry in table["methods"]
        if entry["seen"] and not table["on_fitted_runs"]
    ]
    lines += [f"warning: {words}" for words in table["warnings"]]
    which = "eval masks"
    if table["on_fitted_runs"] or table["all_runs"]:
        which = "fitted masks" if table["on_fitted_runs"] else "masks of all runs"
    if kept["fit"]:
        lines.append(
            f"{algorithm}, fit {kept['fit']}: LDS {_f(kept['lds'])} (95 % {_f(kept['lds_low'])} to {_f(kept['lds_high'])}) over {kept['targets']} targets "
            f"and {kept['eval_masks']} {which}, median R2 {_f(kept['r2'])}, holdout R2 {_f(kept['holdout_r2'])}"
        )
    else:
        lines.append(
            f"{algorithm}: no fit; {table['targets']} targets and {table['eval_masks']} {which}"
        )
    if table["ceiling"] is None:
        lines.append("  noise ceiling not known: too few masks have repeats (plan with --repeats)")
    else:
        lines.append(
            f"  noise ceiling {_f(table['ceiling'])}: LDS of the truth itself, from repeats of {table['repeated_masks']} masks"
        )
    width = max(len(entry["method"]) for entry in table["methods"])
    lines.append(
        f"  {'method':{width}}    LDS  95 %             fit is ahead by            Kendall  Pearson     R2        MSE  made from"
    )
    lines += [_row(entry, width) for entry in table["methods"]]
    if any(map(_low, table["methods"])):
        lines.append(
            "  few masks make an LDS come out a little too small; the intervals allow for that, so a figure may lie at the lower end of its own"
        )
    lines += [
        f"  {entry['method']}: {entry['note']}" for entry in table["methods"] if entry["note"]
    ]
    return lines


def _low(entry: dict[str, Any]) -> bool:
    """Whether a figure stands so far down in its interval that people would ask why."""
    low, high, value = (entry[key] for key in ("lds_low", "lds_high", "lds"))
    return None not in (low, high, value) and low < high and value - low < (high - low) / 4


def _row(entry: dict[str, Any], width: int) -> str:
    span = f"{_f(entry['lds_low'])} to {_f(entry['lds_high'])}"
    ahead = ""
    if entry["gap"] is not None and entry["kind"] != "fit":
        ahead = f"{entry['gap']:+.3f} ({_f(entry['gap_low'], '+')} to {_f(entry['gap_high'], '+')})"
    error = "-" if entry["mse"] is None else f"{entry['mse']:.4g}"
    runs = f"{entry['runs']} runs" if entry["runs"] is not None else "not stated"
    return (
        f"  {entry['method']:{width}}  {_f(entry['lds']):>6} {span:<16}  {ahead:<26} {_f(entry['kendall']):>6}   {_f(entry['pearson']):>6} "
        f"{_f(entry['r2'], missing='-'):>7} {error:>10}  {runs}"
    )


def _curve_lines(curve: dict[str, Any]) -> list[str]:
    lines = [
        f"learning curve of {curve['targets']} targets (cosine: with the datamodels of the last line)",
        "      runs    LDS  95 %                  R2  holdout R2  non-zeros  cosine",
    ]
    lines += [
        f"  {step['runs']:8} {_f(step['lds']):>6}  {_f(step['lds_low'])} to {_f(step['lds_high'])}  {_f(step['r2']):>8}  {_f(step['holdout_r2']):>10}  {step['nonzeros']:9.0f}  {_f(step['cosine'][-1]):>6}"
        for step in curve["steps"]
    ]
    if curve["skipped"]:
        lines.append(f"  smaller steps with too few runs to fit: {curve['skipped']}")
    return lines


def _f(value: float | None, sign: str = "", *, missing: str = "none") -> str:
    return missing if value is None else f"{value:{sign}.3f}"
