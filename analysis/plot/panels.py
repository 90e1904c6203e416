"""Figures of examples: subpopulations, the train units behind them, one target with what moves it (Figures 3, 9 to 14, 24 to 27)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from dmstore.analysis.comparison.codes import direction_code, direction_place
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.plot.drawing import COLORS, shown
from dmstore.analysis.plot.mosaic import Cell, cells, mosaic
from dmstore.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dmstore.analysis.explaining.explanation import Examples

_ENDS = ("top", "bottom")


def direction_of(comparison: xr.Dataset, code: str) -> tuple[int, int]:
    """Row and component, from 0, of a direction by its name.

    Parameters
    ----------
    comparison : Dataset
    code : str
        ``A1`` for the first direction of the first algorithm's residuals, ``B2`` for the second of the other's.

    Raises
    ------
    InputError
        If there is no such direction, or it is rounding alone.
    """
    counts = rank(comparison)
    place = direction_place(str(code).strip().upper())
    if place and place[1] < counts[place[0]]:
        return place
    there = [
        f"{direction_code(row, 0)} to {direction_code(row, count - 1)}"
        for row, count in enumerate(counts)
        if count
    ]
    msg = f"direction {str(code)!r:.40}: this comparison has {' and '.join(there) or 'none'}"
    raise InputError(msg)


def subpopulation(
    comparison: xr.Dataset,
    examples: Examples,
    code: str = "A1",
    axes: Axes | None = None,
    *,
    top: int = 10,
) -> Axes:
    """Both ends of a direction beside random targets of the same classes (Figures 3 and 12 to 14).

    Parameters
    ----------
    comparison : Dataset
        From :func:`dmstore.analysis.compare`, or one that was kept.
    examples : Examples
        The study, or anything with ``targets``, ``train`` and ``class_names``.
    code : str
        ``A1``, ``B2``, …
    axes : matplotlib axes, optional
    top : int
        Targets of each row.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If there is no such direction.
    """
    row, component = direction_of(comparison, code)
    one = comparison.isel(algorithm=row, component=component)
    names = [str(name) for name in comparison["algorithm"].values]
    rows = []
    for end, title in enumerate(_ENDS):
        for key, what in (
            ("subpopulation", title),
            ("contrast", f"random, of the same classes as the {title}"),
        ):
            members = one[key].values[end][:top]
            color = COLORS[row] if key == "subpopulation" else ""
            rows.append(
                (what, color, cells(examples.targets, "target", members, examples.class_names))
            )
    title = f"Direction {direction_code(row, component)}: {names[row]} less {names[1 - row]}"
    return mosaic(rows, axes, title)


def subpopulations(
    comparison: xr.Dataset,
    examples: Examples,
    algorithm: int = 0,
    axes: Axes | None = None,
    *,
    components: int = 5,
    top: int = 8,
) -> Axes:
    """Top and bottom of the first directions of an algorithm's residuals (Appendix F.6, Figures 24 to 27).

    Parameters
    ----------
    comparison : Dataset
    examples : Examples
    algorithm : int
        0 for the first of the two, 1 for the other.
    axes : matplotlib axes, optional
    components : int
        Directions at most.
    top : int
        Targets of each end.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If there is no such algorithm, or it has no direction.
    """
    if algorithm not in (0, 1):
        msg = f"algorithm {algorithm!r}: give 0 or 1, the place in the comparison"
        raise InputError(msg)
    direction_of(comparison, direction_code(algorithm, 0))
    rows = []
    for component in range(min(components, rank(comparison)[algorithm])):
        for end, title in enumerate(_ENDS):
            members = comparison["subpopulation"].values[algorithm, component, end][:top]
            shown_cells = cells(examples.targets, "target", members, examples.class_names)
            name = f"{direction_code(algorithm, component)}, {title}"
            rows.append((name, COLORS[algorithm] if end == 0 else "", shown_cells))
    names = [str(name) for name in comparison["algorithm"].values]
    return mosaic(rows, axes, f"Directions of {names[algorithm]} less {names[1 - algorithm]}")


def relative_influence(
    result: xr.Dataset, examples: Examples, axes: Axes | None = None, *, top: int = 10
) -> Axes:
    """Train units of high relative influence, and the targets that each algorithm lets them move most (Figures 9 to 11).

    Parameters
    ----------
    result : Dataset
        From :func:`dmstore.analysis.influence_contrast`.
    examples : Examples
    axes : matplotlib axes, optional
    top : int
        Examples of each row.

    Returns
    -------
    matplotlib axes
    """
    units = result["unit"].values[:top]
    weights = result["relative_influence"].values[units]
    names = [str(name) for name in result["algorithm"].values]
    rows = [
        (
            f"train units of highest relative influence; framed in blue: more under {shown(names[0], 24)}, in orange: more under {shown(names[1], 24)}",
            "",
            cells(
                examples.train, "train", units, examples.class_names, weights=weights, colors=COLORS
            ),
        )
    ]
    for row, name in enumerate(names):
        members = result["most_influenced"].values[row][:top]
        rows.append(
            (
                f"targets that these move most under {name}",
                COLORS[row],
                cells(examples.targets, "target", members, examples.class_names),
            )
        )
    return mosaic(rows, axes)


def datamodel(
    weight: xr.DataArray,
    examples: Examples,
    position: int,
    axes: Axes | None = None,
    *,
    top: int = 8,
) -> Axes:
    """A target beside the train units that move it most, under each algorithm.

    Parameters
    ----------
    weight : (algorithm, train) float
        The target's datamodels.
    examples : Examples
    position : int
        Of the target.
    axes : matplotlib axes, optional
    top : int
        Train units of each algorithm, by absolute weight; framed by the sign of the weight.

    Returns
    -------
    matplotlib axes

    Raises
    ------
    InputError
        If the position is out of range.
    """
    targets = examples.targets
    count = targets.sizes["target"]
    if not 0 <= position < count:
        msg = f"target at place {position}: there are {count}, from 0 to {count - 1}"
        raise InputError(msg)
    rows = [("the target", "", cells(targets, "target", [position], examples.class_names))]
    for row, name in enumerate(weight["algorithm"].values):
        values = np.asarray(weight.values[row], dtype=np.float64)
        order = np.argsort(-np.abs(values), kind="stable")[:top]
        order = order[values[order] != 0]
        some: list[Cell] = cells(
            examples.train,
            "train",
            order,
            examples.class_names,
            weights=values[order],
            colors=COLORS,
        )
        rows.append((f"most influential train units under {shown(name, 40)}", "", some))
    return mosaic(
        rows,
        axes,
        f"Target {shown(targets['target'].values[position], 40)}; framed in blue what raises its output, in orange what lowers it",
    )
