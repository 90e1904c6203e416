"""Small zarr groups written whole: blocks of a fit, models, results."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.core.texts import text
from dmstore.schema.group_specs import GroupSpec, create_group
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.zarr_internals import consolidate, memory_items
from dmstore.storage.table import segment

Arrays = Mapping[str, NDArray[Any]]


def zip_bytes(store: MemoryStore, comment: bytes = b"") -> bytes:
    """A ZIP_STORED archive of a zarr store in memory, the same bytes for the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        # The group's document first: who streams the zip learns its format at once.
        for key, content in memory_items(store):
            archive.writestr(zipfile.ZipInfo(key, (1980, 1, 1, 0, 0, 0)), content)
        archive.comment = comment
    return buffer.getvalue()


def fill(
    store: Any,
    spec: GroupSpec,
    arrays: Arrays,
    *,
    whole: bool,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Create a group of `spec` in an empty zarr store and write its arrays."""
    dtypes = {
        name: values.dtype
        for name, values in arrays.items()
        if name not in spec.arrays or spec.arrays[name].dtype == "any"
    }
    group: Any = create_group(
        store,
        spec,
        {n: v.shape for n, v in arrays.items()},
        dtypes=dtypes,
        dims=dims,
        attrs=attrs,
        whole=whole,
    )
    for name, values in arrays.items():
        group[name][...] = values.astype(object) if values.dtype.kind in "UO" else values


def write_zip(
    objects: Objects,
    name: str,
    spec: GroupSpec,
    arrays: Arrays,
    *,
    dims: Mapping[str, tuple[str, ...]] | None = None,
) -> bool:
    """Write a group as one zipped object; False if the name is taken."""
    store = MemoryStore()
    fill(store, spec, arrays, whole=True, dims=dims)
    return objects.put_if_absent(name, zip_bytes(store))


def write_directory(
    objects: Objects,
    prefix: str,
    spec: GroupSpec,
    arrays: Arrays,
    *,
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a group below an unused prefix, consolidated and durable."""
    store = objects.writer(prefix)
    fill(store, spec, arrays, whole=False, attrs=attrs)
    consolidate(store)
    objects.sync(prefix)


def read(objects: Objects, name: str, names: list[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read a group's arrays (all of them unless named) into memory."""
    import zarr

    if names is None:
        with segment.opened(objects.reader, name) as store:
            names = sorted(zarr.open_group(store, mode="r", zarr_format=3).array_keys())
    arrays = segment.read_arrays(objects.reader, name, names)
    return {
        key: text(values) if values.dtype.kind in "OT" else np.asarray(values)
        for key, values in arrays.items()
    }


def read_with_attrs(objects: Objects, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a group's arrays, and what else it says of itself."""
    import zarr

    with segment.opened(objects.reader, name) as store:
        attrs = dict(zarr.open_group(store, mode="r", zarr_format=3).attrs)
    return read(objects, name), attrs
