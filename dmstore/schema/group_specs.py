"""Reads ``store_schemas/``: the only statement of arrays and documents.

Whatever is created goes through :func:`create_group` and :func:`dump_document`; whatever is opened
goes through :func:`check_group` and :func:`load_document`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dmstore.errors import FormatError
from dmstore.schema.documents import FORMAT_VERSION, check_version
from dmstore.schema.files import read_schema
from dmstore.schema.typed_documents import AlgorithmOutput

if TYPE_CHECKING:
    import zarr
    from zarr.abc.store import Store

# Rows of a chunk of a writer's text column in a base.
TEXT_ROWS = 16384


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


def group_spec(kind: str, outputs: Mapping[str, AlgorithmOutput] | None = None) -> GroupSpec:
    """Spec of a kind of group, with the algorithm's declared outputs added.

    Parameters
    ----------
    kind : str
        Name of a ``*.group.json``.
    outputs : mapping, optional
        Declared outputs as in ``algorithm.json``: name to ``dtype`` and ``dims``.
    """
    raw = read_schema(f"{kind}.group.json")
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


def known_outputs() -> dict[str, AlgorithmOutput]:
    """The output functions that can be declared by name alone."""
    return dict(read_schema("outputs.json")["outputs"])


def _compressors(codec: str | None) -> list[Any]:
    """The codec that an array names (zstd alone for texts), and a checksum behind it."""
    from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

    if codec is None:
        return [ZstdCodec(level=1), Crc32cCodec()]
    entry = read_schema("codecs.json")["codecs"][codec]
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
            chunks, shards = array_layout(replace(array, dims=names), shape)
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


def _check_array(array: Any, spec: ArraySpec, sizes: dict[str, int], where: str) -> None:
    names = tuple(array.metadata.dimension_names or ())
    if "*" in spec.dims:
        fixed = spec.dims[: spec.dims.index("*")]
        names = names[: len(fixed)]
    else:
        fixed = spec.dims
    if names != fixed:
        msg = f"{where}: dims {names}, expected {fixed}"
        raise FormatError(msg)
    if spec.dtype != "any":
        dtype = "string" if array.dtype.kind in "OTU" else str(array.dtype)
        if dtype != spec.dtype:
            msg = f"{where}: dtype {dtype}, expected {spec.dtype}"
            raise FormatError(msg)
    for dim, size in zip(names, array.shape, strict=False):
        if sizes.setdefault(dim, size) != size:
            msg = f"{where}: {dim} has length {size}, expected {sizes[dim]}"
            raise FormatError(msg)


def _blocks(
    wanted: Mapping[str, int | str] | None,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    unit: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    """Chunk (or, with `unit`, shard) lengths, never longer than the array rounded up to `unit`."""
    lengths = []
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        size = max(size, 1)
        step = unit[axis] if unit else 1
        value = (wanted or {}).get(dim, "all")
        length = size if value == "all" else min(int(value), size)
        lengths.append(-(-length // step) * step)
    return tuple(lengths)


def array_layout(
    spec: ArraySpec, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunk and shard shape of an array of a base."""
    chunks = _blocks(spec.chunks, spec.dims, shape)
    shards = _blocks(spec.shards, spec.dims, shape, chunks) if spec.shards else None
    return chunks, shards
