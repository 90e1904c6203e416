"""``dmstore transform``."""

from __future__ import annotations

import click

from dmstore.cli import options, output


@click.command("transform")
@options.study
@click.argument("transformation", metavar="NAME|PKG.MOD:FN|PICTURE")
@click.option(
    "--intensity",
    callback=options.numbers,
    default=None,
    metavar="X,Y,…",
    help="0 to 1: of patches the share of the shorter side, of patterns the opacity. The usual ones by default.",
)
@click.option("--sheet", type=click.Path(), required=True, help="File to draw: .png, .pdf or .svg.")
@click.option("--targets", "of", default="test", show_default=True, help="Target set.")
@options.of_class
@options.where
@click.option(
    "--count", type=click.IntRange(1, 64), default=6, show_default=True, help="Examples to show."
)
@options.transformation_seed
@options.bank
@options.place
@options.as_json
def command(
    path: str,
    transformation: str,
    intensity: list[float],
    sheet: str,
    of: str,
    label: str | None,
    where: tuple[str, ...],
    count: int,
    seed: int,
    bank: str | None,
    place: str | None,
    as_json: bool,
) -> None:
    """Draw targets before and after a transformation, at several intensities.

    \b
    Those of the paper: yellow-square, face-patch (with --bank), spider-web, polka-dots, black-and-white,
    rectangles. Any function of images, an intensity and seeds: pkg.mod:fn. Any picture: patch.png.

    \b
    Example:
      dmstore transform cifar.dm polka-dots --class frog --sheet dots.png
    """
    import itertools

    import numpy as np

    from dmstore.analysis.comparison.where import positions
    from dmstore.analysis.plot.figure_file import check_figure_path, save_figure
    from dmstore.analysis.plot.sheet import contact_sheet
    from dmstore.study.study import open_study
    from dmstore.training.transformations import apply, choose
    from dmstore.training.transformed import images_of

    options.find_tasks_here()
    check_figure_path(sheet)
    study = open_study(path)
    targets = study.target_set(of)
    conditions = [*where, *([f"label={study.class_number(label)}"] if label is not None else [])]
    rows = positions(conditions, targets, study.class_names)
    # Spread over all, which are often in the order of their classes.
    rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]
    chosen = choose(transformation, bank=bank, place=place)
    # What they were before comes first.
    steps = [0.0, *(step for step in intensity or chosen.intensities if step)]
    images, ids = np.asarray(images_of(study, targets, of)[rows]), study.ids(of)[rows]
    made = np.array([apply(chosen, images, ids, step, seed) for step in steps])
    for i, j in itertools.pairwise(range(len(steps))):
        if np.array_equal(made[i], made[j]):
            click.echo(
                f"warning: {chosen.name} at {steps[i]:g} and {steps[j]:g} makes the same of these images, which are "
                f"{' x '.join(map(str, images.shape[1:3]))} pixels; choose intensities that lie further apart",
                err=True,
            )
    names, labels = study.class_names, study.label(of)[rows]
    said = [
        f"{one}\n{names[number]}" if "label" in targets else str(one)
        for one, number in zip(ids, labels, strict=True)
    ]
    heads = [f"{step:g}" for step in steps]
    save_figure(sheet, lambda: contact_sheet(made, said, heads, f"{chosen.name}, by intensity"))
    output.emit(
        {"sheet": sheet, "transformation": chosen.name, "intensity": steps, "targets": list(ids)},
        [f"{sheet}: {chosen.name} on {output.counted(len(ids), 'target')} at {', '.join(heads)}"],
        as_json=as_json,
    )
