"""What models lose when they are trained without some train units, against controls, with intervals for few models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.errors import InputError

Floats = NDArray[np.float64]
# Fewer say nothing of how much models differ.
FEWEST = 2
_FEW = 5
# Of the variance that two algorithms have each by itself, what is left at least where they cancel: less is rounding.
_LEAST = 1e-4
_MODELS, _CONTROLS = 0, 1


@dataclass(frozen=True)
class _Said:
    """What models of one algorithm say, and its controls; `mask` has the mask of each, -1 for one that is no sample."""

    values: tuple[Floats, Floats]
    mask: tuple[NDArray[np.int64], NDArray[np.int64]]
    spread: float
    error: float

    @property
    def count(self) -> Floats:
        return np.array([len(one) for one in self.values], dtype=np.float64)

    @property
    def variance(self) -> Floats:
        """Of both means."""
        return np.array([one.var(ddof=1) / len(one) for one in self.values])

    @property
    def effect(self) -> float:
        return float(self.values[_MODELS].mean() - self.values[_CONTROLS].mean())

    @property
    def scaled(self) -> float:
        return self.effect / self.spread

    @property
    def of_spread(self) -> float:
        """Variance of the scaled effect that the error of the spread makes."""
        return (self.effect * self.error / self.spread**2) ** 2


def removal_effect(
    removed: Mapping[str, NDArray[Any]],
    control: Mapping[str, NDArray[Any]],
    *,
    spread: Mapping[str, tuple[float, float]] | None = None,
    masks: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] | None = None,
    expected: Mapping[str, tuple[float, float, float]] | None = None,
    level: float = 0.95,
) -> xr.Dataset:
    """Mean of models trained without some train units, less that of controls, under each algorithm.

    Models are the sample, each with its seed, and controls with their own random removals, so that the two kinds differ in
    spread: Welch's interval, by Student's t with the degrees of freedom of Welch and Satterthwaite. With fewer than five of a
    kind these hold too rarely against many of the other (87 % of intervals of two against 50), and one less than the smaller
    number stands in their place, which is never too narrow.

    Outputs of two algorithms need not be on one scale. Effects over the spread of each one's outputs are, and these are
    compared. The same is done with an effect that was predicted, so that one sees whether more happens than that.

    Parameters
    ----------
    removed, control : mapping
        Algorithm to (model,) float: what each model says, such as its mean margin over targets.
    spread : mapping, optional
        Algorithm to what one standard deviation is, and the standard error of it: of single targets over random halves of the
        train units, without noise. NaN where it is not known.
    masks : mapping, optional
        Algorithm to the masks of its models and of its controls, (model,) int64 each: equal where two algorithms were
        trained on one mask, -1 where all models of a kind have one. What they share cancels in the difference.
    expected : mapping, optional
        Algorithm to the effect that was predicted, its standard error and degrees of freedom, from other models than these.
    level : float
        Coverage of the intervals.

    Returns
    -------
    xarray.Dataset
        ``effect``, ``effect_low``, ``effect_high``, two-sided ``p``, ``freedom`` (degrees), ``models``, ``controls``; in
        spreads ``scaled``, ``scaled_low``, ``scaled_high``, with the ``spread``; ``difference``, ``difference_low``,
        ``difference_high``, ``difference_p``, the first algorithm's scaled effect less each other's; ``expected``,
        ``expected_low``, ``expected_high``, and ``surplus``, ``surplus_low``, ``surplus_high``, the effect less it (algorithm).

    Raises
    ------
    InputError
        If the two have other algorithms, or there are fewer than two models of a kind.
    """
    if set(removed) != set(control):
        msg = f"models of {', '.join(removed)}, and controls of {', '.join(control)}; give both of each algorithm"
        raise InputError(msg)
    said = [_said(name, removed, control, spread, masks) for name in removed]
    effects = [(one.effect, one.variance, one.count - 1.0, one.count.min()) for one in said]
    scaled = [
        (
            one.scaled,
            np.append(one.variance / one.spread**2, one.of_spread),
            np.append(one.count - 1.0, np.inf),
            one.count.min(),
        )
        for one in said
    ]
    # Nothing is less than itself.
    none = (np.nan, np.full(1, np.nan), np.ones(1), np.inf)
    less = [none, *(_less(said[0], one) for one in said[1:])]
    told = [(np.nan, np.nan, np.inf) if expected is None else expected[name] for name in removed]
    known = [(value, np.array([error**2]), np.array([free]), np.inf) for value, error, free in told]
    surplus = [
        (value - at, np.append(variance, square), np.append(free, freedom), fewest)
        for (value, variance, free, fewest), (at, square, freedom, _) in zip(
            effects, known, strict=True
        )
    ]
    numbers: dict[str, Any] = {"spread": [one.spread for one in said]}
    for name, parts in (
        ("effect", effects),
        ("scaled", scaled),
        ("difference", less),
        ("expected", known),
        ("surplus", surplus),
    ):
        value, low, high, p, freedom = _intervals(parts, level)
        numbers |= {name: value, f"{name}_low": low, f"{name}_high": high}
        if name == "effect":
            numbers |= {"p": p, "freedom": freedom}
        elif name == "difference":
            numbers["difference_p"] = p
    for place, name in ((_MODELS, "models"), (_CONTROLS, "controls")):
        numbers[name] = [len(one.values[place]) for one in said]
    return xr.Dataset(
        {key: ("algorithm", np.asarray(values)) for key, values in numbers.items()},
        coords={"algorithm": list(removed)},
        attrs={"level": level},
    )


def _said(
    name: str,
    removed: Mapping[str, NDArray[Any]],
    control: Mapping[str, NDArray[Any]],
    spread: Mapping[str, tuple[float, float]] | None,
    masks: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] | None,
) -> _Said:
    ours, others = (np.asarray(one[name], dtype=np.float64) for one in (removed, control))
    if min(len(ours), len(others)) < FEWEST:
        msg = f"algorithm {name!r}: {len(ours)} models and {len(others)} controls; an interval needs {FEWEST} of each"
        raise InputError(msg)
    value, error = (np.nan, np.nan) if spread is None else spread[name]
    none = (np.full(len(ours), -1), np.full(len(others), -1))
    return _Said((ours, others), none if masks is None else masks[name], value, error)


def _less(a: _Said, b: _Said) -> tuple[float, Floats, Floats, float]:
    """Scaled effect of one algorithm less that of another: value, parts of its variance, their degrees of freedom, fewest models."""
    variances, freedoms = [], []
    for place in (_MODELS, _CONTROLS):
        own = np.array([one.variance[place] / one.spread**2 for one in (a, b)])
        free = np.array([one.count[place] - 1.0 for one in (a, b)])
        across, shared = _shared(a, b, place)
        variances.append(max(float(own.sum()) - 2 * across, _LEAST * float(own.sum())))
        # Of pairs there are no more degrees of freedom than pairs less one.
        freedoms.append(float(free.min()) if shared else _together(own, free))
    parts = np.array([*variances, a.of_spread, b.of_spread])
    free = np.array([*freedoms, np.inf, np.inf])
    return a.scaled - b.scaled, parts, free, float(min(a.count.min(), b.count.min()))


def _shared(a: _Said, b: _Said, place: int) -> tuple[float, int]:
    """Covariance of two scaled means by the masks that both have, and how many these are."""
    _, x, y = np.intersect1d(a.mask[place], b.mask[place], return_indices=True)
    there = a.mask[place][x] >= 0
    x, y = x[there], y[there]
    adds = []
    for one, rows in ((a, x), (b, y)):
        values, count = one.values[place], one.count[place]
        deviation = (values - values.mean())[rows] / (one.spread * count)
        adds.append(deviation * np.sqrt(count / (count - 1)))
    return float(adds[0] @ adds[1]), len(x)


def _together(variance: Floats, freedom: Floats) -> float:
    """Degrees of freedom of a sum of independent parts (Welch, Satterthwaite)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(variance.sum() ** 2 / (variance**2 / freedom).sum())


def _intervals(
    parts: Sequence[tuple[float, Floats, Floats, float]], level: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Values, both ends of their intervals, two-sided p and degrees of freedom, each (algorithm,)."""
    from scipy import stats

    value = np.array([one[0] for one in parts])
    square = np.array([one[1].sum() for one in parts])
    fewest = np.array([one[3] for one in parts])
    estimated = np.array([_together(one[1], one[2]) for one in parts])
    # Estimated degrees of freedom are too many too often where models are few; these never are.
    freedom = np.where((fewest < _FEW) | (square == 0), fewest - 1, estimated)
    error = np.sqrt(square)
    half = error * stats.t.ppf((1 + level) / 2, freedom)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(square == 0, value == 0, 2 * stats.t.sf(np.abs(value) / error, freedom))
    return value, value - half, value + half, p, freedom
