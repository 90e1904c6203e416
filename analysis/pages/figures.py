"""The figures of a comparison as files: PNG, SVG and PDF of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmstore.analysis import plot
from dmstore.analysis.comparison.codes import LETTERS, direction_code
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.evaluation.curve_summary import kept_curve
from dmstore.analysis.geometry.influence import contrast_of_rows
from dmstore.analysis.geometry.rows import Rows, rows_of
from dmstore.analysis.pages.kept_effects import kept_effects
from dmstore.analysis.plot.figure_file import drawn, write_whole
from dmstore.analysis.plot.fits import NEEDED
from dmstore.core.progress import Progress, counting
from dmstore.errors import InputError, StorageError
from dmstore.study import results
from dmstore.study.outside import outside_studies
from dmstore.study.study import Study, check_opened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Directions of either algorithm that have a figure of their own.
_SHOWN = 3


def check_folder(folder: str | Path) -> Path:
    """Refuse a place that no figures can be written to, before anything is computed for them.

    Parameters
    ----------
    folder : path
        Made where it is not there; the folder that it is in must be.

    Raises
    ------
    InputError
        If it is a file, or is in no folder.
    """
    place = outside_studies(folder)
    if place.exists() and not place.is_dir():
        msg = f"{place}: is a file; figures are written into a folder of their own, name another"
        raise InputError(msg)
    if not place.parent.is_dir():
        msg = f"{place}: no folder {place.parent}; make it first"
        raise InputError(msg)
    return place


def save_figures(
    study: Study,
    a: str,
    b: str,
    folder: str | Path,
    *,
    comparison: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the figures of a comparison, each as PNG, SVG and PDF; files of the same names are replaced, each whole.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms, in either order.
    folder : path
        Made where it is not there.
    comparison : str, optional
        Its name; the newest by default.
    progress : callable, optional
        Called with ``figures``, figures done and figures in all.

    Returns
    -------
    list of path
        Of the files, in the order of the figures.

    Raises
    ------
    NotFoundError
        If they have not been compared.
    InputError
        If `folder` is a file, or is in no folder.
    StorageError
        If a file cannot be written.
    MissingDependencyError
        Without the extra ``analysis``.
    """
    check_opened(study)
    place = check_folder(folder)
    draws = figures_of(study, a, b, comparison)
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        msg = f"{place}: cannot be made ({error.strerror}); choose another place"
        raise StorageError(msg) from error
    tell = counting(progress, "figures")
    written = []
    for done, (name, draw) in enumerate(draws.items()):
        for kind, content in drawn(partial(_figure, draw)).items():
            path = place / f"{name}{kind}"
            write_whole(path, content)
            written.append(path)
        tell(done + 1, len(draws))
    return written


def _figure(draw: Callable[[], Axes]) -> Any:
    return draw().get_figure()


def figures_of(
    study: Study, a: str, b: str, comparison: str | None = None
) -> dict[str, Callable[[], Axes]]:
    """Every figure of a comparison that there is data for: its name, which is a file's, to what draws it.

    Parameters
    ----------
    study : Study
    a, b : str
    comparison : str, optional

    Raises
    ------
    NotFoundError
        If they have not been compared.
    """
    shown = study.comparison(a, b, comparison).load()
    document = results.newest_comparison(study.objects, a, b, shown.attrs["comparison"])
    names = [str(one) for one in shown["algorithm"].values]
    pairs = list(zip(names, document["fits"], strict=True))
    made: dict[str, Callable[[], Axes]] = {
        "directions": partial(plot.directions, shown),
        "explained-variance": partial(plot.explained_variance, shown),
        "similarity": partial(plot.similarity, shown),
    }
    if "q" in shown:
        made |= {
            "direction-intervals": partial(plot.direction_intervals, shown),
            "groups": partial(plot.groups, shown),
            "power": partial(plot.power, shown),
        }
        if shown["similarity"].notnull().any():
            made["targets"] = partial(plot.unlike_targets, shown)
    weights = [study.datamodels(name, fit)["weight"] for name, fit in pairs]
    # Read when the first figure needs them, once for all.
    rows = functools.cache(lambda: rows_of(weights))
    for row, count in enumerate(rank(shown)):
        if not count:
            continue
        made[f"subpopulations-{LETTERS[row].lower()}"] = partial(
            plot.subpopulations, shown, study, row
        )
        for component in range(min(_SHOWN, count)):
            code = direction_code(row, component)
            made[f"subpopulation-{code.lower()}"] = partial(plot.subpopulation, shown, study, code)
            members = shown["subpopulation"].values[row, component, 0]
            made[f"relative-influence-{code.lower()}"] = partial(
                _influence, study, rows, members[members >= 0], names
            )
    fits = {name: study.datamodels(name, fit)[list(NEEDED)].load() for name, fit in pairs}
    made |= {
        "holdout-curves": partial(plot.holdout_curves, fits),
        "sparsity": partial(plot.sparsity, fits),
        "holdout-r2": partial(plot.holdout_r2, fits),
    }
    curves = {name: kept for name, fit in pairs if (kept := kept_curve(study, name, fit))}
    if curves:
        made |= {
            "learning-curve": partial(plot.learning_curve, curves),
            "sample-size": partial(plot.sample_size, curves),
        }
        if all("explained" in step for curve in curves.values() for step in curve["steps"]):
            made["explained-of-fewest-runs"] = partial(plot.explained_by_samples, curves, 0)
            made["explained-of-all-runs"] = partial(plot.explained_by_samples, curves, -1)
    # Names of checks are anybody's texts, and no names of files.
    for number, entry in enumerate(kept_effects(study, f"comparisons/{document['comparison']}/")):
        made[f"effect-{number + 1}"] = partial(plot.effect, entry["result"], label=entry["class"])
    return made


def _influence(
    study: Study, rows: Callable[[], list[Rows]], members: Any, names: list[str]
) -> Axes:
    result = contrast_of_rows(rows(), members).assign_coords(algorithm=names)
    return plot.relative_influence(result, study)
