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
    resamples: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
) -> xr.Dataset:
    """Mean change of a class probability under each algorithm (Definition 2).

    Parameters
    ----------
    probability : mapping
        Algorithm to (intensity, model, example) float64; the first intensity must be 0.
    intensity : sequence of float
    resamples : int
        Bootstrap resamples; each draws models and examples again, both with replacement.
    level : float
        Coverage of the interval.
    random_state : int

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high`` (algorithm, intensity).

    Raises
    ------
    InputError
        If shapes do not fit, or the first intensity is not 0.
    """
    if not len(intensity) or intensity[0] != 0:
        msg = f"intensities {list(intensity)} must start with 0, which leaves the input as it is"
        raise InputError(msg)
    shape = (len(probability), len(intensity))
    mean, low, high = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    tail = 100 * (1 - level) / 2
    for row, values in enumerate(probability.values()):
        draw = np.random.default_rng(random_state)
        models, examples = values.shape[1:]
        # How often each model and each example is drawn: a resampled mean is a bilinear form.
        by_model = draw.multinomial(models, np.full(models, 1 / models), resamples) / models
        by_example = (
            draw.multinomial(examples, np.full(examples, 1 / examples), resamples) / examples
        )
        for column in range(len(intensity)):
            change = values[column] - values[0]
            mean[row, column] = change.mean()
            resampled = ((by_model @ change) * by_example).sum(axis=1)
            low[row, column], high[row, column] = np.percentile(resampled, [tail, 100 - tail])
    dims = ("algorithm", "intensity")
    return xr.Dataset(
        {"effect": (dims, mean), "effect_low": (dims, low), "effect_high": (dims, high)},
        coords={"algorithm": list(probability), "intensity": np.asarray(intensity, dtype=float)},
        attrs={"resamples": resamples, "level": level, "random_state": random_state},
    )
