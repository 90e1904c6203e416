"""Bases: all rows of a table as one zarr group, written and read back by several threads.

A base means nothing until a log entry names it, so that what a killed process left of one is only
something for vacuum.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmstore.core import threads
from dmstore.core.progress import Count
from dmstore.errors import CorruptionError, DmstoreError
from dmstore.schema.group_specs import GroupSpec, create_group
from dmstore.storage.objects.refusals import storage_error
from dmstore.storage.objects.zarr_internals import consolidate
from dmstore.storage.table.rows import DIGEST_BYTES, row_digests
from dmstore.storage.table.table import Table
from dmstore.storage.table.tiles import ShardWriter, open_tiles
from dmstore.storage.table.view import BLOCK

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
# Blocks of rows in memory at a time, in bytes; never less than one.
_LARGE = 256 << 20


def _most(table: Table) -> int:
    """How many blocks may be in memory at a time."""
    width = sum(
        np.dtype(spec.dtype).itemsize * math.prod(table.sizes[dim] for dim in spec.dims[1:])
        for spec in table.spec.rows()
    )
    return int(max(1, min(threads.cores() + 1, _LARGE // max(1, BLOCK * width))))


def write(
    table: Table,
    path: str,
    spec: GroupSpec,
    blocks: Iterable[Arrays],
    count: int,
    columns: Callable[[], Arrays],
    progress: Count | None = None,
) -> None:
    """Write rows below a path, durably.

    Parameters
    ----------
    table : Table
    path : str
        Unused, below the table.
    spec : GroupSpec
        The table's, with the further columns of these rows.
    blocks : iterable of mapping
        The arrays of :meth:`GroupSpec.rows`, :data:`BLOCK` rows at a time; the last may be shorter.
    count : int
        At least as many as there are rows.
    columns : callable
        Called after the last block, for all other arrays; ``run`` among them tells how many rows
        there are.
    progress : callable, optional
        Called with rows done and `count`.

    Raises
    ------
    CorruptionError
        If something that is read or written is not there any more: the log tells whether vacuum
        took it.
    StorageError
        If the storage refuses.
    """
    where = f"{table.prefix}{path}"
    try:
        _write(table, where, spec, blocks, count, columns, progress)
    except FileNotFoundError as error:
        msg = f"{where}: {error}"
        raise CorruptionError(msg) from error
    except OSError as error:
        if isinstance(error, DmstoreError):
            raise
        raise storage_error(error, f"{table.objects.url}/{where}") from error


def _write(
    table: Table,
    where: str,
    spec: GroupSpec,
    blocks: Iterable[Arrays],
    count: int,
    columns: Callable[[], Arrays],
    progress: Count | None,
) -> None:
    store = table.objects.writer(where)
    sizes = {**table.sizes, "run": count, "byte": DIGEST_BYTES}
    shapes = {name: tuple(sizes[dim] for dim in array.dims) for name, array in spec.arrays.items()}
    group = create_group(store, spec, shapes, attrs=table.identity)
    wide = [array.name for array in spec.rows()]

    writers = {name: ShardWriter(store, name) for name in wide}

    def assign(start: int, rows: Arrays) -> int:
        for name in wide:
            writers[name].write(start, rows[name])
        return start + len(rows[wide[0]])

    starts = (number * BLOCK for number in range(-(-count // BLOCK)))
    for done in _threaded(assign, zip(starts, blocks, strict=False), _most(table)):
        if progress:
            progress(done, count)
    narrow = columns()
    length = len(narrow["run"])
    for name, array in group.items():
        if length < count:
            array.resize((length, *array.shape[1:]))
        if name not in wide:
            array[...] = narrow[name]
    consolidate(store)
    table.objects.sync(where)


def _threaded(work: Callable[..., T], items: Iterable[tuple[Any, ...]], most: int) -> Iterator[T]:
    """Results in order; at most so many items at work, the next one not even made before."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(most) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, *item))
                del item
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def check(table: Table, path: str, run: NDArray[np.int64], digest: NDArray[np.uint8]) -> None:
    """Read a written base back.

    Raises
    ------
    CorruptionError
        If it does not hold these ids and digests, or rows that do not match them.
    """
    group: Any = table.open_base(path)
    stored = np.asarray(group["run"][:]), np.asarray(group["row_digest"][:])
    if not (np.array_equal(run, stored[0]) and np.array_equal(digest, stored[1])):
        msg = f"{table.prefix}{path}: ids or digests are not those of the rows read; nothing was committed"
        raise CorruptionError(msg)

    def look(rows: slice, arrays: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
        return bad_rows(table.spec, run[rows], digest[rows], arrays)

    for bad in each(table, path, group, [spec.name for spec in table.spec.rows()], look):
        if len(bad):
            msg = (
                f"{table.prefix}{path}: run {bad[0]} does not match its digest; nothing was "
                f"committed; 'dmstore verify' tells which object is damaged"
            )
            raise CorruptionError(msg)


def each(
    table: Table,
    path: str,
    group: Any,
    names: list[str],
    look: Callable[[slice, dict[str, NDArray[Any]]], T],
) -> Iterator[T]:
    """What `look` says of some arrays of a base, given block by block, by several threads; in order."""
    arrays = {
        name: open_tiles(table.objects, f"{table.prefix}{path}", group, name) for name in names
    }

    def work(start: int) -> T:
        rows = slice(start, min(start + BLOCK, count))
        return look(rows, {name: array.read((rows,)) for name, array in arrays.items()})

    count = group["run"].shape[0]
    yield from _threaded(work, ((start,) for start in range(0, count, BLOCK)), _most(table))


def bad_rows(
    spec: GroupSpec, run: NDArray[np.int64], digest: NDArray[np.uint8], arrays: Arrays
) -> NDArray[np.int64]:
    """Run ids whose content does not match their digest."""
    wrong = (row_digests(run, arrays, spec) != digest).any(axis=1)
    wrong_runs: NDArray[np.int64] = run[wrong]
    return wrong_runs
