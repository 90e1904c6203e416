"""The examples of a study: ids frozen when it is made, annotations added at any time.

Annotations are labels, class names, images, texts or numbers, one value an example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.errors import FormatError, InputError
from dmstore.npz import NpzReader
from dmstore.storage.objects import Objects

if TYPE_CHECKING:
    import xarray as xr


_MOST_CLASSES = 1_000_000


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read an examples file: all of its arrays.

    Raises
    ------
    InputError
        If the file or an array in it cannot be used.
    """
    with NpzReader(path) as reader:
        return {name: reader.load(name) for name in reader.headers}


def check(arrays: Mapping[str, NDArray[Any]], where: str) -> dict[str, dict[str, NDArray[Any]]]:
    """Sort the arrays of an examples file by set, and check them.

    Parameters
    ----------
    arrays : mapping
        Of each set ``train_label`` (train,) and ``target_label`` (target,) integers or ids; optional
        ``train_image``, ``target_image`` (example, height, width[, 3]) uint8, ``class_name`` (class,)
        text, ``train_id``, ``target_id``, ``target_train``, and further ``train_*`` and ``target_*``.
    where : str
        For error texts.

    Returns
    -------
    dict
        ``train`` and ``test`` to their columns, and ``class`` to ``name`` if given.

    Raises
    ------
    InputError
        Naming the array and what is wrong with it.
    """
    for name in ("train", "target"):
        if not {f"{name}_label", f"{name}_id"} & arrays.keys():
            msg = f"{where}: no '{name}_label' and no '{name}_id'; an examples file needs one of them for train units and targets"
            raise InputError(msg)
    sets: dict[str, dict[str, NDArray[Any]]] = {"train": {}, "test": {}, "class": {}}
    for name, values in arrays.items():
        prefix, _, rest = name.partition("_")
        if name == "class_name":
            if np.ndim(values) != 1:
                msg = f"{where}: class_name has shape {np.shape(values)}, expected one name a class"
                raise InputError(msg)
            sets["class"]["name"] = _text(np.asarray(values), f"{where}: class_name")
        elif prefix in ("train", "target") and rest:
            sets["train" if prefix == "train" else "test"][rest] = np.asarray(values)
        else:
            msg = f"{where}: {name!r} is neither class_name nor train_… nor target_…; rename or drop it"
            raise InputError(msg)
    for name in ("train", "test"):
        _check_set(sets[name], "train" if name == "train" else "target", where)
    _check_labels(sets, where)
    return sets


def _text(values: NDArray[Any], where: str) -> NDArray[Any]:
    """Texts as they are stored, from text or UTF-8 bytes."""
    try:
        found = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else schema.text(values)
        for value in found:
            str(value).encode()
    except UnicodeError:
        msg = f"{where}: holds text that is not valid Unicode; store it as UTF-8"
        raise InputError(msg) from None
    return found


def _check_set(columns: dict[str, NDArray[Any]], prefix: str, where: str) -> None:
    first = "label" if "label" in columns else "id"
    count = len(columns[first]) if columns[first].ndim == 1 else 0
    if count == 0:
        msg = f"{where}: {prefix}_{first} has shape {columns[first].shape}, expected one {first} an example"
        raise InputError(msg)
    for name, values in columns.items():
        if values.ndim == 0 or len(values) != count:
            msg = (
                f"{where}: {prefix}_{name} has shape {values.shape}, but there are {count} {first}s"
            )
            raise InputError(msg)
        schema.check_name(name, f"{where}: column")
        reserved = {"train", "target", "class", "example"} - (
            {"train"} if prefix == "target" else set()
        )
        if name in reserved:
            msg = f"{where}: {prefix}_{name} has a reserved name; call it something else"
            raise InputError(msg)
        if values.dtype.kind in "US":
            columns[name] = _text(values.ravel(), f"{where}: {prefix}_{name}").reshape(values.shape)
        if values.dtype.kind not in "biufUS" or (
            values.dtype.kind == "f" and values.dtype.itemsize > 8
        ):
            msg = f"{where}: {prefix}_{name} has dtype {values.dtype}; store numbers, bools or text"
            raise InputError(msg)
    image = columns.get("image")
    if image is not None and (
        image.dtype != np.uint8
        or image.ndim not in (3, 4)
        or (image.ndim == 4 and image.shape[3] not in (1, 3))
        or 0 in image.shape
    ):
        msg = (
            f"{where}: {prefix}_image has dtype {image.dtype} and shape {image.shape}, expected "
            f"uint8 (example, height, width) or (example, height, width, 3)"
        )
        raise InputError(msg)
    given = columns.pop("id", np.arange(count))
    ids = _text(given, f"{where}: {prefix}_id") if given.ndim == 1 else np.empty(0, dtype=str)
    if len(np.unique(ids)) != count:
        msg = f"{where}: {prefix}_id must hold one id an example, all different"
        raise InputError(msg)
    columns["id"] = ids


