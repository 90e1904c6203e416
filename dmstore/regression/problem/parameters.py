"""How to fit: the parameters that are part of what a fit is."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.regression.problem import solver_names


class FitOptions(TypedDict, total=False):
    """The same as keywords, each with the default of :class:`Parameters`."""

    lams: int
    lam_ratio: float
    patience: int
    tolerance: float
    sweeps: int
    halves: bool
    solver: str
    lam: float | None
    lam_grid: Sequence[float]
    folds: int


@dataclass(frozen=True)
class Parameters:
    """How to fit: the only statement of the options of a fit, their defaults and their limits.

    Attributes
    ----------
    lams : int
        Values of lam on the path, log-spaced from lam_max.
    lam_ratio : float
        The last one over the first.
    patience : int
        A target leaves the path after this many holdout errors above the smallest, with no new smallest
        between; 0 never.
    tolerance : float
        Violation of the optimality conditions to solve to, relative to lam.
    sweeps : int
        Coordinate-descent sweeps allowed at one lam.
    halves : bool
        Whether to fit both halves of the masks too, each by itself.
    solver : str
        A name in :mod:`dmstore.regression.problem.solver_names`.
    lam : float, optional
        One lam for all targets, in the place of a path: the holdout runs choose nothing. 0 is the
        unpenalised fit, of all weights that fit best those of the smallest norm. What describes a path says
        nothing then, and is put back to its default.
    lam_grid : tuple of float
        The path of all targets, decreasing, in the place of one from each target's lam_max.
    folds : int
        Choose lam by so many folds of all runs but those for evaluation, in the place of the holdout
        runs; 0 for these. Repeats of a mask are in one fold.
    """

    lams: int = 50
    lam_ratio: float = 0.01
    patience: int = 5
    tolerance: float = 1e-5
    sweeps: int = 20000
    halves: bool = True
    solver: str = "gram"
    lam: float | None = None
    lam_grid: Sequence[float] = ()
    folds: int = 0

    def __post_init__(self) -> None:
        # The same numbers are the same fit, however they are written, and so are those that say nothing.
        object.__setattr__(self, "lam_grid", _numbers(self.lam_grid))
        self._take(operator.index, "a whole number", "lams", "patience", "sweeps", "folds")
        self._take(
            float, "a number", "lam_ratio", "tolerance", *(["lam"] if self.lam is not None else [])
        )
        self._take(_truth, "True or False", "halves")
        if self.lam is not None:
            object.__setattr__(self, "lam", self.lam + 0.0)
        for name in self.unused(lam=self.lam is not None, grid=bool(self.lam_grid)):
            object.__setattr__(self, name, getattr(type(self), name))
        solver_names.check(self.solver)
        if self.lams < 2 or self.patience < 0 or self.sweeps < 1:
            msg = f"{self.lams} lams, patience {self.patience}, {self.sweeps} sweeps: give 2 lams or more (the first leaves no weights; for one of your own, lam), patience 0 or more, and 1 sweep or more"
            raise InputError(msg)
        if self.count > _MOST_LAMS or max(self.patience, self.sweeps, self.folds) > _MOST:
            msg = f"{self.count} lams, patience {self.patience}, {self.sweeps} sweeps, {self.folds} folds: give {_MOST_LAMS} lams or fewer, and {_MOST} of the others at most"
            raise InputError(msg)
        if not 0 < self.lam_ratio <= 1 or not 0 < self.tolerance < 1:
            msg = f"lam ratio {self.lam_ratio} and tolerance {self.tolerance} must lie between 0 and 1"
            raise InputError(msg)
        if self.lam is None and not self.lam_grid and (np.diff(self.path(1.0)) >= 0).any():
            msg = f"lam ratio {self.lam_ratio} leaves {self.lams} lams that do not decrease; give a smaller ratio"
            raise InputError(msg)
        if self.lam is not None and not 0 <= self.lam < math.inf:
            msg = f"lam {self.lam}: give a positive number, or 0 for no penalty"
            raise InputError(msg)
        _check_grid(self.lam_grid)
        if self.lam is not None and self.lam_grid:
            msg = f"lam {self.lam} and a grid of lams were given; give one of the two"
            raise InputError(msg)
        if self.folds < 0 or self.folds == 1:
            msg = f"{self.folds} folds: give 2 or more, or 0 to choose lam on the holdout runs"
            raise InputError(msg)
        if self.solver != "gram" and (self.lam is not None or self.lam_grid or self.folds):
            msg = f"solver {self.solver!r} walks each target's own path alone; a given lam, a grid or folds need solver 'gram'"
            raise InputError(msg)

    def _take(self, kind: Callable[[Any], Any], what: str, *names: str) -> None:
        """Make plain numbers of some parameters, which may be NumPy's."""
        for name in names:
            try:
                object.__setattr__(self, name, kind(getattr(self, name)))
            except (TypeError, ValueError, OverflowError) as error:
                # So long a number cannot be written out.
                given = getattr(self, name)
                shown = "" if isinstance(given, int) else f" {given!r:.80}"
                msg = f"{name}{shown}: {'is too large; ' if not shown else ''}give {what}"
                raise InputError(msg) from error

    @staticmethod
    def unused(*, lam: bool, grid: bool) -> tuple[str, ...]:
        """Names of the parameters that say nothing where one lam, or a grid, is given."""
        if lam:
            return ("lams", "lam_ratio", "patience")
        return ("lams", "lam_ratio") if grid else ()

    @property
    def count(self) -> int:
        """Values of lam that are tried."""
        return 1 if self.lam is not None else len(self.lam_grid) or self.lams

    def path(self, lam_max: float) -> NDArray[np.float64]:
        """The values of lam of a target, decreasing: (count,) float64."""
        if self.lam is not None:
            return np.array([self.lam], dtype=np.float64)
        if self.lam_grid:
            return np.array(self.lam_grid, dtype=np.float64)
        return np.asarray(lam_max * np.geomspace(1.0, self.lam_ratio, self.lams))

    def document(self) -> dict[str, Any]:
        """The parameters as they stand in ``fit.json``."""
        return {**asdict(self), "lam_grid": list(self.lam_grid)}


