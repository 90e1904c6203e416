"""ModelDiff on the datamodels of two algorithms, wherever they come from: no store, no files."""

from __future__ import annotations

import itertools
from typing import Any, Unpack

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters
from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.influence import relative_influence
from dmstore.analysis.geometry.normalize import normalize
from dmstore.analysis.geometry.pca import delta, explained_variance, pca
from dmstore.analysis.geometry.residual import residual
from dmstore.analysis.geometry.similarity import cosine
from dmstore.analysis.geometry.subpopulation import subpopulation
from dmstore.core.progress import Progress, counting
from dmstore.schema.group_specs import group_spec

# Datamodels of different models on one training set may have nothing in common, but are not opposite.
_NEGATIVE = -0.2


def modeldiff(
    a: xr.Dataset,
    b: xr.Dataset,
    *,
    names: tuple[str, str] = ("a", "b"),
    label: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    **options: Unpack[ComparisonOptions],
) -> xr.Dataset:
    """Residuals, directions, subpopulations and similarity of two sets of datamodels, both ways.

    Parameters
    ----------
    a, b : Dataset, or (target, train) DataArray
        ``weight`` (target, train), or these alone; coordinates ``target`` and ``train`` where they are known.
        ``weight_half`` (half, target, train), from halves of the masks, where both have them: without,
        ``cosine_cross`` and ``cosine_ceiling`` are absent.
    names : pair of str
        What to call the algorithms (``a`` and ``b``).
    label : (target,) int, optional
        Classes, to match the contrasts by; any other target serves without.
    progress : callable, optional
        Called with ``compare``, steps done and steps in all.
    components : int
        Directions each way (10).
    top : int
        Targets in a subpopulation (16).
    heavy : int
        Heaviest train units to list for a direction (50).
    center : bool
        Whether PCA subtracts the mean residual (True).
    random_state : int
        Draws contrasts (0).

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``.

    Raises
    ------
    InputError
        If train units or targets differ, or fewer than two targets have both datamodels.
    """
    parameters = ComparisonParameters(**options)
    data = (a, b)
    weight = [with_dims(one, "target", "train") for one in data]
    unit = [normalize(one) for one in weight]
    classes = np.zeros(weight[0].sizes["target"], dtype=np.int64) if label is None else label
    included = ((weight[0] != 0).any("train") & (weight[1] != 0).any("train")).values
    per: dict[str, list[NDArray[Any]]] = {}
    steps, tell = itertools.count(1), counting(progress, "compare")

    for own, other in ((0, 1), (1, 0)):
        made = _one_way(weight[own], weight[other], unit[own], unit[other], classes, parameters)
        direction = xr.DataArray(made["direction"], dims=("component", "train"))
        made["explained_variance"] = np.stack(
            [explained_variance(one[included], direction).values for one in weight], axis=1
        )
        tell(next(steps), 2)
        made["direction"] = made["direction"].astype(np.float32)
        for key, value in made.items():
            per.setdefault(key, []).append(value)
    count = min(len(value) for value in per["direction"])
    arrays = {
        key: np.stack([value[:count] if value.ndim else value for value in values])
        for key, values in per.items()
    }
    arrays |= {"cosine": cosine(*weight).values, "included": included}
    if all(_has(one, "weight_half") for one in data):
        half = [[one["weight_half"].isel(half=h) for h in (0, 1)] for one in data]
        cross = [cosine(half[0][h], half[1][1 - h]).values for h in (0, 1)]
        arrays["cosine_cross"] = np.mean(cross, axis=0)
        arrays["cosine_ceiling"] = np.stack([cosine(*halves).values for halves in half])
    spec = group_spec("comparison").arrays
    return xr.Dataset(
        {key: (spec[key].dims, value) for key, value in arrays.items()},
        coords={
            "algorithm": list(names),
            "on": list(names),
            **{dim: weight[0][dim] for dim in ("target", "train") if dim in weight[0].coords},
        },
    )


def rank(comparison: xr.Dataset) -> list[int]:
    """How many directions of either algorithm are more than rounding.

    Parameters
    ----------
    comparison : xarray.Dataset
        From :func:`modeldiff`, or one that was kept.

    Returns
    -------
    list of int
        One an algorithm; the others that the comparison holds are noise.
    """
    return [int(count) for count in (comparison["residual_variance"].values > 0).sum(axis=1)]


def likeness(comparison: xr.Dataset) -> str:
    """What is to be said before all else of algorithms that are the same, or one the negative of the other.

    Parameters
    ----------
    comparison : xarray.Dataset
        From :func:`modeldiff`, or one that was kept.

    Returns
    -------
    str
        A sentence; empty where there is nothing to be said.
    """
    a, b = (str(name) for name in comparison["algorithm"].values)
    cosine = comparison["cosine"].values
    cosine = cosine[np.isfinite(cosine)]
    if not len(cosine):
        return ""
    if not any(rank(comparison)) and abs(cosine).min() > 0.999:
        if cosine.min() > 0:
            return f"{a} and {b} are the same up to rounding and the scale of each target."
        if cosine.max() < 0:
            return (
                f"{b} is the negative of {a}, up to rounding: the sign of one of the two is turned."
            )
    if np.median(cosine) < _NEGATIVE:
        return (
            f"{b} looks like the negative of {a} (median cosine similarity {np.median(cosine):.2f}): directions do not see a "
            f"sign, so check that larger means the same in both."
        )
    return ""


def stored_arrays(comparison: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The arrays of a comparison that ``comparison.group.json`` names, as they are stored."""
    return {
        name: comparison[name].values
        for name in group_spec("comparison").arrays
        if name in comparison.variables
    }


def _has(data: Any, name: str) -> bool:
    """Whether there are fits of parts of the masks; an array alone has none."""
    return isinstance(data, xr.Dataset) and name in data


def _one_way(
    own: xr.DataArray,
    other: xr.DataArray,
    unit_own: xr.DataArray,
    unit_other: xr.DataArray,
    label: NDArray[np.int64],
    parameters: ComparisonParameters,
) -> dict[str, NDArray[Any]]:
    """Directions of one algorithm's residuals, and what follows from each."""
    components = pca(
        residual(own, other),
        components=parameters.components,
        center=parameters.center,
        random_state=parameters.random_state,
    )
    direction = components["direction"]
    members = subpopulation(
        components["projection"], label, top=parameters.top, random_state=parameters.random_state
    )
    order = np.argsort(-np.abs(direction.values), axis=1, kind="stable")[:, : parameters.heavy]
    influence = [
        relative_influence(unit_own, unit_other, top[top >= 0]).values
        for top in members["subpopulation"].values[:, 0]
    ]
    return {
        "direction": direction.values,
        "projection": components["projection"].values.astype(np.float32),
        "residual_variance": components["residual_variance"].values,
        "delta": delta(own, other, direction).values,
        "subpopulation": members["subpopulation"].values,
        "contrast": members["contrast"].values,
        "heaviest": order.astype(np.int64),
        "relative_influence": np.array(influence, dtype=np.float32),
    }
