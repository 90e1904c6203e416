"""Reads ``store_schemas/``: the only statement of arrays and documents.

Whatever is created goes through :func:`create_group` and :func:`dump_document`; whatever is opened
goes through :func:`check_group` and :func:`load_document`.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import strictjson, validation
from dmstore.errors import FormatError, InputError, plain
from dmstore.schema import layout

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

FORMAT_VERSION = "1.0"
# Rows of a chunk of a writer's text column in a base.
TEXT_ROWS = 16384
NAME_RULE = "letters, digits, '.', '_' and single '-', not starting with '.' or '-'"
_NAME = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}", re.ASCII)


@dataclass(frozen=True)
class ArraySpec:
    """What one array of a group must be."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: Any
    role: str
    codec: str | None
    doc: str
    optional: bool = False
    chunks: Mapping[str, int | str] | None = None
    shards: Mapping[str, int | str] | None = None


@dataclass(frozen=True)
class GroupSpec:
    """What one group must hold; ``arrays`` in the order of the file, declared ones last."""

    kind: str
    key: str
    arrays: Mapping[str, ArraySpec]
    columns: bool
    doc: str

    def rows(self) -> list[ArraySpec]:
        """The arrays that a row's digest covers: ``mask``, then the outputs by name."""
        rows = [spec for spec in self.arrays.values() if spec.role in ("row", "output")]
        return sorted(rows, key=lambda spec: (spec.role != "row", spec.name))

    def outputs(self) -> list[ArraySpec]:
        """The declared outputs, by name."""
        return [spec for spec in self.rows() if spec.role == "output"]

    def with_columns(self, columns: Mapping[str, str]) -> GroupSpec:
        """The same group with further per-key columns of the given dtypes."""
        extra = {
            name: ArraySpec(
                name,
                (self.key,),
                dtype,
                _column_fill(dtype),
                "coordinate",
                None if dtype == "string" else "bytes",
                "Per-run column of the writer.",
                # A chunk of texts is read whole, so that it must not grow with the runs.
                chunks={self.key: TEXT_ROWS} if dtype == "string" else None,
            )
            for name, dtype in columns.items()
            if name not in self.arrays
        }
        return replace(self, arrays={**self.arrays, **extra})


def _column_fill(dtype: str) -> Any:
    return {"float64": math.nan, "int64": 0, "bool": False, "string": ""}[dtype]


@functools.cache
def _read(name: str) -> Any:
    path = importlib.resources.files("dmstore.store_schemas").joinpath(name)
    return json.loads(path.read_text(encoding="utf-8"))


def group_spec(kind: str, outputs: Mapping[str, Mapping[str, Any]] | None = None) -> GroupSpec:
    """Spec of a kind of group, with the algorithm's declared outputs added.

    Parameters
    ----------
    kind : str
        Name of a ``*.group.json``.
    outputs : mapping, optional
        Declared outputs as in ``algorithm.json``: name to ``dtype`` and ``dims``.
    """
    raw = _read(f"{kind}.group.json")
    arrays = {
        name: ArraySpec(
            name,
            tuple(entry["dims"]),
            entry["dtype"],
            entry["fill"],
            entry["role"],
            entry["codec"],
            entry["doc"],
            entry.get("optional", False),
            entry.get("chunks"),
            entry.get("shards"),
        )
        for name, entry in raw["arrays"].items()
    }
    for name in sorted(outputs or {}):
        entry = (outputs or {})[name]
        layout = raw["output_layout"]
        fill = "NaN" if np.dtype(entry["dtype"]).kind == "f" else 0
        arrays[name] = ArraySpec(
            name,
            tuple(entry["dims"]),
            entry["dtype"],
            fill,
            "output",
            layout["codec"],
            entry["function"],
            optional=False,
            chunks=layout["chunks"],
            shards=layout["shards"],
        )
    return GroupSpec(kind, raw["key"], arrays, raw["columns"], raw["doc"])


def known_outputs() -> dict[str, dict[str, Any]]:
    """The output functions that can be declared by name alone."""
    return dict(_read("outputs.json")["outputs"])


def reserved_names() -> set[str]:
    """Names that an output or a per-run column of a run cannot have."""
    return {
        "train_label",
        "target_label",
        *group_spec("runs").arrays,
        "train",
        "target",
        "class",
        "byte",
        "split",
        "mask_packed",
        "study",
        "algorithm",
        "label",
    }


