"""Segments: a batch of finished rows as one immutable ZIP_STORED zarr group.

Data and commit marker are one object, so there is no moment between them. The zip's comment holds
the ids and digests, so that listing a tail reads no arrays.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import provenance
from dmstore.errors import CorruptionError, FormatError, InputError
from dmstore.schema.documents import FORMAT_VERSION, load_document
from dmstore.schema.group_specs import GroupSpec
from dmstore.schema.names import check_column_name
from dmstore.schema.typed_documents import SegmentDocument
from dmstore.storage.objects import guard
from dmstore.storage.table import chunks
from dmstore.storage.table.rows import DIGEST_BYTES, MAX_RUN, Rows, column_dtype, row_digests

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from dmstore.storage.objects.objects import Objects

MAX_ROWS = 1024
# Bytes of one array of a segment: codecs take 2 GiB, and readers take a segment whole.
MAX_BYTES = 256 << 20
# The end record of a zip and its longest comment.
_LONGEST = 65535
_TAIL = 22 + _LONGEST


class CommentTooLongError(InputError):
    """The ids and columns of a batch do not fit into the comment of a zip: store fewer at a time."""


@dataclass(frozen=True)
class SegmentInfo:
    """What a segment says of itself in its comment."""

    name: str
    run: NDArray[np.int64]
    digest: NDArray[np.uint8]
    columns: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.run)


def encode(rows: Rows, spec: GroupSpec, identity: Mapping[str, str]) -> bytes:
    """Build a segment's zip in memory."""
    extra = {n: column_dtype(v) for n, v in rows.columns.items() if n not in spec.arrays}
    digest = row_digests(rows.run, rows.arrays, spec) if rows.digest is None else rows.digest
    document: SegmentDocument = {
        "study": identity["study"],
        "algorithm": identity["algorithm"],
        "table": identity["table"],
        "run": rows.run.tolist(),
        "digest": digest.tobytes().hex(),
        "columns": extra,
        "software": provenance.software(),
    }
    # Not by dump_document: it has no line breaks, and its ids are checked already.
    whole = {"format_version": FORMAT_VERSION, "kind": "segment", **document}
    short = json.dumps(whole, separators=(",", ":"), sort_keys=True).encode()
    if len(short) > _LONGEST:
        msg = f"{len(rows)} runs with {len(extra)} columns are too much for one segment; use fewer columns"
        raise CommentTooLongError(msg)
    full = spec.with_columns(extra)
    arrays: dict[str, NDArray[Any]] = {
        "run": rows.run,
        "row_digest": digest,
        **rows.columns,
        **rows.arrays,
    }
    stored = {
        name: values
        if full.arrays[name].dtype == "string"
        else values.astype(full.arrays[name].dtype, copy=False)
        for name, values in arrays.items()
    }
    return chunks.encode_group(full, stored, short)


def parse_info(name: str, tail: bytes, identity: Mapping[str, str]) -> SegmentInfo:
    """Read a segment's comment from the last bytes of its zip.

    Raises
    ------
    CorruptionError
        If there is no whole comment.
    FormatError
        If it is of another study, algorithm or format version.
    """
    try:
        end = chunks.end_of_zip(tail)
    except ValueError as error:
        msg = f"{name}: {error}, so the file is cut or damaged; restore it from a copy"
        raise CorruptionError(msg) from None
    comment = load_document("segment", tail[end + 22 :], name, lists=("run",))
    for key, value in identity.items():
        if (stated := comment.get(key)) != value:
            msg = f"{name}: {key} is {stated}, expected {value}; the file belongs elsewhere"
            raise FormatError(msg)
    ids = comment["run"]
    digest = np.frombuffer(
        bytes.fromhex(comment["digest"][: len(comment["digest"]) // 2 * 2]), np.uint8
    )
    if (
        set(map(type, ids)) != {int}
        or not 0 <= min(ids) <= max(ids) < MAX_RUN
        or digest.size != len(ids) * DIGEST_BYTES
        or len(set(ids)) != len(ids)
    ):
        msg = f"{name}: {len(ids)} run ids and {digest.size} digest bytes do not fit; the file is damaged"
        raise CorruptionError(msg)
    for column in comment["columns"]:
        try:
            check_column_name(column, name)
        except InputError as error:
            raise FormatError(str(error)) from None
    run = np.array(ids, dtype=np.int64)
    return SegmentInfo(name, run, digest.reshape(-1, DIGEST_BYTES), comment["columns"])


def read_info(objects: Objects, name: str, identity: Mapping[str, str]) -> SegmentInfo:
    """What a stored segment holds, from its last bytes alone."""
    return parse_info(name, objects.tail(name, _TAIL), identity)


def read_segment(
    objects: Objects,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    index: tuple[Any, ...] = (Ellipsis,),
) -> dict[str, NDArray[Any]]:
    """Read some arrays of a segment, all of them at the same `index`.

    Parameters
    ----------
    objects : Objects
    name : str
    shapes : mapping
        The arrays, and the shapes that they must have.
    index : tuple

    Raises
    ------
    CorruptionError
        If the zip or a chunk in it cannot be read, or an array has another shape.
    """
    try:
        with objects.open(name) as file:
            arrays = chunks.read_group(file, name, list(shapes), shapes)
    except chunks.UnknownLayoutError:
        return read_arrays(objects.reader, name, list(shapes), index, shapes)
    return {key: values[index] for key, values in arrays.items()}


def read_arrays(
    reader: Callable[[str], Store],
    name: str,
    arrays: list[str],
    index: tuple[Any, ...] = (Ellipsis,),
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read some arrays of a zarr group, all of them at the same `index`.

    Parameters
    ----------
    reader : callable
        :meth:`Objects.reader` of the storage.
    name : str
    arrays : list of str
    index : tuple
    shapes : mapping, optional
        Shapes that they must have.

    Raises
    ------
    CorruptionError
        If the zip or a chunk in it cannot be read.
    """
    import zarr

    with opened(reader, name) as store:
        group: Any = zarr.open_group(store, mode="r", zarr_format=3)
        for key, shape in (shapes or {}).items():
            if group[key].shape != shape:
                msg = f"{key!r} has shape {group[key].shape}, expected {shape}"
                raise ValueError(msg)
        return {key: np.asarray(group[key][index]) for key in arrays}


@contextlib.contextmanager
def opened(reader: Callable[[str], Store], name: str) -> Iterator[Store]:
    """A stored group's zarr store, open for reading.

    Raises
    ------
    CorruptionError
        If what is done with it fails because of what it holds.
    """
    with guard.readable(name):
        store = reader(name)
        try:
            yield store
        finally:
            store.close()
