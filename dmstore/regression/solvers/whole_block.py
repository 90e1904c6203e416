"""The begin and the end of solvers that take a block of targets at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.kernels import gradient
from dmstore.regression.problem import block_arrays
from dmstore.regression.problem.block import Designs, Outputs
from dmstore.regression.problem.design import Design
from dmstore.regression.problem.moments import Moments, centred
from dmstore.regression.problem.parameters import Parameters


def empty(designs: Designs, outputs: Outputs, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays of a block before anything is fitted."""
    targets, train = len(outputs.shift), len(designs.train.gram)
    result = block_arrays.empty(targets, train, parameters)
    if designs.halves:
        result["weight_half"] = np.zeros((2, targets, train), dtype=np.float32)
    return result


def covariance(design: Design, moments: Moments, targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Covariance of masks and the outputs of some targets: (target, train) float64."""
    mean = design.mean
    products = np.empty((len(targets), len(mean)))
    for row, target in enumerate(targets.tolist()):
        _, products[row] = centred(moments, mean, target)
    return products


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
    variance = everything.square / everything.runs - output**2
    every = np.arange(len(output))
    lam_max = 2.0 * np.abs(covariance(designs.train, outputs.train, every)).max(axis=1, initial=0.0)
    constant = block_arrays.is_constant(everything.lowest, everything.highest, lam_max, variance)
    block_arrays.write_constant(result, constant, (output + outputs.shift)[constant])
    left = np.flatnonzero(~constant)
    result["lam_max"][left] = lam_max[left]
    for target in left.tolist():
        result["lam_path"][target] = parameters.path(lam_max[target])
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
    mean = designs.everything.mean
    output, moment = centred(everything, mean, target)
    variance = max(everything.square[target] / everything.runs - output**2, 0.0)
    lam = float(result["lam_path"][target, best])

    def certify(stored: NDArray[np.float64]) -> tuple[float, float]:
        certificate: tuple[float, float] = gradient.certify(
            designs.everything.gram, mean, moment, everything.runs, variance, stored, lam
        )
        return certificate

    level = output + outputs.shift[target]
    settled = block_arrays.write_weights(result, target, weight, level, mean, certify, parameters)
    result["lam"][target] = lam
    if check.runs:
        # The baseline is what a model without weights predicts: the mean of the train runs.
        level, said = fitted.total[target] / fitted.runs, check.total[target] / check.runs
        baseline = check.square[target] / check.runs - 2 * said * level + level**2
        error = result["holdout_mse"][target, best]
        result["holdout_r2"][target] = 1.0 - error / baseline if baseline > 0 else math.nan
    result["status"][target] = block_arrays.status_of(
        best, parameters.lams, converged=converged and settled
    )