def check_name(name: str, what: str) -> str:
    """Return a valid name of a part of a study.

    Raises
    ------
    InputError
        If the name breaks the rule.
    """
    if not _NAME.fullmatch(name):
        msg = f"{what} name {name!r} is not allowed; use 1 to 100 {NAME_RULE}"
        raise InputError(msg)
    return name


def check_column_name(name: str, where: str) -> None:
    """Refuse a name that a per-run column or an output cannot have.

    Raises
    ------
    InputError
        If it is reserved (case aside) or not an identifier.
    """
    if name.lower() in {taken.lower() for taken in reserved_names()}:
        msg = f"{where}: {name!r} is a reserved name; call it something else"
        raise InputError(msg)
    if not _COLUMN.fullmatch(name):
        msg = f"{where}: the name {name!r} is not allowed; use up to 100 letters, digits and '_', a letter first"
        raise InputError(msg)


def check_version(payload: Mapping[str, Any], where: str) -> None:
    """Refuse an unknown major format version.

    Raises
    ------
    FormatError
        Naming the place, its version and the version that this software reads.
    """
    version = payload.get("format_version")
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]+\.[0-9]+", version):
        msg = f"{where}: no valid format_version, so this is not a dmstore file or it is damaged"
        raise FormatError(msg)
    if version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        msg = (
            f"{where}: written in store format {version}, this dmstore reads format "
            f"{FORMAT_VERSION}; install a dmstore that reads format {version.split('.')[0]}"
        )
        raise FormatError(msg)


