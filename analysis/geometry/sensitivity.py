"""Proposition 1 (Appendix A): how far up- and down-weighting the training set along a direction moves outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import with_dims
from dmstore.errors import InputError

# Numbers of masks, and of outputs, that are in memory at once.
_BLOCK = 1 << 24


def sensitivity(
    weight: xr.Dataset | xr.DataArray,
    direction: xr.DataArray,
    *,
    alpha: float = 0.5,
    fixed: bool = False,
) -> xr.Dataset:
    """What datamodels say about up-weighting the training set along directions.

    Up-weighting along u sees unit i with probability alpha + 2 alpha (1 - alpha) u_i in the place of alpha; with alpha .5 that is
    the paper's (1 + u_i) / 2. Outputs that are linear in the mask then move by 2 alpha (1 - alpha) theta . u, and the paper's
    sensitivity is the square of that: (theta . u)^2 / 4. Its proof has (theta . u)^2, so that Delta(u) on raw rows is four times
    the difference of the sensitivities.

    Parameters
    ----------
    weight : Dataset, or (target, train) DataArray
        Datamodels as they are, not of unit length; lazy ones are read some targets at a time.
    direction : (component, train) or (train,) float
    alpha : float
        Share of the training set that a run sees.
    fixed : bool
        Whether all masks are of one size, as planned ones are: they cannot see what all units have in common, and theta . u is
        then n / (n - 1) (theta . u - sum theta sum u / n).

    Returns
    -------
    xarray.Dataset
        ``shift`` (component, target) float64, signed, in units of the output; ``sensitivity`` (component, target), its square.

    Raises
    ------
    InputError
        If the dims are not those, train units differ in number, alpha is not between 0 and 1, or a probability would be none.
    """
    directions = _directions(direction, alpha)
    array = with_dims(weight, "target", "train")
    targets, train = array.shape
    _same_train(directions.shape[1], train, "datamodels")
    along = np.empty((len(directions), targets))
    step = max(1, _BLOCK // max(1, train))
    for start in range(0, targets, step):
        values = np.asarray(array.isel(target=slice(start, start + step)).values, dtype=np.float64)
        part = directions @ values.T
        if fixed and train > 1:
            common = np.outer(directions.sum(axis=1), values.sum(axis=1)) / train
            part = (part - common) * train / (train - 1)
        along[:, start : start + len(values)] = part
    shift = 2 * alpha * (1 - alpha) * along
    dims = ("component", "target")
    return xr.Dataset(
        {"shift": (dims, shift), "sensitivity": (dims, shift**2)},
        coords={"target": array["target"]} if "target" in array.coords else None,
        attrs={"alpha": alpha, "fixed": int(fixed)},
    )


def reweighting(
    mask: xr.DataArray,
    output: xr.DataArray,
    direction: xr.DataArray,
    *,
    alpha: float = 0.5,
    mask_id: NDArray[np.int64] | None = None,
) -> xr.Dataset:
    """How outputs move where runs are weighted up and down along directions: Proposition 1 measured on runs.

    A run whose mask is m counts by the product over units of 1 + 2 (m_i - alpha) u_i, which is how much more probable its mask
    is with probabilities alpha + 2 alpha (1 - alpha) u_i than with alpha; down-weighting takes -u. For a u of length 1 these weights
    have a second moment of e at most at alpha .5, so that runs that there are tell what runs drawn so would say, whether
    outputs are linear in masks or not. Half of up less down is the shift: what is even in u, as curvature, drops out.

    Parameters
    ----------
    mask : (run, train) bool
        In memory or lazy.
    output : (run, target) float
        In memory or lazy; read some targets at a time.
    direction : (component, train) or (train,) float
    alpha : float
        Share of the training set that a run sees.
    mask_id : (run,) int, optional
        Equal where runs share a mask: their mean is one observation. All different without.

    Returns
    -------
    xarray.Dataset
        ``up`` and ``down`` (component, target) float64: mean output under either, less that of all runs; ``shift`` and
        ``shift_error``: (up - down) / 2 and its standard error; ``sensitivity`` (component,): sum over targets of the squared
        shift less its squared error, which is unbiased, so that it may be negative; ``sensitivity_error``, to first order;
        ``effective`` (component, sign): runs that the weighted ones amount to.

    Raises
    ------
    InputError
        If the dims are not those, runs or train units differ in number, alpha is not between 0 and 1, a probability would be none, an
        output is not finite, or there are fewer than ten masks.
    """
    directions = _directions(direction, alpha)
    mask, output = with_dims(mask, "run", "train"), with_dims(output, "run", "target")
    runs, train = mask.shape
    if output.sizes["run"] != runs:
        msg = f"{runs} masks and outputs of {output.sizes['run']} runs; give as many of both"
        raise InputError(msg)
    _same_train(directions.shape[1], train, "masks")
    group = np.arange(runs) if mask_id is None else np.asarray(mask_id)
    if group.shape != (runs,):
        msg = f"mask ids of shape {group.shape} for {runs} runs; give one a run"
        raise InputError(msg)
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    count = len(first)
    if count < 10:
        msg = f"{count} masks; a mean of weighted runs takes ten or more"
        raise InputError(msg)
    logs = _log_weights(mask, first, directions, alpha)
    weight = np.exp(logs - logs.max(axis=-1, keepdims=True))
    weight /= weight.sum(axis=-1, keepdims=True)
    repeats = np.bincount(group)
    targets, number = output.sizes["target"], len(directions)
    made = {key: np.empty((number, targets)) for key in ("up", "down", "shift", "shift_error")}
    total = np.zeros(number)
    influence = np.zeros((number, count))
    step = max(1, _BLOCK // runs)
    for start in range(0, targets, step):
        values = np.asarray(output.isel(target=slice(start, start + step)).values, np.float64)
        if not np.isfinite(values).all():
            run, place = (int(one[0]) for one in np.nonzero(~np.isfinite(values)))
            msg = f"output {values[run, place]} at run {run}, target {start + place}; every output must be finite"
            raise InputError(msg)
        if count < runs:
            sums = np.zeros((count, values.shape[1]))
            np.add.at(sums, group, values)
            values = sums / repeats[:, None]
        else:
            values = values[first]
        part = slice(start, start + values.shape[1])
        values = values - values.mean(axis=0)
        mean = weight @ values
        made["up"][:, part], made["down"][:, part] = mean
        shift = (mean[0] - mean[1]) / 2
        made["shift"][:, part] = shift
        for k in range(number):
            # What each mask adds to a ratio of means, to first order.
            adds = weight[0, k, :, None] * (values - mean[0, k])
            adds -= weight[1, k, :, None] * (values - mean[1, k])
            adds /= 2
            square = (adds**2).sum(axis=0) * count / (count - 1)
            made["shift_error"][k, part] = np.sqrt(square)
            total[k] += float((shift[k] ** 2 - square).sum())
            influence[k] += 2 * adds @ shift[k]
    dims = ("component", "target")
    return xr.Dataset(
        {
            **{key: (dims, value) for key, value in made.items()},
            "sensitivity": ("component", total),
            "sensitivity_error": ("component", np.sqrt((influence**2).sum(axis=1))),
            "effective": (("component", "sign"), 1 / (weight**2).sum(axis=-1).T),
        },
        coords={"sign": ["up", "down"]}
        | ({"target": output["target"]} if "target" in output.coords else {}),
        attrs={"alpha": alpha, "masks": count},
    )


def _log_weights(
    mask: xr.DataArray, first: NDArray[np.int64], directions: NDArray[np.float64], alpha: float
) -> NDArray[np.float64]:
    """Logarithms of the weights of distinct masks, up to a constant: (sign, component, mask)."""
    seen = np.stack([np.log1p(2 * (1 - alpha) * u) for u in (directions, -directions)])
    missed = np.stack([np.log1p(-2 * alpha * u) for u in (directions, -directions)])
    gain = seen - missed
    made = np.empty((*gain.shape[:2], len(first)))
    step = max(1, _BLOCK // mask.sizes["train"])
    order = np.argsort(first, kind="stable")
    for start in range(0, len(first), step):
        some = order[start : start + step]
        values = np.asarray(mask.isel(run=first[some]).values, dtype=np.float64)
        made[..., some] = gain @ values.T
    return made


def most_weight(alpha: float) -> float:
    """What |u_i| must be below for probabilities between 0 and 1."""
    return 1 / (2 * max(alpha, 1 - alpha))


def _directions(direction: Any, alpha: float) -> NDArray[np.float64]:
    """Directions (component, train), along which probabilities stay between 0 and 1."""
    if not (isinstance(alpha, int | float) and 0 < alpha < 1):
        msg = f"alpha {alpha!r}: give a share between 0 and 1"
        raise InputError(msg)
    one = isinstance(direction, xr.DataArray) and direction.dims == ("train",)
    values = with_dims(
        direction.expand_dims("component") if one else direction, "component", "train"
    )
    directions = np.asarray(values.values, dtype=np.float64)
    largest = float(np.abs(directions).max(initial=0))
    most = most_weight(alpha)
    if not largest < most:
        msg = f"a direction has a weight of {largest:.3g}, and |u_i| must be below {most:.3g} for probabilities between 0 and 1; scale it down"
        raise InputError(msg)
    return directions


def _same_train(given: int, train: int, what: str) -> None:
    if given != train:
        msg = f"directions over {given} train units, {what} over {train}; take both from one study"
        raise InputError(msg)
