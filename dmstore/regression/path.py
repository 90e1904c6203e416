"""The lasso path of many targets over one design, from sufficient statistics or plain arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.errors import InputError
from dmstore.regression import kernels, solvers
from dmstore.regression.design import Design, Moments, RunPacker, make_design, make_moments
from dmstore.threads import blas_threads, cores

if TYPE_CHECKING:
    import xarray as xr

FITTED, AT_START, AT_END, CONSTANT, NOT_CONVERGED = range(5)
FEWEST_RUNS = 20
# The path only chooses lam; what is stored comes from the refit, solved to the full tolerance.
PATH_TOLERANCE = 1e-3
# Parts of the runs are compared with one another, where estimation noise is far above this.
PARTS_TOLERANCE = 1e-4
# What rounding the stored weights to float32 may cost.
_STORED = 1e-4


@dataclass(frozen=True)
class Parameters:
    """How to fit.

    Attributes
    ----------
    lams : int
        Values of lam on the path, log-spaced from lam_max.
    lam_ratio : float
        The last one over the first.
    patience : int
        A target leaves the path after this many worse holdout errors in a row; 0 never.
    tolerance : float
        Largest violation of the optimality conditions, relative to lam.
    sweeps : int
        Coordinate-descent sweeps allowed at one lam.
    halves : bool
        Whether to fit halves and quarters of the masks too, for comparisons out of sample.
    solver : str
        A name in ``solvers.MODULES``.
    """

    lams: int = 50
    lam_ratio: float = 0.01
    patience: int = 5
    tolerance: float = 1e-5
    sweeps: int = 20000
    halves: bool = True
    solver: str = "gram"

    def __post_init__(self) -> None:
        solvers.check(self.solver)
        if self.lams < 1 or self.patience < 0 or self.sweeps < 1:
            msg = f"{self.lams} lams, patience {self.patience}, {self.sweeps} sweeps: give positive numbers (patience may be 0)"
            raise InputError(msg)
        if not 0 < self.lam_ratio <= 1 or not 0 < self.tolerance < 1:
            msg = f"lam ratio {self.lam_ratio} and tolerance {self.tolerance} must lie between 0 and 1"
            raise InputError(msg)

    def document(self) -> dict[str, Any]:
        """The parameters as they stand in ``fit.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Designs:
    """The designs of one fit: runs to fit on, runs that choose lam, both, halves and quarters."""

    train: Design
    holdout: Design
    everything: Design
    halves: tuple[Design, ...] = field(default=())
    quarters: tuple[Design, ...] = field(default=())


@dataclass(frozen=True)
class Outputs:
    """The outputs of some targets on the same groups of runs, less `shift` (target,)."""

    train: Moments
    holdout: Moments
    everything: Moments
    shift: NDArray[np.float64]
    halves: tuple[Moments, ...] = field(default=())
    quarters: tuple[Moments, ...] = field(default=())


def fit_block(
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    *,
    threads: int = 1,
    cancelled: Callable[[], bool] = lambda: False,
) -> dict[str, NDArray[Any]]:
    """Fit some targets: choose lam on the holdout runs, refit on all, certify.

    Parameters
    ----------
    designs : Designs
    outputs : Outputs
    parameters : Parameters
    threads : int
    cancelled : callable
        Asked before each target.

    Returns
    -------
    dict
        The arrays of the ``datamodels`` schema but for ``target``.
    """
    targets = len(outputs.shift)
    train = len(designs.train.gram)
    result: dict[str, NDArray[Any]] = {
        "weight": np.zeros((targets, train), dtype=np.float32),
        **{
            name: np.full(targets, np.nan)
            for name in ("bias", "lam", "lam_max", "holdout_r2", "kkt", "gap")
        },
        **{
            name: np.full((targets, parameters.lams), np.nan)
            for name in ("lam_path", "holdout_mse")
        },
        "nonzeros": np.zeros(targets, dtype=np.int32),
        "sweeps": np.zeros(targets, dtype=np.int32),
        "status": np.zeros(targets, dtype=np.int8),
    }
    if designs.halves:
        result["weight_half"] = np.zeros((2, targets, train), dtype=np.float32)
        result["weight_quarter"] = np.zeros((4, targets, train), dtype=np.float32)

    def one(target: int) -> None:
        if not cancelled():
            _fit_target(target, designs, outputs, parameters, result)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(one, range(targets)):
            pass
    return result


