"""What a lasso needs to be asked: one target over some runs, whatever its design is kept as."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.problem.thread_pool import Work


@dataclass(frozen=True)
class Solution:
    """Weights of one target, and what they took.

    Attributes
    ----------
    weight : (train,) float
    sweeps : int
    converged : bool
    best : int
        Position of their lam on the path that was walked; 0 where one lam was given.
    """

    weight: NDArray[Any]
    sweeps: int
    converged: bool
    best: int = 0


class Sample(Protocol):
    """One output over some runs."""

    @property
    def count(self) -> int:
        """Runs."""

    @property
    def output(self) -> float:
        """Mean of the output."""

    @property
    def variance(self) -> float:
        """Mean squared deviation of the output."""

    @property
    def lowest(self) -> float:
        """The smallest output."""

    @property
    def highest(self) -> float:
        """The largest output."""

    def lam_max(self) -> float:
        """The smallest lam that leaves no weights."""


class Problem(Sample, Protocol):
    """The lasso of one target over some runs: minimise (1/m) sum (w.mask + b - output)^2 + lam |w|_1."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """Share of the runs that saw each unit."""

    def joined(self, held: Any) -> Sample:
        """The output over these runs and others of the same kind of problem."""

    def error(self, weight: NDArray[np.float64], bias: float) -> float:
        """Mean squared error of a model on these runs."""

    def walk(
        self,
        held: Any,
        lams: NDArray[np.float64],
        errors: NDArray[np.float64],
        parameters: Parameters,
        work: Work,
    ) -> Solution:
        """Walk down a path of lams while it pays, and keep the weights that fit other runs best.

        Parameters
        ----------
        held : Problem
            The runs that choose lam, of the same kind; with none of them the last lam is kept.
        lams : (path,) float64
            Decreasing.
        errors : (path,) float64
            Mean squared errors on the held runs are written here.
        parameters : Parameters
        work : Work
        """

    def solve(
        self, lam: float, start: NDArray[Any], tolerance: float, sweeps: int, work: Work
    ) -> Solution:
        """Weights at one lam, from a start; at lam 0 those of the smallest norm."""

    def certify(self, weight: NDArray[np.float64], lam: float) -> tuple[float, float]:
        """KKT violation relative to lam, and duality gap relative to the variance."""


class Block(Protocol):
    """The problems of a block of targets, over any groups of runs."""

    @property
    def shift(self) -> NDArray[np.float64]:
        """What outputs were lessened by: (target,) float64."""

    @property
    def train(self) -> int:
        """Number of train units."""

    @property
    def fewest(self) -> int:
        """Runs without which a target has no datamodel; 0 where that was asked before."""

    def over(self, groups: tuple[int, ...]) -> Callable[[int], Problem]:
        """The problem of each target over the runs of some groups."""
