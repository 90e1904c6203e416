"""``dmstore evaluate``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("evaluate")
@options.study
@options.algorithm
@click.option("--fit", default=None, help="Fit to score; the newest by default.")
@click.option(
    "--resamples",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Bootstrap resamples.",
)
@options.as_json
def command(study: str, algorithm: str, fit: str | None, resamples: int, as_json: bool) -> None:
    """Score ALGORITHM's datamodels on the eval runs, which neither fit nor choice of lam has seen."""
    from dmstore.analysis import evaluate
    from dmstore.study import open_study

    r = evaluate(open_study(study), algorithm, fit=fit, resamples=resamples)
    output.emit(
        r,
        [
            f"{algorithm}: LDS {_f(r['lds'])} (95 % {_f(r['lds_low'])} to {_f(r['lds_high'])}) over {r['targets']} targets "
            f"and {r['eval_masks']} eval masks, median R2 {_f(r['r2'])}, holdout R2 {_f(r['holdout_r2'])}"
        ],
        as_json=as_json,
    )


def _f(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
