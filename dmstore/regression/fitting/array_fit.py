"""Datamodels from plain arrays, for people with no store at all."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.core.memory import available
from dmstore.core.threads import blas_threads, cores
from dmstore.errors import InputError
from dmstore.regression.fitting import stages
from dmstore.regression.fitting.blocks import TARGETS
from dmstore.regression.fitting.memory_plan import in_memory
from dmstore.regression.fitting.stages import Stage
from dmstore.regression.problem.block_arrays import check_scale
from dmstore.regression.problem.design import Moments, RunPacker, Words, make_moments, padded
from dmstore.regression.problem.own_runs import OwnGroups
from dmstore.regression.problem.thread_pool import Work
from dmstore.regression.solvers import registry
from dmstore.regression.solvers.lasso import FEWEST_RUNS, Parameters
from dmstore.schema.group_specs import group_spec

if TYPE_CHECKING:
    import xarray as xr

# Rows of a plain array that are packed at a time.
_ROWS = 1024
# Share of the memory that Grams of all stages may take together.
_SHARE = 0.3


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
        NumPy or dask array; what each run saw. Numbers 0 and 1 are taken too. Where `masks` and `outputs` are
        xarray's with a dimension ``run`` they are put in one order of its labels.
    outputs : (run, target) or (run,) float
        NumPy or dask array; what each run says on each target. A dask array is read in blocks of 256
        targets, once for each stage where Grams are large.
    holdout : float or (run,) bool
        Runs that choose lam: a share of the masks, drawn with `random_state`, with all runs of each, or which
        ones. The refit takes every row; none is reserved for evaluation.
    target_train : (target,) int, optional
        The column of `masks` that each target is, -1 where it is none. A target that is a train
        unit is fitted on the rows that did not see it.
    lams, lam_ratio : int, float
        Values of lam of each target, log-spaced from its lam_max down to this share of it.
    patience : int
        A target leaves the path after this many worse holdout errors in a row; 0 never.
    tolerance : float
        Largest violation of the optimality conditions, relative to lam.
    lam : float, optional
        One lam for all targets in the place of a path; 0 fits without a penalty, with the smallest weights.
    lam_grid : sequence of float
        The path of all targets, decreasing, in the place of one from each target's lam_max.
    folds : int
        Choose lam by so many folds of all rows, drawn with `random_state`, in the place of `holdout`;
        rows of one mask are in one fold.
    solver : str
        ``gram``, or ``torch`` and ``fast_l1`` where they are installed: these take 256 targets at once.
        Targets that are train units are fitted by ``gram`` in any case.
    random_state : int
        Draws the holdout runs or the folds.
    threads : int, optional
        All cores by default.

    Returns
    -------
    xarray.Dataset
        ``weight`` (target, train) float32 and ``bias`` (target) float64, in output units: the weights per
        unit seen, the bias of a run that saw none. ``lam``, ``lam_max`` (target) and ``lam_path``
        (target, path) float64, in output units. ``holdout_mse`` (target, path) float64 in squared output
        units, NaN where the target had left the path; ``holdout_r2`` (target) float64. ``kkt`` (target)
        float64 as a share of lam, ``gap`` (target) float64 as a share of the variance. ``nonzeros``,
        ``sweeps`` (target) int32; ``status`` (target) int8, see ``docs/regression.md``. Coordinates
        ``target`` and ``train`` are those of the arrays where they are xarray's, else numbers. Attributes
        are the parameters that were given a value.

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
    registry.load(solver)
    masks, outputs = _aligned(masks, outputs)
    holdout = _in_order(holdout, masks, 0, "holdout")
    target_train = _in_order(target_train, outputs, 1, "target_train")
    seen: Any = _plain(masks)
    said: Any = _plain(outputs)
    said = said[:, None] if said.ndim == 1 else said
    if seen.ndim != 2 or said.ndim != 2 or 0 in said.shape + seen.shape:
        msg = f"masks {seen.shape} and outputs {said.shape}: expected (run, train) and (run, target), none of them empty"
        raise InputError(msg)
    if len(seen) != len(said):
        msg = f"masks of {len(seen)} runs and outputs of {len(said)}: expected a row a run in both"
        raise InputError(msg)
    if seen.dtype.kind not in "buif":
        msg = f"masks {seen.dtype}: expected bool, True where a run saw a unit"
        raise InputError(msg)
    if said.dtype.kind not in "fiub":
        msg = f"outputs {said.dtype}: expected real numbers"
        raise InputError(msg)
    (runs, targets), train = said.shape, seen.shape[1]
    if runs < FEWEST_RUNS:
        msg = f"masks and outputs of {runs} runs: at least {FEWEST_RUNS} are needed"
        raise InputError(msg)
    unit = _units(target_train, targets, train)
    sets = _folds(seen, folds, random_state) if folds else _apart(holdout, seen, random_state)
    threads = threads or cores()
    words = _packed(seen, sets)
    with blas_threads(threads):
        result = _fit(
            stages.all_stages(1, halves=False, number_of_folds=folds),
            words,
            sets,
            lambda block: _outputs(said, block),
            unit,
            parameters,
            threads,
        )
    spec = group_spec("datamodels")
    return xr.Dataset(
        {
            name: (spec.arrays[name].dims, values, {"description": spec.arrays[name].doc})
            for name, values in result.items()
        },
        {"target": _labels(outputs, targets), "train": _labels(masks, train)},
        {
            "runs": runs,
            "holdout_runs": 0 if folds else int(sets[1].sum()),
            # Files take no None.
            **{
                name: value
                for name, value in parameters.document().items()
                if value not in (None, [])
            },
        },
    )


def _aligned(masks: Any, outputs: Any) -> tuple[Any, Any]:
    """Xarray's arrays with runs first, and in the order of the masks where both have labels of runs."""
    if not (hasattr(masks, "dims") and hasattr(outputs, "dims")):
        return masks, outputs
    if "run" in masks.dims and "run" in outputs.dims:
        masks, outputs = masks.transpose("run", ...), outputs.transpose("run", ...)
    return masks, _in_order(outputs, masks, 0, "outputs")