def _fit_target(
    target: int,
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    result: dict[str, NDArray[Any]],
) -> None:
    everything = outputs.everything
    count = everything.runs
    output = everything.total[target] / count
    variance = max(everything.square[target] / count - output**2, 0.0)
    moment, mean = _moment(designs.everything, everything, target)
    fit_mean, fit_output = designs.train.mean, outputs.train.total[target] / outputs.train.runs
    fit_moment, _ = _moment(designs.train, outputs.train, target)
    lam_max = 2.0 * float(np.abs(fit_moment).max(initial=0.0))
    constant = everything.lowest[target] == everything.highest[target]
    # A lam_max at the level of rounding would make a path through noise of the arithmetic.
    if constant or lam_max <= 1e-12 * math.sqrt(variance):
        result["bias"][target] = output + outputs.shift[target]
        result["lam"][target] = result["lam_max"][target] = result["kkt"][target] = result["gap"][
            target
        ] = 0.0
        result["status"][target] = CONSTANT
        return
    lams = lam_max * np.geomspace(1.0, parameters.lam_ratio, parameters.lams)
    errors = result["holdout_mse"][target]
    check = outputs.holdout
    checked = max(check.runs, 1)
    weight, best, sweeps, converged = kernels.solve_path(
        designs.train.gram,
        fit_mean,
        fit_moment,
        designs.train.runs,
        lams,
        np.zeros(len(mean)),
        max(parameters.tolerance, PATH_TOLERANCE),
        parameters.sweeps,
        parameters.patience,
        designs.holdout.gram,
        designs.holdout.mean,
        check.product[:, target] / checked,
        check.runs,
        check.square[target] / checked,
        check.total[target] / checked,
        fit_output,
        errors,
    )
    lam = lams[best]
    weight, _, more, refitted = _solve(designs.everything, mean, moment, lam, weight, parameters)
    stored = weight.astype(np.float32)
    kkt, gap = kernels.certify(
        designs.everything.gram, mean, moment, count, variance, stored.astype(np.float64), lam
    )
    result["weight"][target] = stored
    result["bias"][target] = output + outputs.shift[target] - stored.astype(np.float64) @ mean
    result["lam"][target], result["lam_max"][target] = lam, lam_max
    result["lam_path"][target] = lams
    result["kkt"][target], result["gap"][target] = kkt, gap
    result["nonzeros"][target] = np.count_nonzero(stored)
    result["sweeps"][target] = sweeps + more
    if check.runs:
        # The baseline is what a model without weights predicts: the mean of the train runs.
        check_output = check.total[target] / checked
        baseline = check.square[target] / checked - 2 * check_output * fit_output + fit_output**2
        result["holdout_r2"][target] = 1.0 - errors[best] / baseline if baseline > 0 else np.nan
    settled = converged and refitted and kkt <= max(_STORED, 2 * parameters.tolerance)
    settled &= _fit_parts(target, designs, outputs, parameters, result, lam, weight)
    result["status"][target] = (
        NOT_CONVERGED
        if not settled
        else AT_START
        if best == 0
        else AT_END
        if best == len(lams) - 1
        else FITTED
    )