def _check_labels(sets: dict[str, dict[str, NDArray[Any]]], where: str) -> None:
    names = sets["class"].get("name")
    for key, prefix in (("train", "train"), ("test", "target")):
        label = sets[key].get("label")
        if label is None:
            continue
        if label.dtype.kind not in "iu" or label.min() < 0 or int(label.max()) >= _MOST_CLASSES:
            msg = f"{where}: {prefix}_label must hold class indices from 0 to {_MOST_CLASSES - 1} (found {label.dtype})"
            raise InputError(msg)
        if names is not None and int(label.max()) >= len(names):
            msg = f"{where}: {prefix}_label has class {label.max()}, but class_name has {len(names)} names"
            raise InputError(msg)
    train = sets["test"].get("train")
    if train is not None and (
        train.dtype.kind not in "iu"
        or train.ndim != 1
        or int(train.min()) < -1
        or int(train.max()) >= len(sets["train"]["id"])
    ):
        msg = f"{where}: target_train must hold positions of train examples, or -1"
        raise InputError(msg)


def id_hash(ids: Iterable[str]) -> str:
    """sha256 of ids in order: what makes two studies' sets the same."""
    state = hashlib.sha256()
    for name in ids:
        raw = str(name).encode()
        state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def write_set(objects: Objects, name: str, ids: NDArray[Any], train: NDArray[Any] | None) -> None:
    """Write the ids of a set; `train` is ``target_train``."""
    spec = schema.group_spec("examples")
    store = objects.writer(f"examples/{name}.zarr")
    shapes = {"id": ids.shape, **({"target_train": train.shape} if train is not None else {})}
    group: Any = schema.create_group(store, spec, shapes)
    group["id"][:] = ids.astype(object)
    if train is not None:
        group["target_train"][:] = train
    schema.consolidate(store)
    objects.sync(f"examples/{name}.zarr")


def write_annotation(objects: Objects, name: str, column: str, values: NDArray[Any]) -> None:
    """Write one annotation of a set (of ``class``, one value a class)."""
    spec = schema.group_spec("annotation")
    where = f"examples/annotations/{name}-{column}.zarr"
    store = objects.writer(where)
    dtype = "string" if values.dtype.kind == "U" else values.dtype
    first = "class" if name == "class" else "example"
    inner = {1: (), 3: ("height", "width"), 4: ("height", "width", "channel")}.get(
        values.ndim, tuple(f"axis{axis}" for axis in range(1, values.ndim))
    )
    group: Any = schema.create_group(
        store,
        spec,
        {"value": values.shape},
        dtypes={"value": dtype},
        dims={"value": (first, *inner)},
    )
    group["value"][...] = values.astype(object) if dtype == "string" else values
    schema.consolidate(store)
    objects.sync(where)


def read_ids(objects: Objects, name: str, count: int, digest: str) -> NDArray[Any]:
    """Ids of a set, checked against the study's hash of them.

    Raises
    ------
    FormatError
        If they are not those that the study was made with.
    """
    import zarr

    where = f"examples/{name}.zarr"
    group: Any = zarr.open_group(objects.reader(where), mode="r", zarr_format=3)
    schema.check_group(group, schema.group_spec("examples"), {"example": count}, where)
    ids = schema.text(group["id"][:])
    if id_hash(ids) != digest:
        msg = (
            f"{where}: ids are not those that the study was made with; restore the file from a copy"
        )
        raise FormatError(msg)
    return ids


def dataset(objects: Objects, name: str, ids: NDArray[Any], dim: str) -> xr.Dataset:
    """A set with all of its annotations, lazy where they are large.

    Returns
    -------
    xarray.Dataset
        Index coordinate `dim` (ids; plain positions where ids are those), one variable an annotation.
    """
    import dask.array as da
    import xarray as xr
    import zarr

    variables: dict[str, Any] = {}
    for child in objects.children("examples/annotations/"):
        prefix = f"{name}-"
        if not child.startswith(prefix) or not child.endswith(".zarr"):
            continue
        where = f"examples/annotations/{child}"
        group: Any = zarr.open_group(objects.reader(where), mode="r", zarr_format=3)
        schema.check_group(group, schema.group_spec("annotation"), {}, where)
        array = group["value"]
        if array.shape[0] != len(ids):
            msg = f"{where}: {array.shape[0]} values for {len(ids)} examples"
            raise FormatError(msg)
        dims = (dim, *array.metadata.dimension_names[1:])
        column = child.removeprefix(prefix).removesuffix(".zarr")
        values = (
            da.from_array(array, chunks=array.chunks) if array.ndim > 1 else np.asarray(array[:])
        )
        if array.ndim == 1 and values.dtype.kind in "OT":
            values = schema.text(values)
        variables[column] = (dims, values)
    return xr.Dataset(variables, coords={dim: (dim, coordinate(ids))})


def coordinate(ids: NDArray[Any]) -> NDArray[Any]:
    """Ids as an index: integers where the ids are just the positions."""
    positions = np.arange(len(ids))
    return positions if np.array_equal(ids, positions.astype(str)) else ids