def _in_order(array: Any, like: Any, axis: int, what: str) -> Any:
    """An array whose first dimension has the order of the labels of a dimension of another, where both have any."""
    dims, names = getattr(array, "dims", ()), getattr(like, "dims", ())
    if not dims or axis >= len(names) or dims[0] != names[axis]:
        return array
    dim = dims[0]
    if dim not in array.indexes or dim not in like.indexes:
        return array
    ours, theirs = like.indexes[dim], array.indexes[dim]
    if ours.equals(theirs):
        return array
    if not (ours.is_unique and theirs.is_unique) or set(ours) != set(theirs):
        msg = f"{what} and {'masks' if axis == 0 else 'outputs'} have different labels along {dim!r}; align them first, as with xarray.align"
        raise InputError(msg)
    return array.isel({dim: theirs.get_indexer(ours)})


def _bool(rows: Any, start: int) -> NDArray[np.bool_]:
    """Rows of masks that are bool, or numbers 0 and 1."""
    found = np.asarray(rows)
    if found.dtype == np.bool_:
        return found
    wrong = (found != 0) & (found != 1)
    if wrong.any():
        run, unit = map(int, np.argwhere(wrong)[0])
        msg = f"masks: {found[run, unit]} in run {start + run}, unit {unit}; expected True or 1 where a run saw a unit, else False or 0"
        raise InputError(msg)
    return found.astype(np.bool_)


def _plain(array: Any) -> Any:
    """A NumPy or dask array of what was given."""
    array = array.data if hasattr(array, "dims") else array
    return array if hasattr(array, "compute") else np.asarray(array)


def _labels(array: Any, count: int) -> NDArray[Any]:
    """The labels of the columns of an xarray array, or their numbers."""
    dims: tuple[Any, ...] = getattr(array, "dims", ())
    if len(dims) == 2 and dims[1] in array.indexes:
        return np.asarray(array.indexes[dims[1]])
    return np.arange(count)


