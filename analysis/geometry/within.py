"""Directions within each class: principal components of the residuals of its targets alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.principal import principal_directions
from dmstore.analysis.geometry.residual import rounding_of
from dmstore.analysis.geometry.rows import Rows, dots, rows_of
from dmstore.analysis.geometry.similarity import aligned
from dmstore.analysis.geometry.subpopulation import subpopulation
from dmstore.core.given import threads_of
from dmstore.errors import InputError


def within_classes(
    a: xr.Dataset | xr.DataArray,
    b: xr.Dataset | xr.DataArray,
    label: NDArray[np.int64],
    *,
    names: tuple[str, str] = ("a", "b"),
    components: int = 3,
    top: int = 16,
    center: bool = True,
    random_state: int = 0,
    threads: int | None = None,
) -> xr.Dataset:
    """Class-specific directions: principal components of the residual datamodels of one class at a time.

    Directions of all targets together mostly tell classes apart (Appendix D: a subpopulation is mostly of one class). Of one
    class alone they tell what differs inside it, and the contrast is a random sample of the same class. `compare` with a
    `where` does the same for one class, with what is beyond chance.

    Parameters
    ----------
    a, b : Dataset, or (target, train) DataArray
        Datamodels, in memory or lazy: read once, some targets at a time, kept sparse.
    label : (target,) int
        Class of each target.
    names : pair of str
        What to call the algorithms.
    components : int
        Directions each way in each class.
    top : int
        Targets in a subpopulation.
    center : bool
        Whether the mean residual of the class is taken off.
    random_state : int
        Draws contrasts.
    threads : int, optional
        All cores by default.

    Returns
    -------
    xarray.Dataset
        Over ``class`` (int64, ascending): ``direction`` (algorithm, class, component, train) float32; ``projection``
        (algorithm, class, component, target) float32, uncentred, NaN outside of the class; ``explained_variance`` (algorithm,
        class, component, on) and ``delta`` (algorithm, class, component) float64, as of :func:`dmstore.analysis.modeldiff` over the
        targets of the class; ``residual_variance``, 0 where a class has no such direction; ``subpopulation`` and ``contrast``
        (algorithm, class, component, end, rank) int64, positions of targets, -1 for none; ``targets`` (class,) int64,
        with both datamodels.

    Raises
    ------
    InputError
        If train units or targets differ, labels are not one a target, or no class has two targets with both datamodels.
    """
    arrays = aligned(*(with_dims(one, "target", "train") for one in (a, b)))
    count, train = arrays[0].shape
    classes = np.asarray(label)
    if classes.shape != (count,) or classes.dtype.kind not in "iu":
        msg = f"labels of shape {classes.shape} and type {classes.dtype} for {count} targets; give one whole number a target"
        raise InputError(msg)
    if components < 1 or top < 1:
        msg = f"components {components}, top {top}: both must be 1 or more"
        raise InputError(msg)
    rows = rows_of(arrays)
    cosine, included = dots(rows[0], rows[1]), rows[0].nonzero & rows[1].nonzero
    numbers = np.unique(classes)
    sizes = np.array([np.count_nonzero(included & (classes == one)) for one in numbers])
    if not (sizes >= 2).any():
        msg = "no class has two targets with a datamodel under both algorithms; take more targets, or train more runs"
        raise InputError(msg)
    rounding = max(rounding_of(one) for one in arrays)
    rounding = max(rounding, rounding_of(xr.DataArray(np.empty(0, rows[0].matrix.dtype))))
    shape = (2, len(numbers), components)
    made: dict[str, NDArray[Any]] = {
        "direction": np.zeros((*shape, train), dtype=np.float32),
        "projection": np.full((*shape, count), np.nan, dtype=np.float32),
        "explained_variance": np.full((*shape, 2), np.nan),
        "delta": np.full(shape, np.nan),
        "residual_variance": np.zeros(shape),
        "subpopulation": np.full((*shape, 2, min(top, int(sizes.max()))), -1, dtype=np.int64),
    }
    made["contrast"] = made["subpopulation"].copy()
    for place, number in enumerate(numbers):
        members = np.flatnonzero(included & (classes == number))
        if len(members) < 2:
            continue
        some = tuple(Rows(one.matrix[members], one.nonzero[members]) for one in rows)
        for way in (0, 1):
            found = principal_directions(
                some[way],
                some[1 - way],
                cosine[members],
                np.ones(len(members), dtype=bool),
                components=components,
                center=center,
                rounding=rounding,
                random_state=random_state,
                threads=threads_of(threads),
            )
            at = (way, place, slice(len(found.direction)))
            squares = [(one**2).mean(axis=0) for one in found.products]
            made["direction"][at] = found.direction
            made["projection"][way, place, : len(found.direction), members] = found.projection.T
            made["explained_variance"][at] = np.stack(squares[:: 1 - 2 * way], axis=1)
            made["delta"][at] = squares[0] - squares[1]
            made["residual_variance"][at] = found.residual_variance
            chosen = subpopulation(
                xr.DataArray(found.projection, dims=("component", "target")),
                np.zeros(len(members), dtype=np.int64),
                top=top,
                random_state=random_state,
            )
            for key in ("subpopulation", "contrast"):
                values = chosen[key].values
                wide = np.where(values >= 0, members[values], -1)
                made[key][at][..., : values.shape[-1]] = wide
    over = ("algorithm", "class", "component")
    more = {
        "direction": ("train",),
        "projection": ("target",),
        "explained_variance": ("on",),
        "subpopulation": ("end", "rank"),
        "contrast": ("end", "rank"),
    }
    coords: dict[str, Any] = {"algorithm": list(names), "on": list(names), "class": numbers}
    coords |= {dim: arrays[0][dim] for dim in ("train", "target") if dim in arrays[0].coords}
    return xr.Dataset(
        {key: ((*over, *more.get(key, ())), value) for key, value in made.items()}
        | {"targets": ("class", sizes)},
        coords=coords,
        attrs={"center": int(center), "random_state": random_state},
    )