def dump_document(kind: str, payload: Mapping[str, Any]) -> bytes:
    """Bytes of a document, checked against its schema before anything is written."""
    document = {"format_version": FORMAT_VERSION, "kind": kind, **payload}
    _check_document(kind, document, f"new {kind} document")
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def load_document(
    kind: str, raw: bytes, where: str, *, lists: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Parse and check a stored document.

    Parameters
    ----------
    kind : str
        Name of a ``*.document.json``.
    raw : bytes
    where : str
        For error texts.
    lists : tuple of str
        Long lists, of which only the first item is checked here: the caller checks the rest, faster.

    Raises
    ------
    FormatError
        If it is no JSON object, of another format version, or breaks its schema.
    """
    try:
        document = strictjson.parse(raw)
    except ValueError as error:
        msg = f"{where}: not valid JSON ({error}); the file is damaged, restore it from a copy"
        raise FormatError(msg) from None
    if not isinstance(document, dict):
        msg = f"{where}: not a JSON object, so this is not a dmstore document"
        raise FormatError(msg)
    check_version(document, where)
    short = {key: document[key][:1] for key in lists if isinstance(document.get(key), list)}
    _check_document(kind, {**document, **short}, where)
    return document


def _check_document(kind: str, document: Mapping[str, Any], where: str) -> None:
    import jsonschema

    validator = _validator(kind)
    error = next(
        iter(sorted(validator.iter_errors(document), key=lambda e: list(map(str, e.path)))), None
    )
    if isinstance(error, jsonschema.ValidationError):
        place = "/".join(str(part) for part in error.path) or "document"
        # Names and values of strangers, of any length.
        msg = f"{where}: {plain(place)[:100]}: {plain(error.message)[:300]}"
        raise FormatError(msg)


@functools.cache
def _validator(kind: str) -> Any:
    return validation.validator(_read(f"{kind}.document.json"))


def text(values: Iterable[Any]) -> NDArray[np.str_]:
    """Texts as a fixed-width array, which xarray and NumPy handle alike."""
    return np.array([str(value) for value in values], dtype=str)


def _compressors(codec: str | None) -> list[Any]:
    """The codec that an array names (zstd alone for texts), and a checksum behind it."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if codec is None:
        return [ZstdCodec(level=1), Crc32cCodec()]
    entry = _read("codecs.json")["codecs"][codec]
    shuffled = BloscCodec(cname=entry["cname"], clevel=entry["clevel"], shuffle=entry["shuffle"])
    return [shuffled, Crc32cCodec()]


def _fill(spec: ArraySpec) -> Any:
    return math.nan if spec.fill == "NaN" else spec.fill


def create_group(
    store: Store,
    spec: GroupSpec,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtypes: Mapping[str, Any] | None = None,
    dims: Mapping[str, tuple[str, ...]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    whole: bool = False,
) -> dict[str, Any]:
    """Create a zarr group with the arrays of a spec. The only place where arrays are created.

    Parameters
    ----------
    store : zarr store, empty
    spec : GroupSpec
    shapes : mapping
        Shape of each array to create, all that are not optional at least.
    dtypes, dims : mapping, optional
        For arrays whose spec leaves them open (``any``, ``*``).
    attrs : mapping, optional
        Further attributes of the group.
    whole : bool
        One chunk an array and no shards: the layout of a segment.

    Returns
    -------
    dict
        The arrays by name. They write every chunk, also one that holds the fill value alone, so that a
        chunk that is missing later is known to be lost; arrays opened anew would not.
    """
    import zarr

    missing = [n for n, a in spec.arrays.items() if not a.optional and n not in shapes]
    if missing:
        msg = f"{spec.kind} group lacks {', '.join(missing)}"
        raise FormatError(msg)
    coordinates = [n for n, a in spec.arrays.items() if a.role == "coordinate" and n in shapes]
    group = zarr.create_group(
        store,
        zarr_format=3,
        attributes={
            "format_version": FORMAT_VERSION,
            "kind": spec.kind,
            **({"coordinates": " ".join(coordinates)} if coordinates else {}),
            **(attrs or {}),
        },
    )
    made: dict[str, Any] = {}
    for name, shape in shapes.items():
        array = _spec_of(spec, name)
        dtype = (dtypes or {}).get(name, array.dtype)
        names = (dims or {}).get(name, array.dims)
        if whole:
            chunks, shards = tuple(max(1, size) for size in shape), None
        else:
            chunks, shards = layout.array_layout(replace(array, dims=names), shape)
        # zarr has no scalar fill for an open dtype: its own default (zero, empty) is right there.
        fill = {} if array.dtype == "any" else {"fill_value": _fill(array)}
        is_text = dtype == "string" or (not isinstance(dtype, str) and np.dtype(dtype).kind in "UT")
        made[name] = group.create_array(
            name,
            shape=shape,
            dtype=str if is_text else np.dtype(dtype),
            chunks=chunks,
            shards=shards,
            dimension_names=names,
            attributes={"description": array.doc},
            compressors=_compressors(None if is_text else array.codec),
            config={"write_empty_chunks": True},
            **fill,
        )
    return made


def _spec_of(spec: GroupSpec, name: str) -> ArraySpec:
    if name in spec.arrays:
        return spec.arrays[name]
    for pattern, array in spec.arrays.items():
        if pattern.endswith("*") and name.startswith(pattern[:-1]):
            return array
    msg = f"{spec.kind} group has no array {name!r}"
    raise FormatError(msg)


def consolidate(store: Store) -> None:
    """Write consolidated metadata, so that opening a group reads one document."""
    import zarr

    with warnings.catch_warnings():
        # zarr warns that the specification of version 3 does not have this yet; xarray reads it.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store)


def check_group(group: zarr.Group, spec: GroupSpec, sizes: Mapping[str, int], where: str) -> None:
    """Check an opened group: version, kind, and every array's dims, dtype and sizes.

    Raises
    ------
    FormatError
        Naming the array, what was expected and what is there.
    """
    attrs = dict(group.attrs)
    check_version(attrs, where)
    if attrs.get("kind") != spec.kind:
        msg = f"{where}: a group of kind {attrs.get('kind')!r}, expected {spec.kind!r}"
        raise FormatError(msg)
    present = dict(group.arrays())
    seen = dict(sizes)
    for name, array in spec.arrays.items():
        if name not in present:
            if array.optional or name.endswith("*"):
                continue
            msg = f"{where}: no array {name!r}"
            raise FormatError(msg)
        _check_array(present[name], array, seen, f"{where}: {name}")


def _check_array(found: Any, spec: ArraySpec, sizes: dict[str, int], where: str) -> None:
    names = tuple(found.metadata.dimension_names or ())
    if "*" in spec.dims:
        fixed = spec.dims[: spec.dims.index("*")]
        names = names[: len(fixed)]
    else:
        fixed = spec.dims
    if names != fixed:
        msg = f"{where}: dims {names}, expected {fixed}"
        raise FormatError(msg)
    if spec.dtype != "any":
        dtype = "string" if found.dtype.kind in "OTU" else str(found.dtype)
        if dtype != spec.dtype:
            msg = f"{where}: dtype {dtype}, expected {spec.dtype}"
            raise FormatError(msg)
    for dim, size in zip(names, found.shape, strict=False):
        if sizes.setdefault(dim, size) != size:
            msg = f"{where}: {dim} has length {size}, expected {sizes[dim]}"
            raise FormatError(msg)
