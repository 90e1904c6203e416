"""Step 3(ii) of ModelDiff: the targets that a direction is about."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims


def subpopulation(
    projection: xr.DataArray, label: NDArray[np.int64], *, top: int = 16, random_state: int = 0
) -> xr.Dataset:
    """Targets most and least aligned with each direction, beside class-matched random ones.

    Parameters
    ----------
    projection : (component, target) float
        NaN targets are left out.
    label : (target,) int
        Class of each target, for the contrast (Appendix D, class-specific visual inspection).
    top : int
        Size of a subpopulation.
    random_state : int

    Returns
    -------
    xarray.Dataset
        ``subpopulation`` and ``contrast`` (component, end, rank): positions of targets; end 0 is
        the top, 1 the bottom; -1 where there are not enough.

    Raises
    ------
    InputError
        If the dims are not those.
    IndexError
        If there are fewer labels than targets.
    """
    values = with_dims(projection, "component", "target").values
    count, targets = values.shape
    size = min(top, targets)
    chosen = np.full((count, 2, size), -1, dtype=np.int64)
    contrast = np.full((count, 2, size), -1, dtype=np.int64)
    draw = np.random.default_rng(random_state)
    for component in range(count):
        valid = np.flatnonzero(~np.isnan(values[component]))
        order = valid[np.argsort(-values[component, valid], kind="stable")]
        for end, ranked in enumerate((order, order[::-1])):
            members = ranked[:size]
            chosen[component, end, : len(members)] = members
            contrast[component, end, : len(members)] = _matched(members, valid, label, draw)
    dims = ("component", "end", "rank")
    return xr.Dataset(
        {"subpopulation": (dims, chosen), "contrast": (dims, contrast)},
        attrs={"top": size, "random_state": random_state},
    )


def _matched(
    members: NDArray[np.int64],
    valid: NDArray[np.int64],
    label: NDArray[np.int64],
    draw: np.random.Generator,
) -> NDArray[np.int64]:
    """For each member a random other target of its class, none twice; -1 where there is none left."""
    matches = np.full(len(members), -1, dtype=np.int64)
    left = np.zeros(len(label), dtype=bool)
    left[valid], left[members] = True, False
    outside = np.flatnonzero(left)
    for value in np.unique(label[members]):
        pool = draw.permutation(outside[label[outside] == value])
        places = np.flatnonzero(label[members] == value)[: len(pool)]
        matches[places] = pool[: len(places)]
    return matches
