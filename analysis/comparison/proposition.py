"""Proposition 1 on a study: do its runs move along the directions of a comparison as their datamodels say?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.codes import direction_code
from dmstore.analysis.comparison.modeldiff import rank
from dmstore.analysis.geometry.sensitivity import most_weight, reweighting, sensitivity
from dmstore.errors import InputError
from dmstore.study import results
from dmstore.study.study import Study, check_opened


def proposition(
    study: Study, a: str, b: str, *, comparison: str | None = None, components: int = 3
) -> xr.Dataset:
    """Check Proposition 1 by up- and down-weighting the stored runs along the directions of a comparison.

    Of each direction u, and of both algorithms: how far outputs move on average where runs count by how probable their masks are with
    probabilities (1 + u_i) / 2, beside what the datamodels say, theta . u / 2. The gap in sensitivity is a quarter of Delta(u) on
    raw datamodels. Directions and datamodels come from the same runs, so that this checks the proposition, and whether datamodels
    are linear enough for it; whether a direction is beyond chance is what :func:`dmstore.analysis.compare` tells.

    Parameters
    ----------
    study : Study
    a, b : str
        Compared algorithms.
    comparison : str, optional
        Its name; the newest by default.
    components : int
        Directions of either algorithm.

    Returns
    -------
    xarray.Dataset
        Dims ``direction`` (A1, A2, …, B1, …), ``on`` (both algorithms) and ``target``: ``shift`` and ``shift_error`` (direction,
        on, target), measured, ``predicted`` beside them; ``sensitivity``, ``sensitivity_error`` and ``sensitivity_predicted``
        (direction, on), sums over targets; ``gap``, ``gap_error`` and ``gap_predicted`` (direction,): A less B, a quarter of
        Delta(u); ``slope`` (direction, on): of measured on predicted shifts, 1 where the proposition holds; NaN where nothing is
        predicted. A direction in which one unit weighs too much for probabilities between 0 and 1 is NaN throughout, and
        stands in the attribute ``left_out``, a list.

    Raises
    ------
    NotFoundError
        If they have not been compared.
    InputError
        If an algorithm has no direction, no direction can be weighted along, or it has too few masks, no known alpha, or an output is not finite.
    """
    check_opened(study)
    if components < 1:
        msg = f"components {components}: give 1 or more"
        raise InputError(msg)
    shown = study.comparison(a, b, comparison)
    document = results.newest_comparison(study.objects, a, b, shown.attrs["comparison"])
    names = [str(one) for one in shown["algorithm"].values]
    counts = [min(components, count) for count in rank(shown)]
    if not any(counts):
        msg = f"{names[0]!r} and {names[1]!r} have no direction that is more than rounding; there is nothing to weight along"
        raise InputError(msg)
    codes = [direction_code(row, k) for row in (0, 1) for k in range(counts[row])]
    directions = xr.DataArray(
        np.concatenate([shown["direction"].values[row, : counts[row]] for row in (0, 1)]),
        dims=("component", "train"),
    )
    alphas = [study.algorithm(name).alpha for name in names]
    most = most_weight(max(max(one, 1 - one) for one in (0.5, *alphas) if one is not None))
    largest = np.abs(directions.values).max(axis=1)
    usable = largest < most
    if not usable.any():
        msg = f"every direction has a weight of {largest.min():.3g} or more, and |u_i| must be below {most:.3g} for probabilities between 0 and 1; nothing can be weighted along them"
        raise InputError(msg)
    directions = directions.isel(component=usable)
    said, measured = [], []
    for name, fit in zip(names, document["fits"], strict=True):
        algorithm, entry = study.algorithm(name), study.newest_fit(name, fit)
        if algorithm.alpha is None:
            msg = f"algorithm {name!r} has no known alpha, so no run has a known probability; give one with 'dmstore add'"
            raise InputError(msg)
        view = study.view(name)
        data = (
            view.dataset
            if view.target_set == entry["target_set"]
            else study.outputs(name, entry["target_set"])
        )
        measured.append(
            reweighting(
                data["mask"],
                data[entry["output"]],
                directions,
                alpha=algorithm.alpha,
                mask_id=data["mask_id"].values,
            )
        )
        weight = study.datamodels(name, fit)["weight"]
        said.append(sensitivity(weight, directions, alpha=algorithm.alpha, fixed=algorithm.planned))
    dims = ("direction", "on", "target")
    shift, error = (
        _placed(np.stack([m[key].values for m in measured], axis=1), usable)
        for key in ("shift", "shift_error")
    )
    predicted = _placed(np.stack([one["shift"].values for one in said], axis=1), usable)
    total, total_error = (
        _placed(np.stack([m[key].values for m in measured], axis=1), usable)
        for key in ("sensitivity", "sensitivity_error")
    )
    expected = (predicted**2).sum(axis=-1)
    slope = np.divide(
        (shift * predicted).sum(axis=-1),
        expected,
        out=np.full(expected.shape, np.nan),
        where=expected > 0,
    )
    return xr.Dataset(
        {
            "shift": (dims, shift),
            "shift_error": (dims, error),
            "predicted": (dims, predicted),
            "sensitivity": (dims[:2], total),
            "sensitivity_error": (dims[:2], total_error),
            "sensitivity_predicted": (dims[:2], expected),
            "gap": ("direction", total[:, 0] - total[:, 1]),
            # As if A's and B's runs were independent; where they share masks that is too wide.
            "gap_error": ("direction", np.hypot(total_error[:, 0], total_error[:, 1])),
            "gap_predicted": ("direction", expected[:, 0] - expected[:, 1]),
            "slope": (dims[:2], slope),
        },
        coords={"direction": codes, "on": names, "target": shown["target"].values},
        attrs={
            "comparison": shown.attrs["comparison"],
            "fits": list(document["fits"]),
            "left_out": [code for code, one in zip(codes, usable.tolist(), strict=True) if not one],
        },
    )


def _placed(values: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values of the directions that could be used, NaN for the others."""
    made = np.full((len(usable), *values.shape[1:]), np.nan)
    made[usable] = values
    return made
