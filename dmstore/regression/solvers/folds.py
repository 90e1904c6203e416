"""Choice of lam by folds: each is held out once, on the same path, and their errors are averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.regression.problem.block_arrays import NOT_CONVERGED, TOO_FEW_RUNS, UNFITTED, status_of
from dmstore.regression.problem.parameters import Parameters
from dmstore.regression.solvers.lasso import Fold

Arrays = dict[str, NDArray[Any]]


def add_fold(result: Arrays, chosen: Arrays, fold: Fold) -> Arrays:
    """Add what one fold found to what those before it did.

    Until the last, ``holdout_mse`` and ``holdout_r2`` are sums so far: of the errors, and of those of
    the mean. A lam that any fold left out has no error.

    Parameters
    ----------
    result : dict
        Of the folds before; empty before the first.
    chosen : dict
        As ``lasso.choose`` gives it.
    fold : Fold

    Returns
    -------
    dict
    """
    first = not result
    errors, baseline = fold.share[:, None] * chosen["holdout_mse"], fold.share * fold.baseline
    if first:
        return {**chosen, "holdout_mse": errors, "holdout_r2": baseline}
    bias = np.where(np.isnan(result["bias"]), chosen["bias"], result["bias"])
    return {
        # Where the refit starts.
        **chosen,
        "bias": bias,
        "sweeps": result["sweeps"] + chosen["sweeps"],
        # The worst of them has the largest number.
        "status": np.maximum(result["status"], chosen["status"]),
        "holdout_mse": result["holdout_mse"] + errors,
        "holdout_r2": result["holdout_r2"] + baseline,
    }


def choose(result: Arrays, parameters: Parameters) -> None:
    """The lam of the smallest error over all folds; fills `result`."""
    for target, status in enumerate(result["status"]):
        errors, baseline = result["holdout_mse"][target], result["holdout_r2"][target]
        result["holdout_r2"][target] = np.nan
        if status in UNFITTED:
            errors[:] = np.nan
            if status == TOO_FEW_RUNS:
                result["weight"][target] = 0.0
                for name in ("lam", "lam_max", "lam_path"):
                    result[name][target] = np.nan
            continue
        best = int(np.nanargmin(errors))
        result["lam"][target] = result["lam_path"][target, best]
        if baseline > 0:
            result["holdout_r2"][target] = 1.0 - errors[best] / baseline
        result["status"][target] = status_of(
            best, parameters.count, converged=status != NOT_CONVERGED
        )
