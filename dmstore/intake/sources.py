"""Taking in a source of runs block by block: memory stays bounded, and a repeated call goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.finite import finite_rows, nonzero_rows
from dmstore.errors import CorruptionError, FormatError, InputError, NotFoundError
from dmstore.readers.source import Source, blocks
from dmstore.storage.acts.fill import fill
from dmstore.storage.table import segment
from dmstore.storage.table.rows import DIGEST_BYTES, Rows, pairs_of, row_digests
from dmstore.storage.table.view import BLOCK
from dmstore.study.algorithm import Algorithm
from dmstore.study.display import counted, first_few

# Segments written, and blocks read, at a time.
_WRITERS = 2
_READERS = 2
# What a source from elsewhere can be at fault of; errors of the study itself are raised.
FAULTS = (InputError, FormatError, CorruptionError, FileNotFoundError, NotFoundError)


@dataclass
class Taken:
    """What became of the rows of a source; see :class:`dmstore.intake.worker_files.Ingest`."""

    new: int = 0
    present: int = 0
    conflicting: int = 0
    refused: int = 0
    skipped: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _SourceError(Exception):
    """A source is at fault, not the study."""


def take(
    algorithm: Algorithm,
    source: Source,
    advance: Callable[[int], None],
    accept: Callable[[], object] | None = None,
) -> Taken:
    """Store the runs of a source that are not there yet.

    Parameters
    ----------
    algorithm : Algorithm
    source : Source
    advance : callable
        Called with the number of rows that were dealt with.
    accept : callable, optional
        Called once, when the source has passed the checks of it as a whole and before a row is stored.

    Raises
    ------
    StorageError
        If the file system refuses; what was stored before stays stored.
    """
    result = Taken()
    try:
        _take(algorithm, source, result, advance, accept)
    except _SourceError as error:
        result.errors.append(str(error))
    return result


def _take(
    algorithm: Algorithm,
    source: Source,
    result: Taken,
    advance: Callable[[int], None],
    accept: Callable[[], object] | None,
) -> None:
    names = [spec.name for spec in algorithm.table.spec.outputs()]
    _check_source(algorithm, source, names)
    view = algorithm.table.view()
    place = _find(source.ids, view.run)
    retracted = _retracted(algorithm, source, view.manifest.retracted, names)
    present = np.flatnonzero((place >= 0) & ~retracted)
    fresh = np.flatnonzero((place < 0) & ~retracted)
    conflicts = _conflicts(algorithm, source, present, view.digest[place[present]], names)
    if conflicts:
        result.conflicting = len(conflicts)
        result.refused = len(source.ids) - len(conflicts)
        result.errors.append(_conflict_text(source, conflicts))
        return
    if accept is not None:
        accept()
    result.present = len(present)
    advance(len(present) + int(retracted.sum()))
    reasons: dict[str, list[int]] = {}
    if retracted.any():
        reasons[retracted_text(algorithm.name)] = source.ids[retracted].tolist()
    try:
        if not len(view) and not retracted.any():
            if _fill(algorithm, source, result, advance, names, reasons):
                return
            if len(algorithm.table.view()):
                # Somebody stored rows meanwhile, perhaps these: what is there is told from them.
                _take(algorithm, source, result, advance, None)
                return
        _append(algorithm, source, fresh, result, advance, names, reasons)
    finally:
        for reason, runs in sorted(reasons.items(), key=lambda entry: min(entry[1])):
            result.skipped += len(runs)
            result.warnings.append(skipped_text(str(source.path), sorted(runs), reason))


def _fill(
    algorithm: Algorithm,
    source: Source,
    result: Taken,
    advance: Callable[[int], None],
    names: Sequence[str],
    reasons: dict[str, list[int]],
) -> bool:
    """Store a source as the first base, all at once; False if it must be appended."""
    count = len(source.ids)
    every = np.arange(count)
    done = 0

    def progress(now: int, _: int) -> None:
        nonlocal done
        advance(now - done)
        done = now

    parts = _prepared(algorithm, source, every, names, reasons, BLOCK)
    rows = (part for part, _ in parts if len(part))
    manifest = fill(algorithm.table, rows, count, progress)
    if manifest is None or manifest.base is None:
        reasons.clear()
        advance(-done)
        return False
    result.new += manifest.base.runs
    advance(count - done)
    return True


def _append(
    algorithm: Algorithm,
    source: Source,
    fresh: NDArray[np.int64],
    result: Taken,
    advance: Callable[[int], None],
    names: Sequence[str],
    reasons: dict[str, list[int]],
) -> None:
    """Store rows as segments; what is stored stays stored, whatever happens to the next."""
    waiting: deque[tuple[Future[Any], int, int]] = deque()

    def settle() -> None:
        future, stored, count = waiting.popleft()
        future.result()
        result.new += stored
        advance(count)

    with ThreadPoolExecutor(_WRITERS) as pool:
        try:
            for rows, count in _prepared(
                algorithm, source, fresh, names, reasons, segment.MAX_ROWS
            ):
                waiting.append((pool.submit(_store, algorithm, rows), len(rows), count))
                if len(waiting) > _WRITERS:
                    settle()
        finally:
            # A source that fails half-way does not undo what is being written.
            while waiting:
                settle()


def skipped_text(where: str, runs: Sequence[int], reason: str) -> str:
    """A line on runs that are left out."""
    return f"{where}: {counted(len(runs), 'run')} skipped, {reason} (run {first_few(runs)})"


def retracted_text(name: str) -> str:
    """Why retracted runs of an algorithm are left out, and how to have them again."""
    return f"retracted here; 'dmstore retract STUDY {name} --restore --where run=…' takes them back"


def _store(algorithm: Algorithm, rows: Rows) -> None:
    if len(rows):
        algorithm.table.append(rows)


def _find(wanted: NDArray[np.int64], stored: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each id is in `stored`, -1 where it is not."""
    if not len(stored):
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(stored, kind="stable")
    found = np.searchsorted(stored, wanted, sorter=order)
    place = order[np.minimum(found, len(stored) - 1)]
    return np.where(stored[place] == wanted, place, -1)