def _packed(masks: Any, sets: Sequence[NDArray[np.bool_]]) -> list[Words]:
    """Masks of each set of rows, packed; a chunk of a dask array is computed once."""
    packers = [RunPacker(masks.shape[1]) for _ in sets]
    steps = masks.chunks[0] if hasattr(masks, "compute") else (_ROWS,) * (len(masks) // _ROWS + 1)
    start = 0
    for size in steps:
        rows = _bool(masks[start : start + size], start)
        for packer, chosen in zip(packers, sets, strict=True):
            packer.add(rows[chosen[start : start + size]])
        start += size
    return [padded(packer.finish()) for packer in packers]


def _outputs(outputs: Any, block: slice) -> NDArray[np.float64]:
    """Outputs of some targets, checked."""
    values = np.asarray(outputs[:, block], dtype=np.float64)
    if not np.isfinite(values).all():
        run, target = map(int, np.argwhere(~np.isfinite(values))[0])
        msg = f"outputs: {values[run, target]} in run {run}, target {block.start + target}; leave out runs with missing outputs"
        raise InputError(msg)
    check_scale(values, np.ones(len(values), dtype=bool), "the output", block.start)
    return values


def _fit(
    steps: Sequence[Stage],
    words: Sequence[Words],
    sets: Sequence[NDArray[np.bool_]],
    outputs: Callable[[slice], NDArray[np.float64]],
    unit: NDArray[np.int64],
    parameters: Parameters,
    threads: int,
) -> dict[str, NDArray[Any]]:
    """Fit blocks of targets: all stages at once, or one and so one Gram after the other where these are large."""
    runs = [int(chosen.sum()) for chosen in sets]
    checks = stages.check_designs(steps, words, runs)
    work = Work(threads)
    blocks = [slice(start, start + TARGETS) for start in range(0, len(unit), TARGETS)]
    found: list[dict[str, NDArray[Any]]] = [{} for _ in blocks]
    before, shared = None, bool((unit < 0).any())
    grams = len(steps) * 4 * words[0].shape[0] ** 2
    whole = parameters.solver != "gram" or grams < _SHARE * available()
    for group in stages.passes(steps, len(steps) if whole else 1):
        designs = []
        if shared:
            designs = stages.make_designs(group, words, runs, in_memory, before, threads=threads)
            before = group[-1], designs[-1]
        for number, block in enumerate(blocks):
            values = outputs(block)
            shift = values.mean(axis=0)
            own = unit[block] >= 0
            parts = []
            for chosen in (np.flatnonzero(~own), np.flatnonzero(own)):
                if not len(chosen):
                    continue
                have = stages.take(found[number], chosen)
                some = [values[rows][:, chosen] for rows in sets]
                if own[chosen[0]]:
                    groups = OwnGroups.of(words, some, shift[chosen], unit[block][chosen])
                    made = stages.run_own(group, groups, parameters, have, work)
                else:
                    moments = functools.partial(_moments, words, some, shift[chosen], threads)
                    made = stages.run(
                        group, designs, checks, moments, shift[chosen], parameters, have, work
                    )
                parts.append((chosen, made))
            found[number] = stages.merge(parts)
    return stages.merge(
        [(np.arange(len(unit))[block], part) for block, part in zip(blocks, found, strict=True)]
    )


def _moments(
    words: Sequence[Words],
    values: Sequence[NDArray[np.float64]],
    shift: NDArray[np.float64],
    threads: int,
    group: int,
) -> Moments:
    return make_moments(words[group], values[group], shift, threads=threads)


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


def _numbered(masks: Any) -> NDArray[np.int64]:
    """A number for each row that is its mask's, from 0 as they first appear."""
    digests = [
        hashlib.blake2b(row, digest_size=16).digest()
        for start in range(0, len(masks), _ROWS)
        for row in np.packbits(_bool(masks[start : start + _ROWS], start), axis=1)
    ]
    _, first, inverse = np.unique(
        np.array(digests, dtype="V16"), return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[inverse.ravel()]


def _folds(masks: Any, folds: int, random_state: int) -> list[NDArray[np.bool_]]:
    """Which rows each fold holds; rows of one mask together."""
    number = _numbered(masks)
    count = int(number.max()) + 1
    if count < folds:
        msg = f"{folds} folds of {count} different masks leave one of them empty; give fewer"
        raise InputError(msg)
    fold = np.random.default_rng(random_state).permutation(count)[number] % folds
    return [fold == one for one in range(folds)]


def _apart(
    holdout: float | Sequence[bool] | NDArray[np.bool_], masks: Any, random_state: int
) -> list[NDArray[np.bool_]]:
    """Which rows are fitted on, and which choose lam."""
    apart = _holdout(holdout, masks, random_state)
    return [~apart, apart]


def _holdout(
    holdout: float | Sequence[bool] | NDArray[np.bool_], masks: Any, random_state: int
) -> NDArray[np.bool_]:
    runs = len(masks)
    if np.ndim(holdout) == 0:
        share = float(holdout)  # type: ignore[arg-type]
        count = round(share * runs) if 0 < share < 1 else 0
        # Repeats of a mask that is fitted on would reward weights for what is the mask's alone.
        number = _numbered(masks)
        size = np.bincount(number)
        drawn = np.random.default_rng(random_state).permutation(len(size))
        apart = np.isin(number, drawn[np.cumsum(size[drawn]) - size[drawn] < count])
    else:
        apart = np.asarray(holdout)
        if apart.shape != (runs,) or apart.dtype != np.bool_:
            msg = f"holdout {apart.dtype} {apart.shape}: expected a share such as 0.1, or bool ({runs},), True for the runs that choose lam"
            raise InputError(msg)
    if not 0 < apart.sum() < runs:
        given = holdout if np.ndim(holdout) == 0 else f"of {int(apart.sum())} of {runs} runs"
        msg = f"holdout {given} leaves no runs to fit on or none to choose lam with; give a share such as 0.1"
        raise InputError(msg)
    return apart
