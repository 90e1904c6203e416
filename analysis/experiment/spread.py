"""How far a random choice of train units moves outputs: the scale that effects of two algorithms can be compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.arms import Arm, Halves, centred
from dmstore.analysis.experiment.projections import dense_products, sparse_products
from dmstore.core import bits

Floats = NDArray[np.float64]
# Train units whose masks are unpacked at a time.
_UNITS = 512
# A square below so many of its errors is too weak to divide by.
_FLOOR = 6.0
_FEWEST = 3


def spread(
    halves: Halves, fits: Sequence[Any] | None = None, threads: int = 1
) -> tuple[float, float]:
    """Standard deviation of outputs over random halves of the train units, without the noise of training, and its error.

    That is sqrt(|theta|^2 / 4), the root of its mean square over targets, with theta the effects of single units. What
    both halves of the runs measure of theta has independent noise, so that the product has none on average. It
    does not depend on the noise of training, on the number of runs or on how large a share they saw, as a standard
    deviation of runs would.

    Parameters
    ----------
    halves : Halves
        Of one algorithm; all its targets are read at once.
    fits : pair of (target, train) csr arrays, optional
        Fits of half 0 and of half 1. Each is taken off the outputs of the other half and added again: less noise, no bias.
    threads : int

    Returns
    -------
    value, error : float
        NaN where the square is too weak to be told from noise.
    """
    targets = len(halves[0].unit)
    rests = [
        _rest(arm, None if fits is None else fits[1 - m], threads) for m, arm in enumerate(halves)
    ]
    measured = [
        _coordinates(arm, rest, None if fits is None else fits[1 - m])
        for m, (arm, rest) in enumerate(zip(halves, rests, strict=True))
    ]
    # Of masks of one size coordinates are n / (n - 1) times those about their mean; the variance over halves of
    # one size has the same factor once.
    train = halves[0].masks.train
    share = (1 - halves[0].fixed / train) / (4 * targets)
    square = share * float((measured[0] * measured[1]).sum())
    variance = 0.0
    for m, (arm, rest) in enumerate(zip(halves, rests, strict=True)):
        columns = measured[1 - m] * arm.spread[:, None]
        told = dense_products(arm.masks.words, columns.astype(np.float32)).astype(np.float64)
        said = centred(told, arm.used, axis=0)
        moved = share * (rest * said).sum(axis=1)[arm.used]
        count = len(moved)
        variance += count / (count - 1) * float(((moved - moved.mean()) ** 2).sum())
    error = float(np.sqrt(variance))
    if not square > _FLOOR * error:
        return float("nan"), float("nan")
    value = float(np.sqrt(square))
    return value, error / (2 * value)


def _rest(arm: Arm, fit: Any, threads: int) -> Floats:
    """Outputs less what a fit says of them, each target's over its masks less one, 0 where a mask does not count."""
    values = arm.outputs(0, len(arm.unit)).astype(np.float64)
    if fit is not None:
        values = values - sparse_products(arm.masks.words, fit, threads)
    there = np.broadcast_to(arm.there(0, len(arm.unit)), values.shape)
    count = there.sum(axis=0)
    mean = np.where(there, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    rest = np.where(there, values - mean, 0.0) / np.maximum(count - 1, 1)
    return np.asarray(np.where(count >= _FEWEST, rest, 0.0))


def _coordinates(arm: Arm, rest: Floats, fit: Any) -> Floats:
    """Effects of single units, as one half measures them: (train, target) float64."""
    words = arm.masks.words
    made = np.empty((len(words), rest.shape[1]))
    for start in range(0, len(words), _UNITS):
        seen = bits.unpack_runs(words[start : start + _UNITS], len(rest))
        made[start : start + seen.shape[1]] = seen.T.astype(np.float64) @ rest
    made *= arm.spread[:, None]
    if fit is None:
        return made
    known = np.asarray(fit.toarray(), dtype=np.float64).T
    if arm.fixed:
        variance = arm.rate * (1 - arm.rate)
        total = len(known) * (variance @ known) / variance.sum()
        known = arm.expected(known, total, np.ones(1))
    return made + np.where(arm.spread[:, None] > 0, known, 0.0)