def _check_source(algorithm: Algorithm, source: Source, names: Sequence[str]) -> None:
    """Refuse a source that does not fit the algorithm, before a row is read."""
    sizes = algorithm.table.sizes
    if not len(source.ids):
        msg = f"{source.path}: holds no finished run"
        raise _SourceError(msg)
    if source.train != sizes["train"]:
        msg = f"{source.path}: has masks of {source.train} train units, but the study has {sizes['train']}"
        raise _SourceError(msg)
    for name in names:
        output = source.outputs.get(name)
        if output is None:
            held = ", ".join(
                other if entry.key == other else f"{other} ({entry.key})"
                for other, entry in source.outputs.items()
            )
            msg = f"{source.path}: no {name!r}, which {algorithm.name!r} declares; it holds {held or 'no outputs'}; if one of them is that, say --output {name}=KEY"
            raise _SourceError(msg)
        if source.targets != sizes["target"]:
            msg = f"{source.path}: {output.key} has {source.targets} targets, but the study has {sizes['target']}"
            raise _SourceError(msg)
        classes = "class" in algorithm.outputs[name]["dims"]
        if output.classes != (sizes["class"] if classes else None):
            msg = f"{source.path}: {output.key} has {output.classes or 'no'} classes, but {name!r} is declared with {sizes['class'] if classes else 'none'}"
            raise _SourceError(msg)


def _conflicts(
    algorithm: Algorithm,
    source: Source,
    present: NDArray[np.int64],
    digest: NDArray[np.uint8],
    names: Sequence[str],
) -> list[int]:
    """Runs of a source that are stored with other content; `digest` is what is stored."""
    wrong = (_digests(algorithm, source, present, names) != digest).any(axis=1)
    return [int(run) for run in source.ids[present[wrong]]]


def _retracted(
    algorithm: Algorithm, source: Source, pairs: Sequence[tuple[int, str]], names: Sequence[str]
) -> NDArray[np.bool_]:
    """Which rows of a source were retracted here: (run,) bool."""
    found = np.isin(source.ids, np.array([run for run, _ in pairs], dtype=np.int64))
    places = np.flatnonzero(found)
    known = set(pairs)
    digest = _digests(algorithm, source, places, names)
    found[places] = [pair in known for pair in pairs_of(source.ids[places], digest)]
    return found


