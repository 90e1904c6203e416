"""Datamodels from plain arrays, for people with no store at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.errors import InputError
from dmstore.regression.design import RunPacker, make_design, make_moments
from dmstore.regression.path import FEWEST_RUNS, Designs, Outputs, Parameters, fit_block
from dmstore.threads import blas_threads, cores

if TYPE_CHECKING:
    import xarray as xr


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
            moments.append(make_moments(words[-1], said[group], shift, threads=threads))
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
    if np.ndim(holdout) == 0:
        share = float(holdout)  # type: ignore[arg-type]
        count = round(share * runs) if 0 < share < 1 else 0
        apart = np.zeros(runs, dtype=bool)
        apart[np.random.default_rng(random_state).permutation(runs)[:count]] = True
    else:
        apart = np.asarray(holdout, dtype=bool)
    if apart.shape != (runs,) or not 0 < apart.sum() < runs:
        msg = f"holdout {holdout!r} leaves no runs to fit on or none to choose lam with; give a share such as 0.1"
        raise InputError(msg)
    return apart
