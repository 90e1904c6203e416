"""Counterfactual effect of a transformation, with intervals clustered by model and example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    check_intensities(intensity)
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


class Effects:
    """Effects of a transformation under algorithms, filled in one class and intensity after the other.

    Parameters
    ----------
    algorithms : sequence of str
    intensity : sequence of float
        From 0.
    classes : sequence of str
    level : float
        Coverage of the intervals.
    """

    def __init__(
        self,
        algorithms: Sequence[str],
        intensity: Sequence[float],
        classes: Sequence[str],
        level: float = 0.95,
    ) -> None:
        check_intensities(intensity)
        self.algorithms = list(algorithms)
        self.intensity = np.asarray(intensity, dtype=np.float64)
        self.classes = list(classes)
        self.level = level
        shape = (len(self.algorithms), len(self.intensity), len(self.classes))
        self._mean, self._half = np.full(shape, np.nan), np.full(shape, np.nan)
        self._models = np.zeros(len(self.algorithms), dtype=np.int64)
        self._examples = np.zeros(len(self.classes), dtype=np.int64)

    def add(self, algorithm: str, step: int, column: int, change: NDArray[Any]) -> None:
        """Fill in what one intensity does to one class.

        Parameters
        ----------
        algorithm : str
        step, column : int
            Positions of the intensity and the class.
        change : (model, example) float

        Raises
        ------
        ValueError
            If there is no such algorithm.
        """
        row = self.algorithms.index(algorithm)
        values = np.asarray(change, dtype=np.float64)
        self._mean[row, step, column] = values.mean()
        self._half[row, step, column] = _half_width(values, self.level)
        self._models[row], self._examples[column] = values.shape

    def dataset(self, numbers: Sequence[int], *, clip: bool) -> xr.Dataset:
        """All effects, and what they say by Definition 2.

        Parameters
        ----------
        numbers : sequence of int
            Of the classes.
        clip : bool
            Whether effects are of probabilities, which change by 1 at most.

        Returns
        -------
        xarray.Dataset
            ``effect``, ``effect_low``, ``effect_high``, ``delta`` and ``epsilon`` (algorithm, intensity, class); see
            :func:`distinguishing`.

        Raises
        ------
        ValueError
            If there is not one number per class.
        """
        dims = ("algorithm", "intensity", "class")
        most = 1.0 if clip else np.inf
        low, high = self._mean - self._half, self._mean + self._half
        return distinguishing(
            xr.Dataset(
                {
                    "effect": (dims, self._mean),
                    "effect_low": (dims, np.maximum(low, -most)),
                    "effect_high": (dims, np.minimum(high, most)),
                    "models": ("algorithm", self._models),
                    "examples": ("class", self._examples),
                },
                coords={
                    "algorithm": self.algorithms,
                    "intensity": self.intensity,
                    "class": self.classes,
                    "number": ("class", np.asarray(numbers, dtype=np.int64)),
                },
                attrs={"level": self.level},
            )
        )


def distinguishing(effects: xr.Dataset) -> xr.Dataset:
    """What effects say by Definition 2: the largest delta and the smallest epsilon that hold.

    A transformation is (epsilon, delta)-distinguishing of an algorithm with respect to another if its effect under the first
    is delta at least, and under the other epsilon at most. With intervals of 95 %, an effect lies below its lower end, or
    above its upper end, in 2.5 % of studies, so that both statements hold with 95 %. It distinguishes where ``delta`` is
    above ``epsilon``.

    Parameters
    ----------
    effects : xarray.Dataset
        ``effect_low`` and ``effect_high`` with the dim ``algorithm``.

    Returns
    -------
    xarray.Dataset
        The same with ``delta`` (the lower end) and ``epsilon`` (the largest upper end of the other algorithms).

    Raises
    ------
    KeyError
        If there are no intervals.
    """
    high = effects["effect_high"]
    rows = []
    for row in range(effects.sizes["algorithm"]):
        others = [other for other in range(effects.sizes["algorithm"]) if other != row]
        # Of one model nothing is known: NaN goes through.
        rows.append(high.values[others].max(axis=0, initial=-np.inf))
    epsilon = np.where(np.isneginf(rows), np.nan, rows)
    return effects.assign(delta=effects["effect_low"], epsilon=(high.dims, epsilon))


def check_intensities(intensity: Sequence[float]) -> None:
    """Refuse intensities that do not begin with the untouched input.

    Parameters
    ----------
    intensity : sequence of float

    Raises
    ------
    InputError
        If the first is not 0.
    """
    if not len(intensity) or intensity[0] != 0:
        msg = f"intensities {list(intensity)} must start with 0, which leaves the input as it is"
        raise InputError(msg)


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
