"""Datamodels from plain arrays, for people with no store at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.core.given import local_path, seed_of, threads_of
from dmstore.core.memory import check_scratch, parse
from dmstore.core.threads import blas_threads
from dmstore.errors import InputError
from dmstore.regression.fitting.array_inputs import (
    aligned,
    apart,
    computed,
    folds_of,
    in_order,
    labels,
    named,
    packed,
    plain,
    units,
)
from dmstore.regression.fitting.blocks import TARGETS
from dmstore.regression.fitting.engine import Fitting
from dmstore.regression.fitting.stages import Arrays, merge
from dmstore.regression.problem.block_arrays import check_scale
from dmstore.regression.problem.packing import Words
from dmstore.regression.problem.parameters import FEWEST_RUNS, FitOptions, Parameters
from dmstore.regression.solvers import registry
from dmstore.schema.group_specs import group_spec

if TYPE_CHECKING:
    import xarray as xr


def lasso_path(
    masks: ArrayLike,
    outputs: ArrayLike,
    *,
    holdout: float | Sequence[bool] | NDArray[np.bool_] = 0.1,
    target_train: ArrayLike | None = None,
    random_state: int = 0,
    threads: int | None = None,
    memory: int | str | None = None,
    scratch: str | Path | None = None,
    **options: Unpack[FitOptions],
) -> xr.Dataset:
    """Datamodels from plain arrays, with no store.

    Parameters
    ----------
    masks : (run, train) bool
        NumPy or dask array; what each run saw. Numbers 0 and 1 are taken too. Where `masks` and `outputs` are
        xarray's with a dimension ``run``, or pandas' tables, they are put in one order of its labels.
    outputs : (run, target) or (run,) float
        NumPy or dask array; what each run says on each target. A dask array is read in blocks of 256
        targets, once for each stage where Grams are large.
    holdout : float or (run,) bool
        Runs that choose lam: a share of the masks, drawn with `random_state`, with all runs of each, or which
        ones. The refit takes every row; none is reserved for evaluation.
    target_train : (target,) int, optional
        The column of `masks` that each target is, -1 where it is none. A target that is a train
        unit is fitted on the rows that did not see it.
    random_state : int
        Draws the holdout runs or the folds.
    threads : int, optional
        All cores by default.
    memory : int or str, optional
        Bytes that the process may take, or a size such as ``8GB``; most of what is free by default. With less,
        stages follow one another, and Grams that have no room lie on scratch.
    scratch : path, optional
        Directory for these; that of the system for temporary files by default.
    lams, lam_ratio : int, float
        Values of lam of each target (50), log-spaced from its lam_max down to this share of it (0.01).
    patience : int
        A target leaves the path after this many worse holdout errors (5); 0 never.
    tolerance : float
        Largest violation of the optimality conditions, relative to lam (1e-5).
    sweeps : int
        Coordinate-descent sweeps allowed at one lam (20,000).
    lam : float, optional
        One lam for all targets in the place of a path; 0 fits without a penalty, with the smallest weights.
    lam_grid : sequence of float
        The path of all targets, decreasing, in the place of one from each target's lam_max.
    folds : int
        Choose lam by so many folds of all rows, drawn with `random_state`, rows of one mask together; 0, the default, by the holdout runs.
    solver : str
        ``gram``, the default, or ``torch`` and ``fast_l1`` where they are installed; these take 256 targets at once.
        Targets that are train units are fitted by ``gram`` in any case.

    Returns
    -------
    xarray.Dataset
        ``weight`` (target, train) float32 and ``bias`` (target) float64, in output units: the weights per
        unit seen, the bias of a run that saw none. ``lam``, ``lam_max`` (target) and ``lam_path``
        (target, path) float64, in output units. ``holdout_mse`` (target, path) float64 in squared output
        units, NaN where the target had left the path; ``holdout_r2`` (target) float64. ``kkt`` (target)
        float64 as a share of lam, ``gap`` (target) float64 as a share of the variance. ``nonzeros``,
        ``sweeps`` (target) int32; ``status`` (target) int8, see ``docs/explanation/fit.md``. Coordinates
        ``target`` and ``train`` are those of the arrays where they are xarray's, else numbers. Attributes
        are the parameters that were given a value.

    Raises
    ------
    InputError
        For wrong shapes or dtypes, sparse matrices, outputs that are NaN, masked or beyond 1e30, fewer than 20 runs, an empty
        holdout, more folds than masks, a `target_train` that is no column, or less memory than a fit needs
        beside the Grams.
    StorageError
        If there is no room on the scratch.
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

    if options.pop("halves", False):
        msg = "halves of the masks are fitted of a study's runs; leave halves out"
        raise InputError(msg)
    options["halves"] = False
    parameters = Parameters(**options)
    folds = parameters.folds
    registry.load(parameters.solver)
    random_state, threads = seed_of(random_state), threads_of(threads)
    check_scratch(scratch)
    masks, outputs = aligned(named(masks, "run", "train"), named(outputs, "run", "target"))
    holdout = in_order(named(holdout, "run"), masks, 0, "holdout")
    target_train = in_order(named(target_train, "target"), outputs, 1, "target_train")
    seen: Any = plain(masks, "masks")
    values: Any = plain(outputs, "outputs")
    values = values[:, None] if values.ndim == 1 else values
    if seen.ndim != 2 or values.ndim != 2 or 0 in values.shape + seen.shape:
        msg = f"masks {seen.shape} and outputs {values.shape}: expected (run, train) and (run, target), none of them empty"
        raise InputError(msg)
    if len(seen) != len(values):
        msg = f"masks of {len(seen)} runs and outputs of {len(values)}: expected a row per run in both"
        raise InputError(msg)
    if seen.dtype.kind not in "buif":
        msg = f"masks {seen.dtype}: expected bool, True where a run saw a unit"
        raise InputError(msg)
    if values.dtype.kind not in "fiub":
        msg = f"outputs {values.dtype}: expected real numbers"
        raise InputError(msg)
    (runs, targets), train = values.shape, seen.shape[1]
    if runs < FEWEST_RUNS:
        msg = f"masks and outputs of {runs} runs: at least {FEWEST_RUNS} are needed"
        raise InputError(msg)
    unit = units(target_train, targets, train)
    sets = folds_of(seen, folds, random_state) if folds else apart(holdout, seen, random_state)
    blocks = _Kept(targets)
    fitting = Fitting(
        _ArrayRuns(seen, values, sets),
        unit,
        parameters,
        threads,
        None if memory is None else parse(memory),
        None if scratch is None else local_path(scratch),
        kept=4 * train * targets,
    )
    with blas_threads(threads):
        fitting.run(blocks)
    result = blocks.joined()
    spec = group_spec("datamodels")
    return xr.Dataset(
        {
            name: (spec.arrays[name].dims, values, {"description": spec.arrays[name].doc})
            for name, values in result.items()
        },
        {"target": labels(outputs, targets), "train": labels(masks, train)},
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


class _ArrayRuns:
    """The rows of plain arrays in groups; see :class:`dmstore.regression.fitting.engine.GroupedRuns`."""

    itemsize = 8

    def __init__(self, masks: Any, outputs: Any, sets: list[NDArray[np.bool_]]) -> None:
        self._masks, self._outputs, self._sets = masks, outputs, sets

    @property
    def sizes(self) -> list[int]:
        return [int(chosen.sum()) for chosen in self._sets]

    def words(self, threads: int, progress: Callable[[int, int], None]) -> list[Words]:
        return packed(self._masks, self._sets)

    def outputs(self, start: int, stop: int) -> _ArrayOutputs:
        return _ArrayOutputs(_outputs(self._outputs, slice(start, stop)), self._sets)


class _ArrayOutputs:
    """Columns of a plain array; see :class:`dmstore.regression.fitting.engine.BlockOutputs`."""

    def __init__(self, values: NDArray[np.float64], sets: list[NDArray[np.bool_]]) -> None:
        self._values, self._sets = values, sets
        self.shift = values.mean(axis=0)

    def of(
        self, group: int, targets: NDArray[np.int64] | slice
    ) -> tuple[NDArray[np.float64], None]:
        # By their numbers, always: the layout of what is taken decides the order in which sums are made.
        columns = np.arange(self._values.shape[1])[targets]
        return self._values[self._sets[group]][:, columns], None


class _Kept:
    """Blocks of targets in memory; see :class:`dmstore.regression.fitting.passes.Keeper`."""

    def __init__(self, targets: int) -> None:
        self._bounds = [
            (start, min(start + TARGETS, targets)) for start in range(0, targets, TARGETS)
        ]
        self._found: list[tuple[int, Arrays]] = [(0, {}) for _ in self._bounds]

    def bounds(self, number: int) -> tuple[int, int]:
        return self._bounds[number]

    def todo(self, stages: int) -> list[int]:
        return [number for number, (done, _) in enumerate(self._found) if done < stages]

    def stages(self, number: int) -> int:
        return self._found[number][0]

    def look(self) -> None:
        """Nobody else stores anything here."""

    def there(self, number: int, stages: int) -> bool:
        return self._found[number][0] >= stages

    def load(self, number: int) -> tuple[int, Arrays]:
        return self._found[number]

    def store(self, number: int, stages: int, result: Arrays) -> None:
        self._found[number] = stages, result

    def joined(self) -> Arrays:
        """What was found of all targets."""
        return merge(
            [
                (np.arange(*bounds), result)
                for bounds, (_, result) in zip(self._bounds, self._found, strict=True)
            ]
        )


def _outputs(outputs: Any, block: slice) -> NDArray[np.float64]:
    """Outputs of some targets, checked."""
    # In rows, whatever the layout was: it decides the order in which means are summed.
    part = plain(computed(outputs[:, block]), "outputs")
    values = np.asarray(part, dtype=np.float64, order="C")
    if not np.isfinite(values).all():
        run, target = map(int, np.argwhere(~np.isfinite(values))[0])
        msg = f"outputs: {values[run, target]} in run {run}, target {block.start + target}; leave out runs with missing outputs"
        raise InputError(msg)
    check_scale(values, np.ones(len(values), dtype=bool), "the output", block.start)
    return values
