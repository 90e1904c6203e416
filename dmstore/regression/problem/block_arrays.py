"""What a fit says of a block of targets: arrays of the schema, with a status and a certificate each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import InputError
from dmstore.regression.problem.parameters import Parameters

FITTED, AT_START, AT_END, CONSTANT, NOT_CONVERGED, TOO_FEW_RUNS = range(6)
# Those that have no datamodel but a bias.
UNFITTED = (CONSTANT, TOO_FEW_RUNS)
# What rounding the stored weights to float32 may cost.
_STORED = 1e-4
# Weights may be somewhat larger than outputs, and float32 ends at 3e38.
_LARGEST = 1e30


def check_scale(outputs: NDArray[Any], used: NDArray[np.bool_], what: str, first: int = 0) -> None:
    """Refuse outputs (run, target) of the runs that are used whose weights float32 might not hold.

    Parameters
    ----------
    outputs : (run, target) float
    used : (run,) bool
    what : str
        What they are called in the error.
    first : int
        Number of the first target.

    Raises
    ------
    InputError
        If one is beyond 1e30.
    """
    if float(np.finfo(outputs.dtype).max) <= _LARGEST:
        return
    where = used[:, None]
    highest, lowest = (f(outputs, where=where, initial=0.0) for f in (np.max, np.min))
    largest = max(float(highest), -float(lowest))
    if largest > _LARGEST:
        target = int(np.abs(outputs).max(axis=0, where=where, initial=0.0).argmax())
        msg = f"{what} of target {first + target} is {largest:.3g} in a run, and weights are stored in float32; scale outputs to below {_LARGEST:.0e}"
        raise InputError(msg)


def empty(targets: int, train: int, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays of a block before anything is fitted, those of parts left out."""
    return {
        "weight": np.zeros((targets, train), dtype=np.float32),
        **{
            name: np.full(targets, np.nan)
            for name in ("bias", "lam", "lam_max", "holdout_r2", "kkt", "gap")
        },
        **{
            name: np.full((targets, parameters.count), np.nan)
            for name in ("lam_path", "holdout_mse")
        },
        "nonzeros": np.zeros(targets, dtype=np.int32),
        "sweeps": np.zeros(targets, dtype=np.int32),
        "status": np.zeros(targets, dtype=np.int8),
    }


def status_of(best: int, lams: int, *, converged: bool) -> int:
    """Status of a target whose lam stands at a position of its path."""
    if not converged:
        return NOT_CONVERGED
    # A path of one lam has no ends.
    return (
        FITTED if lams == 1 else AT_START if best == 0 else AT_END if best == lams - 1 else FITTED
    )


def is_constant(lowest: Any, highest: Any, lam_max: Any, variance: Any) -> Any:
    """Whether outputs never change, or covary with nothing: (target,) each, or one target's numbers.

    A lam_max at the level of rounding would make a path through noise of the arithmetic.
    """
    return (lowest == highest) | (lam_max <= 1e-12 * np.sqrt(np.maximum(variance, 0.0)))


def write_constant(result: dict[str, NDArray[Any]], targets: Any, bias: Any) -> None:
    """The whole answer for targets, or one, whose outputs are constant; fills `result`."""
    result["bias"][targets] = bias
    for name in ("lam", "lam_max", "kkt", "gap"):
        result[name][targets] = 0.0
    result["status"][targets] = CONSTANT


def write_weights(
    result: dict[str, NDArray[Any]],
    target: int,
    weight: NDArray[np.float64],
    output: float,
    mean: NDArray[np.float64],
    certify: Callable[[NDArray[np.float64]], tuple[float, float]],
    parameters: Parameters,
) -> bool:
    """Write the weights of one target as they are stored, and certify those; fills `result`.

    Parameters
    ----------
    result : dict
    target : int
    weight : (train,) float64
    output : float
        Mean of the output over the runs fitted on.
    mean : (train,) float64
        Share of these runs that saw each unit.
    certify : callable
        Given the stored weights in float64, their KKT violation and duality gap.
    parameters : Parameters

    Returns
    -------
    bool
        Whether the violation is one that the tolerance, or rounding to float32, explains.
    """
    stored = weight.astype(np.float32)
    exact = stored.astype(np.float64)
    kkt, gap = certify(exact)
    result["weight"][target] = stored
    result["bias"][target] = output - float(exact @ mean)
    result["kkt"][target], result["gap"][target] = kkt, gap
    result["nonzeros"][target] = np.count_nonzero(stored)
    return kkt <= max(_STORED, 2 * parameters.tolerance)
