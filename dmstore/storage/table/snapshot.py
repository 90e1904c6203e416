"""A snapshot: which rows of a table are visible at one moment, and where they lie. Pure, but for its steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.errors import CorruptionError, FormatError, StudyNotFoundError
from dmstore.storage.objects.objects import ObjectInfo
from dmstore.storage.table import log
from dmstore.storage.table.protocol import Call, Entries, ReadBase, ReadInfos, Steps
from dmstore.storage.table.rows import DIGEST_BYTES, pairs_of
from dmstore.storage.table.segment import SegmentInfo

_ATTEMPTS = 50


@dataclass(frozen=True)
class BaseRows:
    """Ids (run,) int64 and digests (run, 16) uint8 of a base; `handle` is what the storage opened."""

    run: NDArray[np.int64]
    digest: NDArray[np.uint8]
    handle: Any = None


@dataclass(frozen=True)
class Snapshot:
    """The visible rows of a table.

    Attributes
    ----------
    manifest : Manifest
    base : BaseRows or None
    tail : tuple of SegmentInfo
        The segments that the base does not have, whether or not they show rows.
    run : (run,) int64
        Ids in order of arrival.
    digest : (run, 16) uint8
    places : tuple of (int, NDArray[np.int64])
        Where the rows lie: 0 for the base or 1 + the position in `tail`, and rows there.
    conflicts : tuple of (int, str)
        Rows that are stored but not shown, because another row has their id.
    conflicted : frozenset of str
        Segments that hold such rows.
    """

    manifest: log.Manifest
    base: BaseRows | None
    tail: tuple[SegmentInfo, ...]
    run: NDArray[np.int64]
    digest: NDArray[np.uint8]
    places: tuple[tuple[int, NDArray[np.int64]], ...]
    conflicts: tuple[tuple[int, str], ...]
    conflicted: frozenset[str]

    @classmethod
    def merge(
        cls, manifest: log.Manifest, base: BaseRows | None, tail: Sequence[SegmentInfo]
    ) -> Snapshot:
        """Merge a base and a tail of segments."""
        runs = [base.run if base else np.empty(0, np.int64)]
        digests = [base.digest if base else np.empty((0, DIGEST_BYTES), np.uint8)]
        runs += [info.run for info in tail]
        digests += [info.digest for info in tail]
        lengths = [len(part) for part in runs]
        place = np.repeat(np.arange(len(runs)), lengths)
        run, digest = np.concatenate(runs), np.concatenate(digests)
        first = np.cumsum([0, *lengths[:-1]])
        row = np.arange(len(run)) - first[place]
        keep, losers = resolve(run, digest, place == 0, dict.fromkeys(manifest.retracted))
        kept = np.flatnonzero(keep)
        bounds = np.searchsorted(place[kept], np.arange(len(runs) + 1))
        places = tuple(
            (number, row[kept[bounds[number] : bounds[number + 1]]].astype(np.int64))
            for number in range(len(runs))
            if bounds[number] < bounds[number + 1]
        )
        conflicts = tuple(sorted(pairs_of(run[losers], digest[losers])))
        conflicted = frozenset(tail[place[i] - 1].name for i in losers if place[i])
        return cls(
            manifest, base, tuple(tail), run[kept], digest[kept], places, conflicts, conflicted
        )

    def content_id(self) -> str:
        """sha256 over the sorted (id, digest) pairs: independent of chunks, order and history."""
        return content_id(self.run, self.digest)

    def needs_compaction(self) -> bool:
        """Whether a new base would differ from the one in force."""
        if not len(self.run):
            return bool(self.manifest.base and self.manifest.base.runs)
        if self.manifest.base is None or self.content_id() != self.manifest.base.content_id:
            return True
        return any(info.name not in self.conflicted for info in self.tail)


def snapshot_steps(
    prefix: str, known: MutableMapping[str, SegmentInfo], pause: Call
) -> Steps[Snapshot]:
    """Read a consistent snapshot.

    Parameters
    ----------
    prefix : str
        Of the table.
    known : mutable mapping
        What segments were found to hold before: they never change, so each is read once.
    pause : Call
        Waits a little before another try.

    Raises
    ------
    StudyNotFoundError
        If objects that the log refers to stay missing.
    CorruptionError, FormatError
        If a stored object is damaged or of another format.
    """
    missing = ""
    for _ in range(_ATTEMPTS):
        manifest = yield from log.newest_steps(prefix)
        hidden = {*manifest.absorbed, *manifest.removed}
        stored = yield Entries(f"{prefix}segments/")
        names = [name for name in segment_names(stored) if name not in hidden]
        if (yield from log.moved(prefix, manifest.version)):
            continue
        try:
            base = (yield ReadBase(manifest.base)) if manifest.base else None
            fresh = tuple(name for name in names if name not in known)
            if fresh:
                infos: list[SegmentInfo] = yield ReadInfos(fresh)
                known.update(zip(fresh, infos, strict=True))
        except (FileNotFoundError, CorruptionError, FormatError, KeyError) as error:
            # Vacuum was faster, or a network file system showed an old listing: look again.
            # What is damaged in earnest stays so while the log stands still.
            moved = yield from log.moved(prefix, manifest.version)
            if not moved and not isinstance(error, FileNotFoundError):
                raise
            missing = str(error)
            yield pause
        else:
            return Snapshot.merge(manifest, base, [known[name] for name in names])
    msg = f"{prefix}: {missing or 'the log keeps moving'}; the study was deleted or damaged"
    raise StudyNotFoundError(msg)


def segment_names(stored: Sequence[ObjectInfo]) -> list[str]:
    """Segments among objects, in order of time and name."""
    names = [info.name for info in stored if info.name.endswith(".zarr.zip")]
    return sorted(names, key=lambda name: name.rpartition("/")[2])


def resolve(
    run: NDArray[np.int64],
    digest: NDArray[np.uint8],
    in_base: NDArray[np.bool_],
    retracted: Mapping[tuple[int, str], None],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows to show (run,) bool, and the positions of those that lose a conflict.

    Of rows with one id and one digest the first is shown; of rows with one id and several digests
    that of the base, else the one with the smallest digest, so that clocks decide nothing.
    """
    keep = np.ones(len(run), dtype=bool)
    if retracted:
        ids = np.fromiter({pair[0] for pair in retracted}, dtype=np.int64)
        named = np.flatnonzero(np.isin(run, ids))
        keep[named] = [pair not in retracted for pair in pairs_of(run[named], digest[named])]
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
