"""Counterfactual effect of a transformation, with intervals clustered by model and example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.errors import InputError


def effect(
    probability: Mapping[str, NDArray[np.float64]],
    intensity: Sequence[float],
    *,
    level: float = 0.95,
) -> xr.Dataset:
    """Mean change of a class probability under each algorithm (Definition 2).

    Models and examples are both samples. The interval adds up, in squares, the half-width of the mean over
    models (Student's t with models - 1 degrees of freedom) and that of the mean over examples beyond what
    models and examples have in common (examples - 1), so that it holds from two models on
    (``python -m benchmarks calibration``).

    Parameters
    ----------
    probability : mapping
        Algorithm to (intensity, model, example) float64; the first intensity must be 0.
    intensity : sequence of float
    level : float
        Coverage of the interval.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high`` (algorithm, intensity); of one model the ends are NaN.

    Raises
    ------
    InputError
        If shapes do not fit, or the first intensity is not 0.
    """
    if not len(intensity) or intensity[0] != 0:
        msg = f"intensities {list(intensity)} must start with 0, which leaves the input as it is"
        raise InputError(msg)
    shape = (len(probability), len(intensity))
    mean, half = np.zeros(shape), np.zeros(shape)
    for row, values in enumerate(probability.values()):
        for column in range(len(intensity)):
            change = values[column] - values[0]
            mean[row, column] = change.mean()
            half[row, column] = _half_width(change, level)
    dims = ("algorithm", "intensity")
    return xr.Dataset(
        {
            "effect": (dims, mean),
            "effect_low": (dims, np.maximum(mean - half, -1)),
            "effect_high": (dims, np.minimum(mean + half, 1)),
        },
        coords={"algorithm": list(probability), "intensity": np.asarray(intensity, dtype=float)},
        attrs={"level": level},
    )


def _half_width(change: NDArray[np.float64], level: float) -> float:
    """Half the width of the interval of the mean of (model, example) numbers; NaN of one model."""
    from scipy.stats import t

    models, examples = change.shape
    if models < 2:
        return np.nan
    by_model, by_example = change.mean(axis=1), change.mean(axis=0)
    square = t.ppf((1 + level) / 2, models - 1) ** 2 * by_model.var(ddof=1) / models
    if examples > 1:
        left = change - by_model[:, None] - by_example + change.mean()
        # The mean over examples varies with what models do on each of them, which is in the first part.
        common = (left**2).sum() / ((models - 1) * (examples - 1) * models * examples)
        beyond = max(by_example.var(ddof=1) / examples - common, 0.0)
        square += t.ppf((1 + level) / 2, examples - 1) ** 2 * beyond
    return float(np.sqrt(square))
