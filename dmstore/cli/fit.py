"""``dmstore fit``."""

from __future__ import annotations

from typing import Any

import click

from dmstore.cli import options, output
from dmstore.regression.problem.parameters import Parameters, parse_grid
from dmstore.regression.problem.solver_names import MODULES

_DEFAULT = Parameters()

_STATUS = {
    "fitted": "fitted",
    "lam_at_start": "best at the first lam",
    "lam_at_end": "best at the last lam",
    "constant": "constant",
    "not_converged": "not converged",
    "too_few_runs": "with too few runs",
}


@click.command("fit")
@options.study
@options.algorithm
@click.option(
    "--output", "target_output", default="margin", show_default=True, help="Output to explain."
)
@click.option(
    "--lams",
    type=click.IntRange(2),
    default=_DEFAULT.lams,
    show_default=True,
    help="Values of lam on the path.",
)
@click.option(
    "--lam-ratio",
    type=click.FloatRange(0, 1, min_open=True),
    default=_DEFAULT.lam_ratio,
    show_default=True,
    help="Last lam over the first.",
)
@click.option(
    "--lam",
    type=float,
    default=None,
    metavar="VALUE",
    help="One lam for all targets, in the place of a path, in output units (twice scikit-learn's alpha); 0 fits "
    "without a penalty, with the smallest weights.",
)
@click.option(
    "--lam-grid",
    default=None,
    metavar="L1,L2,...",
    help="The path of all targets, largest lam first, in the place of one from each target's largest.",
)
@click.option(
    "--folds",
    type=click.IntRange(0),
    default=_DEFAULT.folds,
    show_default=True,
    metavar="K",
    help="Choose lam by K folds of all runs but those for evaluation; 0 by the holdout runs.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=_DEFAULT.patience,
    show_default=True,
    help="Leave the path after so many holdout errors above the smallest; 0 never.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=_DEFAULT.tolerance,
    show_default=True,
    help="Violation of optimality to solve to, relative to lam. Weights are kept as float32, and one of up to "
    "1e-4 counts as solved.",
)
@click.option(
    "--halves/--no-halves",
    default=_DEFAULT.halves,
    show_default=True,
    help="Fit both halves of the masks too, each by itself: 'compare' measures on one half what it found on the other.",
)
@click.option(
    "--solver",
    type=click.Choice(list(MODULES)),
    default=_DEFAULT.solver,
    show_default=True,
    help="gram: compiled, on the CPU; torch: all targets of a block at once, on a GPU or the CPU "
    "(DMSTORE_DEVICE=cpu, cuda:1); fast_l1: MadryLab's package, on a GPU.",
)
@options.threads
@options.memory
@click.option(
    "--scratch",
    type=click.Path(file_okay=False),
    default=None,
    help="Directory for what has no room in memory, the system's for temporary files by default; with --cluster, one that all workers see, where "
    "pairs are counted once for all of them.",
)
@click.option(
    "--cluster",
    default=None,
    metavar="ADDRESS",
    help="dask.distributed scheduler whose workers fit the blocks, such as tcp://host:8786; local:N "
    "starts N processes here. --threads and --memory are then those of each worker.",
)
@options.quiet
@options.as_json
def command(
    path: str,
    algorithm: str,
    target_output: str,
    lam_grid: str | None,
    threads: int | None,
    memory: str | None,
    scratch: str | None,
    cluster: str | None,
    quiet: bool,
    as_json: bool,
    **own: Any,
) -> None:
    """Fit one lasso per target on the stored runs of ALGORITHM.

    Blocks of targets land one by one; the same command after a kill goes on where it was.
    """
    from dmstore.regression import fit
    from dmstore.study.study import open_study

    given = [
        name
        for name in Parameters.unused(lam=own["lam"] is not None, grid=lam_grid is not None)
        if options.given(name)
    ]
    if given:
        said, by = given[0].replace("_", "-"), "--lam" if own["lam"] is not None else "--lam-grid"
        msg = f"--{said} says nothing beside {by}; leave it out"
        raise click.UsageError(msg)
    if lam_grid is not None:
        own["lam_grid"] = parse_grid(lam_grid)
    label = {
        "read": "read the masks",
        "count": "count pairs of train units",
        "fit": f"fit {algorithm}",
        "join": "write the fit",
    }
    bars: dict[str, output.Progress] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = output.Progress(
                label[what], quiet=quiet, delay=0.0 if what == "fit" else 2.0
            )
        bars[what](what, done, total)
        if done == total:
            bars.pop(what).close()

    fitted = fit(
        open_study(path),
        algorithm,
        output=target_output,
        **own,
        threads=threads,
        memory=memory,
        scratch=scratch,
        cluster=cluster,
        progress=progress,
    )
    s, runs = fitted.summary, fitted.document["runs"]
    smaller = (
        f"give --lam-ratio {own['lam_ratio'] / 10:g}"
        if lam_grid is None
        else "give a --lam-grid that ends lower"
    )
    _warn(s, walked=own["lam"] is None and lam_grid is None, smaller=smaller)
    unit = "lam" if own["lam"] != 0 else "of the gradient without weights"
    used = f"{runs['train']} + {output.counted(runs['holdout'], 'run')}"
    if own["folds"]:
        used = f"{runs['train'] + runs['holdout']} runs in {own['folds']} folds"
    output.emit(
        {**s, "runs": runs, "new": fitted.new},
        [
            f"{algorithm}: {output.counted(s['targets'], 'target')} from {used} ({runs['eval']} kept for evaluation), "
            f"fit {s['fit']}{'' if fitted.new else ', which was there already'}",
            f"  quartiles: non-zeros {_quartiles(s['nonzeros'], '.0f')}, lam {_quartiles(s['lam'], '.2g')}, holdout R2 {_quartiles(s['holdout_r2'], '.2f')}",
            f"  worst KKT violation {s['worst_kkt']:.1e} {unit}, worst duality gap {s['worst_gap']:.1e}, {_cost(s)}; "
            + ", ".join(f"{count} {_STATUS[name]}" for name, count in s["status"].items() if count),
        ],
        as_json=as_json,
    )


