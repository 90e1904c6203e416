"""``dmstore compare``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("compare")
@options.study
@click.argument("a")
@click.argument("b")
@click.option(
    "--components",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Directions each way.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Targets in a subpopulation.",
)
@click.option(
    "--center/--no-center",
    default=True,
    show_default=True,
    help="Subtract the mean residual before PCA.",
)
@click.option(
    "--random-state",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of contrasts and nulls.",
)
@options.as_json
def command(
    study: str,
    a: str,
    b: str,
    components: int,
    top: int,
    center: bool,
    random_state: int,
    as_json: bool,
) -> None:
    """Find where algorithms A and B of STUDY use different features (ModelDiff)."""
    import numpy as np

    from dmstore.analysis import compare
    from dmstore.study import open_study

    found = compare(
        open_study(study),
        a,
        b,
        components=components,
        top=top,
        center=center,
        random_state=random_state,
    )
    names = [str(name) for name in found["algorithm"].values]
    explained, delta = found["explained_variance"].values, found["delta"].values
    out = found["delta_out"].values if "delta_out" in found else np.full_like(delta, np.nan)
    null = found["delta_null"].values if "delta_null" in found else np.full(2, np.nan)
    similarity = float(np.nanmean(found["cosine"].values))
    lines = [f"{a} against {b}: mean cosine similarity {similarity:.3f} from all runs"]
    ceiling, between = [], float("nan")
    if "cosine_ceiling" in found:
        ceiling = np.nanmean(found["cosine_ceiling"].values, axis=1).tolist()
        between = float(np.nanmean(found["cosine_cross"].values))
        own = ", ".join(
            f"{name} with itself {value:.3f}" for name, value in zip(names, ceiling, strict=True)
        )
        lines.append(f"  from disjoint halves of the runs: {between:.3f} with each other, {own}")
    left = int((~found["included"].values).sum())
    if left:
        lines.append(
            f"  {left} of {found.sizes['target']} targets left out: no datamodel under one of the two"
        )
    for row, name in enumerate(names):
        lines.append(
            f"  directions of {name}'s residuals (chance alone reaches a gap of {null[row]:.2%}):"
        )
        lines += [
            f"    {k + 1}: explains {explained[row, k, 0]:.2%} of {names[0]}, {explained[row, k, 1]:.2%} of {names[1]}; "
            f"gap {delta[row, k]:+.2%}, " + _outside(out[row, k])
            for k in range(min(3, delta.shape[1]))
        ]
    output.emit(
        {
            "comparison": found.attrs["comparison"],
            "algorithms": names,
            "cosine": similarity,
            "cosine_halves": between,
            "ceiling": ceiling,
            "explained_variance": explained.tolist(),
            "delta": delta.tolist(),
            "delta_out": out.tolist(),
            "delta_null": null.tolist(),
        },
        lines,
        as_json=as_json,
    )


def _outside(gap: float) -> str:
    return "not found again on parts of the runs" if gap != gap else f"out of sample {gap:+.2%}"
