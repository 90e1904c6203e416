"""What models lose when they are trained without some train units, against controls, with intervals for few models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.errors import InputError

# Fewer say nothing of how much models differ.
FEWEST = 2
_FEW = 5


def removal_effect(
    removed: Mapping[str, NDArray[Any]],
    control: Mapping[str, NDArray[Any]],
    *,
    level: float = 0.95,
) -> xr.Dataset:
    """Mean of models trained without some train units, less that of controls, under each algorithm.

    Models are the sample, each with its seed, and controls with their own random removals, so that the two kinds differ in
    spread: Welch's interval, by Student's t with the degrees of freedom of Welch and Satterthwaite. With fewer than five of a
    kind these hold too rarely against many of the other (87 % of intervals of two against 50), and one less than the smaller
    number stands in their place, which is never too narrow.

    Parameters
    ----------
    removed, control : mapping
        Algorithm to (model,) float: what each model says, such as its mean margin over targets.
    level : float
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high``, two-sided ``p``, ``freedom`` (degrees), ``models``, ``controls``
        (algorithm).

    Raises
    ------
    InputError
        If the two have other algorithms, or there are fewer than two models of a kind.
    """
    from scipy import stats

    if set(removed) != set(control):
        msg = f"models of {', '.join(removed)}, and controls of {', '.join(control)}; give both of each algorithm"
        raise InputError(msg)
    means, variances, counts = (np.zeros((2, len(removed))) for _ in range(3))
    for column, name in enumerate(removed):
        pair = [np.asarray(one[name], dtype=np.float64) for one in (removed, control)]
        counts[:, column] = [len(values) for values in pair]
        if counts[:, column].min() < FEWEST:
            ours, others = map(len, pair)
            msg = f"algorithm {name!r}: {ours} models and {others} controls; an interval needs {FEWEST} of each"
            raise InputError(msg)
        means[:, column] = [values.mean() for values in pair]
        variances[:, column] = [values.var(ddof=1) / len(values) for values in pair]
    effect, square = means[0] - means[1], variances.sum(axis=0)
    error = np.sqrt(square)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = square**2 / (variances**2 / (counts - 1)).sum(axis=0)
        # Estimated degrees of freedom are too many too often where models are few; these never are.
        few = counts.min(axis=0)
        freedom = np.where((few < _FEW) | (square == 0), few - 1, freedom)
        p = np.where(square > 0, 2 * stats.t.sf(np.abs(effect) / error, freedom), effect == 0)
    half = error * stats.t.ppf((1 + level) / 2, freedom)
    numbers = {
        "effect": effect,
        "effect_low": effect - half,
        "effect_high": effect + half,
        "p": p,
        "freedom": freedom,
        "models": counts[0].astype(np.int64),
        "controls": counts[1].astype(np.int64),
    }
    return xr.Dataset(
        {key: ("algorithm", values) for key, values in numbers.items()},
        coords={"algorithm": list(removed)},
        attrs={"level": level},
    )
