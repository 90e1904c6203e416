"""The lasso of a block of targets: choose lam on held runs, refit on all of them, certify what is stored.

The same for every kind of problem (:mod:`dmstore.regression.solvers.protocol`): targets that share their
designs, and targets that are train units, each with a design of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.block_arrays import (
    NOT_CONVERGED,
    TOO_FEW_RUNS,
    UNFITTED,
    empty,
    is_constant,
    status_of,
    write_constant,
    write_weights,
)
from dmstore.regression.problem.parameters import PARTS_TOLERANCE, Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.protocol import Block, Problem
from dmstore.regression.solvers.shared import SharedBlock

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Fold:
    """One of several groups of runs that choose lam in turn; both arrays are filled by :func:`choose`.

    Attributes
    ----------
    share : (target,) float64
        Share of the runs that the fold holds.
    baseline : (target,) float64
        Mean squared error of the mean on them.
    """

    share: NDArray[np.float64]
    baseline: NDArray[np.float64]

    @classmethod
    def of(cls, targets: int) -> Fold:
        """A fold of which nothing is known yet."""
        return cls(np.zeros(targets), np.zeros(targets))


def choose(
    block: Block,
    groups: tuple[int, ...],
    check: tuple[int, ...],
    parameters: Parameters,
    work: Work,
    fold: Fold | None = None,
) -> Arrays:
    """The lam of each target that fits its held runs best, and its weights as a start.

    Parameters
    ----------
    block : Block
    groups, check : tuple of int
        Groups of runs to fit on, and those that choose lam.
    parameters : Parameters
    work : Work
    fold : Fold, optional
        Where the groups to check are a fold of several: the path of every fold begins at the lam_max of
        all runs.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema as far as they are known.
    """
    targets = len(block.shift)
    result = empty(targets, block.train, parameters)
    fitted_of, held_of = block.over(groups), block.over(check)

    def one(target: int) -> None:
        fitted, held = fitted_of(target), held_of(target)
        if fitted.count < block.fewest or (block.fewest and not held.count):
            _write_too_few(result, target, (fitted, held), float(block.shift[target]))
            return
        everything = fitted.joined(held)
        lam_max = (fitted if fold is None else everything).lam_max()
        if is_constant(everything.lowest, everything.highest, lam_max, everything.variance):
            write_constant(result, target, everything.output + block.shift[target])
            return
        lams = parameters.path(lam_max)
        errors = result["holdout_mse"][target]
        if parameters.lam == 0:
            solution = fitted.solve(0.0, result["weight"][target], 0.0, 0, work)
            bias = fitted.output - float(solution.weight @ fitted.mean)
            errors[0] = held.error(solution.weight, bias)
        else:
            solution = fitted.walk(held, lams, errors, parameters, work)
        result["weight"][target] = solution.weight
        result["lam"][target], result["lam_max"][target] = lams[solution.best], lam_max
        result["lam_path"][target] = lams
        result["sweeps"][target] = solution.sweeps
        # The baseline is what a model without weights predicts: the mean of the fitted runs.
        baseline = held.variance + (held.output - fitted.output) ** 2
        if fold is not None:
            fold.share[target] = held.count / everything.count
            fold.baseline[target] = baseline
        if held.count and baseline > 0:
            result["holdout_r2"][target] = 1.0 - errors[solution.best] / baseline
        result["status"][target] = status_of(solution.best, len(lams), converged=solution.converged)

    work.each(one, targets)
    return result


def _write_too_few(
    result: Arrays, target: int, problems: tuple[Problem, ...], shift: float
) -> None:
    """The answer for a target that too few runs say anything of: their mean."""
    some = [problem for problem in problems if problem.count]
    if some:
        total = sum(problem.count * problem.output for problem in some)
        result["bias"][target] = total / sum(problem.count for problem in some) + shift
    result["status"][target] = TOO_FEW_RUNS


def refit(
    block: Block, groups: tuple[int, ...], parameters: Parameters, result: Arrays, work: Work
) -> None:
    """Fit on all runs at the lams that were chosen, and certify what is stored; fills `result`.

    Parameters
    ----------
    block : Block
    groups : tuple of int
        Groups of all runs.
    parameters : Parameters
    result : dict
        As :func:`choose` gives it.
    work : Work
    """
    problem_of = block.over(groups)

    def one(target: int) -> None:
        if result["status"][target] in UNFITTED:
            return
        problem, lam = problem_of(target), float(result["lam"][target])
        start = result["weight"][target]
        solution = problem.solve(lam, start, parameters.tolerance, parameters.sweeps, work)

        def certify(weight: NDArray[np.float64]) -> tuple[float, float]:
            return problem.certify(weight, lam)

        output = problem.output + block.shift[target]
        settled = write_weights(
            result, target, solution.weight, output, problem.mean, certify, parameters
        )
        result["sweeps"][target] += solution.sweeps
        if not (solution.converged and settled):
            result["status"][target] = NOT_CONVERGED

    work.each(one, len(block.shift))


def fit_half(
    number: int,
    block: Block,
    groups: tuple[int, ...],
    parameters: Parameters,
    result: Arrays,
    work: Work,
) -> None:
    """Fit a half of the masks, at the lam that fits its number of runs; fills `result`.

    With half of the runs every product has sqrt(2) times the noise, and so needs that much more lam.

    Parameters
    ----------
    number : int
        Which half, 0 or 1.
    block : Block
    groups : tuple of int
        Groups of its runs.
    parameters : Parameters
    result : dict
        As :func:`refit` leaves it.
    work : Work
    """
    targets, train = result["weight"].shape
    weights = result.setdefault("weight_half", np.zeros((2, targets, train), dtype=np.float32))
    start = result["weight"]
    tolerance = max(parameters.tolerance, PARTS_TOLERANCE)
    problem_of = block.over(groups)

    def one(target: int) -> None:
        if result["status"][target] in UNFITTED:
            return
        problem = problem_of(target)
        if not problem.count:
            return
        lam = float(result["lam"][target]) * math.sqrt(2.0)
        solved = problem.solve(lam, start[target], tolerance, parameters.sweeps, work)
        weights[number, target] = solved.weight
        if not solved.converged:
            result["status"][target] = NOT_CONVERGED

    work.each(one, targets)


def fit_block(
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    *,
    threads: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> Arrays:
    """Fit a block of targets that share their designs, as any solver in the registry does.

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
    parts = [(designs.train, outputs.train), (designs.holdout, outputs.holdout)]
    parts.append((designs.everything, outputs.everything))
    parts += zip(designs.halves, outputs.halves, strict=True)
    block = SharedBlock(
        {(number,): design for number, (design, _) in enumerate(parts)},
        lambda number: parts[number][1],
        outputs.shift,
    )
    result = choose(block, (0,), (1,), parameters, work)
    refit(block, (2,), parameters, result, work)
    for number in range(len(designs.halves)):
        fit_half(number, block, (3 + number,), parameters, result, work)
    return result
