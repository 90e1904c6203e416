"""Lazy arrays and coordinates on views of a table, as xarray and dask take them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.texts import text
from dmstore.schema.group_specs import ArraySpec, array_layout
from dmstore.storage.table import segment
from dmstore.storage.table.rows import DIGEST_BYTES
from dmstore.storage.table.view import Source, View

# Milliseconds that a date of nanoseconds can hold.
_LAST_DATE = 2**63 // 10**6


def read_rows(
    view: View, name: str, position: NDArray[np.int64], window: tuple[slice, ...] = ()
) -> NDArray[Any]:
    """Some rows of one array of a view, in any order.

    Parameters
    ----------
    view : View
    name : str
    position : (row,) int64
        Rows of the view.
    window : tuple of slice
        Of the dims after the first; all of them if not given.

    Returns
    -------
    (row, ...) array
    """
    wanted, back = np.unique(position, return_inverse=True)
    starts = np.cumsum([0, *(len(source.index) for source in view.sources)])
    place = np.searchsorted(starts, wanted, side="right") - 1
    parts = [
        _read_source(
            view, view.sources[number], name, wanted[place == number] - starts[number], window
        )
        for number in np.unique(place)
    ]
    if not parts:
        spec = view.table.spec.arrays[name]
        sizes = (view.table.sizes.get(dim, DIGEST_BYTES) for dim in spec.dims[1:])
        return np.empty((0, *sizes), dtype=spec.dtype)[(slice(None), *window)]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values if np.array_equal(back, np.arange(len(values))) else values[back]


def _read_source(
    view: View, source: Source, name: str, rows: NDArray[np.int64], window: tuple[slice, ...]
) -> NDArray[Any]:
    """Ascending rows of one source: a stretch at once, or scattered rows of a base."""
    index = source.index[rows]
    low, high = int(index[0]), int(index[-1]) + 1
    stretch = (slice(low, high), *window)
    if source.name is not None:
        shapes = view.table.shapes([name], source.length)
        values = segment.read_segment(view.table.objects, source.name, shapes, stretch)[name]
    elif high - low > 4 * len(index):
        return _scattered(view, name, index, window)
    else:
        values = view.read_base(name, stretch)
    return values if high - low == len(index) else values[index - low]


def _scattered(
    view: View, name: str, index: NDArray[np.int64], window: tuple[slice, ...]
) -> NDArray[Any]:
    """Ascending rows of the base that lie far apart: those of one chunk at a time."""
    cuts = np.flatnonzero(np.diff(index // view.tiles(name).chunk[0])) + 1
    parts = []
    for rows in np.split(index, cuts):
        low, high = int(rows[0]), int(rows[-1]) + 1
        parts.append(view.read_base(name, (slice(low, high), *window))[rows - low])
    return np.concatenate(parts)


class _Rows:
    """Chosen rows of one array of a view, as an array: read on demand, no file stays open."""

    def __init__(self, view: View, spec: ArraySpec, position: NDArray[np.int64]) -> None:
        self._view = view
        self._name = spec.name
        self._position = position
        self.shape = (len(position), *(view.table.sizes[dim] for dim in spec.dims[1:]))
        self.ndim = len(self.shape)
        self.dtype = np.dtype(spec.dtype)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        index = (*index, *(slice(None),) * (self.ndim - len(index)))
        picked = [np.arange(size)[part] for size, part in zip(self.shape, index, strict=True)]
        flat = [np.atleast_1d(part) for part in picked]
        lows = [int(part.min()) if part.size else 0 for part in flat]
        box = tuple(
            slice(low, int(part.max()) + 1 if part.size else low)
            for low, part in zip(lows[1:], flat[1:], strict=True)
        )
        values = read_rows(self._view, self._name, self._position[flat[0]], box)
        for axis in range(1, self.ndim):
            inside = flat[axis] - lows[axis]
            if not np.array_equal(inside, np.arange(values.shape[axis])):
                values = values.take(inside, axis)
        return values.reshape([part.size for part in picked if part.ndim])


def lazy_array(view: View, name: str, position: NDArray[np.int64] | None = None) -> Any:
    """A dask array of one wide array of a view.

    Parameters
    ----------
    view : View
    name : str
        ``mask`` or an output.
    position : (row,) int64, optional
        Rows of the view, in any order; all of them if not given.

    Returns
    -------
    dask.array.Array
        (run, ...); chunks are those of a base, all of one size, whatever the tail looks like, and
        the name follows from the rows: the same rows have the same name.
    """
    import dask.array as da

    spec = view.table.spec.arrays[name]
    if position is None:
        position = np.arange(len(view), dtype=np.int64)
    lazy = _Rows(view, spec, position)
    chunks, _ = array_layout(spec, lazy.shape)
    if not len(position):
        return da.zeros(lazy.shape, chunks=chunks, dtype=spec.dtype)
    token = _token(view, name, position)
    return da.from_array(lazy, chunks=chunks, name=token, asarray=False, fancy=False)


def _token(view: View, name: str, position: NDArray[np.int64]) -> str:
    """A name for dask that only these very rows, in this order, from this place can have."""
    state = hashlib.blake2b(digest_size=16)
    for part in (view.table.objects.url, view.table.prefix, name):
        state.update(part.encode() + b"\0")
    for array in (view.run[position], view.digest[position]):
        state.update(np.ascontiguousarray(array).tobytes())
    for source in view.sources:
        path = source.name or (view.manifest.base.path if view.manifest.base else "")
        state.update(path.encode() + b"\0")
    return f"dmstore-{name}-{state.hexdigest()}"


def coordinates(view: View, known: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Everything of a view that has one value per run, in memory: name to dims and values.

    What is `known` already is not read: each further column costs an open of every segment. ``time`` is a date in UTC, NaT where the writer's clock was beyond what a date can be.
    """
    spec = view.spec()
    wide = {array.name for array in view.table.spec.rows()}
    names = [name for name in spec.arrays if name not in wide and name != "run"]
    columns = {**view.read([name for name in names if name not in known]), **known}
    coords: dict[str, Any] = {}
    for name in names:
        values = columns[name]
        if name == "time":
            values = as_dates(values)
        elif spec.arrays[name].dtype == "string":
            values = text(values)
        coords[name] = (spec.arrays[name].dims, values)
    return coords


def as_dates(milliseconds: NDArray[np.int64]) -> NDArray[np.datetime64]:
    """Milliseconds since 1970 as dates of nanoseconds, which every xarray takes: datetime64[ns]."""
    inside = np.abs(milliseconds) < _LAST_DATE
    dates = np.where(inside, milliseconds, 0).astype("datetime64[ms]").astype("datetime64[ns]")
    dates[~inside] = np.datetime64("NaT", "ns")
    return dates


def wide_arrays(
    view: View, names: list[str], position: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Lazy variables of a dataset: name to dims, array and attributes."""
    return {
        name: (
            view.table.spec.arrays[name].dims,
            lazy_array(view, name, position),
            {"description": view.table.spec.arrays[name].doc},
        )
        for name in names
    }
