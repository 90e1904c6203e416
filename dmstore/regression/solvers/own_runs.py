"""The lasso path of targets that are train units, each over the runs that did not see it.

The same stages and the same mathematics as :mod:`dmstore.regression.solvers.lasso`; here every target has a
design of its own, so that this costs several times as much.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.kernels import path
from dmstore.regression.kernels.descent import descend
from dmstore.regression.kernels.working_set import extend
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
from dmstore.regression.problem.own_runs import OwnGroups, OwnRuns
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import unpenalised
from dmstore.regression.solvers.lasso import (
    FEWEST_RUNS,
    PARTS_TOLERANCE,
    PATH_TOLERANCE,
    Fold,
    Parameters,
)

Arrays = dict[str, NDArray[Any]]
# Share of the tolerance that rounding of the gradient may take.
_ROUNDING = 0.1


class _Solver:
    """Weights of one target over its own runs, and the working set that they were found with.

    Parameters
    ----------
    runs : OwnRuns
    start : (train,) float
        Weights to start from.
    lam : float
        The first that is solved for: it says how exact the gradient at the start must be.
    tolerance, sweeps
        See :class:`Parameters`.
    work : Work
    """

    def __init__(
        self,
        runs: OwnRuns,
        start: NDArray[Any],
        lam: float,
        tolerance: float,
        sweeps: int,
        work: Work,
    ) -> None:
        self._runs, self._work = runs, work
        self._tolerance, self._sweeps = tolerance, sweeps
        self.weight = start.astype(np.float64)
        self._members, self._size = np.empty(runs.train, dtype=np.int64), np.int64(0)
        self._inside = np.zeros(runs.train, dtype=np.bool_)
        self._level, self._diagonal = np.empty(runs.train), np.empty(runs.train)
        self._flat, self._place = work.flat(np.float64, runs.train)
        self._look(lam)
        self._before = self.weight.copy(), self._rest.copy()

    def solve(self, lam: float, bar: float, onward: float = 0.0) -> tuple[int, bool]:
        """Bring the weights to a lam; see ``kernels._solve``.

        Returns
        -------
        sweeps : int
        converged : bool
        """
        half, used, tolerance = 0.5 * lam, 0, self._tolerance
        came_from = self.weight.copy(), self._rest.copy()
        while True:
            self._admit(bar)
            members = self._members[: self._size]
            weight = self.weight[members]
            used += descend(
                self._source(),
                self._flat,
                self._place,
                self._diagonal[: self._size],
                self._rest[members],
                weight,
                self._before[1][members],
                self._before[0][members],
                onward,
                half,
                tolerance,
                self._sweeps - used,
            )
            self.weight[members] = weight
            onward, bar = 0.0, half
            self._look(lam)
            off = path.violated(self._rest, self.weight, self._inside, lam, tolerance)
            if not off or used >= self._sweeps:
                self._before = came_from
                return used, not off

    def _look(self, lam: float) -> None:
        precision = _ROUNDING * self._tolerance * 0.5 * lam
        self._rest = self._runs.rest(self.weight, precision)

    def _source(self) -> tuple[Any, ...]:
        """Where covariances of the working set come from; see :mod:`dmstore.regression.kernels.working_set`."""
        rows = self._work.rows(int(self._size), self._runs.width)
        return rows, self._level[: self._size], self._runs.count, 1.0

    def _admit(self, bar: float) -> None:
        """Take columns into the working set, if any is asked for."""
        old = self._size
        self._size = path.admit(
            self._runs.mean, self._rest, self.weight, bar, self._members, self._inside,
            self._level, self._diagonal, old,
        )  # fmt: skip
        if self._size > old:
            source = self._source()
            source[0][old:] = self._runs.rows(self._members[old : self._size])
            extend(source, old, self._size, self._flat, self._place)


def choose_lams(
    own: OwnGroups,
    groups: tuple[int, ...],
    check: tuple[int, ...],
    parameters: Parameters,
    work: Work,
    fold: Fold | None = None,
) -> Arrays:
    """The lam of each target that fits its own holdout runs best; as ``path.choose_lams``.

    Parameters
    ----------
    own : OwnGroups
    groups, check : tuple of int
        Groups to fit on, and those that choose lam.
    parameters : Parameters
    work : Work
    fold : Fold, optional
        Where the groups to check are a fold of several.

    Returns
    -------
    dict
    """
    result = empty(len(own.unit), own.train, parameters)

    def one(target: int) -> None:
        runs, held = own.runs(groups, target), own.runs(check, target)
        count = runs.count + held.count
        if runs.count < FEWEST_RUNS or not held.count:
            if count:
                total = sum(r.count * r.output for r in (runs, held) if r.count)
                result["bias"][target] = total / count + own.shift[target]
            result["status"][target] = TOO_FEW_RUNS
            return
        everything = own.runs((*groups, *check), target)
        widest = runs if fold is None else everything
        lam_max = 2.0 * float(np.abs(widest.moment()).max(initial=0.0))
        if is_constant(everything.lowest, everything.highest, lam_max, everything.variance):
            write_constant(result, target, everything.output + own.shift[target])
            return
        lams = parameters.path(lam_max)
        errors = result["holdout_mse"][target]
        if parameters.lam == 0:
            weight, *_ = _solve(runs, 0.0, result["weight"][target], parameters, work)
            bias = runs.output - float(weight @ runs.mean)
            errors[0], best, sweeps, converged = held.error(weight, bias), 0, 0, True
        else:
            weight, best, sweeps, converged = _walk(runs, held, lams, errors, parameters, work)
        result["weight"][target] = weight
        result["lam"][target], result["lam_max"][target] = lams[best], lam_max
        result["lam_path"][target] = lams
        result["sweeps"][target] = sweeps
        baseline = held.variance + (held.output - runs.output) ** 2
        if fold is not None:
            fold.share[target], fold.baseline[target] = held.count / count, baseline
        if baseline > 0:
            result["holdout_r2"][target] = 1.0 - errors[best] / baseline
        result["status"][target] = status_of(best, len(lams), converged=converged)

    work.each(one, len(own.unit))
    return result


def _walk(
    runs: OwnRuns,
    held: OwnRuns,
    lams: NDArray[np.float64],
    errors: NDArray[np.float64],
    parameters: Parameters,
    work: Work,
) -> tuple[NDArray[np.float64], int, int, bool]:
    """Walk along the path while it pays; fills `errors`."""
    tolerance = max(parameters.tolerance, PATH_TOLERANCE)
    solver = _Solver(runs, np.zeros(runs.train), lams[0], tolerance, parameters.sweeps, work)
    best_weight, best, sweeps, converged, worse = solver.weight.copy(), 0, 0, True, 0
    for step, lam in enumerate(lams):
        bar = max(lam - 0.5 * lams[step - 1], 0.45 * lam) if step else 0.5 * lam
        onward = (lams[step - 1] - lam) / (lams[step - 2] - lams[step - 1]) if step > 1 else 0.0
        used, there = solver.solve(lam, bar, min(onward, 1.0))
        sweeps, converged = sweeps + used, converged and there
        errors[step] = held.error(solver.weight, runs.output - float(solver.weight @ runs.mean))
        if step == 0 or errors[step] < errors[best]:
            best, worse = step, 0
            best_weight[:] = solver.weight
        elif errors[step] > errors[best]:
            worse += 1
            if 0 < parameters.patience <= worse:
                break
    return best_weight, best, sweeps, converged


def refit_all(
    own: OwnGroups, groups: tuple[int, ...], parameters: Parameters, result: Arrays, work: Work
) -> None:
    """Fit on all own runs at the lams that were chosen, and certify; as ``path.refit_all``."""

    def one(target: int) -> None:
        if result["status"][target] in UNFITTED:
            return
        runs, lam = own.runs(groups, target), float(result["lam"][target])
        solved, sweeps, converged = _solve(runs, lam, result["weight"][target], parameters, work)

        def certify(weight: NDArray[np.float64]) -> tuple[float, float]:
            if lam == 0:
                norm = unpenalised.MinimumNorm(runs.design())
                return norm.certify(runs.moment(), runs.variance, weight)
            return runs.certify(weight, lam)

        output = runs.output + own.shift[target]
        settled = write_weights(result, target, solved, output, runs.mean, certify, parameters)
        result["sweeps"][target] += sweeps
        if not (converged and settled):
            result["status"][target] = NOT_CONVERGED

    work.each(one, len(own.unit))


def fit_part(
    name: str,
    number: int,
    share: int,
    own: OwnGroups,
    groups: tuple[int, ...],
    parameters: Parameters,
    result: Arrays,
    work: Work,
) -> None:
    """Fit a half or a quarter of the masks; as ``path.fit_part``."""
    found = result.setdefault(name, np.zeros((share, len(own.unit), own.train), dtype=np.float32))
    start = result["weight_half"][number // 2] if name == "weight_quarter" else result["weight"]

    def one(target: int) -> None:
        if result["status"][target] in UNFITTED:
            return
        runs = own.runs(groups, target)
        if not runs.count:
            return
        lam = float(result["lam"][target]) * math.sqrt(share)
        found[number, target], _, converged = _solve(
            runs, lam, start[target], parameters, work, PARTS_TOLERANCE
        )
        if not converged:
            result["status"][target] = NOT_CONVERGED

    work.each(one, len(own.unit))


def _solve(
    runs: OwnRuns,
    lam: float,
    start: NDArray[np.float32],
    parameters: Parameters,
    work: Work,
    coarsest: float = 0.0,
) -> tuple[NDArray[np.float64], int, bool]:
    if lam == 0:
        return unpenalised.MinimumNorm(runs.design()).solve(runs.moment()), 0, True
    tolerance = max(parameters.tolerance, coarsest)
    solver = _Solver(runs, start, lam, tolerance, parameters.sweeps, work)
    sweeps, converged = solver.solve(lam, 0.5 * lam)
    return solver.weight, sweeps, converged
