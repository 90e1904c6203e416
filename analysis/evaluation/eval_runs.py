"""What models did on runs kept for evaluation, and how that agrees with predictions of it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics
from dmstore.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

FEWEST = 5
# Targets that are scored at a time, and bytes of masks that are multiplied at a time.
TARGETS = 256
_MASK_BYTES = 1 << 30
# Below this share of non-zeros sparse products are faster, and below the other they are taken for rows of few
# different values, whose equal sums must come out equal: of so many at most in a sample of so many.
_SPARSE, _FEW_VALUES = 0.05, 0.5
_VALUES, _LOOKED_AT = 16, 256


@dataclass(frozen=True)
class Truth:
    """Runs to score on.

    Attributes
    ----------
    mask : (mask, train) bool
        The distinct masks.
    values : (run, target) float
        Outputs as stored.
    group : (run,) int64
        Which of the masks each run had.
    run : (run,) int64
        Ids of the runs.
    fitted : bool
        Whether these are runs that were fitted on, for want of others.
    unit : (target,) int64
        The train unit that a target is, -1 for none.
    """

    mask: NDArray[np.bool_]
    values: NDArray[Any]
    group: NDArray[np.int64]
    run: NDArray[np.int64]
    fitted: bool
    unit: NDArray[np.int64]

    @property
    def repeated(self) -> int:
        """Masks that several runs had."""
        return int((np.bincount(self.group) >= 2).sum())

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Targets and their outputs, repeats averaged, block by block: (target, mask)."""
        for start in range(0, self.values.shape[1], TARGETS):
            part = slice(start, start + TARGETS)
            yield part, rank_statistics.average(self.values[:, part], self.group)

    def ceiling(self, random_state: int = 0) -> NDArray[np.float64]:
        """Noise ceiling of the LDS: (target,) float64; NaN where too few masks have
        repeats, and for targets that are train units.
        """
        ceilings = np.full(self.values.shape[1], np.nan)
        for start in range(0, len(ceilings), TARGETS):
            part = slice(start, start + TARGETS)
            ceilings[part] = rank_statistics.noise_ceiling(
                self.values[:, part], self.group, random_state=random_state
            )
        # Of a train unit only some of the runs count.
        ceilings[self.unit >= 0] = np.nan
        return ceilings


def read_truth(
    runs: xr.Dataset,
    output: str,
    targets: NDArray[np.int64] | None = None,
    *,
    unit: NDArray[np.int64] | None = None,
    force: bool = False,
) -> Truth:
    """Read the eval runs of an algorithm.

    Parameters
    ----------
    runs : xarray.Dataset
        From :meth:`dmstore.study.study.Study.runs`.
    output : str
    targets : (target,) int64, optional
        Positions; all targets by default.
    unit : (target,) int64, optional
        The train unit that each of these targets is, -1 for none.
    force : bool
        Where fewer than 5 masks are reserved, take all runs, fitted ones too.

    Raises
    ------
    InputError
        If fewer than 5 masks can be scored on, or an output is not finite.
    """
    name = runs.attrs["algorithm"]
    if output not in runs or runs[output].dims != ("run", "target"):
        known = [k for k, v in runs.data_vars.items() if v.dims == ("run", "target")]
        msg = f"algorithm {name!r} has no output {output!r} with a value a target; it has {', '.join(map(str, known))}"
        raise InputError(msg)
    mask_id = runs["mask_id"].values
    reserved = np.flatnonzero(runs["split"].values == "eval")
    count = len(np.unique(mask_id[reserved]))
    fitted = count < FEWEST
    if fitted and not force:
        msg = (
            f"algorithm {name!r} has {count} eval masks, at least {FEWEST} are needed; train more runs, "
            f"or score on fitted runs too with --force"
        )
        raise InputError(msg)
    chosen = np.arange(len(mask_id)) if fitted else reserved
    unique, first, group = np.unique(mask_id[chosen], return_index=True, return_inverse=True)
    if len(unique) < FEWEST:
        msg = f"algorithm {name!r} has runs of {len(unique)} masks, at least {FEWEST} are needed; train more runs"
        raise InputError(msg)
    outputs = runs[output].isel(run=chosen)
    values = np.asarray((outputs if targets is None else outputs.isel(target=targets)).values)
    run = np.asarray(runs["run"].values)[chosen]
    finite = np.isfinite(values)
    if not finite.all():
        row, target = (int(place[0]) for place in np.nonzero(~finite))
        msg = (
            f"algorithm {name!r}: {output!r} of run {run[row]} is {values[row, target]} on target "
            f"{target if targets is None else targets[target]}; retract that run"
        )
        raise InputError(msg)
    mask = np.asarray(runs["mask"].isel(run=chosen[first]).values, dtype=bool)
    if unit is None:
        unit = np.full(values.shape[1], -1, dtype=np.int64)
    return Truth(mask, values, np.asarray(group.ravel(), dtype=np.int64), run, fitted, unit)


def predict(weight: Any, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What weights say about masks, without bias.

    Sparse rows and those of few values are summed in float64, so that equal sums come out equal. Others, less their mean
    and scaled, are multiplied in float32, which costs about 1e-6 of a prediction's spread.

    Parameters
    ----------
    weight : (target, train) array or DataArray
        Read in blocks of targets.
    mask : (mask, train) bool

    Returns
    -------
    (target, mask) float64
    """
    predicted = np.empty((weight.shape[0], len(mask)))
    step = max(1, _MASK_BYTES // max(1, 8 * mask.shape[1]))
    for start in range(0, len(mask), step):
        product = _Product(mask[start : start + step])
        for first in range(0, weight.shape[0], TARGETS):
            rows = np.asarray(weight[first : first + TARGETS])
            rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
            predicted[first : first + TARGETS, start : start + step] = product(rows)
    return predicted


class _Product:
    """Multiplies rows of weights with masks, which are kept in the dtype that it takes."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        self._count = mask.sum(axis=1)

    @functools.cached_property
    def _double(self) -> NDArray[np.float64]:
        return self._mask.T.astype(np.float64)

    @functools.cached_property
    def _single(self) -> NDArray[np.float32]:
        return self._mask.T.astype(np.float32)

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """(target, train) float to (target, mask) float64."""
        # Told of each row by itself: what is said of a target must not depend on its neighbours.
        density = np.count_nonzero(rows, axis=1) / rows.shape[1]
        sparse = density < _SPARSE
        maybe = np.flatnonzero(~sparse & (density < _FEW_VALUES))
        step = max(1, rows.shape[1] // _LOOKED_AT)
        ordered = np.sort(rows[maybe, ::step], axis=1)
        sparse[maybe] = (np.diff(ordered, axis=1) > 0).sum(axis=1) < _VALUES
        predictions = np.empty((len(rows), len(self._mask)))
        if sparse.any():
            from scipy.sparse import csr_array

            predictions[sparse] = csr_array(rows[sparse]).astype(np.float64) @ self._double
        if not sparse.all():
            predictions[~sparse] = self._dense(rows[~sparse])
        return predictions

    def _dense(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        center = rows.mean(axis=1, keepdims=True)
        rows = rows - center
        scale = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
        scale[scale == 0] = 1
        rows /= scale
        predictions = (rows.astype(np.float32, copy=False) @ self._single).astype(np.float64)
        predictions *= scale
        predictions += center.astype(np.float64) * self._count
        return predictions


def mse(predicted: NDArray[np.float64], outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared error of rows: (target, mask) each, to (target,)."""
    return np.asarray(((outputs - predicted) ** 2).mean(axis=1))
