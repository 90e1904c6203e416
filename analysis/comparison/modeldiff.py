"""ModelDiff on the datamodels of two algorithms, wherever they come from: no store, no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dmstore.analysis.comparison.parameters import ComparisonOptions, ComparisonParameters
from dmstore.analysis.comparison.room import Room, stated_nonzeros
from dmstore.analysis.geometry.dims import with_dims
from dmstore.analysis.geometry.principal import principal_directions
from dmstore.analysis.geometry.residual import rounding_of
from dmstore.analysis.geometry.rows import Rows, as_dense, dots, unit_rows
from dmstore.analysis.geometry.similarity import aligned
from dmstore.analysis.geometry.subpopulation import subpopulation
from dmstore.core.given import threads_of
from dmstore.core.progress import Progress, counting
from dmstore.schema.group_specs import group_spec

# Datamodels of different models on one training set may have nothing in common, but are not opposite.
_NEGATIVE = -0.2
# Steps of the progress, and how long the parts take in proportion: reading one algorithm, one way.
_STEPS = 1000
_READ, _WAY = 8, 20


def modeldiff(
    a: xr.Dataset | xr.DataArray,
    b: xr.Dataset | xr.DataArray,
    *,
    names: tuple[str, str] = ("a", "b"),
    label: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    **options: Unpack[ComparisonOptions],
) -> xr.Dataset:
    """Residuals, directions, subpopulations and similarity of two sets of datamodels, both ways.

    Parameters
    ----------
    a, b : Dataset, or (target, train) DataArray
        ``weight`` (target, train), or these alone, in memory or lazy: lazy ones are read some targets at a time; coordinates ``target`` and ``train`` where they are known.
    names : pair of str
        What to call the algorithms (``a`` and ``b``).
    label : (target,) int, optional
        Classes, to match the contrasts by; any other target serves without.
    progress : callable, optional
        Called with ``compare``, steps done and steps in all.
    memory : int or str, optional
        Bytes, or a size such as ``8GB``; most of what is free by default. Rows are kept sparse; where more
        than a quarter of the weights is not zero they are dense, and on scratch where memory has no room.
    threads : int, optional
        All cores by default.
    components : int
        Directions each way (10).
    top : int
        Targets in a subpopulation (16).
    heavy : int
        Heaviest train units to list for a direction (50).
    center : bool
        Whether PCA subtracts the mean residual (True).
    random_state : int
        Draws contrasts (0).
    fdr : float
        Kept with the result; nothing is claimed without runs (0.05).

    Returns
    -------
    xarray.Dataset
        As in ``comparison.group.json``.

    Raises
    ------
    InputError
        If train units or targets differ, fewer than two targets have both datamodels, a weight is not
        finite, or more memory is needed.
    """
    parameters = ComparisonParameters(**options)
    data = (a, b)
    weight = aligned(*(with_dims(one, "target", "train") for one in data))
    targets, train = weight[0].shape
    classes = np.zeros(targets, dtype=np.int64) if label is None else label
    count = min(parameters.components, targets, train)
    room = Room(memory, targets, train, count)
    room.check([stated_nonzeros(one) for one in data])
    tell = _Told(progress)
    rows = _read(weight, room, tell)
    cosine = dots(*rows)
    included = rows[0].nonzero & rows[1].nonzero
    rounding = max(_rounding(one, row) for one, row in zip(weight, rows, strict=True))
    way = _Ways(rows, cosine, included, classes, parameters, rounding, threads_of(threads))
    per: dict[str, list[NDArray[Any]]] = {}
    for own in (0, 1):
        for key, value in way.one(own, tell.part(_WAY)).items():
            per.setdefault(key, []).append(value)
    arrays = {key: np.stack(values) for key, values in per.items()}
    arrays |= {"cosine": np.where(included, cosine, np.nan), "included": included}
    del rows, way
    tell.done()
    spec = group_spec("comparison").arrays
    return xr.Dataset(
        {key: (spec[key].dims, value) for key, value in arrays.items()},
        coords={
            "algorithm": list(names),
            "on": list(names),
            **{dim: weight[0][dim] for dim in ("target", "train") if dim in weight[0].coords},
        },
    )


def rank(comparison: xr.Dataset) -> list[int]:
    """How many directions of either algorithm are more than rounding.

    Parameters
    ----------
    comparison : xarray.Dataset
        From :func:`modeldiff`, or one that was kept.

    Returns
    -------
    list of int
        One an algorithm; the others that the comparison holds are noise.
    """
    return [int(count) for count in (comparison["residual_variance"].values > 0).sum(axis=1)]


def likeness(comparison: xr.Dataset) -> str:
    """What is to be said before all else of algorithms that are the same, or one the negative of the other.

    Parameters
    ----------
    comparison : xarray.Dataset
        From :func:`modeldiff`, or one that was kept.

    Returns
    -------
    str
        A sentence; empty where there is nothing to be said.
    """
    a, b = (str(name) for name in comparison["algorithm"].values)
    cosine = comparison["cosine"].values
    cosine = cosine[np.isfinite(cosine)]
    if not len(cosine):
        return ""
    if not any(rank(comparison)) and abs(cosine).min() > 0.999:
        if cosine.min() > 0:
            return f"{a} and {b} are the same up to rounding and the scale of each target."
        if cosine.max() < 0:
            return (
                f"{b} is the negative of {a}, up to rounding: the sign of one of the two is turned."
            )
    if np.median(cosine) < _NEGATIVE:
        return (
            f"{b} looks like the negative of {a} (median cosine similarity {np.median(cosine):.2f}): directions do not see a "
            f"sign, so check that larger means the same in both."
        )
    return ""


def stored_arrays(comparison: xr.Dataset) -> dict[str, NDArray[Any]]:
    """The arrays of a comparison that ``comparison.group.json`` names, as they are stored."""
    return {
        name: comparison[name].values
        for name in group_spec("comparison").arrays
        if name in comparison.variables
    }


def _read(weight: Sequence[xr.DataArray], room: Room, tell: _Told) -> tuple[Rows, Rows]:
    """Unit rows of both, both sparse or both dense."""
    first = unit_rows(
        weight[0], dtype=room.dtype, memory=room.dense, tell=tell.part(_READ, room.targets)
    )
    room.check([first.stored, None])
    second = unit_rows(
        weight[1],
        dtype=room.dtype,
        memory=room.dense,
        dense=not first.is_sparse,
        tell=tell.part(_READ, room.targets),
    )
    if not second.is_sparse:
        return as_dense(first, room.dense), second
    room.check([first.stored, second.stored])
    return first, second


def _heaviest(size: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Positions of the largest, largest first; of equal ones the first."""
    count = min(count, len(size))
    least = np.partition(size, len(size) - count)[len(size) - count]
    some = np.flatnonzero(size >= least)
    return some[np.argsort(-size[some], kind="stable")][:count]


