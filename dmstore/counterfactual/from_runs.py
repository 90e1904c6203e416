"""What an algorithm's stored runs say about a removal: the scale of its outputs, and the effect to be expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.comparison.measured import fits_of_halves
from dmstore.analysis.experiment.arms import FEWEST_MASKS, Halves
from dmstore.analysis.experiment.draws import Draws, drawn_together
from dmstore.analysis.experiment.reading import Pinned, pin, read_arms
from dmstore.analysis.experiment.spread import spread
from dmstore.analysis.experiment.unseen import unseen_effect
from dmstore.counterfactual.removed_units import Choice
from dmstore.errors import InputError
from dmstore.study.dataset import read_rows
from dmstore.study.study import Study

_UNKNOWN = float("nan")


@dataclass(frozen=True)
class FromRuns:
    """What runs say; NaN what they cannot tell, as where they are few or their masks draw units together.

    Attributes
    ----------
    spread : tuple of float
        Standard deviation of a target over random halves of the train units, without noise, and its error.
    masks : int
        That the spread was measured on.
    expected : tuple of float
        Effect of the removal if effects add up, its standard error and degrees of freedom: of runs that no fit saw.
    missed, give : float
        How many of the units runs miss, and its standard deviation.
    """

    spread: tuple[float, float] = (_UNKNOWN, _UNKNOWN)
    masks: int = 0
    expected: tuple[float, float, float] = (_UNKNOWN, _UNKNOWN, _UNKNOWN)
    missed: float = _UNKNOWN
    give: float = _UNKNOWN


def change_of(chosen: Choice, train: int, seen: int) -> NDArray[np.float64]:
    """By how much more often models without the units see each unit than their controls do: (train,) float64."""
    share = np.full(train, seen / (train - len(chosen.units)))
    share[chosen.units] = 0.0
    return np.asarray(share - seen / train)


def from_runs(study: Study, name: str, chosen: Choice, seen: int, threads: int = 1) -> FromRuns:
    """What the runs of an algorithm say about a removal; the spread from those that were fitted on, the effect from the others.

    Parameters
    ----------
    study : Study
    name : str
        An algorithm.
    chosen : Choice
    seen : int
        Units that each model sees.
    threads : int
    """
    targets = np.sort(chosen.targets)
    try:
        pinned = pin(study, name)
        (halves,) = read_arms(study, (pinned,), chosen.output, threads=threads, positions=targets)
        change = change_of(chosen, pinned.algorithm.train, seen)
        if not pinned.algorithm.planned and _together(halves, change):
            return FromRuns()
    except InputError:
        return FromRuns()
    arm, units = halves[0], chosen.units
    variance = float((arm.rate * (1 - arm.rate))[units].sum())
    left = (len(change) - len(units)) / max(len(change) - 1, 1)
    return FromRuns(
        spread(halves, _halves_of(study, name, chosen.fits[name], targets), threads),
        sum(one.count for one in halves),
        _expected(pinned, chosen, change, arm.rate, arm.fixed),
        float((1 - arm.rate)[units].sum()),
        float(np.sqrt(variance * (1 - arm.fixed * (1 - left)))),
    )


def _together(halves: Halves, change: NDArray[np.float64]) -> bool:
    """Whether masks that were made elsewhere draw the units together with others."""
    column = change[:, None]
    return bool(drawn_together(halves, Draws.of(halves, column, ["removed"]), column).any())


def _halves_of(study: Study, name: str, fit: str, targets: NDArray[np.int64]) -> list[Any] | None:
    """Fits of half 0 and of half 1 of some targets, where there are any."""
    data = study.datamodels(name, fit)
    return fits_of_halves(data.isel(target=targets)) if "weight_half" in data else None


def _expected(
    pinned: Pinned,
    chosen: Choice,
    change: NDArray[np.float64],
    rate: NDArray[np.float64],
    fixed: float,
) -> tuple[float, float, float]:
    """Effect, error and degrees of freedom from runs that nothing is fitted on, those of a mask together."""
    algorithm, view = pinned.algorithm, pinned.view
    mask_id = view.read(["mask_id"])["mask_id"]
    position = np.flatnonzero(algorithm.split(mask_id) == "eval")
    ids, first, number = np.unique(mask_id[position], return_index=True, return_inverse=True)
    if len(ids) < FEWEST_MASKS:
        return FromRuns.expected
    said = read_rows(view, chosen.output, position)[:, chosen.targets].astype(np.float64)
    mean = np.bincount(number.ravel(), said.mean(axis=1)) / np.bincount(number.ravel())
    seen = read_rows(view, "mask", position[first])
    weight = chosen.weight[algorithm.name]
    return unseen_effect(seen, mean, weight, change, rate, fixed)
