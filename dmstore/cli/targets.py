"""``dmstore targets``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("targets")
@options.study
@click.argument("set_name", metavar="SET")
@click.argument("source", type=click.Path(), metavar="[SRC]", required=False)
@click.option(
    "--transform",
    "transformation",
    metavar="NAME|PKG.MOD:FN|PICTURE",
    help="Instead of SRC: targets of the study, transformed; see 'dmstore transform'.",
)
@click.option(
    "--intensity", type=click.FloatRange(0, 1), default=None, help="Of the transformation."
)
@click.option("--of", default="test", show_default=True, help="Target set that is transformed.")
@options.of_class
@options.where
@options.transformation_seed
@options.bank
@options.place
@options.quiet
@options.as_json
def command(
    path: str,
    set_name: str,
    source: str | None,
    transformation: str | None,
    intensity: float | None,
    of: str,
    label: str | None,
    where: tuple[str, ...],
    seed: int,
    bank: str | None,
    place: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Add the target set SET to STUDY, so that its runs can be asked about other examples.

    \b
    SRC is an .npz with target_label (target,) integers, and optionally target_image,
    target_id, target_train and further target_… columns, as for init. A target set never
    changes. Outputs of runs on it, from kept checkpoints, come in with
    RunWriter(…, target_set=SET) or:
      dmstore ingest STUDY ALGORITHM FILES… --targets SET

    \b
    With --transform the set is made of targets of the study, for a counterfactual check. A '-' in SET
    is stored as '_'.

    \b
    Examples:
      dmstore targets cifar.dm shifted shifted.npz
      dmstore targets birds.dm yellow_25 --transform yellow-square --intensity 0.25
    """
    from dmstore.study.study import open_study
    from dmstore.study.target_sets import canonical

    if (source is None) == (transformation is None):
        raise click.UsageError("give either SRC or --transform")
    if (transformation is None) != (intensity is None):
        raise click.UsageError("--transform and --intensity go together")
    given = [
        name
        for name in ("of", "label", "where", "seed", "bank", "place")
        if transformation is None and options.given(name)
    ]
    if given:
        raise click.UsageError(f"--{given[0].replace('label', 'class')} is of --transform alone")
    study = open_study(path)
    typed, set_name = set_name, canonical(set_name)
    if source is not None:
        done = study.add_targets(set_name, source)
    else:
        from dmstore.analysis.comparison.where import positions
        from dmstore.training.transformations import choose
        from dmstore.training.transformed import add_transformed

        options.find_tasks_here()
        conditions = [
            *where,
            *([f"label={study.class_number(label)}"] if label is not None else []),
        ]
        of = canonical(of)
        progress = output.Progress("transform", quiet=quiet, unit="images", delay=2)
        done = add_transformed(
            study,
            set_name,
            choose(str(transformation), bank=bank, place=place),
            float(intensity or 0.0),
            seed=seed,
            of=of,
            positions=positions(conditions, study.target_set(of), study.class_names)
            if conditions
            else None,
            progress=progress,
        )
        progress.close()
    target_set = study.target_set(set_name)
    count, columns = target_set.sizes["target"], sorted(map(str, target_set.data_vars))
    # Commands take both; status and files say the one that is kept.
    shown = set_name if set_name == typed else f"{typed} (kept as {set_name})"
    said = "added" if done == "new" else "already there"
    output.emit(
        {
            "study": study.path,
            "set": set_name,
            "targets": count,
            "columns": columns,
            "added": done == "new",
        },
        [f"{shown}: {output.counted(count, 'target')} {said}; {', '.join(columns)}"],
        as_json=as_json,
    )
