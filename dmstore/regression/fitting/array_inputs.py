"""Plain arrays as a fit takes them: put in one order, checked, packed, and told apart by mask."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmstore.core.masked import refuse_sparse
from dmstore.errors import InputError
from dmstore.regression.problem.packing import RunPacker, Words, padded

# Rows of a plain array that are packed at a time.
_ROWS = 1024


def aligned(masks: Any, outputs: Any) -> tuple[Any, Any]:
    """Xarray's arrays with runs first, and in the order of the masks where both have labels of runs."""
    if not (hasattr(masks, "dims") and hasattr(outputs, "dims")):
        return masks, outputs
    if "run" in masks.dims and "run" in outputs.dims:
        masks, outputs = masks.transpose("run", ...), outputs.transpose("run", ...)
    return masks, in_order(outputs, masks, 0, "outputs")


def in_order(array: Any, like: Any, axis: int, what: str) -> Any:
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
    masks = np.ascontiguousarray(_unmasked(computed(rows), "masks"))
    if masks.dtype == np.bool_:
        return masks
    wrong = (masks != 0) & (masks != 1)
    if wrong.any():
        run, unit = map(int, np.argwhere(wrong)[0])
        msg = f"masks: {masks[run, unit]} in run {start + run}, unit {unit}; expected True or 1 where a run saw a unit, else False or 0"
        raise InputError(msg)
    return masks.astype(np.bool_)


def named(array: Any, *dims: str) -> Any:
    """What pandas labels as xarray does, with these dims; anything else as it is."""
    if not hasattr(array, "iloc") or len(array.shape) > len(dims):
        return array
    import xarray as xr

    # A name of several parts would be taken apart.
    labels = [
        axis.map(str) if getattr(axis, "nlevels", 1) > 1 else axis
        for axis in (array.index, *([array.columns] if hasattr(array, "columns") else []))
    ]
    own = dims[: len(labels)]
    return xr.DataArray(array.to_numpy(), dims=own, coords=dict(zip(own, labels, strict=True)))


def plain(array: Any, what: str) -> Any:
    """A NumPy or dask array of what was given.

    Raises
    ------
    InputError
        If it is sparse, has values that are masked, or is no array at all.
    """
    array = array.data if hasattr(array, "dims") else array
    kind = f"{type(array).__module__.partition('.')[0]}.{type(array).__name__}"
    refuse_sparse(array, what)
    if hasattr(array, "compute"):
        # What a chunk masks is known once it is read.
        return array
    try:
        values = np.asanyarray(array)
    except (ValueError, TypeError, RuntimeError) as error:
        msg = f"{what}: {kind} is no array of numbers ({' '.join(str(error).split())[:150]}); give rows of equal length, as NumPy has them"
        raise InputError(msg) from None
    return _unmasked(values, what)


def computed(array: Any) -> Any:
    """What a dask array holds; anything else as it is."""
    return array.compute() if hasattr(array, "compute") else array


def _unmasked(values: Any, what: str) -> NDArray[Any]:
    """An array without a mask of its own: numpy.ma's, of which no value is masked."""
    if np.ma.is_masked(values):
        count = int(np.ma.getmaskarray(values).sum())
        msg = f"{what}: {count} values are masked, and none may be missing; leave these runs or targets out"
        raise InputError(msg)
    return np.asarray(values)


def labels(array: Any, count: int) -> NDArray[Any]:
    """The labels of the columns of an xarray array, or their numbers."""
    dims: tuple[Any, ...] = getattr(array, "dims", ())
    if len(dims) == 2 and dims[1] in array.indexes:
        return np.asarray(array.indexes[dims[1]])
    return np.arange(count)


def packed(masks: Any, sets: Sequence[NDArray[np.bool_]]) -> list[Words]:
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


def units(target_train: ArrayLike | None, targets: int, train: int) -> NDArray[np.int64]:
    """The train unit of each target, -1 where it is none."""
    if target_train is None:
        return np.full(targets, -1)
    given = _unmasked(computed(plain(target_train, "target_train")), "target_train")
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


def folds_of(masks: Any, folds: int, random_state: int) -> list[NDArray[np.bool_]]:
    """Which rows each fold holds; rows of one mask together."""
    number = _numbered(masks)
    count = int(number.max()) + 1
    if count < folds:
        msg = f"{folds} folds of {count} different masks leave one of them empty; give fewer"
        raise InputError(msg)
    fold = np.random.default_rng(random_state).permutation(count)[number] % folds
    return [fold == one for one in range(folds)]


def apart(
    holdout: float | Sequence[bool] | NDArray[np.bool_], masks: Any, random_state: int
) -> list[NDArray[np.bool_]]:
    """Which rows are fitted on, and which choose lam."""
    apart = _holdout(holdout, masks, random_state)
    return [~apart, apart]


def _holdout(
    holdout: float | Sequence[bool] | NDArray[np.bool_], masks: Any, random_state: int
) -> NDArray[np.bool_]:
    runs = len(masks)
    given = _unmasked(computed(plain(holdout, "holdout")), "holdout")
    if given.ndim == 0:
        if given.dtype.kind not in "fiu":
            msg = f"holdout {holdout!r}: expected a share such as 0.1, or bool ({runs},), True for the runs that choose lam"
            raise InputError(msg)
        share = float(given)
        count = round(share * runs) if 0 < share < 1 else 0
        # Repeats of a mask that is fitted on would reward weights for what is the mask's alone.
        number = _numbered(masks)
        size = np.bincount(number)
        drawn = np.random.default_rng(random_state).permutation(len(size))
        apart = np.isin(number, drawn[np.cumsum(size[drawn]) - size[drawn] < count])
    else:
        apart = given
        if apart.shape != (runs,) or apart.dtype != np.bool_:
            msg = f"holdout {apart.dtype} {apart.shape}: expected a share such as 0.1, or bool ({runs},), True for the runs that choose lam"
            raise InputError(msg)
    if not 0 < apart.sum() < runs:
        stated = holdout if given.ndim == 0 else f"of {int(apart.sum())} of {runs} runs"
        msg = f"holdout {stated} leaves no runs to fit on or none to choose lam with; give a share such as 0.1"
        raise InputError(msg)
    return apart
