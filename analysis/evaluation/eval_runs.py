"""What models did on runs kept for evaluation, and how that agrees with predictions of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.evaluation import rank_statistics
from dmstore.analysis.evaluation.noise_ceiling import noise_ceiling
from dmstore.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

FEWEST = 5
# Targets that are scored at a time, and bytes of masks that are multiplied at a time.
TARGETS = 256
_MASK_BYTES = 1 << 30
# Below this share of non-zeros sparse products are faster.
_SPARSE = 0.05


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
        ceilings = noise_ceiling(self.values, self.group, random_state=random_state)
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
    besides: NDArray[np.int64] | None = None,
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
    besides : (run,) int64, optional
        Take all runs but these and others of their masks, whatever they are reserved for.

    Raises
    ------
    InputError
        If fewer than 5 masks can be scored on, or an output is not finite.
    """
    name = runs.attrs["algorithm"]
    if output not in runs or runs[output].dims != ("run", "target"):
        known = [k for k, v in runs.data_vars.items() if v.dims == ("run", "target")]
        msg = f"algorithm {name!r} has no output {output!r} with a value per target; it has {', '.join(map(str, known))}"
        raise InputError(msg)
    mask_id = runs["mask_id"].values
    reserved = np.flatnonzero(runs["split"].values == "eval")
    count = len(np.unique(mask_id[reserved]))
    if besides is not None:
        # Another run of a mask that was fitted on is no news either.
        seen = np.isin(mask_id, mask_id[np.isin(runs["run"].values, besides)])
        reserved = np.flatnonzero(~seen)
        count = FEWEST
    fitted = count < FEWEST
    if fitted and not force:
        msg = (
            f"algorithm {name!r} has {count} eval masks, at least {FEWEST} are needed; train more runs, judge scores that "
            f"were made elsewhere by all runs with --all-runs, or score on fitted runs too with --force"
        )
        raise InputError(msg)
    chosen = np.arange(len(mask_id)) if fitted else reserved
    unique, first, group = np.unique(mask_id[chosen], return_index=True, return_inverse=True)
    if len(unique) < FEWEST:
        msg = f"algorithm {name!r} has runs of {len(unique)} masks to score on, at least {FEWEST} are needed; train more runs"
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

    Sums are of float64, and sums that are equal in exact arithmetic come out equal: those of a row that
    lie closer together than rounding carries are set to one number (:func:`dmstore.analysis.evaluation.rank_statistics.tied`).

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
    tolerance = np.empty(weight.shape[0])
    step = max(1, _MASK_BYTES // max(1, 8 * mask.shape[1]))
    for start in range(0, len(mask), step):
        part = mask[start : start + step].T.astype(np.float64)
        for first in range(0, weight.shape[0], TARGETS):
            rows = np.asarray(weight[first : first + TARGETS])
            predicted[first : first + TARGETS, start : start + step] = _products(rows, part)
            tolerance[first : first + TARGETS] = _rounding(rows)
    for first in range(0, weight.shape[0], TARGETS):
        block = slice(first, first + TARGETS)
        predicted[block] = rank_statistics.tied(predicted[block], tolerance[block])
    return predicted


def _products(rows: NDArray[Any], mask: NDArray[np.float64]) -> NDArray[np.float64]:
    """(target, train) numbers and (train, mask) float64 to (target, mask) float64."""
    from scipy.sparse import csr_array

    # Told of each row by itself: what is said of a target must not depend on its neighbours.
    sparse = np.count_nonzero(rows, axis=1) < _SPARSE * rows.shape[1]
    rows = rows.astype(np.float64, copy=False)
    if not sparse.any():
        return np.asarray(rows @ mask)
    predictions = np.empty((len(rows), mask.shape[1]))
    predictions[sparse] = csr_array(rows[sparse]) @ mask
    if not sparse.all():
        predictions[~sparse] = rows[~sparse] @ mask
    return predictions


def _rounding(rows: NDArray[Any]) -> NDArray[np.float64]:
    """How far apart rounding may carry equal sums of each row: (target,) float64.

    Multiples of a step that float32 does not hold, as quantised scores are, are rounded themselves,
    each by itself. Numbers of float16 are taken for what they are: their rounding is no smaller than
    what they tell apart.
    """
    # Of float32 these are passes over half the bytes; a bound needs no more digits.
    narrow = rows.dtype.kind == "f" and rows.dtype.itemsize <= 4
    size = np.abs(rows.astype(np.float32 if narrow else np.float64, copy=False))
    count = np.maximum(np.count_nonzero(rows, axis=1), 1)
    total = size.sum(axis=1).astype(np.float64)
    rounding = np.finfo(np.float64).eps * count * total
    if rows.dtype == np.float32:
        # Their usual size, which one number that outweighs all others does not make.
        usual = (np.sqrt(size, out=size).sum(axis=1).astype(np.float64) / count) ** 2
        # No two sums are carried further apart than half a last place of each of their numbers.
        eps = float(np.finfo(np.float32).eps)
        single = np.minimum(8 * eps * usual * np.sqrt(count), eps * total)
        rounding = np.maximum(rounding, single)
    return np.asarray(rounding)


def mse(predicted: NDArray[np.float64], outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared error of rows: (target, mask) each, to (target,)."""
    return np.asarray(((outputs - predicted) ** 2).mean(axis=1))
