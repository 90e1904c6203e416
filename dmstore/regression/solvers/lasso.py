"""The lasso path of many targets over one design, from sufficient statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.kernels import gradient, path
from dmstore.regression.kernels.working_set import unit_of
from dmstore.regression.problem.block_arrays import (
    CONSTANT,
    NOT_CONVERGED,
    empty,
    is_constant,
    status_of,
    write_constant,
    write_weights,
)
from dmstore.regression.problem.design import Design, Moments
from dmstore.regression.problem.parameters import Parameters as Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import unpenalised

FEWEST_RUNS = 20
# The path only chooses lam; what is stored comes from the refit, solved to the full tolerance.
PATH_TOLERANCE = 4e-3
# Parts of the runs are compared with one another, where estimation noise is far above this.
PARTS_TOLERANCE = 1e-4
# Sweeps at one lam that are tried in float32.
_SWEEPS = 500


@dataclass(frozen=True)
class Designs:
    """The designs of one fit: runs to fit on, runs that choose lam, both, halves and quarters."""

    train: Design
    holdout: Design
    everything: Design
    halves: tuple[Design, ...] = field(default=())
    quarters: tuple[Design, ...] = field(default=())


@dataclass(frozen=True)
class Outputs:
    """The outputs of some targets on the same groups of runs, less `shift` (target,)."""

    train: Moments
    holdout: Moments
    everything: Moments
    shift: NDArray[np.float64]
    halves: tuple[Moments, ...] = field(default=())
    quarters: tuple[Moments, ...] = field(default=())


@dataclass(frozen=True)
class Fold:
    """One of several groups of runs that choose lam in turn.

    Attributes
    ----------
    lam_max : (target,) float64
        That of all runs: where the path of every fold begins.
    share : (target,) float64
        Share of the runs that the fold holds; filled.
    baseline : (target,) float64
        Mean squared error of the mean on them; filled.
    """

    lam_max: NDArray[np.float64]
    share: NDArray[np.float64]
    baseline: NDArray[np.float64]


def fit_block(
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    *,
    threads: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[Any]]:
    """Fit some targets: choose lam on the holdout runs, refit on all, certify.

    Parameters
    ----------
    designs : Designs
    outputs : Outputs
    parameters : Parameters
    threads : int
    cancelled : callable
        Asked before each target.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema but for ``target``.
    """
    work = Work(threads, cancelled)
    result = choose_lams(
        designs.train,
        designs.holdout,
        outputs.train,
        outputs.holdout,
        outputs.shift,
        parameters,
        work,
    )
    refit_all(designs.everything, outputs.everything, outputs.shift, parameters, result, work)
    for name, share, parts, moments in (
        ("weight_half", 2.0, designs.halves, outputs.halves),
        ("weight_quarter", 4.0, designs.quarters, outputs.quarters),
    ):
        for number, (design, part) in enumerate(zip(parts, moments, strict=True)):
            fit_part(name, number, share, design, part, parameters, result, work)
    return result


def choose_lams(
    design: Design,
    check_design: Design,
    moments: Moments,
    check: Moments,
    shift: NDArray[np.float64],
    parameters: Parameters,
    work: Work,
    fold: Fold | None = None,
) -> dict[str, NDArray[Any]]:
    """The lam of each target that fits the holdout runs best, and its weights as a start.

    Parameters
    ----------
    design, moments
        Of the runs to fit on.
    check_design, check
        Of the holdout runs; of the design only the words are used.
    shift : (target,) float64
        What the outputs were lessened by.
    parameters : Parameters
    work : Work
    fold : Fold, optional
        Where the holdout runs are a fold of several.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema as far as they are known.
    """
    targets = len(shift)
    result = empty(targets, design.train, parameters)
    gram, mean = design.gram, design.mean
    words = check_design.words
    lowest = np.minimum(moments.lowest, check.lowest)
    highest = np.maximum(moments.highest, check.highest)
    runs, checked = moments.runs, max(check.runs, 1)
    free = unpenalised.of(design) if parameters.lam == 0 else None

    def one(target: int) -> None:
        output, moment = centred(moments, mean, target)
        check_output = check.total[target] / checked
        check_outputs = check_design.outputs(check, target)
        total = (moments.total[target] + check.total[target]) / (runs + check.runs)
        square = (moments.square[target] + check.square[target]) / (runs + check.runs)
        lam_max = (
            2.0 * float(np.abs(moment).max(initial=0.0)) if fold is None else fold.lam_max[target]
        )
        if is_constant(lowest[target], highest[target], lam_max, square - total**2):
            write_constant(result, target, total + shift[target])
            return
        lams = parameters.path(lam_max)
        errors = result["holdout_mse"][target]
        variance = max(check.square[target] / checked - check_output**2, 0.0)
        best, sweeps, converged = 0, 0, True
        if free:
            weight = free.solve(moment)
            bias = output - float(weight @ mean)
            errors[0] = unpenalised.holdout_error(check_design, check_outputs, weight, bias)
        for kept, dtype, unit in () if free else precisions(runs):
            weight, best, used, converged = path.choose(
                gram,
                mean,
                moment,
                runs,
                output,
                lams,
                max(parameters.tolerance, PATH_TOLERANCE),
                parameters.sweeps if dtype == np.float64 else min(parameters.sweeps, _SWEEPS),
                parameters.patience,
                words,
                check_outputs,
                check.runs,
                errors,
                *work.flat(kept, len(mean)),
                unit,
                np.empty((2, 2 + path.ABREAST, len(mean)), dtype=dtype),
            )
            sweeps += used
            if converged:
                break
            if dtype == np.float32:
                errors[:] = np.nan
        result["weight"][target] = weight
        result["lam"][target], result["lam_max"][target] = lams[best], lam_max
        result["lam_path"][target] = lams
        result["sweeps"][target] = sweeps
        # The baseline is what a model without weights predicts: the mean of the train runs.
        baseline = variance + (check_output - output) ** 2
        if fold is not None:
            fold.share[target] = check.runs / (runs + check.runs)
            fold.baseline[target] = baseline
        if check.runs and baseline > 0:
            result["holdout_r2"][target] = 1.0 - errors[best] / baseline
        result["status"][target] = status_of(best, len(lams), converged=converged)

    work.each(one, targets)
    return result


def refit_all(
    design: Design,
    moments: Moments,
    shift: NDArray[np.float64],
    parameters: Parameters,
    result: dict[str, NDArray[Any]],
    work: Work,
) -> None:
    """Fit on all runs at the lams that were chosen, and certify what is stored; fills `result`."""
    gram, mean, runs = design.gram, design.mean, moments.runs
    free = unpenalised.of(design) if parameters.lam == 0 else None

    def one(target: int) -> None:
        if result["status"][target] == CONSTANT:
            return
        output, moment = centred(moments, mean, target)
        variance = max(moments.square[target] / runs - output**2, 0.0)
        lam = result["lam"][target]
        solved, sweeps, converged = (
            (free.solve(moment), 0, True)
            if free
            else _solve(gram, mean, moment, runs, lam, result["weight"][target], parameters, work)
        )

        def certify(weight: NDArray[np.float64]) -> tuple[float, float]:
            if free:
                return free.certify(moment, variance, weight)
            found: tuple[float, float] = gradient.certify(
                gram, mean, moment, runs, variance, weight, lam
            )
            return found

        settled = write_weights(
            result, target, solved, output + shift[target], mean, certify, parameters
        )
        result["sweeps"][target] += sweeps
        if not (converged and settled):
            result["status"][target] = NOT_CONVERGED

    work.each(one, len(shift))


def fit_part(
    name: str,
    number: int,
    share: float,
    design: Design,
    moments: Moments,
    parameters: Parameters,
    result: dict[str, NDArray[Any]],
    work: Work,
) -> None:
    """Fit a half or a quarter of the masks, at the lam that fits its number of runs; fills `result`.

    A part with 1/n of the runs has sqrt(n) times the noise in every product, and so needs that
    much more lam.

    Parameters
    ----------
    name : str
        ``weight_half`` or ``weight_quarter``.
    number : int
        Which of them.
    share : float
        n.
    design, moments
        Of the part.
    """
    targets, train = result["weight"].shape
    found = result.setdefault(name, np.zeros((int(share), targets, train), dtype=np.float32))
    start = result["weight_half"][number // 2] if name == "weight_quarter" else result["weight"]
    coarse = replace(parameters, tolerance=max(parameters.tolerance, PARTS_TOLERANCE))
    gram, mean = design.gram, design.mean
    free = unpenalised.of(design) if parameters.lam == 0 else None

    def one(target: int) -> None:
        if result["status"][target] == CONSTANT:
            return
        _, moment = centred(moments, mean, target)
        if free:
            found[number, target] = free.solve(moment)
            return
        lam = result["lam"][target] * math.sqrt(share)
        found[number, target], _, converged = _solve(
            gram, mean, moment, moments.runs, lam, start[target], coarse, work
        )
        if not converged:
            result["status"][target] = NOT_CONVERGED

    work.each(one, targets)


def precisions(runs: int) -> tuple[tuple[type[Any], type[Any], float], ...]:
    """What covariances of a path may be kept as, what it is walked in, and the unit of the former.

    In the order in which they are tried: the first does for units drawn by themselves, the second for all but
    the flattest problems.
    """
    return (
        (np.int16, np.float32, unit_of(runs)),
        (np.float32, np.float32, 1.0),
        (np.float64, np.float64, 1.0),
    )


def centred(
    moments: Moments, mean: NDArray[np.float64], target: int
) -> tuple[float, NDArray[np.float64]]:
    """Mean of one output, and its covariance with the masks: (train,) float64."""
    runs = max(moments.runs, 1)
    output = float(moments.total[target]) / runs
    moment = moments.product[:, target] / runs - mean * output
    # Nothing covaries with what never changes; sums in float32 would say that it does a little.
    still = moments.lowest[target] == moments.highest[target]
    moment[still | (mean <= 0.0) | (mean >= 1.0)] = 0.0
    return output, moment


def _solve(
    gram: NDArray[Any],
    mean: NDArray[np.float64],
    moment: NDArray[np.float64],
    runs: int,
    lam: float,
    start: NDArray[np.float32],
    parameters: Parameters,
    work: Work,
) -> tuple[NDArray[np.float64], int, bool]:
    weight, sweeps, converged = path.refit(
        gram,
        mean,
        moment,
        runs,
        lam,
        start,
        parameters.tolerance,
        parameters.sweeps,
        *work.flat(np.float64, len(mean)),
    )
    return weight, sweeps, converged
