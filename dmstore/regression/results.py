"""What a solver of blocks gives back: arrays of the schema, with a certificate for every target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression import gradient, path
from dmstore.regression.design import Design, Moments
from dmstore.regression.path import (
    CONSTANT,
    STORED,
    Designs,
    Outputs,
    Parameters,
)


def empty(designs: Designs, outputs: Outputs, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays of a block before anything is fitted."""
    targets, train = len(outputs.shift), len(designs.train.gram)
    result = path.empty(targets, train, parameters)
    if designs.halves:
        result["weight_half"] = np.zeros((2, targets, train), dtype=np.float32)
        result["weight_quarter"] = np.zeros((4, targets, train), dtype=np.float32)
    return result


def covariance(design: Design, moments: Moments) -> NDArray[np.float64]:
    """Covariance of masks and outputs: (target, train) float64."""
    mean = design.mean
    found: NDArray[np.float64] = (
        moments.product.T / moments.runs - (moments.total / moments.runs)[:, None] * mean
    )
    # Nothing covaries with what never changes; sums in float32 would say that it does a little.
    found[moments.lowest == moments.highest] = 0.0
    found[:, (mean <= 0.0) | (mean >= 1.0)] = 0.0
    return found


def paths(
    designs: Designs, outputs: Outputs, parameters: Parameters, result: dict[str, NDArray[Any]]
) -> NDArray[np.int64]:
    """Write the values of lam of each target, and the whole answer for those that are constant.

    Returns
    -------
    (target,) int64
        Targets that are left to fit.
    """
    everything = outputs.everything
    output = everything.total / everything.runs
    variance = np.maximum(everything.square / everything.runs - output**2, 0.0)
    lam_max = 2.0 * np.abs(covariance(designs.train, outputs.train)).max(axis=1, initial=0.0)
    # A lam_max at the level of rounding would make a path through noise of the arithmetic.
    constant = (everything.lowest == everything.highest) | (lam_max <= 1e-12 * np.sqrt(variance))
    result["bias"][constant] = (output + outputs.shift)[constant]
    for name in ("lam", "lam_max", "kkt", "gap"):
        result[name][constant] = 0.0
    result["status"][constant] = CONSTANT
    left = np.flatnonzero(~constant)
    result["lam_max"][left] = lam_max[left]
    ratios = np.geomspace(1.0, parameters.lam_ratio, parameters.lams)
    result["lam_path"][left] = lam_max[left, None] * ratios
    return left


def finish(
    target: int,
    best: int,
    weight: NDArray[np.float64],
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    result: dict[str, NDArray[Any]],
    *,
    converged: bool,
) -> None:
    """Write and certify the weights of one target.

    Parameters
    ----------
    target : int
    best : int
        Position of the chosen lam on the path.
    weight : (train,) float64
    designs : Designs
    outputs : Outputs
    parameters : Parameters
    result : dict
        ``lam_path`` and ``holdout_mse`` are there already.
    converged : bool
        Whether all that was solved for this target met its tolerance.
    """
    everything, check, fitted = outputs.everything, outputs.holdout, outputs.train
    output = everything.total[target] / everything.runs
    variance = max(everything.square[target] / everything.runs - output**2, 0.0)
    lam = float(result["lam_path"][target, best])
    stored = weight.astype(np.float32)
    exact = stored.astype(np.float64)
    mean = designs.everything.mean
    moment = everything.product[:, target] / everything.runs - mean * output
    kkt, gap = gradient.certify(
        designs.everything.gram, mean, moment, everything.runs, variance, exact, lam
    )
    result["weight"][target] = stored
    result["bias"][target] = output + outputs.shift[target] - exact @ mean
    result["lam"][target] = lam
    result["kkt"][target], result["gap"][target] = kkt, gap
    result["nonzeros"][target] = np.count_nonzero(stored)
    if check.runs:
        # The baseline is what a model without weights predicts: the mean of the train runs.
        level, said = fitted.total[target] / fitted.runs, check.total[target] / check.runs
        baseline = check.square[target] / check.runs - 2 * said * level + level**2
        error = result["holdout_mse"][target, best]
        result["holdout_r2"][target] = 1.0 - error / baseline if baseline > 0 else math.nan
    settled = converged and kkt <= max(STORED, 2 * parameters.tolerance)
    result["status"][target] = path.status_of(best, parameters.lams, converged=settled)