def _digests(
    algorithm: Algorithm, source: Source, places: NDArray[np.int64], names: Sequence[str]
) -> NDArray[np.uint8]:
    """Digests that the rows at `places` have or would have here: (place, 16) uint8."""
    if source.digest is not None:
        return source.digest[places]
    found = [np.empty((0, DIGEST_BYTES), dtype=np.uint8)]
    for block in blocks(source, places):
        rows = _read(source, block, names)
        with np.errstate(over="ignore", invalid="ignore"):
            arrays = {
                spec.name: rows.arrays[spec.name].astype(spec.dtype, copy=False)
                for spec in algorithm.table.spec.rows()
            }
        found.append(row_digests(rows.run, arrays, algorithm.table.spec))
    return np.concatenate(found)


def _conflict_text(source: Source, conflicts: Sequence[int]) -> str:
    more = f" (and {len(conflicts) - 1} more runs)" if len(conflicts) > 1 else ""
    if source.format == "study":
        remedy = "keep one of the two, or ingest both studies into a new algorithm with '--sampling foreign', where their runs get ids of their own"
    else:
        remedy = "if these are other runs, number them from a free id with --first-run"
    return f"{source.path}: run {conflicts[0]} is stored with other content{more}; {remedy}"


def _read(source: Source, places: NDArray[np.int64], names: Sequence[str]) -> Rows:
    try:
        return source.read(places, names)
    except FAULTS as error:
        raise _SourceError(str(error)) from None


def _prepared(
    algorithm: Algorithm,
    source: Source,
    places: NDArray[np.int64],
    names: Sequence[str],
    reasons: dict[str, list[int]],
    most: int,
) -> Iterator[tuple[Rows, int]]:
    """Checked rows with their digests, block by block, and how many rows of the source each stands
    for; blocks are read and checked while those before them are encoded and written.
    """

    def prepare(block: NDArray[np.int64]) -> Rows:
        rows = _usable(algorithm, _read(source, block, names), source, reasons)
        if not len(rows):
            return rows
        try:
            rows = algorithm.complete(rows, str(source.path))
        except InputError as error:
            raise _SourceError(str(error)) from None
        spec = algorithm.table.spec
        return replace(rows, digest=row_digests(rows.run, rows.arrays, spec))

    waiting: deque[tuple[Future[Rows], int]] = deque()
    with ThreadPoolExecutor(_READERS) as pool:
        try:
            for block in blocks(source, places, most):
                waiting.append((pool.submit(prepare, block), len(block)))
                if len(waiting) > _READERS:
                    future, count = waiting.popleft()
                    yield future.result(), count
            for future, count in waiting:
                yield future.result(), count
        finally:
            pool.shutdown(cancel_futures=True)


def _usable(
    algorithm: Algorithm, rows: Rows, source: Source, reasons: dict[str, list[int]]
) -> Rows:
    """Rows that are runs; the others are noted by the reason."""
    keep = np.ones(len(rows), dtype=bool)

    def drop(right: Any, reason: str) -> None:
        runs = rows.run[keep & ~right].tolist()
        if runs:
            reasons.setdefault(reason, []).extend(runs)
        keep[~right] = False

    arrays = dict(rows.arrays)
    if source.zero_filled:
        drop(arrays["mask"].any(axis=1), "their masks are empty, as in rows that nobody wrote")
    for spec in algorithm.table.spec.outputs():
        if np.dtype(spec.dtype).kind != "f" or arrays[spec.name].dtype.kind not in "fiu":
            continue
        with np.errstate(over="ignore"):
            values = arrays[spec.name].astype(spec.dtype, copy=False)
        arrays[spec.name] = values
        drop(
            finite_rows(values),
            f"{spec.name} is NaN, infinite or too large for {spec.dtype}",
        )
        if source.zero_filled:
            drop(
                nonzero_rows(values),
                f"{spec.name} is zero on all targets, as where it was forgotten",
            )
    kept = Rows(rows.run, arrays, rows.columns)
    return kept if keep.all() else kept.take(keep)
