"""A view: the rows of a table as they were at one moment, whatever is appended later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmstore.schema.group_specs import ArraySpec, GroupSpec
from dmstore.storage.objects import guard
from dmstore.storage.table import log, segment
from dmstore.storage.table.rows import DIGEST_BYTES
from dmstore.storage.table.segment import SegmentInfo
from dmstore.storage.table.tiles import Tiles, open_tiles

if TYPE_CHECKING:
    import zarr

    from dmstore.storage.table.snapshot import Snapshot
    from dmstore.storage.table.table import Table

# Rows handled at a time: one shard of a base.
BLOCK = 4096
# Segments decoded at a time.
_READERS = 4


@dataclass(frozen=True)
class Source:
    """Rows of a view that lie in one place: the base (no name) or a segment of so many rows."""

    name: str | None
    index: NDArray[np.int64]
    columns: Mapping[str, str]
    length: int = 0


class View:
    """A consistent, immutable state of a table.

    Parameters
    ----------
    table : Table
    snapshot : Snapshot

    Attributes
    ----------
    sources : list of Source
        Where the visible rows lie, in order.
    """

    def __init__(self, table: Table, snapshot: Snapshot) -> None:
        self.table = table
        self.snapshot = snapshot
        self.sources = []
        self._tiles: dict[str, Tiles] = {}
        for number, index in snapshot.places:
            info = snapshot.tail[number - 1] if number else None
            columns = info.columns if info else _base_columns(self.base, table.spec)
            length = len(info) if info else 0
            self.sources.append(Source(info.name if info else None, index, columns, length))

    def __getstate__(self) -> dict[str, Any]:
        # What it has opened is opened again where it is sent.
        return {**self.__dict__, "_tiles": {}}

    @property
    def manifest(self) -> log.Manifest:
        """The manifest that was in force."""
        return self.snapshot.manifest

    @property
    def run(self) -> NDArray[np.int64]:
        """Ids in order of arrival: (run,) int64."""
        return self.snapshot.run

    @property
    def digest(self) -> NDArray[np.uint8]:
        """Digests: (run, 16) uint8."""
        return self.snapshot.digest

    @property
    def conflicts(self) -> tuple[tuple[int, str], ...]:
        """Rows that are stored but not shown, because another row has their id."""
        return self.snapshot.conflicts

    @property
    def tail(self) -> tuple[SegmentInfo, ...]:
        """The segments that the base does not have, whether or not they show rows."""
        return self.snapshot.tail

    @property
    def base(self) -> zarr.Group | None:
        """The opened base."""
        return self.snapshot.base.handle if self.snapshot.base else None

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
        return self.snapshot.content_id()

    def spec(self) -> GroupSpec:
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
        arrays = {name: self._empty(spec.arrays[name], max(0, stop - start)) for name in names}
        places = list(self.locate(start, stop))
        ends = np.cumsum([len(index) for _, index in places])

        def fill(number: int) -> None:
            source, index = places[number]
            have = [n for n in names if n in self.table.spec.arrays or n in source.columns]
            values = self._read_source(source, have, index)
            rows = slice(int(ends[number]) - len(index), int(ends[number]))
            for name in names:
                text = spec.arrays[name].dtype == "string"
                value: Any = values.pop(name, "" if text else np.nan)
                if text and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                    # Numbers here, texts elsewhere: a base holds them as texts, so a view does.
                    value = np.array([str(item) for item in value], dtype=object)
                arrays[name][rows] = value

        if len(places) < 2:
            for number in range(len(places)):
                fill(number)
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                list(pool.map(fill, range(len(places))))
        return arrays

    def read_base(self, name: str, window: tuple[slice, ...]) -> NDArray[Any]:
        """A part of an array of the base: slices of its first dims, all of the others."""
        spec = self.table.spec.arrays.get(name)
        if spec is None or spec.role not in ("row", "output"):
            with guard.readable(f"{self.table.prefix}: the base"):
                return np.asarray(_array(self.base, name)[window])
        return self.tiles(name).read(window)

    def tiles(self, name: str) -> Tiles:
        """The mask or an output of the base, opened once."""
        if name not in self._tiles:
            assert self.base is not None
            assert self.manifest.base is not None
            where = f"{self.table.prefix}{self.manifest.base.path}"
            self._tiles[name] = open_tiles(self.table.objects, where, self.base, name)
        return self._tiles[name]

    def _empty(self, spec: ArraySpec, rows: int) -> NDArray[Any]:
        shape = (rows, *(self.table.sizes.get(dim, DIGEST_BYTES) for dim in spec.dims[1:]))
        return np.empty(shape, dtype=object if spec.dtype == "string" else spec.dtype)

    def _read_source(
        self, source: Source, names: list[str], index: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        low, high = int(index[0]), int(index[-1]) + 1
        window = (slice(low, high), Ellipsis)
        if source.name is None:
            values = {name: self.read_base(name, window[:1]) for name in names}
        else:
            shapes = self.table.shapes(names, source.length)
            values = segment.read_segment(self.table.objects, source.name, shapes, window)
        if high - low != len(index):
            values = {name: value[index - low] for name, value in values.items()}
        return values


def _array(group: zarr.Group | None, name: str) -> Any:
    assert group is not None
    return group[name]


def _base_columns(base: zarr.Group | None, spec: GroupSpec) -> dict[str, str]:
    assert base is not None
    return {
        name: "string" if array.dtype.kind in "OTU" else str(array.dtype)
        for name, array in base.arrays()
        if name not in spec.arrays
    }
