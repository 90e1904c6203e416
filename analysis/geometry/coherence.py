"""How alike the residual datamodels of a subpopulation are, beside random sets of targets of the same classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.geometry.dims import positions_of, with_dims
from dmstore.analysis.geometry.residual import rounding_of
from dmstore.analysis.geometry.rows import Rows, dots, rows_of
from dmstore.analysis.geometry.similarity import aligned
from dmstore.errors import InputError

# Random sets whose sums of residuals are in memory at once.
_DRAWS = 64


def coherence(
    a: xr.Dataset | xr.DataArray,
    b: xr.Dataset | xr.DataArray,
    targets: NDArray[np.int64],
    label: NDArray[np.int64] | None = None,
    *,
    draws: int = 1000,
    random_state: int = 0,
) -> xr.Dataset:
    """Mean cosine between the residual datamodels of a subpopulation's targets, and of random class-matched sets.

    Residuals are those of A with respect to B (paper Eq. 3), brought to unit length. A subpopulation that was chosen by these
    very residuals is alike by the choice: for a p-value that says something, choose it by fits of one half of the runs and
    give here those of the other (``study.datamodels(name)["weight_half"]``).

    Parameters
    ----------
    a, b : Dataset, or (target, train) DataArray
        Datamodels, in memory or lazy: read some targets at a time, kept sparse.
    targets : (member,) int
        Positions of the subpopulation's targets, each once; -1 is left out.
    label : (target,) int, optional
        Classes, to match random sets by; any other target serves without.
    draws : int
        Random sets.
    random_state : int
        Draws them.

    Returns
    -------
    xarray.Dataset
        ``coherence`` () float64, from -1 to 1: mean cosine over pairs of members; ``null`` (draw,) float64, of random sets with
        as many targets of each class, members among them; ``p`` () float64: (1 + sets at least as coherent) / (1 + draws);
        ``members`` () int64. Targets without a datamodel, or whose residual is rounding alone, are left out.

    Raises
    ------
    InputError
        If train units or targets differ, a position is out of range or twice there, fewer than two members have a residual, or
        there are no draws.
    """
    if draws < 1:
        msg = f"draws {draws}: give 1 or more"
        raise InputError(msg)
    arrays = aligned(*(with_dims(one, "target", "train") for one in (a, b)))
    count = arrays[0].sizes["target"]
    classes = np.zeros(count, dtype=np.int64) if label is None else np.asarray(label)
    if len(classes) != count:
        msg = f"{len(classes)} labels for {count} targets; give one a target"
        raise InputError(msg)
    members = positions_of(targets, count, "target")
    if len(np.unique(members)) < len(members):
        msg = f"{len(members)} positions, {len(np.unique(members))} of them different; give each target once"
        raise InputError(msg)
    own, other = rows_of(arrays)
    cosine = dots(own, other)
    length = np.sqrt(np.clip(1 - cosine**2, 0, None))
    least = max(rounding_of(one) for one in arrays)
    valid = own.nonzero & other.nonzero & (length > least)
    members = members[valid[members]]
    if len(members) < 2:
        msg = f"{len(members)} of the targets given have a residual datamodel; two or more are needed to be alike"
        raise InputError(msg)
    chosen = _drawn(members, np.flatnonzero(valid), classes, draws, random_state)
    scale = np.divide(1.0, length, out=np.zeros(count), where=valid)
    sets = [members[None], *(chosen[k : k + _DRAWS] for k in range(0, draws, _DRAWS))]
    mean = np.concatenate([_mean_cosine(own, other, cosine, scale, one) for one in sets])
    return xr.Dataset(
        {
            "coherence": ((), mean[0]),
            "null": ("draw", mean[1:]),
            "p": ((), (1 + np.count_nonzero(mean[1:] >= mean[0])) / (1 + draws)),
            "members": ((), len(members)),
        },
        attrs={"draws": draws, "random_state": random_state, "matched": int(label is not None)},
    )


def _drawn(
    members: NDArray[np.int64],
    valid: NDArray[np.int64],
    classes: NDArray[np.int64],
    draws: int,
    random_state: int,
) -> NDArray[np.int64]:
    """Random sets with as many targets of each class as the members have: (draw, member)."""
    draw = np.random.default_rng(random_state)
    parts = []
    for value, size in zip(*np.unique(classes[members], return_counts=True), strict=True):
        pool = valid[classes[valid] == value]
        parts.append(np.stack([draw.choice(pool, size, replace=False) for _ in range(draws)]))
    return np.concatenate(parts, axis=1)


def _mean_cosine(
    own: Rows,
    other: Rows,
    cosine: NDArray[np.float64],
    scale: NDArray[np.float64],
    sets: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean cosine over the pairs of each set (set, member): from the length of the sum of its unit residuals."""
    number, size = sets.shape
    taken = np.zeros((number, len(scale)))
    np.put_along_axis(taken, sets, scale[sets], axis=1)
    total = _combined(own, taken) - _combined(other, taken * cosine)
    square = np.einsum("su,su->s", total, total)
    return np.asarray((square - size) / (size * (size - 1)))


def _combined(rows: Rows, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of rows, weighted: (set, target) times (target, train)."""
    used = np.flatnonzero(weight.any(axis=0))
    if rows.is_sparse:
        some: Any = rows.matrix[used].astype(np.float64)
        return np.asarray((some.T @ weight[:, used].T).T)
    result = np.zeros((len(weight), rows.matrix.shape[1]))
    for first, values in rows.parts():
        result += weight[:, first : first + len(values)] @ values
    return result
