"""Fits without a penalty: of all weights that fit best, those of the smallest norm.

Masks of fixed size, fewer runs than columns and columns that are equal leave directions along which
weights change no prediction; along these the weights found here are 0.
"""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.regression.kernels import bit_planes, prediction
from dmstore.regression.problem.design import Design

MOST_TRAIN = 10_000
# Bytes of a decomposition for each pair of columns: what is kept, and what is needed meanwhile.
KEPT, MEANWHILE = 16, 24


def of(design: Design) -> MinimumNorm:
    """The decomposition of a design, made once while the design lives."""
    with _LOCK:
        if design not in _MADE:
            _MADE[design] = MinimumNorm(design)
        return _MADE[design]


class MinimumNorm:
    """The covariance of a design, decomposed.

    Parameters
    ----------
    design : Design

    Raises
    ------
    InputError
        For more than 10,000 train units.
    """

    def __init__(self, design: Design) -> None:
        check_size(design.train)
        self.mean = design.mean
        runs = max(design.runs, 1)
        counts = np.diagonal(design.gram).astype(np.float64)
        # Whole numbers below 2**53: exact until the division, so that null directions come out as such.
        whole = design.gram.astype(np.float64)
        whole *= runs
        whole -= np.multiply.outer(counts, counts)
        whole /= float(runs) ** 2
        values, vectors = np.linalg.eigh(whole)
        self._covariance = whole
        kept = values > design.train * np.finfo(np.float64).eps * values.max(initial=0.0)
        self._values, self._vectors = values[kept], vectors[:, kept]

    def solve(self, moment: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights of one target, from the covariance of masks and output: (train,) float64."""
        weight: NDArray[np.float64] = self._vectors @ ((moment @ self._vectors) / self._values)
        # Once more on what rounding left.
        left = moment - self._covariance @ weight
        weight += self._vectors @ ((left @ self._vectors) / self._values)
        return weight

    def certify(
        self, moment: NDArray[np.float64], variance: float, weight: NDArray[np.float64]
    ) -> tuple[float, float]:
        """How far weights are from the best.

        Returns
        -------
        kkt : float
            Largest gradient relative to that at zero weights, as there is no lam.
        gap : float
            What the mean squared error lacks of the smallest there is, relative to the variance.
        """
        left = moment - self._covariance @ weight
        most = float(np.abs(moment).max(initial=0.0))
        lacks = float(((left @ self._vectors) ** 2 / self._values).sum())
        return (
            float(np.abs(left).max(initial=0.0)) / most if most > 0.0 else 0.0,
            lacks / variance if variance > 0.0 else 0.0,
        )


_MADE: WeakKeyDictionary[Design, MinimumNorm] = WeakKeyDictionary()
_LOCK = threading.Lock()


def check_size(train: int) -> None:
    """Refuse a design that is too large to decompose.

    Raises
    ------
    InputError
    """
    if train > MOST_TRAIN:
        msg = f"lam 0: {train} train units are too many to fit without a penalty, {MOST_TRAIN} at most; give a positive lam"
        raise InputError(msg)


def holdout_error(
    check: Design, outputs: NDArray[np.float64], weight: NDArray[np.float64], bias: float
) -> float:
    """Mean squared error on holdout runs, whose outputs are in the order of the bits of their words."""
    left = outputs.copy()
    bit_planes.take_columns(check.words, np.flatnonzero(weight), weight, left)
    return float(prediction.mean_square(np.zeros_like(left), left, bias, max(check.runs, 1)))
