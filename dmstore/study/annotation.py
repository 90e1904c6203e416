"""Annotations of a set of examples: labels, groups, images, texts or numbers, added at any time.

Each is one object made by one exclusive creation, so it is there whole or not at all, and it never
changes. Those that a study was made with are directories; they are read alike.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from dmstore.core.masked import unmasked
from dmstore.core.texts import text
from dmstore.errors import CorruptionError, DmstoreError, ExistsError, FormatError, InputError
from dmstore.schema.group_specs import GroupSpec, check_group, group_spec
from dmstore.schema.names import check_name
from dmstore.storage.objects.objects import Objects
from dmstore.storage.objects.zarr_internals import consolidate
from dmstore.storage.table import groups, segment
from dmstore.study import examples

if TYPE_CHECKING:
    import xarray as xr

PLACE = "examples/annotations/"
_SUFFIXES = (".zarr", ".zarr.zip")
# Uncompressed bytes of a chunk: what looking at one image costs.
_CHUNK_BYTES = 16 << 20


def names(objects: Objects, set_name: str) -> dict[str, str]:
    """The annotations of a set: name to the object that holds it.

    What lies there under another kind of name is no annotation; verification tells of it.
    """
    return {
        column: f"{PLACE}{child}"
        for child in objects.children(PLACE)
        for owner, column in [parse(child) or ("", "")]
        if owner == set_name
    }


def parse(child: str) -> tuple[str, str] | None:
    """Set and name of an annotation by the name of its object; None if it is not called like one."""
    suffix = next((end for end in reversed(_SUFFIXES) if child.endswith(end)), None)
    if suffix is None:
        return None
    set_name, _, column = child.removesuffix(suffix).partition("-")
    try:
        check_name(column, "annotation")
    except InputError:
        return None
    return None if column in examples.RESERVED else (set_name, column)


def check(
    set_name: str, count: int, columns: Mapping[str, Any], classes: int, where: str
) -> dict[str, NDArray[Any]]:
    """Annotations from outside as they are stored.

    Parameters
    ----------
    set_name : str
        ``train``, a target set, or ``class``.
    count : int
        Examples of the set, or classes.
    columns : mapping
        Name to (example, ...) numbers, bools or text.
    classes : int
        Classes of the study: labels are below it.
    where : str
        For error texts.

    Raises
    ------
    InputError
        Naming the column and what is wrong with it.
    """
    if not columns:
        msg = f"{where}: nothing to annotate with; give at least one column"
        raise InputError(msg)
    if len({name.lower() for name in columns}) != len(columns):
        msg = f"{where}: two columns differ in case alone; give them different names"
        raise InputError(msg)
    what = "classes" if set_name == "class" else "examples"
    checked = {}
    for name, given in columns.items():
        check_name(name, f"{where}: annotation")
        if name.lower() in examples.RESERVED:
            own = "write ids as 'id', in lower case" if name.lower() == "id" else ""
            msg = f"{where}: {name!r} is a reserved name; {own or 'call the annotation something else'}"
            raise InputError(msg)
        values = examples.check_column(
            name, unmasked(given, f"{where}: {name}", gaps=True), f"{where}: {name}"
        )
        if len(values) != count:
            msg = f"{where}: {name} has shape {values.shape}, but {set_name!r} has {count} {what}"
            raise InputError(msg)
        if name == "label" and set_name != "class":
            examples.check_labels(values, classes, f"{where}: {name}")
        if name == "name" and set_name == "class":
            if values.ndim != 1 or values.dtype.kind != "U":
                msg = f"{where}: name is {values.dtype} {values.shape}, expected one text per class"
                raise InputError(msg)
            examples.check_names(values, f"{where}: {name}")
        checked[name] = values
    return checked


def judge(objects: Objects, set_name: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """What storing checked annotations would do; nothing is stored.

    Returns
    -------
    dict
        Name to ``new`` or ``present``.

    Raises
    ------
    ExistsError
        If one is there with other values.
    """
    there = names(objects, set_name)
    cases = {name.lower(): name for name in there}
    for name, values in columns.items():
        if cases.get(name.lower(), name) != name:
            msg = f"annotation {cases[name.lower()]!r} of {set_name!r} differs from {name!r} in case alone; choose another name"
            raise ExistsError(msg)
        if name in there:
            _require_same(objects, there[name], set_name, name, values)
    return {name: "present" if name in there else "new" for name in columns}


def origin(objects: Objects, set_name: str, name: str) -> dict[str, Any] | None:
    """What an annotation says of how it was made: {} if nothing, None if it is not there."""
    where = names(objects, set_name).get(name)
    if where is None:
        return None
    with _there(where), examples.opened(objects, where) as group:
        said = group.attrs.get("origin", {})
    return dict(said) if isinstance(said, dict) else {}


def add(
    objects: Objects,
    set_name: str,
    columns: Mapping[str, NDArray[Any]],
    made: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Store checked annotations, one after the other; nothing if one of them is refused.

    `made` is kept beside each, as the group's attribute ``origin``.

    The same call after a kill stores what is not there yet. Returns and raises as :func:`judge`.
    """
    done = judge(objects, set_name, columns)
    for name, values in columns.items():
        where = f"{PLACE}{set_name}-{name}.zarr.zip"
        if done[name] == "new" and not objects.put_if_absent(
            where, _encode(set_name, values, made)
        ):
            # Another host was faster: fine if it had the same to say.
            _require_same(objects, where, set_name, name, values)
            done[name] = "present"
    return done