def _rounding(weight: xr.DataArray, rows: Rows) -> float:
    """Length that residuals reach by rounding alone, of the datamodels or of their unit rows."""
    return max(rounding_of(weight), rounding_of(xr.DataArray(np.empty(0, rows.matrix.dtype))))


class _Told:
    """Progress of a comparison, in thousandths."""

    def __init__(self, progress: Progress | None) -> None:
        self._tell = counting(progress, "compare")
        self._whole = 2 * _READ + 2 * _WAY
        self._before = 0

    def part(self, size: int, steps: int = 1) -> Callable[[float], None]:
        """Progress of the next part: called with the steps that are done."""
        start, self._before = self._before, self._before + size

        def tell(done: float) -> None:
            now = (start + size * min(done / steps, 1)) / self._whole
            self._tell(min(int(_STEPS * now), _STEPS - 1), _STEPS)

        return tell

    def done(self) -> None:
        """All of it."""
        self._tell(_STEPS, _STEPS)


@dataclass(frozen=True)
class _Ways:
    """Directions of either algorithm's residuals, and what follows from each."""

    rows: tuple[Rows, Rows]
    cosine: NDArray[np.float64]
    included: NDArray[np.bool_]
    label: NDArray[np.int64]
    parameters: ComparisonParameters
    rounding: float
    threads: int

    def one(self, way: int, tell: Callable[[float], None]) -> dict[str, NDArray[Any]]:
        """The residuals of one algorithm with respect to the other."""
        own, other = self.rows[way], self.rows[1 - way]
        options, included = self.parameters, self.included
        made = principal_directions(
            own,
            other,
            self.cosine,
            included,
            components=options.components,
            center=options.center,
            rounding=self.rounding,
            random_state=options.random_state,
            threads=self.threads,
            tell=tell,
        )
        direction, projection, products = made.direction, made.projection, made.products
        squares = [(one[included] ** 2).mean(axis=0) for one in products]
        explained = squares if way == 0 else squares[::-1]
        members = subpopulation(
            xr.DataArray(projection, dims=("component", "target")),
            self.label,
            top=options.top,
            random_state=options.random_state,
        )
        order = np.stack([_heaviest(np.abs(one), options.heavy) for one in direction])
        influence = [
            own.influence(top[top >= 0]) - other.influence(top[top >= 0])
            for top in members["subpopulation"].values[:, 0]
        ]
        tell(1)
        return {
            "direction": direction.astype(np.float32),
            "projection": projection,
            "residual_variance": made.residual_variance,
            "explained_variance": np.stack(explained, axis=1),
            "delta": squares[0] - squares[1],
            "subpopulation": members["subpopulation"].values,
            "contrast": members["contrast"].values,
            "heaviest": order.astype(np.int64),
            "relative_influence": np.array(influence, dtype=np.float32),
        }