def parse_grid(text: str) -> tuple[float, ...]:
    """Values of lam from a list such as ``0.1,0.05,0.01``.

    Raises
    ------
    InputError
        If a part is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        msg = f"grid of lams {text!r}: give numbers with commas between, such as 0.1,0.05,0.01"
        raise InputError(msg) from error


def _numbers(grid: Any) -> tuple[float, ...]:
    """The numbers of a grid, which may be NumPy's, or a list of anything."""
    try:
        if isinstance(grid, str | bytes):
            raise TypeError
        return tuple(float(lam) for lam in grid)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"grid of lams {str(grid)[:80]!r}: give a list of numbers, the largest first, such as [0.1, 0.05, 0.01] (for one of them, lam)"
        raise InputError(msg) from error


def _truth(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError


def _check_grid(grid: Sequence[float]) -> None:
    for lam in grid:
        if not 0 < lam < math.inf:
            msg = f"grid of lams: {lam} is no positive number; leave it out (lam 0, no penalty, stands alone)"
            raise InputError(msg)
    for before, after in itertools.pairwise(grid):
        if before == after:
            msg = f"grid of lams: {after} stands there twice; give it once"
            raise InputError(msg)
        if before < after:
            remedy = "is reversed: give" if list(grid) == sorted(grid) else "is in no order: give"
            msg = f"grid of lams: {after} comes after {before}; it {remedy} the largest first"
            raise InputError(msg)


FEWEST_RUNS = 20
_MOST_LAMS = 10_000
# As they are stored: int32.
_MOST = 2**31 - 1


# The path only chooses lam; what is stored comes from the refit, solved to the full tolerance.
PATH_TOLERANCE = 4e-3


# Halves of the runs are compared with one another, where estimation noise is far above this.
PARTS_TOLERANCE = 1e-4