def _fit_parts(
    target: int,
    designs: Designs,
    outputs: Outputs,
    parameters: Parameters,
    result: dict[str, NDArray[Any]],
    lam: float,
    weight: NDArray[np.float64],
) -> bool:
    """Fit halves and quarters of the masks, at the lam that fits their number of runs.

    A part with 1/n of the runs has sqrt(n) times the noise in every product, and so needs that
    much more lam. Returns whether all of them converged.
    """
    converged = True
    coarse = replace(parameters, tolerance=max(parameters.tolerance, PARTS_TOLERANCE))
    parts = (
        ("weight_half", 2.0, designs.halves, outputs.halves),
        ("weight_quarter", 4.0, designs.quarters, outputs.quarters),
    )
    for name, share, part_designs, part_outputs in parts:
        for number, (design, moments) in enumerate(zip(part_designs, part_outputs, strict=True)):
            start = (
                result["weight_half"][number // 2, target] if name == "weight_quarter" else weight
            )
            moment, mean = _moment(design, moments, target)
            solved, _, _, done = _solve(
                design, mean, moment, lam * math.sqrt(share), start.astype(np.float64), coarse
            )
            result[name][number, target] = solved
            converged &= done
    return converged


def _moment(
    design: Design, moments: Moments, target: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Covariance of masks and one output, and mean of the masks: (train,) each."""
    mean = design.mean
    return moments.product[:, target] / moments.runs - mean * (
        moments.total[target] / moments.runs
    ), mean


def _solve(
    design: Design,
    mean: NDArray[np.float64],
    moment: NDArray[np.float64],
    lam: float,
    start: NDArray[np.float64],
    parameters: Parameters,
) -> Any:
    empty = np.empty(0)
    return kernels.solve_path(
        design.gram,
        mean,
        moment,
        design.runs,
        np.array([lam]),
        start,
        parameters.tolerance,
        parameters.sweeps,
        0,
        design.gram,
        mean,
        empty,
        0,
        0.0,
        0.0,
        0.0,
        np.empty(1),
    )


def lasso_path(
    masks: ArrayLike,
    outputs: ArrayLike,
    *,
    holdout: float | Sequence[bool] | NDArray[np.bool_] = 0.1,
    lams: int = 50,
    lam_ratio: float = 0.01,
    patience: int = 5,
    tolerance: float = 1e-5,
    random_state: int = 0,
    threads: int | None = None,
) -> xr.Dataset:
    """Datamodels from plain arrays, with no store.

    Parameters
    ----------
    masks : (run, train) bool
        NumPy or dask array; what each run saw.
    outputs : (run, target) or (run,) float
        NumPy or dask array; what each run says on each target.
    holdout : float or (run,) bool
        Runs that choose lam: a share, drawn with `random_state`, or which ones. The refit takes
        every row; none is reserved for evaluation.
    lams, lam_ratio, patience, tolerance
        See :class:`Parameters`.
    random_state : int
    threads : int, optional
        All cores by default.

    Returns
    -------
    xarray.Dataset
        ``weight`` (target, train) float32 in output units per unit seen, ``bias``, ``lam``,
        ``lam_max``, ``lam_path``, ``holdout_mse``, ``holdout_r2``, ``kkt``, ``gap``, ``nonzeros``,
        ``sweeps``, ``status``.

    Raises
    ------
    InputError
        For wrong shapes or dtypes, NaN outputs, fewer than 20 runs, or an empty holdout.

    References
    ----------
    ModelDiff, Eq. 5, with an unpenalised intercept; scikit-learn's alpha is lam / 2.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> masks = rng.random((400, 30)) < 0.5
    >>> outputs = masks[:, :3] @ [1.0, -2.0, 3.0] + rng.normal(0, 0.1, 400)
    >>> fitted = lasso_path(masks, outputs)
    >>> fitted.weight.values[0, :3].round(1).tolist()
    [1.0, -2.0, 3.0]
    """
    import xarray as xr

    from dmstore import schema

    parameters = Parameters(lams, lam_ratio, patience, tolerance, halves=False)
    seen: Any = masks if hasattr(masks, "compute") else np.asarray(masks)
    said: Any = np.asarray(outputs, dtype=np.float64)
    said = said[:, None] if said.ndim == 1 else said
    if seen.ndim != 2 or said.ndim != 2 or len(seen) != len(said) or seen.dtype != np.bool_:
        msg = f"masks {seen.dtype} {seen.shape} and outputs {said.shape}: expected bool (run, train) and (run, target)"
        raise InputError(msg)
    if len(said) < FEWEST_RUNS or not np.isfinite(said).all():
        msg = f"{len(said)} runs: at least {FEWEST_RUNS} are needed, and no NaN or infinite output"
        raise InputError(msg)
    apart = _holdout(holdout, len(said), random_state)
    threads = threads or cores()
    shift = said.mean(axis=0)
    words, designs, moments = [], [], []
    with blas_threads(threads):
        for group in (~apart, apart):
            packer = RunPacker(seen.shape[1])
            for start in range(0, len(seen), 1024):
                rows = np.flatnonzero(group[start : start + 1024])
                packer.add(np.asarray(seen[start : start + 1024])[rows])
            words.append(packer.finish())
            designs.append(make_design(words[-1], packer.runs, threads=threads))
            moments.append(make_moments(words[-1], said[group], shift))
    result = fit_block(
        Designs(designs[0], designs[1], designs[0] + designs[1]),
        Outputs(moments[0], moments[1], moments[0] + moments[1], shift),
        parameters,
        threads=threads,
    )
    spec = schema.group_spec("datamodels")
    return xr.Dataset(
        {
            name: (spec.arrays[name].dims, values, {"description": spec.arrays[name].doc})
            for name, values in result.items()
        },
        attrs={"runs": len(said), "holdout_runs": int(apart.sum()), **parameters.document()},
    )


def _holdout(
    holdout: float | Sequence[bool] | NDArray[np.bool_], runs: int, random_state: int
) -> NDArray[np.bool_]:
    if isinstance(holdout, float | int):
        count = round(holdout * runs)
        apart = np.zeros(runs, dtype=bool)
        apart[np.random.default_rng(random_state).permutation(runs)[: max(count, 0)]] = True
    else:
        apart = np.asarray(holdout, dtype=bool)
    if apart.shape != (runs,) or not 0 < apart.sum() < runs:
        msg = f"holdout {holdout!r} leaves no runs to fit on or none to choose lam with; give a share such as 0.1"
        raise InputError(msg)
    return apart
