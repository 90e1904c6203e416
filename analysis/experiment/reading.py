"""The runs of a study as arms: which half each mask is in, what was seen and what was said."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.analysis.experiment.arms import Arm, Halves, MaskSet, check_enough, fixed_share
from dmstore.errors import InputError
from dmstore.regression.fitting.fit_document import pinned
from dmstore.regression.fitting.run_groups import RowGroups
from dmstore.regression.problem.block_arrays import check_scale
from dmstore.storage.table.tiles import Tiles
from dmstore.storage.table.view import BLOCK, View
from dmstore.study.algorithm import Algorithm
from dmstore.study.study import Study

# Masks whose outputs are brought to their bits at a time.
_MASKS = 1024


@dataclass(frozen=True)
class Pinned:
    """An algorithm and the base of its runs that is measured on.

    Attributes
    ----------
    algorithm : Algorithm
    view : View
    content_id : str
        Of all its runs.
    """

    algorithm: Algorithm
    view: View
    content_id: str


def pin(study: Study, name: str) -> Pinned:
    """The runs that there are now, as one base.

    Raises
    ------
    InputError
        If there are fewer than 20 runs, or all are for evaluation.
    """
    algorithm = study.algorithm(name)
    if algorithm.is_eval_only:
        msg = f"algorithm {name!r} was added for evaluation only ('--split eval'), so no half of its runs may measure; compare another"
        raise InputError(msg)
    view = pinned(study, algorithm)
    assert view.manifest.base is not None
    return Pinned(algorithm, view, view.manifest.base.content_id)


class _Rows:
    """Rows of an algorithm's runs by half and mask."""

    def __init__(
        self,
        pinned_: Pinned,
        output: str,
        positions: NDArray[np.int64] | None = None,
        threads: int = 1,
    ) -> None:
        self._positions = positions
        self._threads = threads
        self.algorithm, self.view, self.output = pinned_.algorithm, pinned_.view, output
        mask_id = self.view.read(["mask_id"])["mask_id"]
        kept = self.algorithm.split(mask_id) != "eval"
        half = self.algorithm.half(mask_id)
        self.rows = [np.flatnonzero(kept & (half == h)) for h in (0, 1)]
        # Of each mask its runs in order, and the first of them.
        self.ids, self.first, self.runs, self.starts = [], [], [], []
        for rows in self.rows:
            ids, first = np.unique(mask_id[rows], return_index=True)
            order = np.argsort(mask_id[rows], kind="stable")
            sorted_ids = mask_id[rows][order]
            self.ids.append(ids)
            self.first.append(rows[first])
            self.runs.append(rows[order])
            self.starts.append(np.searchsorted(sorted_ids, ids))
        self._block: tuple[tuple[int, int], NDArray[Any], NDArray[np.float64]] | None = None
        # Both halves ask for a block at the same time.
        self._reading = Lock()

    def groups(self) -> RowGroups:
        """One run of each mask, in the order of the base, as masks are read."""
        dtype = np.dtype(self.algorithm.outputs[self.output]["dtype"])
        return RowGroups(
            self.view,
            self.output,
            self.output,
            dtype.itemsize,
            self.algorithm.train,
            [np.sort(first) for first in self.first],
        )

    def said(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Outputs of all runs on some targets, and a value near their mean; the last block is kept."""
        with self._reading:
            if self._block is None or self._block[0] != (start, stop):
                # Before the next is read: a block of many runs is large.
                self._block = None
                values = self._read(start, stop)
                used = np.zeros(len(values), dtype=bool)
                used[np.concatenate(self.rows)] = True
                name = f"{self.output} of {self.algorithm.name!r}"
                check_scale(values, used, name, start)
                shift = values.mean(axis=0, dtype=np.float64, where=used[:, None])
                self._block = ((start, stop), values, shift)
            return self._block[1:]

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        tiles = self.view.tiles(self.output)
        if self._positions is None:
            return self._in_parts(tiles, start, stop)
        chosen = self._positions[start:stop]
        width = tiles.chunk[1]
        parts = []
        for chunk in np.unique(chosen // width).tolist():
            inside = chosen[chosen // width == chunk]
            low = int(inside[0])
            parts.append(self._in_parts(tiles, low, int(inside[-1]) + 1)[:, inside - low])
        return np.concatenate(parts, axis=1)

    def _in_parts(self, tiles: Tiles, start: int, stop: int) -> NDArray[Any]:
        """All runs on some targets; threads share the shards."""
        runs = len(self.view)
        values = np.empty((runs, stop - start), dtype=tiles.dtype)

        def some(low: int) -> None:
            part = slice(low, min(low + BLOCK, runs))
            values[part] = tiles.read((part, slice(start, stop)))

        places = range(0, runs, BLOCK)
        if self._threads == 1 or len(places) == 1:
            for low in places:
                some(low)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(some, places))
        return values

    def outputs(
        self, half: int, bit: NDArray[np.int64], size: int
    ) -> Callable[[int, int], NDArray[np.floating]]:
        """Means over the runs of each mask, at the mask's bit."""
        runs, starts = self.runs[half], self.starts[half]
        ends = np.append(starts[1:], len(runs))

        def read(start: int, stop: int) -> NDArray[np.floating]:
            values, shift = self.said(start, stop)
            placed = np.zeros((stop - start, size), dtype=np.float32)
            for low in range(0, len(starts), _MASKS):
                part = slice(low, low + _MASKS)
                first, last = starts[part], ends[part]
                # Some masks at a time, so that what is in float64 stays in a cache.
                some = values[runs[first[0] : last[-1]]] - shift
                if len(some) != len(first):
                    count = (last - first)[:, None]
                    some = np.add.reduceat(some, first - first[0], axis=0) / count
                placed[:, bit[part]] = some.T
            return placed.T

        return read


def read_arms(
    study: Study,
    pinned_: tuple[Pinned, ...],
    output: str,
    *,
    threads: int = 1,
    positions: NDArray[np.int64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Halves]:
    """Runs of one or more algorithms in halves; algorithms that were trained on the same masks share them.

    Parameters
    ----------
    study : Study
    pinned_ : tuple of Pinned
    output : str
    threads : int
    positions : (target,) int64, optional
        Only these targets, ascending; all without.
    progress : callable, optional
        Called with pieces of masks read and pieces in all, of each algorithm.

    Raises
    ------
    InputError
        If a half has too few masks, or an output is not finite.
    """
    rows = [_Rows(one, output, positions, threads) for one in pinned_]
    # The one with most masks first: the others' may be among them.
    order = sorted(range(len(rows)), key=lambda k: -sum(map(len, rows[k].ids)))
    kept: list[tuple[_Rows, list[MaskSet]]] = []
    made: dict[int, Halves] = {}
    for place in order:
        mine = rows[place]
        masks = next((sets for other, sets in kept if _among(mine, other)), None)
        if masks is None:
            groups = mine.groups()
            words = groups.words(threads, progress)
            masks = []
            for h in (0, 1):
                row = groups.order[h]
                ids = np.full(len(row), -1, dtype=np.int64)
                by_row = dict(zip(mine.first[h].tolist(), mine.ids[h].tolist(), strict=True))
                ids[row >= 0] = [by_row[r] for r in row[row >= 0].tolist()]
                masks.append(MaskSet(words[h], ids))
            kept.append((mine, masks))
        rate = _rate(mine.algorithm, masks)
        unit = study.target_train(mine.algorithm.target_set)
        unit = unit if positions is None else unit[positions]
        fixed = 1.0 if mine.algorithm.planned else fixed_share(tuple(masks), rate)
        arms = tuple(_arm(mine, h, masks[h], rate, unit, fixed) for h in (0, 1))
        made[place] = (arms[0], arms[1])
        check_enough(made[place], mine.algorithm.name)
    return [made[k] for k in range(len(rows))]


def _among(mine: _Rows, other: _Rows) -> bool:
    """Whether all masks of one algorithm are masks of another."""
    if not mine.algorithm.shares_masks(other.algorithm):
        return False
    return all(np.isin(a, b).all() for a, b in zip(mine.ids, other.ids, strict=True))


def _arm(
    rows: _Rows,
    half: int,
    masks: MaskSet,
    rate: NDArray[np.float64],
    unit: NDArray[np.int64],
    fixed: float,
) -> Arm:
    order = np.argsort(masks.mask_id, kind="stable")
    bit = order[np.searchsorted(masks.mask_id, rows.ids[half], sorter=order)]
    used = np.zeros(len(masks.mask_id), dtype=bool)
    used[bit] = True
    return Arm(masks, used, rate, rows.outputs(half, bit, len(used)), unit, fixed)


def _rate(algorithm: Algorithm, masks: list[MaskSet]) -> NDArray[np.float64]:
    """How often each unit is seen: planned masks have one size, of others it is counted."""
    train = algorithm.train
    if algorithm.planned and algorithm.alpha is not None:
        return np.full(train, int(algorithm.alpha * train) / train)
    seen = sum(np.bitwise_count(one.words).sum(axis=1, dtype=np.int64) for one in masks)
    return np.asarray(seen / max(1, sum(int((one.mask_id >= 0).sum()) for one in masks)))
