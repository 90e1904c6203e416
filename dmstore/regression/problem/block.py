"""The statistics of a block of targets, for solvers that take it whole."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.design import Design
from dmstore.regression.problem.moments import Moments


@dataclass(frozen=True)
class Designs:
    """The designs of one fit: runs to fit on, runs that choose lam, both, and halves."""

    train: Design
    holdout: Design
    everything: Design
    halves: tuple[Design, ...] = field(default=())


@dataclass(frozen=True)
class Outputs:
    """The outputs of some targets on the same groups of runs, less `shift` (target,)."""

    train: Moments
    holdout: Moments
    everything: Moments
    shift: NDArray[np.float64]
    halves: tuple[Moments, ...] = field(default=())
