"""Datamodels from plain arrays, for people with no store at all."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.errors import InputError
from dmstore.regression import solvers, stages
from dmstore.regression.design import Moments, RunPacker, Words, make_moments, padded
from dmstore.regression.own_runs import OwnGroups
from dmstore.regression.path import FEWEST_RUNS, Parameters
from dmstore.regression.results import check_scale
from dmstore.regression.room import in_memory
from dmstore.regression.stages import Stage
from dmstore.regression.work import Work
from dmstore.threads import blas_threads, cores

if TYPE_CHECKING:
    import xarray as xr


def lasso_path(
    masks: ArrayLike,
    outputs: ArrayLike,
    *,
    holdout: float | Sequence[bool] | NDArray[np.bool_] = 0.1,
    target_train: ArrayLike | None = None,
    lams: int = 50,
    lam_ratio: float = 0.01,
    patience: int = 5,
    tolerance: float = 1e-5,
    lam: float | None = None,
    lam_grid: Sequence[float] = (),
    folds: int = 0,
    solver: str = "gram",
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
    target_train : (target,) int, optional
        The column of `masks` that each target is, -1 where it is none. A target that is a train
        unit is fitted on the rows that did not see it.
    lams, lam_ratio, patience, tolerance, lam, lam_grid
        See :class:`Parameters`.
    folds : int
        Choose lam by so many folds of all rows, drawn with `random_state`, in the place of `holdout`;
        rows of one mask are in one fold.
    solver : str
        ``gram``, or ``torch`` and ``fast_l1`` where they are installed: these take all targets at once.
        Targets that are train units are fitted by ``gram`` in any case.
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
        For wrong shapes or dtypes, outputs that are NaN or beyond 1e30, fewer than 20 runs, an empty
        holdout, more folds than masks, or a `target_train` that is no column.
    MissingDependencyError
        If the solver's package or device is not there.

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

    parameters = Parameters(
        lams=lams,
        lam_ratio=lam_ratio,
        patience=patience,
        tolerance=tolerance,
        halves=False,
        lam=lam,
        lam_grid=tuple(lam_grid),
        folds=folds,
        solver=solver,
    )
    solvers.load(solver)
    seen: Any = masks if hasattr(masks, "compute") else np.asarray(masks)
    said: Any = np.asarray(outputs, dtype=np.float64)
    said = said[:, None] if said.ndim == 1 else said
    if seen.ndim != 2 or said.ndim != 2 or len(seen) != len(said) or seen.dtype != np.bool_:
        msg = f"masks {seen.dtype} {seen.shape} and outputs {said.shape}: expected bool (run, train) and (run, target)"
        raise InputError(msg)
    if len(said) < FEWEST_RUNS or not np.isfinite(said).all():
        msg = f"{len(said)} runs: at least {FEWEST_RUNS} are needed, and no NaN or infinite output"
        raise InputError(msg)
    check_scale(said, np.ones(len(said), dtype=bool))
    sets = _folds(seen, folds, random_state) if folds else _apart(holdout, len(said), random_state)
    threads = threads or cores()
    shift = said.mean(axis=0)
    unit = _units(target_train, said.shape[1], seen.shape[1])
    shared, own = np.flatnonzero(unit < 0), np.flatnonzero(unit >= 0)
    words = []
    for group in sets:
        packer = RunPacker(seen.shape[1])
        for start in range(0, len(seen), 1024):
            rows = np.flatnonzero(group[start : start + 1024])
            packer.add(np.asarray(seen[start : start + 1024])[rows])
        words.append(padded(packer.finish()))
    values = [said[group] for group in sets]
    steps = stages.all_stages(1, halves=False, number_of_folds=folds)
    parts = []
    with blas_threads(threads):
        if len(shared):
            plain = [part[:, shared] for part in values]
            parts.append((shared, _shared(steps, words, plain, shift[shared], parameters, threads)))
        if len(own):
            said_own = [part[:, own] for part in values]
            groups = OwnGroups.of(words, said_own, shift[own], unit[own])
            parts.append((own, stages.run_own(steps, groups, parameters, {}, Work(threads))))
    result = stages.merge(parts)
    spec = schema.group_spec("datamodels")
    return xr.Dataset(
        {
            name: (spec.arrays[name].dims, values, {"description": spec.arrays[name].doc})
            for name, values in result.items()
        },
        attrs={
            "runs": len(said),
            "holdout_runs": 0 if folds else int(sets[1].sum()),
            **parameters.document(),
        },
    )


def _shared(
    steps: Sequence[Stage],
    words: Sequence[Words],
    values: Sequence[NDArray[np.float64]],
    shift: NDArray[np.float64],
    parameters: Parameters,
    threads: int,
) -> dict[str, NDArray[Any]]:
    """Fit targets on all rows: one stage and so one Gram after the other, where the solver allows it."""
    runs = [len(part) for part in values]
    checks = stages.check_designs(steps, words, runs)
    work = Work(threads)
    result: dict[str, NDArray[Any]] = {}
    before = None
    together = 1 if parameters.solver == "gram" else len(steps)

    @functools.cache
    def moments(group: int) -> Moments:
        return make_moments(words[group], values[group], shift, threads=threads)

    for group in stages.passes(steps, together):
        designs = stages.make_designs(group, words, runs, in_memory, before, threads=threads)
        result = stages.run(group, designs, checks, moments, shift, parameters, result, work)
        before = group[-1], designs[-1]
    return result


def _units(target_train: ArrayLike | None, targets: int, train: int) -> NDArray[np.int64]:
    """The train unit of each target, -1 where it is none."""
    if target_train is None:
        return np.full(targets, -1)
    given = np.asarray(target_train)
    if given.shape != (targets,) or given.dtype.kind not in "iu":
        msg = f"target_train {given.dtype} {given.shape}: expected integers ({targets},), a column of masks each or -1"
        raise InputError(msg)
    if wrong := [int(n) for n in given if not -1 <= n < train][:3]:
        msg = f"target_train names columns {wrong} of masks that have {train}; give -1 for a target that is none"
        raise InputError(msg)
    return given.astype(np.int64)


def _folds(masks: Any, folds: int, random_state: int) -> list[NDArray[np.bool_]]:
    """Which rows each fold holds; rows of one mask together."""
    digests = [
        hashlib.blake2b(row, digest_size=16).digest()
        for start in range(0, len(masks), 1024)
        for row in np.packbits(np.asarray(masks[start : start + 1024]), axis=1)
    ]
    unique, inverse = np.unique(np.array(digests, dtype="V16"), return_inverse=True)
    if len(unique) < folds:
        msg = f"{folds} folds of {len(unique)} different masks leave one of them empty; give fewer"
        raise InputError(msg)
    fold = np.random.default_rng(random_state).permutation(len(unique))[inverse.ravel()] % folds
    return [fold == number for number in range(folds)]


def _apart(
    holdout: float | Sequence[bool] | NDArray[np.bool_], runs: int, random_state: int
) -> list[NDArray[np.bool_]]:
    """Which rows are fitted on, and which choose lam."""
    apart = _holdout(holdout, runs, random_state)
    return [~apart, apart]


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