def described(values: NDArray[Any]) -> str:
    """What a column is, for people: ``int64``, ``text``, ``float64, 2 NaN``, ``uint8 (32, 32, 3)``."""
    name = "text" if values.dtype.kind in "OSTU" else values.dtype.newbyteorder("=").name
    shape = f" {values.shape[1:]}" if values.ndim > 1 else ""
    missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    return f"{name}{shape}{f', {missing} NaN' if missing else ''}"


def _require_same(
    objects: Objects, where: str, set_name: str, name: str, values: NDArray[Any]
) -> None:
    stored = groups.read(objects, where, ["value"])["value"]
    if not same(stored, values):
        msg = (
            f"annotation {name!r} of {set_name!r} is there with other values ({stored.dtype} "
            f"{stored.shape}); annotations never change, choose another name"
        )
        raise ExistsError(msg)


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays are the same to the bit: dtype, shape and content, NaN included."""
    if one.dtype.kind == other.dtype.kind == "U":
        return one.shape == other.shape and bool((one == other).all())
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def dims_of(first: str, values: NDArray[Any]) -> tuple[str, ...]:
    """Dims of a column: images have height, width and channel, further axes are numbered."""
    inner = tuple(f"axis{axis}" for axis in range(1, values.ndim))
    # What has its channels elsewhere is no image as they are stored here.
    if values.ndim == 3 or (values.ndim == 4 and values.shape[3] in (1, 3, 4)):
        inner = ("height", "width", "channel")[: values.ndim - 1]
    return (first, *inner)


def sized(spec: GroupSpec, pattern: str, arrays: Mapping[str, NDArray[Any]]) -> GroupSpec:
    """A spec in which each of `arrays`, all of the entry `pattern`, has chunks of a good size."""
    entry = spec.arrays[pattern]
    most = int(max((entry.chunks or {}).values(), default=1))
    exact = {}
    for name, values in arrays.items():
        row = max(1, values.nbytes // max(1, len(values)))
        length = max(1, min(most, _CHUNK_BYTES // row))
        exact[name] = replace(entry, name=name, chunks=dict.fromkeys(entry.chunks or {}, length))
    return replace(spec, arrays={**spec.arrays, **exact})


def _fill(
    store: Any, set_name: str, values: NDArray[Any], made: Mapping[str, Any] | None = None
) -> None:
    spec = sized(group_spec("annotation"), "value", {"value": values})
    first = "class" if set_name == "class" else "example"
    dims = {"value": dims_of(first, values)}
    attrs = {"origin": dict(made)} if made else None
    groups.fill(store, spec, {"value": values}, whole=False, dims=dims, attrs=attrs)


def _encode(set_name: str, values: NDArray[Any], made: Mapping[str, Any] | None) -> bytes:
    store = MemoryStore()
    _fill(store, set_name, values, made)
    return groups.zip_bytes(store)


def write_directory(objects: Objects, set_name: str, name: str, values: NDArray[Any]) -> None:
    """Write an annotation of a study that is being built and that nobody can see yet."""
    where = f"{PLACE}{set_name}-{name}.zarr"
    store = objects.writer(where)
    _fill(store, set_name, values)
    consolidate(store)
    objects.sync(where)


class _Stored:
    """One array of a stored group, opened anew for each read so that no file stays open."""

    def __init__(self, objects: Objects, where: str, name: str, array: Any) -> None:
        self._objects = objects
        self._where = where
        self._name = name
        self.shape = tuple(array.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        return segment.read_arrays(self._objects.reader, self._where, [self._name], index)[
            self._name
        ]


def read(
    objects: Objects, where: str, name: str, count: int
) -> tuple[tuple[str, ...], NDArray[Any] | Any]:
    """Dims after the first, and values of one array: in memory if it has one value per example.

    Raises
    ------
    CorruptionError, FormatError
        If it cannot be read or does not fit the set.
    """
    import dask.array as da

    with _there(where), examples.opened(objects, where) as group:
        kind = "annotation" if name == "value" else "examples"
        check_group(group, group_spec(kind), {}, where)
        array = group[name]
        if not array.ndim or array.shape[0] != count:
            msg = f"{where}: {name} has shape {array.shape}, but there are {count} examples"
            raise FormatError(msg)
        inner = tuple(array.metadata.dimension_names[1:])
        if array.ndim == 1:
            values = np.asarray(array[:])
            return inner, text(values) if values.dtype.kind in "OT" else values
        lazy = _Stored(objects, where, name, array)
        token = hashlib.blake2b(f"{objects.url}\0{where}\0{name}".encode(), digest_size=16)
        label = f"dmstore-{name}-{token.hexdigest()}"
        chunks = da.from_array(lazy, chunks=array.chunks, name=label, asarray=False, fancy=False)
        return inner, chunks


@contextlib.contextmanager
def _there(where: str) -> Iterator[None]:
    """Turn the lack of a group that is listed into one line."""
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error, DmstoreError):
            raise
        msg = f"{where}: zarr.json is gone; restore it from a copy"
        raise CorruptionError(msg) from None


def own_columns(objects: Objects, where: str) -> list[str]:
    """Columns that stand in the group of a target set that was added later."""
    with examples.opened(objects, where) as group:
        columns = [name for name in group.array_keys() if name.startswith("annotation_")]
    return sorted(name.removeprefix("annotation_") for name in columns)


def dataset(
    objects: Objects, set_name: str, ids: NDArray[Any], dim: str, own: str | None = None
) -> xr.Dataset:
    """A set with all of its annotations, lazy where they are large.

    Parameters
    ----------
    objects : Objects
    set_name : str
    ids : (example,) str
    dim : str
        ``train``, ``target`` or ``class``.
    own : str, optional
        The group of a target set that was added later, which holds its first columns too.

    Returns
    -------
    xarray.Dataset
        Index coordinate `dim` (ids; plain positions where ids are those), one variable an annotation.
    """
    import xarray as xr

    variables: dict[str, Any] = {}
    places = {name: (where, "value") for name, where in names(objects, set_name).items()}
    if own is not None:
        places |= {name: (own, f"annotation_{name}") for name in own_columns(objects, own)}
    for name, (where, array) in sorted(places.items()):
        inner, values = read(objects, where, array, len(ids))
        # Two annotations may have images of two sizes, so only `image` has the plain dims.
        own_dims = inner if name == "image" else tuple(f"{name}_{other}" for other in inner)
        variables[name] = ((dim, *own_dims), values)
    return portable(xr.Dataset(variables, coords={dim: (dim, examples.coordinate(ids))}))


def portable(columns: xr.Dataset) -> xr.Dataset:
    """The same dataset, whose texts go to zarr as texts, not in a dtype that zarr warns of."""
    for variable in columns.variables.values():
        if variable.dtype.kind == "U":
            variable.encoding["dtype"] = np.dtype("O")
    return columns
