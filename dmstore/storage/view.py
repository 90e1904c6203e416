"""A view: the rows of a table as they were at one moment, whatever is appended later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore import schema
from dmstore.errors import CorruptionError
from dmstore.storage import log, segment
from dmstore.storage.segment import SegmentInfo

if TYPE_CHECKING:
    import zarr

    from dmstore.storage.table import Table

# Rows handled at a time: one shard of a base.
BLOCK = 4096


@dataclass(frozen=True)
class Source:
    """Rows of a view that lie in one place: the base (no name) or a segment."""

    name: str | None
    index: NDArray[np.int64]
    columns: Mapping[str, str]


@dataclass(frozen=True)
class View:
    """A consistent, immutable state of a table.

    Attributes
    ----------
    run : (run,) int64
        Ids in order of arrival.
    digest : (run, 16) uint8
    conflicts : tuple of (int, str)
        Rows that are stored but not shown, because another row has their id.
    tail : sequence of SegmentInfo
        The segments that the base does not have, whether or not they show rows.
    """

    table: Table
    manifest: log.Manifest
    run: NDArray[np.int64]
    digest: NDArray[np.uint8]
    sources: Sequence[Source]
    conflicts: tuple[tuple[int, str], ...]
    tail: Sequence[SegmentInfo] = ()
    conflicted: frozenset[str] = field(default=frozenset())
    base: zarr.Group | None = None

    @classmethod
    def build(cls, table: Table, manifest: log.Manifest, tail: Sequence[SegmentInfo]) -> View:
        """Merge a base and a tail of segments."""
        base = table.open_base(manifest.base.path) if manifest.base else None
        if base is not None and manifest.base is not None:
            check_base(table, base, manifest.base)
        runs = [np.asarray(_array(base, "run")[:])] if base is not None else [np.empty(0, np.int64)]
        digests = (
            [np.asarray(_array(base, "row_digest")[:])]
            if base is not None
            else [np.empty((0, segment.DIGEST_BYTES), np.uint8)]
        )
        runs += [info.run for info in tail]
        digests += [info.digest for info in tail]
        place = np.repeat(np.arange(len(runs)), [len(part) for part in runs])
        row = np.concatenate([np.arange(len(part)) for part in runs])
        run, digest = np.concatenate(runs), np.concatenate(digests)
        keep, losers = _resolve(run, digest, place == 0, dict.fromkeys(manifest.retracted))
        sources = []
        for number in range(len(runs)):
            index = row[keep & (place == number)].astype(np.int64)
            if len(index):
                columns = (
                    _base_columns(base, table.spec) if number == 0 else tail[number - 1].columns
                )
                sources.append(
                    Source(None if number == 0 else tail[number - 1].name, index, columns)
                )
        conflicts = tuple(sorted((int(run[i]), digest[i].tobytes().hex()) for i in losers))
        conflicted = frozenset(tail[place[i] - 1].name for i in losers if place[i])
        return cls(
            table, manifest, run[keep], digest[keep], sources, conflicts, tail, conflicted, base
        )

    def __len__(self) -> int:
        return len(self.run)

    @property
    def segments(self) -> list[str]:
        """Segments that hold visible rows."""
        return [source.name for source in self.sources if source.name]

    @property
    def columns(self) -> dict[str, str]:
        """Dtype of every further per-run column. One that some rows lack holds NaN there, so it
        is float64 unless it is text.
        """
        merged: dict[str, str] = {}
        for name in dict.fromkeys(name for source in self.sources for name in source.columns):
            dtypes = {source.columns.get(name, "none") for source in self.sources}
            if "string" in dtypes:
                merged[name] = "string"
            else:
                merged[name] = dtypes.pop() if len(dtypes) == 1 else "float64"
        return merged

    def content_id(self) -> str:
        """sha256 over the sorted (id, digest) pairs: independent of chunks, order and history."""
        return content_id(self.run, self.digest)

    def spec(self) -> schema.GroupSpec:
        """The table's spec with the view's further columns."""
        return self.table.spec.with_columns(self.columns)

    def locate(self, start: int, stop: int) -> Iterator[tuple[Source, NDArray[np.int64]]]:
        """Where rows `start` to `stop` lie: sources and the rows in them, in order."""
        offset = 0
        for source in self.sources:
            low, high = max(start - offset, 0), min(stop - offset, len(source.index))
            if low < high:
                yield source, source.index[low:high]
            offset += len(source.index)

    def read(
        self, names: Sequence[str], start: int = 0, stop: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Read some arrays of rows `start` to `stop` into memory."""
        stop = len(self) if stop is None else min(stop, len(self))
        spec = self.spec()
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for source, index in self.locate(start, stop):
            have = [n for n in names if n in self.table.spec.arrays or n in source.columns]
            values = self._read_source(source, have, index)
            for name in names:
                found = values.get(name)
                if found is None:
                    found = np.full(
                        len(index), "" if spec.arrays[name].dtype == "string" else np.nan
                    )
                parts[name].append(_as_stored(found, spec.arrays[name].dtype))
        return {
            name: np.concatenate(part) if part else self._empty(spec.arrays[name])
            for name, part in parts.items()
        }

    def _empty(self, spec: schema.ArraySpec) -> NDArray[Any]:
        shape = (0, *(self.table.sizes.get(dim, segment.DIGEST_BYTES) for dim in spec.dims[1:]))
        return np.empty(shape, dtype=object if spec.dtype == "string" else spec.dtype)

    def _read_source(
        self, source: Source, names: list[str], index: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        low, high = int(index[0]), int(index[-1]) + 1
        window = (slice(low, high), Ellipsis)
        if source.name is None:
            try:
                values = {name: np.asarray(_array(self.base, name)[window]) for name in names}
            except (ValueError, RuntimeError) as error:
                msg = (
                    f"{self.table.prefix}: the base cannot be read ({error}); run 'dmstore verify'"
                )
                raise CorruptionError(msg) from error
        else:
            values = segment.read_arrays(self.table.objects.reader, source.name, names, window)
        if high - low != len(index):
            values = {name: value[index - low] for name, value in values.items()}
        return values


def check_base(table: Table, group: zarr.Group, base: log.Base) -> None:
    """The ids and digests of a base must be those that were committed."""
    where = f"{table.prefix}{base.path}"
    try:
        run, digest = (
            np.asarray(_array(group, "run")[:]),
            np.asarray(_array(group, "row_digest")[:]),
        )
    except (ValueError, RuntimeError) as error:
        msg = f"{where}: cannot be read ({error}); restore it from a copy"
        raise CorruptionError(msg) from error
    if len(run) != base.runs or content_id(run, digest) != base.content_id:
        msg = f"{where}: its runs are not those of content id {base.content_id}; restore it from a copy"
        raise CorruptionError(msg)


def _as_stored(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype == "string":
        return np.array(
            [value if isinstance(value, str) else str(value) for value in values], dtype=object
        )
    return values.astype(dtype, copy=False)


def _array(group: zarr.Group | None, name: str) -> Any:
    assert group is not None
    return group[name]


def _base_columns(base: zarr.Group | None, spec: schema.GroupSpec) -> dict[str, str]:
    assert base is not None
    return {
        name: "string" if array.dtype.kind in "OTU" else str(array.dtype)
        for name, array in base.arrays()
        if name not in spec.arrays
    }


def _resolve(
    run: NDArray[np.int64],
    digest: NDArray[np.uint8],
    in_base: NDArray[np.bool_],
    retracted: Mapping[tuple[int, str], None],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows to show, and which lose a conflict.

    Of rows with one id and one digest the first is shown; of rows with one id and several digests
    that of the base, else the one with the smallest digest, so that clocks decide nothing.
    """
    keep = np.ones(len(run), dtype=bool)
    if retracted:
        out = [(int(r), d.tobytes().hex()) in retracted for r, d in zip(run, digest, strict=True)]
        keep &= ~np.array(out, dtype=bool)
    rows = np.flatnonzero(keep)
    words = np.ascontiguousarray(digest[rows]).view(">u8").reshape(len(rows), 2)
    order = np.lexsort((rows, words[:, 1], words[:, 0], ~in_base[rows], run[rows]))
    sorted_run = run[rows][order]
    first = np.r_[True, sorted_run[1:] != sorted_run[:-1]] if len(rows) else np.empty(0, bool)
    winner = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    sorted_words = words[order]
    same = (sorted_words == sorted_words[winner]).all(axis=1) if len(rows) else first
    losers = np.sort(rows[order[~same]])
    keep[rows[order[~first]]] = False
    return keep, losers


def content_id(run: NDArray[np.int64], digest: NDArray[np.uint8]) -> str:
    """sha256 over (id, digest) pairs sorted by id."""
    order = np.argsort(run, kind="stable")
    state = hashlib.sha256()
    ids = run[order].astype("<i8").view(np.uint8).reshape(-1, 8)
    state.update(np.ascontiguousarray(np.hstack([ids, digest[order]])).tobytes())
    return state.hexdigest()