def _warn(summary: dict[str, Any], *, walked: bool, smaller: str) -> None:
    """Say on stderr what a reader of the numbers must know; `walked` if each target had a path of its own."""
    from dmstore.regression.problem.parameters import FEWEST_RUNS

    status, targets = summary["status"], summary["targets"]
    if status["not_converged"]:
        click.echo(
            f"warning: {status['not_converged']} of {targets} targets did not reach the tolerance: "
            f"{summary['unconverged_targets'][:10]}",
            err=True,
        )
    if status.get("too_few_runs"):
        click.echo(
            f"warning: {status['too_few_runs']} of {targets} targets are train units that all or nearly all runs saw, "
            f"and have no datamodel: each needs {FEWEST_RUNS} runs and a holdout run that did not see it",
            err=True,
        )
    if status["lam_at_end"] > 0.3 * targets:
        click.echo(
            f"warning: {status['lam_at_end']} of {targets} targets fit best at the smallest lam that was tried, and may fit "
            f"better at a smaller one; {smaller}",
            err=True,
        )
    empty = summary.get("without_weights", 0) - status.get("too_few_runs", 0)
    if empty > 0.3 * targets:
        click.echo(
            f"warning: {empty} of {targets} targets have a datamodel without weights ("
            + (
                "nothing predicts them on the holdout runs); more runs may help"
                if walked
                else "lam is too large for them, or nothing predicts them); give smaller ones"
            ),
            err=True,
        )


def _cost(summary: dict[str, Any]) -> str:
    """Time and memory, as far as the fit says."""
    since = " since it was resumed" if summary.get("resumed") else ""
    peak = f", {summary['peak_gb']:.2f} GB" if "peak_gb" in summary else ""
    return f"{summary['seconds']:.1f} s{since}{peak}"


def _quartiles(values: list[float | None], form: str) -> str:
    return " / ".join("none" if value is None else format(value, form) for value in values)
