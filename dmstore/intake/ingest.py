"""Ingest: sources of runs into an algorithm, from many processes and hosts at once, idempotent.

All sources go one way. Their rows are compared with what is stored; a row that is stored with other content
refuses its source; new rows are stored. Workers' files are small and many: their rows are put together into
segments of a good size. Other sources are of any size: they are read block by block while the blocks before
are written. What a killed ingest stored stays stored, and the same call goes on from there.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import listed
from dmstore.core.progress import Progress, counting
from dmstore.errors import InputError
from dmstore.intake.copies import Copies
from dmstore.intake.finding import find_sources
from dmstore.intake.judging import Destination, Judge, RefusedError, Skipped, check_fit, usable
from dmstore.readers.source import FAULTS, Request, Source, blocks
from dmstore.storage.acts.fill import fill
from dmstore.storage.table import segment
from dmstore.storage.table.rows import DIGEST_BYTES, Rows, column_key, concatenate, row_digests
from dmstore.storage.table.view import BLOCK
from dmstore.study.algorithm import Algorithm
from dmstore.study.display import counted, first_few
from dmstore.study.study import Study, check_opened
from dmstore.study.target_outputs import TargetOutputs

# Rows of small files that are put together.
BATCH_RUNS = 512
BATCH_BYTES = 64 << 20
# Segments written, and blocks read, at a time.
_WRITERS = 2
_READERS = 2


@dataclass
class Ingest:
    """What an ingest did, in rows.

    Attributes
    ----------
    files : int
        Files and sources looked at.
    new, present, conflicting, refused : int
        Rows stored now; there already with the same content; there with other content; in files
        that were refused for another reason, or beside a conflicting row.
    skipped : int
        Rows of sources that are no runs: NaN or infinite outputs, or zeros that nobody wrote; and
        rows that were retracted here.
    sources : list of dict
        ``path``, ``format`` and ``title`` of everything that is no worker's file.
    errors, warnings : list of str
        One line a refused file or source; one line a reason for which something was left out.
    """

    files: int = 0
    new: int = 0
    present: int = 0
    conflicting: int = 0
    refused: int = 0
    skipped: int = 0
    sources: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def recognise(self, source: Source) -> None:
        """Note what a source is, unless it is one of many, and what of it is left out."""
        if source.title:
            about = {"path": str(source.path), "format": source.format, "title": source.title}
            self.sources.append(about)
        self.warnings += [f"{source.path}: {note}" for note in source.notes]

    def refuse(self, error: str, conflicting: int = 0, beside: int = 0) -> None:
        """Note a source that is refused: its conflicting rows, and those beside them."""
        self.errors.append(error)
        self.conflicting += conflicting
        self.refused += beside

    def skip(self, source: Source, runs: Sequence[int], reason: str) -> None:
        """Note runs of a source that are left out for one reason."""
        self.skipped += len(runs)
        self.warnings.append(
            f"{source.path}: {counted(len(runs), 'run')} skipped, {reason} (run {first_few(runs)})"
        )


def ingest(
    study: Study,
    algorithm: str,
    sources: Iterable[str | Path],
    *,
    target_set: str | None = None,
    format: str = "auto",
    outputs: Mapping[str, str] | None = None,
    mask: str | None = None,
    mask_bitorder: str | None = None,
    without: Sequence[str] = (),
    percent: int | None = None,
    source_algorithm: str | None = None,
    first_run: int = 0,
    lists: str | None = None,
    say: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Ingest:
    """Store the runs of workers' files and of other sources. Doing it again changes nothing.

    A worker's file is taken whole or refused whole; another source is refused whole if a row of it
    is stored with other content. Rows that are there already are counted and left alone, so that the
    same call may be repeated after a kill.

    Parameters
    ----------
    study : Study
    algorithm : str
        Where the runs go.
    sources : iterable of path
        Workers' ``.npz`` files, directories that are searched for them, and what other tools wrote.
    target_set : str, optional
        The sources are workers' files with outputs of stored runs on this later target set, and no masks.
    format : str
        One of :data:`dmstore.readers.FORMATS`, or ``auto``.
    outputs : mapping, optional
        Output name to the key (array, field or file) of a source that holds it.
    mask : str, optional
        The key of the masks in a source.
    mask_bitorder : {"little", "big"}, optional
        Of packed masks, where a source does not say it (``mask_bitorder``) and nothing else proves it.
    without : sequence of str
        Keys of arrays of the sources that are not to be taken.
    percent : int, optional
        Which of several subsampling fractions of a source.
    source_algorithm : str, optional
        Which algorithm of another study.
    first_run : int
        Run id of the first row, where a source numbers its rows by position.
    lists : {"seen", "left-out"}, optional
        What lists of train units in place of masks hold, where a source does not say it.
    say : callable, optional
        Called with a line on each source that was recognised.
    progress : callable, optional
        Called with ``ingest``, what is done and what there is in all: workers' files, and runs of sources.

    Returns
    -------
    Ingest
        How many runs are new, present, conflicting, refused and skipped, with a line on each error.

    Raises
    ------
    InputError
        If there is no file at all.
    NotFoundError
        If the study has no algorithm or target set of this name.
    StorageError
        If the file system refuses; what was stored before stays stored.
    """
    check_opened(study)
    named = listed.pairs(outputs, "outputs")
    later = study.target_outputs(algorithm, target_set) if target_set else None
    into = study.algorithm(algorithm)
    request = Request(
        outputs=named,
        mask=mask,
        bitorder=mask_bitorder,
        without=listed.texts(without, "without"),
        percent=percent,
        algorithm=source_algorithm,
        first_run=first_run,
        lists=lists,
        units=functools.partial(study.target_train, into.target_set),
    )
    return take_in(
        into,
        sources,
        format=format,
        request=request,
        say=say,
        outputs=later,
        progress=progress,
    )


def take_in(
    algorithm: Algorithm,
    sources: Iterable[str | Path],
    *,
    format: str = "auto",
    request: Request | None = None,
    say: Callable[[str], None] | None = None,
    outputs: TargetOutputs | None = None,
    progress: Progress | None = None,
) -> Ingest:
    """Store the runs of sources in an algorithm, or in its `outputs` on a later target set; see :func:`ingest`."""
    into: Destination = outputs or algorithm
    wanted = replace(request or Request(), into=algorithm, table=into.table, train=algorithm.train)
    queue, errors, notes = find_sources(sources, "npz" if outputs else format, wanted, say)
    result = Ingest(files=len(errors), errors=errors, warnings=notes)
    for source in queue:
        result.recognise(source)
    total = sum(1 if source.whole else len(source.ids) for source in queue)
    done, tell = 0, counting(progress, "ingest")

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    into.make_room()
    with ThreadPoolExecutor(_WRITERS) as pool:
        intake = _Intake(into, result, advance, pool)
        while queue:
            # Each is let go of: a file that was read is in memory.
            intake.take(queue.popleft())
        intake.flush()
    intake.tell_what_many_have()
    return result


@dataclass
class _Intake:
    """Takes sources one after the other, and decides on their rows."""

    into: Destination
    result: Ingest
    advance: Callable[[int], None]
    pool: ThreadPoolExecutor
    gathered: list[Rows] = field(default_factory=list)
    runs: int = 0
    size: int = 0
    writing: deque[tuple[Future[Any] | None, int, int]] = field(default_factory=deque)
    # By the note, sources that were taken whole.
    noted: dict[str, list[Path]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.copies = Copies(self.into.table.spec)

    @functools.cached_property
    def judge(self) -> Judge:
        """Knows what is stored; made anew where that may have changed."""
        return Judge(self.into)

    def take(self, source: Source) -> None:
        """Store the rows of a source that are not there yet, or note why not."""
        skipped: Skipped = {}
        self.result.files += 1
        if not source.whole:
            self.flush()
        before = self.result.new + self.result.present
        try:
            if source.whole:
                self._take_whole(source, skipped)
            else:
                self._take_blocks(source, skipped)
        except RefusedError as error:
            self.result.refuse(str(error), error.conflicting, error.beside)
        else:
            none = self.result.new + self.result.present == before
            if not source.whole and none and self.into.retracted_note not in skipped:
                # A source that gives nothing must not look like one that was taken.
                self.result.refuse(
                    f"{source.path}: none of its {counted(len(source.ids), 'run')} was taken ({'; '.join(sorted(skipped))}); write them again, or name the right arrays"
                )
        for reason, runs in sorted(skipped.items(), key=lambda entry: min(entry[1])):
            self.result.skip(source, sorted(runs), reason)
        if source.whole:
            self.advance(1)

    def tell_what_many_have(self) -> None:
        """Note what was read in another way than it stands there, and runs that are copies of others."""
        for note, paths in self.noted.items():
            more = f" (and {counted(len(paths) - 1, 'more file')})" if len(paths) > 1 else ""
            self.result.warnings.append(f"{paths[0]}{more}: {note}")
        if pairs := self.copies.pairs:
            run, other = min(pairs.items())
            those = "a copy" if len(pairs) == 1 else "copies"
            self.result.warnings.append(
                f"{counted(len(pairs), 'new run')} {'is' if len(pairs) == 1 else 'are'} {those} of runs of other ids, mask and outputs "
                f"bit by bit (run {run} is run {other}); where they are the same models they count twice, and 'dmstore retract' takes them out"
            )

    def _take_whole(self, source: Source, skipped: Skipped) -> None:
        rows = self._checked(source, None, skipped)
        assert rows.digest is not None
        fresh, present = self.judge.compare(source, rows.run, rows.digest.__getitem__, skipped)
        self.result.present += present
        if len(fresh):
            self.judge.check_columns(rows, source)
        source.accept()
        for note in source.notes:
            self.noted.setdefault(note, []).append(source.path)
        if len(fresh):
            new = rows.take(fresh)
            self.copies.note(new, self.judge.by_mask)
            self._gather(new)

    def _take_blocks(self, source: Source, skipped: Skipped) -> None:
        check_fit(source, self.into.table)
        fresh = self._judge_anew(source, skipped)
        source.accept()
        if self.judge.empty and len(fresh) == len(source.ids):
            if self._fill(source, skipped):
                return
            # Somebody may have stored rows meanwhile, perhaps these.
            fresh = self._judge_anew(source, skipped)
        try:
            for rows, count in self._prepared(source, fresh, skipped, segment.MAX_ROWS):
                self._store(rows, count)
        finally:
            # A source that fails half-way does not undo what is being written.
            self._settle()

    def _judge_anew(self, source: Source, skipped: Skipped) -> NDArray[np.int64]:
        """Places of rows that are new to the table as it is now; the others are dealt with."""
        self.flush()
        self.judge = Judge(self.into)
        digests = functools.partial(self._digests, source)
        fresh, present = self.judge.compare(source, source.ids, digests, skipped)
        self.result.present += present
        self.advance(len(source.ids) - len(fresh))
        return fresh

    def _digests(self, source: Source, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Digests that the rows at `places` have or would have here: (place, 16) uint8."""
        if source.digest is not None:
            return source.digest[places]
        parts = [np.empty((0, DIGEST_BYTES), dtype=np.uint8)]
        for block in blocks(source, places):
            rows = self._read(source, block)
            with np.errstate(over="ignore", invalid="ignore"):
                arrays = {
                    spec.name: rows.arrays[spec.name].astype(spec.dtype, copy=False)
                    for spec in self.into.table.spec.rows()
                }
            parts.append(row_digests(rows.run, arrays, self.into.table.spec))
        return np.concatenate(parts)

    def _read(self, source: Source, places: NDArray[np.int64] | None) -> Rows:
        try:
            if places is None:
                source.load()
                places = np.arange(len(source.ids))
            return source.read(places, [spec.name for spec in self.into.table.spec.outputs()])
        except FAULTS as error:
            raise RefusedError(str(error), beside=source.claimed) from None

    def _checked(self, source: Source, places: NDArray[np.int64] | None, skipped: Skipped) -> Rows:
        """Rows at `places` (None: all) as they can be stored, with their digests."""
        rows = self._read(source, places)
        if not source.whole:
            rows = usable(rows, self.into.table.spec, skipped, zero_filled=source.zero_filled)
            if not len(rows):
                return rows
        try:
            rows = self.into.complete(rows, str(source.path))
        except InputError as error:
            raise RefusedError(str(error), beside=source.claimed) from None
        return replace(rows, digest=row_digests(rows.run, rows.arrays, self.into.table.spec))

    def _prepared(
        self, source: Source, places: NDArray[np.int64], skipped: Skipped, most: int
    ) -> Iterator[tuple[Rows, int]]:
        """Checked rows block by block, and how many rows of the source each stands for; blocks are
        read and checked while those before them are encoded and written.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            begun = (
                (pool.submit(self._checked, source, block, skipped), len(block))
                for block in blocks(source, places, most)
            )
            waiting = deque(itertools.islice(begun, _READERS))
            try:
                while waiting:
                    waiting.extend(itertools.islice(begun, 1))
                    future, count = waiting.popleft()
                    rows = future.result()
                    self.judge.check_columns(rows, source)
                    self.copies.note(rows, self.judge.by_mask)
                    yield rows, count
            finally:
                pool.shutdown(cancel_futures=True)

    def _fill(self, source: Source, skipped: Skipped) -> bool:
        """Store a source as the first base, all at once; False if it must be appended."""
        count = len(source.ids)
        done = 0

        def progress(now: int, _: int) -> None:
            nonlocal done
            self.advance(now - done)
            done = now

        parts = self._prepared(source, np.arange(count), skipped, BLOCK)
        manifest = fill(self.into.table, (rows for rows, _ in parts if len(rows)), count, progress)
        if manifest is None or manifest.base is None:
            skipped.clear()
            progress(0, count)
            return False
        self.result.new += manifest.base.runs
        progress(count, count)
        return True

    def _gather(self, rows: Rows) -> None:
        """Put rows of small files together into segments of a good size."""
        self.judge.expect(rows)
        self.gathered.append(rows)
        self.runs += len(rows)
        self.size += sum(values.nbytes for values in rows.arrays.values())
        if self.runs >= BATCH_RUNS or self.size >= BATCH_BYTES:
            self._store_gathered()

    def _store_gathered(self) -> None:
        groups: dict[tuple[tuple[str, str], ...], list[Rows]] = {}
        for rows in self.gathered:
            groups.setdefault(column_key(rows), []).append(rows)
        self.gathered, self.runs, self.size = [], 0, 0
        for parts in groups.values():
            # In the order of the files, while the next ones are read.
            self._settle()
            self._store(concatenate(parts), 0)

    def _store(self, rows: Rows, steps: int) -> None:
        """Begin to store rows, which stand for so many steps of the progress."""
        future = self.pool.submit(self.into.table.append, rows) if len(rows) else None
        self.writing.append((future, len(rows), steps))
        self._settle(_WRITERS)

    def _settle(self, most: int = 0) -> None:
        """Wait until no more than so many segments are being written."""
        while len(self.writing) > most:
            future, count, steps = self.writing.popleft()
            if future:
                future.result()
            self.result.new += count
            if steps:
                self.advance(steps)

    def flush(self) -> None:
        """Store what was put together; it is acknowledged when this returns."""
        self._store_gathered()
        self._settle()
