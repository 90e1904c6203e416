"""Problems of targets that share one design: its Gram is counted once for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.kernels import gradient, path
from dmstore.regression.kernels.working_set import quantum_of
from dmstore.regression.problem.design import Design
from dmstore.regression.problem.moments import Moments, add, centred
from dmstore.regression.problem.parameters import PATH_TOLERANCE, Parameters
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import unpenalised
from dmstore.regression.solvers.protocol import Solution

# Sweeps at one lam that are tried in float32.
_SWEEPS = 500


class SharedBlock:
    """The targets of a block that share their designs; see :class:`~dmstore.regression.solvers.protocol.Block`.

    Parameters
    ----------
    designs : mapping
        Groups of runs to their design.
    moments : callable
        Given a group, the moments of the outputs, less `shift`.
    shift : (target,) float64
    """

    # Runs are counted before a shared design is made.
    fewest = 0

    def __init__(
        self,
        designs: Mapping[tuple[int, ...], Design],
        moments: Callable[[int], Moments],
        shift: NDArray[np.float64],
    ) -> None:
        self.designs = designs
        self.moments = moments
        self.shift = shift

    @property
    def train(self) -> int:
        """Number of train units."""
        return next(iter(self.designs.values())).train

    def over(self, groups: tuple[int, ...]) -> Callable[[int], SharedProblem]:
        """The problem of each target over the runs of some groups."""
        return _Runs(self.designs[groups], add([self.moments(group) for group in groups])).problem


class _Runs:
    """A design and what its runs say, as far as all targets share it."""

    def __init__(self, design: Design, moments: Moments) -> None:
        self.design = design
        self.moments = moments

    @functools.cached_property
    def mean(self) -> NDArray[np.float64]:
        # Counted once for all targets.
        return self.design.mean

    def problem(self, target: int) -> SharedProblem:
        return SharedProblem(self, target)


class SharedProblem:
    """One target on a shared design; see :class:`~dmstore.regression.solvers.protocol.Problem`."""

    def __init__(self, runs: _Runs, target: int) -> None:
        said = runs.moments
        self._runs = runs
        self._target = target
        self.count = said.runs
        self.output = float(said.total[target]) / max(said.runs, 1)
        self.variance = max(said.square[target] / max(said.runs, 1) - self.output**2, 0.0)
        self.lowest, self.highest = said.lowest[target], said.highest[target]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Share of the runs that saw each unit: (train,) float64."""
        return self._runs.mean

    @functools.cached_property
    def _moment(self) -> NDArray[np.float64]:
        return centred(self._runs.moments, self.mean, self._target)[1]

    def lam_max(self) -> float:
        """The smallest lam that leaves no weights."""
        return 2.0 * float(np.abs(self._moment).max(initial=0.0))

    def joined(self, held: SharedProblem) -> _Joined:
        """The output over these runs and those of another problem."""
        return _joined(self._runs, held._runs, self._target)

    def error(self, weight: NDArray[np.float64], bias: float) -> float:
        """Mean squared error of a model on these runs."""
        return unpenalised.holdout_error(self._runs.design, self._said(), weight, bias)

    def _fitted(self) -> path.Fitted:
        gram = self._runs.design.gram
        return path.Fitted(gram, self.mean, self._moment, self.count, self.output)

    def _said(self) -> NDArray[Any]:
        """The outputs themselves, in the order of the bits of the design's words."""
        return self._runs.design.outputs(self._runs.moments, self._target)

    def walk(
        self,
        held: SharedProblem,
        lams: NDArray[np.float64],
        errors: NDArray[np.float64],
        parameters: Parameters,
        work: Work,
    ) -> Solution:
        """Walk down a path; see :meth:`~dmstore.regression.solvers.protocol.Problem.walk`."""
        train, most = len(self.mean), parameters.sweeps
        apart = path.Held(held._runs.design.words, held._said(), held.count)
        sweeps = 0
        for kept, dtype, quantum in precisions(self.count):
            limits = path.Limits(
                max(parameters.tolerance, PATH_TOLERANCE),
                most if dtype == np.float64 else min(most, _SWEEPS),
                parameters.patience,
            )
            memory = path.Memory(*work.flat(kept, train), quantum)
            states = np.empty((2, 2 + path.ABREAST, train), dtype=dtype)
            weight, best, used, converged = path.choose(
                self._fitted(), apart, lams, limits, errors, memory, states
            )
            sweeps += used
            if converged:
                break
            if dtype == np.float32:
                errors[:] = np.nan
        return Solution(weight, sweeps, converged, best)

    def solve(
        self, lam: float, start: NDArray[Any], tolerance: float, sweeps: int, work: Work
    ) -> Solution:
        """Weights at one lam; see :meth:`~dmstore.regression.solvers.protocol.Problem.solve`."""
        if lam == 0:
            return Solution(
                unpenalised.of(self._runs.design).solve(self._moment), 0, converged=True
            )
        memory = path.Memory(*work.flat(np.float64, len(self.mean)), 1.0)
        limits = path.Limits(tolerance, sweeps, 0)
        weight, used, converged = path.refit(self._fitted(), lam, start, limits, memory)
        return Solution(weight, used, converged)

    def certify(self, weight: NDArray[np.float64], lam: float) -> tuple[float, float]:
        """KKT violation relative to lam, and duality gap relative to the variance."""
        if lam == 0:
            return unpenalised.of(self._runs.design).certify(self._moment, self.variance, weight)
        certificate: tuple[float, float] = gradient.certify(
            self._runs.design.gram,
            self.mean,
            self._moment,
            self.count,
            self.variance,
            weight,
            lam,
        )
        return certificate


@dataclass(frozen=True)
class _Joined:
    """One output over two sets of runs, from the sums of both."""

    count: int
    output: float
    variance: float
    lowest: float
    highest: float
    lam_max: Callable[[], float]


def _joined(one: _Runs, other: _Runs, target: int) -> _Joined:
    first, second = one.moments, other.moments
    count = first.runs + second.runs
    total = first.total[target] + second.total[target]
    output = total / count

    def lam_max() -> float:
        mean = (one.mean * first.runs + other.mean * second.runs) / count
        product = first.product[:, target] + second.product[:, target]
        return float(2.0 * np.abs(product - mean * total).max(initial=0.0) / count)

    return _Joined(
        count,
        output,
        (first.square[target] + second.square[target]) / count - output**2,
        np.minimum(first.lowest[target], second.lowest[target]),
        np.maximum(first.highest[target], second.highest[target]),
        lam_max,
    )


def precisions(runs: int) -> tuple[tuple[type[Any], type[Any], float], ...]:
    """What covariances of a path may be kept as, what it is walked in, and the quantum of the former.

    In the order in which they are tried: the first does for units drawn by themselves, the second for all but
    the flattest problems.
    """
    return (
        (np.int16, np.float32, quantum_of(runs)),
        (np.float32, np.float32, 1.0),
        (np.float64, np.float64, 1.0),
    )
