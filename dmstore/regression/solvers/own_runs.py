"""Problems of targets that are train units, each over the runs that did not see it.

Every target has a design of its own, so that this costs several times as much as a shared one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.kernels import path
from dmstore.regression.kernels.descent import descend
from dmstore.regression.kernels.working_set import extend
from dmstore.regression.problem.own_runs import OwnGroups, OwnRuns
from dmstore.regression.problem.parameters import FEWEST_RUNS, PATH_TOLERANCE, Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers.protocol import Solution
from dmstore.regression.solvers.unpenalised import MinimumNorm

# Share of the tolerance that rounding of the gradient may take.
_ROUNDING = 0.1


class OwnBlock:
    """Targets of a block that are train units; see :class:`~dmstore.regression.solvers.protocol.Block`.

    Parameters
    ----------
    groups : OwnGroups
    """

    fewest = FEWEST_RUNS

    def __init__(self, groups: OwnGroups) -> None:
        self._groups = groups
        self.shift = groups.shift

    @property
    def train(self) -> int:
        """Number of train units."""
        return self._groups.train

    def over(self, groups: tuple[int, ...]) -> Callable[[int], OwnProblem]:
        """The problem of each target over the runs of some groups that did not see it."""
        return lambda target: OwnProblem(*self._groups.runs(groups, target))


class OwnProblem(OwnRuns):
    """One target on a design of its own; see :class:`~dmstore.regression.solvers.protocol.Problem`."""

    @functools.cached_property
    def _norm(self) -> MinimumNorm:
        return MinimumNorm(self.design())

    def lam_max(self) -> float:
        """The smallest lam that leaves no weights."""
        return 2.0 * float(np.abs(self.moment()).max(initial=0.0))

    def joined(self, held: OwnProblem) -> OwnProblem:
        """The output over these runs and those of another problem."""
        return self.with_runs(held)

    def walk(
        self,
        held: OwnProblem,
        lams: NDArray[np.float64],
        errors: NDArray[np.float64],
        parameters: Parameters,
        work: Work,
    ) -> Solution:
        """Walk down a path; see :meth:`~dmstore.regression.solvers.protocol.Problem.walk`."""
        tolerance = max(parameters.tolerance, PATH_TOLERANCE)
        solver = _Solver(self, np.zeros(self.train), lams[0], tolerance, parameters.sweeps, work)
        best_weight, best, sweeps, converged, worse = solver.weight.copy(), 0, 0, True, 0
        for step, lam in enumerate(lams):
            bar = max(lam - 0.5 * lams[step - 1], 0.45 * lam) if step else 0.5 * lam
            onward = (lams[step - 1] - lam) / (lams[step - 2] - lams[step - 1]) if step > 1 else 0.0
            used, there = solver.solve(lam, bar, min(onward, 1.0))
            sweeps, converged = sweeps + used, converged and there
            errors[step] = held.error(solver.weight, self.output - float(solver.weight @ self.mean))
            if step == 0 or errors[step] < errors[best]:
                best, worse = step, 0
                best_weight[:] = solver.weight
            elif errors[step] > errors[best]:
                worse += 1
                if 0 < parameters.patience <= worse:
                    break
        return Solution(best_weight, sweeps, converged, best)

    def solve(
        self, lam: float, start: NDArray[Any], tolerance: float, sweeps: int, work: Work
    ) -> Solution:
        """Weights at one lam; see :meth:`~dmstore.regression.solvers.protocol.Problem.solve`."""
        if lam == 0:
            return Solution(self._norm.solve(self.moment()), 0, converged=True)
        solver = _Solver(self, start, lam, tolerance, sweeps, work)
        used, converged = solver.solve(lam, 0.5 * lam)
        return Solution(solver.weight, used, converged)

    def certify(self, weight: NDArray[np.float64], lam: float) -> tuple[float, float]:
        """KKT violation relative to lam, and duality gap relative to the variance."""
        if lam == 0:
            return self._norm.certify(self.moment(), self.variance, weight)
        return super().certify(weight, lam)


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
        self._working, self._size = path.nobody(runs.train, np.empty(runs.train)), np.int64(0)
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
            members = self._working.members[: self._size]
            weight = self.weight[members]
            used += descend(
                self._source(),
                self._flat,
                self._place,
                self._working.diagonal[: self._size],
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
            off = path.violated(self._rest, self.weight, self._working.inside, lam, tolerance)
            if not off or used >= self._sweeps:
                self._before = came_from
                return used, not off

    def _look(self, lam: float) -> None:
        precision = _ROUNDING * self._tolerance * 0.5 * lam
        self._rest = self._runs.rest(self.weight, precision)

    def _source(self) -> tuple[Any, ...]:
        """Where covariances of the working set come from; see :mod:`dmstore.regression.kernels.working_set`."""
        rows = self._work.rows(int(self._size), self._runs.width)
        return rows, self._working.level[: self._size], self._runs.count, 1.0

    def _admit(self, bar: float) -> None:
        """Take columns into the working set, if any is asked for."""
        old = self._size
        self._size = path.admit(self._runs.mean, self._rest, self.weight, bar, self._working, old)
        if self._size > old:
            source = self._source()
            source[0][old:] = self._runs.rows(self._working.members[old : self._size])
            extend(source, old, self._size, self._flat, self._place)
