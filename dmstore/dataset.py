"""Lazy, labelled xarray datasets on views of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.storage import segment
from dmstore.storage.view import Source, View

if TYPE_CHECKING:
    import xarray as xr


class _SegmentArray:
    """One array of a segment, opened anew for each read so that no file stays open."""

    def __init__(
        self, view: View, source: Source, spec: schema.ArraySpec, shape: tuple[int, ...]
    ) -> None:
        self._view = view
        self._source = source
        self._name = spec.name
        self.shape = shape
        self.ndim = len(shape)
        self.dtype = np.dtype(spec.dtype)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        assert self._source.name is not None
        rows = self._source.index[index[0]]
        window = (
            (slice(int(rows[0]), int(rows[-1]) + 1), *index[1:])
            if len(rows)
            else (slice(0, 0), *index[1:])
        )
        found = segment.read_segment(
            self._view.table.objects, self._source.name, [self._name], window
        )
        values = found[self._name]
        return values if len(values) == len(rows) else values[rows - rows[0]]


def lazy_array(view: View, name: str) -> Any:
    """A dask array of one wide array of a view: base first, then each segment.

    Parameters
    ----------
    view : View
    name : str
        ``mask`` or an output.

    Returns
    -------
    dask.array.Array
        (run, ...); chunks are those of a base, whatever the tail looks like.
    """
    import dask.array as da

    spec = view.table.spec.arrays[name]
    inner = tuple(view.table.sizes[dim] for dim in spec.dims[1:])
    chunks, _ = schema.array_layout(spec, (max(len(view), 1), *inner))
    parts = []
    for source in view.sources:
        if source.name is None:
            assert view.base is not None
            array: Any = view.base[name]
            part = da.from_array(array, chunks=array.chunks, name=_token(view, source, name))
            if len(source.index) != array.shape[0]:
                part = part[source.index]
        else:
            shape = (len(source.index), *inner)
            lazy = _SegmentArray(view, source, spec, shape)
            token = _token(view, source, name)
            part = da.from_array(
                lazy, chunks=(shape[0], *chunks[1:]), name=token, asarray=False, fancy=False
            )
        parts.append(part)
    if not parts:
        return da.zeros((0, *inner), chunks=chunks, dtype=spec.dtype)
    return da.concatenate(parts, axis=0) if len(parts) > 1 else parts[0]


def _token(view: View, source: Source, name: str) -> str:
    """A name for dask that only these very rows, in this order, can have."""
    path = source.name or (view.manifest.base.path if view.manifest.base else "")
    state = hashlib.blake2b(digest_size=16)
    for part in (view.table.objects.url, view.table.prefix, path, name):
        state.update(part.encode() + b"\0")
    state.update(source.index.tobytes())
    return f"dmstore-{name}-{state.hexdigest()}"


def runs_dataset(view: View, coords: Mapping[str, Any], attrs: Mapping[str, Any]) -> xr.Dataset:
    """The runs of a view as a dataset.

    Parameters
    ----------
    view : View
    coords : mapping
        Further coordinates: ``train``, ``target``, labels, ``split``.
    attrs : mapping
        Attributes of the dataset.

    Returns
    -------
    xarray.Dataset
        ``mask`` (run, train) and each output (run, target[, class]) as dask arrays; ids, seeds and
        other columns as coordinates in memory.
    """
    import xarray as xr

    wide = {spec.name: spec for spec in view.table.spec.rows()}
    spec = view.spec()
    narrow = [name for name in spec.arrays if name not in wide and name != "run"]
    columns = view.read(narrow)
    variables = {
        name: (array.dims, lazy_array(view, name), {"description": array.doc})
        for name, array in wide.items()
    }
    inside = {
        name: (
            spec.arrays[name].dims,
            schema.text(values) if spec.arrays[name].dtype == "string" else values,
        )
        for name, values in columns.items()
    }
    return xr.Dataset(variables, coords={"run": view.run, **inside, **coords}, attrs=dict(attrs))
