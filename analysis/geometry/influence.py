"""Which train units a subpopulation relies on under one algorithm more than under the other, and whom these move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import positions_of, with_dims
from dmstore.analysis.geometry.rows import Rows, rows_of
from dmstore.analysis.geometry.similarity import aligned
from dmstore.errors import InputError

Under = Literal["either", "a", "b"]


def relative_influence(
    a: xr.DataArray, b: xr.DataArray, targets: NDArray[np.int64]
) -> xr.DataArray:
    """Aggregate influence on some targets under A, less that under B (Appendix D).

    Parameters
    ----------
    a, b : (target, train) float
        Datamodels, best of unit length, so that the algorithms' scales do not matter.
    targets : (member,) int
        Positions of targets.

    Returns
    -------
    (train,) float64
        Sum over the targets of the absolute weights of `a`, less that of `b`; its absolute value is the paper's.

    Raises
    ------
    InputError
        If train units or targets differ.
    IndexError
        If a position is beyond the targets.
    """
    a, b = aligned(a, b)
    chosen = (w.isel(target=np.asarray(targets)).values for w in (a, b))
    sums = [np.abs(values.astype(np.float64)).sum(axis=0) for values in chosen]
    return xr.DataArray(
        sums[0] - sums[1],
        dims="train",
        name="relative_influence",
        coords={"train": a["train"]} if "train" in a.coords else None,
    )


def influence_contrast(
    a: xr.Dataset | xr.DataArray,
    b: xr.Dataset | xr.DataArray,
    targets: NDArray[np.int64],
    *,
    names: tuple[str, str] = ("a", "b"),
    units: int = 16,
    top: int = 16,
    under: Under = "either",
) -> xr.Dataset:
    """Train units of highest relative influence on a subpopulation, and the targets that each algorithm lets them move most.

    Both steps of Appendix D: (a) train units with the largest difference of aggregate influence, sum over the subpopulation of
    abs(theta_jk) under A less that under B; (b) of either algorithm, the targets on which these units have the largest
    aggregate influence, among all targets. Rows are of unit length, so that the algorithms' scales do not matter.

    Parameters
    ----------
    a, b : Dataset, or (target, train) DataArray
        Datamodels, in memory or lazy: read some targets at a time, kept sparse.
    targets : (member,) int
        Positions of the subpopulation's targets; -1 is left out.
    names : pair of str
        What to call the algorithms.
    units : int
        Train units to take.
    top : int
        Targets to list for each algorithm.
    under : {"either", "a", "b"}
        Whether units count that matter more under either, as in the paper, or under one of the two alone.

    Returns
    -------
    xarray.Dataset
        ``relative_influence`` (train,) float64, signed; ``unit`` (unit_rank,) int64, positions of train units, heaviest first,
        those without any difference left out; ``influence`` (algorithm, target) float64, of these units; ``most_influenced``
        (algorithm, rank) int64, positions of targets, -1 where no other target is moved at all.

    Raises
    ------
    InputError
        If train units or targets differ, a position is out of range, or a count is below 1.
    """
    if under not in get_args(Under):
        msg = f"under {under!r}: give one of {', '.join(get_args(Under))}"
        raise InputError(msg)
    for name, count in (("units", units), ("top", top)):
        if count < 1:
            msg = f"{name} {count}: give 1 or more"
            raise InputError(msg)
    arrays = aligned(*(with_dims(one, "target", "train") for one in (a, b)))
    members = positions_of(targets, arrays[0].sizes["target"], "target")
    rows = rows_of(arrays)
    made = contrast_of_rows(rows, members, units=units, top=top, under=under)
    coords: dict[str, Any] = {"algorithm": list(names)}
    coords |= {dim: arrays[0][dim] for dim in ("train", "target") if dim in arrays[0].coords}
    return made.assign_coords(coords)


def contrast_of_rows(
    rows: Sequence[Rows],
    members: NDArray[np.int64],
    *,
    units: int = 16,
    top: int = 16,
    under: Under = "either",
) -> xr.Dataset:
    """The same of unit rows that were read already, without coordinates.

    Parameters
    ----------
    rows : pair of Rows
    members : (member,) int64
    units, top, under
        See :func:`influence_contrast`.
    """
    relative = rows[0].influence(members) - rows[1].influence(members)
    size = {"either": np.abs(relative), "a": relative, "b": -relative}[under]
    order = np.argsort(-size, kind="stable")[:units]
    chosen = order[size[order] > 0]
    moved = np.stack([_influence_of(one, chosen) for one in rows])
    ranked = np.argsort(-moved, axis=1, kind="stable")[:, :top]
    there = np.take_along_axis(moved, ranked, axis=1) > 0
    return xr.Dataset(
        {
            "relative_influence": ("train", relative),
            "unit": ("unit_rank", chosen),
            "influence": (("algorithm", "target"), moved),
            "most_influenced": (("algorithm", "rank"), np.where(there, ranked, -1)),
        },
        attrs={"under": under, "members": len(members)},
    )


def _influence_of(rows: Rows, units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the absolute weights that some train units have on each target: (target,)."""
    if rows.is_sparse:
        return np.asarray(abs(rows.matrix[:, units]).sum(axis=1), dtype=np.float64).ravel()
    result = np.empty(len(rows.nonzero))
    for first, values in rows.parts():
        some = np.abs(values[:, units])
        result[first : first + len(values)] = some.sum(axis=1, dtype=np.float64)
    return result
