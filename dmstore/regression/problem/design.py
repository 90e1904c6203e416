"""Sufficient statistics of a design: exact integer Grams, means, and products with outputs.

They add up over chunks, appends and folds, so that statistics of any union of groups of runs
follow from those of the groups.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.core.threads import blas_threads
from dmstore.regression.kernels import gradient, popcount

_CHUNK = 1024
# Runs whose products are summed in float32, if the outputs are.
_SUMMED = 256
# Rows of a Gram that a thread does at a time.
_ROWS = 4 * popcount.TILE
# Masks in all, up to which products cost little in float64 too.
_EXACT = 1 << 27
# Units whose products a thread works on at a time.
_UNITS = 1024
Words = NDArray[np.uint64]


class Design:
    """What a lasso needs to know of some runs' masks.

    Parameters
    ----------
    runs : int
    gram : (train, train) uint16 or int32, optional
        Runs that saw both units; the diagonal counts the runs that saw the unit.
    words : sequence of (train, words) uint64
        Masks packed along runs, unused bits 0, of the runs one after the other. One of the two must
        be given; where the Gram is not, it is counted when it is asked for.
    """

    def __init__(
        self, runs: int, gram: NDArray[Any] | None = None, words: Sequence[Words] = ()
    ) -> None:
        assert gram is not None or len(words)
        self.runs = runs
        self._words = [padded(group) for group in words]
        self._gram = gram

    @property
    def gram(self) -> NDArray[Any]:
        """Runs that saw both units: (train, train) uint16 or int32."""
        if self._gram is None:
            self._gram = count_gram(self._words)
        return self._gram

    @functools.cached_property
    def words(self) -> Words:
        """Masks packed along runs: (train, words) uint64."""
        return self._words[0] if len(self._words) == 1 else np.concatenate(self._words, axis=1)

    def outputs(self, moments: Moments, target: int) -> NDArray[Any]:
        """Outputs of the runs on one target, in the order of the bits of :attr:`words`; 0 for none."""
        found = np.zeros(bits.WORD * sum(group.shape[1] for group in self._words))
        place = 0
        for group, values in zip(self._words, moments.values, strict=True):
            found[place : place + len(values)] = values[:, target]
            place += bits.WORD * group.shape[1]
        return found

    @property
    def train(self) -> int:
        """Number of train units."""
        return len(self._words[0] if self._gram is None else self._gram)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Share of runs that saw each unit: (train,) float64."""
        if not self.runs:
            return np.zeros(self.train)
        seen = unit_counts(self._words) if self._gram is None else np.diagonal(self._gram)
        return seen / self.runs

    def __add__(self, other: Design) -> Design:
        most = int(
            (np.diagonal(self.gram).astype(np.int64) + np.diagonal(other.gram)).max(initial=0)
        )
        gram = np.add(self.gram, other.gram, dtype=gram_dtype(most))
        words = [*self._words, *other._words] if self._words and other._words else []
        return Design(self.runs + other.runs, gram, words)


@dataclass(frozen=True)
class Moments:
    """What a lasso needs to know of some runs' outputs.

    Attributes
    ----------
    runs : int
    product : (train, target) float64
        Sum over runs of mask times output.
    total : (target,) float64
        Sum of outputs.
    square : (target,) float64
        Sum of squared outputs.
    lowest, highest : (target,) float64
        Range of the outputs: equal where an output is constant.
    values : tuple of (bit, target) arrays
        The outputs themselves, group by group, in the order of the bits of their words.
    """

    runs: int
    product: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    values: tuple[NDArray[Any], ...] = ()

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.runs + other.runs,
            self.product + other.product,
            self.total + other.total,
            self.square + other.square,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
            (*self.values, *other.values),
        )


def padded(words: Words) -> Words:
    """Words in whole vectors, as the kernels take them; the same array where they are already."""
    count = max(1, -(-words.shape[1] // popcount.LANES)) * popcount.LANES
    if words.shape[1] == count:
        return np.ascontiguousarray(words)
    found = np.zeros((len(words), count), dtype=np.uint64)
    found[:, : words.shape[1]] = words
    return found


def unit_counts(words: Sequence[Words]) -> NDArray[np.int64]:
    """Runs of some groups that saw each unit: (train,) int64."""
    counts = [np.bitwise_count(group).sum(axis=1, dtype=np.int64) for group in words]
    return np.asarray(np.sum(counts, axis=0))


def gram_dtype(most: int) -> type[np.uint16 | np.int32]:
    """The narrowest dtype that holds counts up to `most`: half the traffic is half the time."""
    return np.uint16 if most <= np.iinfo(np.uint16).max else np.int32


def count_gram(
    words: Sequence[Words],
    *,
    into: NDArray[Any] | None = None,
    less: Sequence[Words] = (),
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[Any]:
    """Gram of the masks of some groups of runs, by popcount.

    Parameters
    ----------
    words : sequence of (train, words) uint64
        As :func:`padded` makes them.
    into : (train, train) uint16 or int32, optional
        A Gram to add to; the sum must fit its dtype.
    less : sequence of (train, words) uint64
        Groups whose counts are taken from `into`, which holds them.
    threads : int
    progress : callable, optional
        Called with pairs of units done and pairs in all.

    Returns
    -------
    (train, train) uint16 or int32
        Exact: the counts are integers.
    """
    if into is None:
        train = len(words[0])
        into = np.zeros((train, train), dtype=gram_dtype(int(unit_counts(words).max(initial=0))))
    train = len(into)
    signed = [(group, 1) for group in words] + [(group, -1) for group in less]
    # Rows of the upper triangle get shorter, so many small pieces keep the threads even.
    edges = list(itertools.pairwise([*range(0, train, _ROWS), train]))

    def work(piece: tuple[int, int]) -> int:
        for group, sign in signed:
            popcount.add_gram(group, *piece, into, sign)
        return piece[1]

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for done in pool.map(work, edges):
            if progress:
                progress(done * train - done * (done - 1) // 2, train * (train + 1) // 2)
    return into


def count_rows(words: Words, first: int, last: int, into: NDArray[Any], threads: int = 1) -> None:
    """Some rows of the Gram of a group of runs, all their columns, added to `into`.

    Parameters
    ----------
    words : (train, words) uint64
        As :func:`padded` makes them.
    first, last : int
    into : (last - first, train) uint16 or int32
    threads : int
    """

    def work(start: int) -> None:
        stop = min(start + popcount.TILE, last)
        popcount.add_rows(words, start, stop, into[start - first : stop - first])

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(work, range(first, last, popcount.TILE)))


def make_design(
    words: Words,
    runs: int,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Design:
    """The design of some runs, its Gram counted.

    Parameters
    ----------
    words : (train, ceil(run / 64)) uint64
        Masks packed along runs; unused bits 0.
    runs : int
    threads, progress
        See :func:`count_gram`.
    """
    words = padded(words)
    return Design(runs, count_gram([words], threads=threads, progress=progress), [words])


def make_moments(
    words: Words,
    outputs: NDArray[Any],
    shift: NDArray[np.float64],
    *,
    used: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> Moments:
    """Products of masks and outputs of some targets.

    Sums are in float64. Of float16 and float32 outputs and more than 134 million masks they are in
    float32 within 256 runs, and in float64 over these.

    Parameters
    ----------
    words : (train, words) uint64
    outputs : (run, target)
        In the order of the bits of the words; there may be fewer than bits.
    shift : (target,) float64
        Taken from the outputs first (any value near their mean), so that sums of squares keep
        their digits; statistics are of the shifted outputs.
    used : (run,) bool, optional
        Which of the runs there are; the bits of the others are 0.
    threads : int

    Returns
    -------
    Moments
    """
    train, targets = len(words), outputs.shape[1]
    exact = outputs.dtype == np.float64 or len(outputs) * train <= _EXACT
    narrow = np.float64 if exact else np.float32
    rounded = np.zeros(outputs.shape, dtype=narrow)

    def summary(start: int) -> tuple[int, NDArray[np.float64]]:
        part = slice(start, start + _SUMMED)
        whole = used is None or bool(used[part].all())
        there = slice(None) if whole or used is None else used[part]
        real = outputs[part][there].astype(np.float64)
        real -= shift
        rounded[part][there] = real
        # Reductions over no runs at all have no minimum: infinities add up right.
        return len(real), np.stack(
            [
                real.sum(axis=0),
                np.einsum("rt,rt->t", real, real),
                real.min(axis=0, initial=np.inf),
                real.max(axis=0, initial=-np.inf),
            ]
        )

    product = np.zeros((train, targets))

    def work(first: int) -> None:
        last = min(first + _UNITS, train)
        masks = np.empty((last - first, _SUMMED), dtype=narrow)
        for start in range(0, len(rounded), _SUMMED):
            part = rounded[start : start + _SUMMED]
            word = start // bits.WORD
            gradient.unpack(words[first:last], word, masks)
            product[first:last] += masks[:, : len(part)] @ part

    with blas_threads(1), ThreadPoolExecutor(max(1, threads)) as pool:
        runs, total, square = 0, np.zeros(targets), np.zeros(targets)
        lowest, highest = np.full(targets, np.inf), np.full(targets, -np.inf)
        # In the order of the runs, so that sums do not depend on the threads.
        for count, found in pool.map(summary, range(0, len(outputs), _SUMMED)):
            runs, total, square = runs + count, total + found[0], square + found[1]
            lowest, highest = np.minimum(lowest, found[2]), np.maximum(highest, found[3])
        list(pool.map(work, range(0, train, _UNITS)))
    return Moments(runs, product, total, square, lowest, highest, (rounded,))


class RunPacker:
    """Packs masks that come in blocks along the run axis, with one unpacked block in memory.

    Parameters
    ----------
    train : int
        Number of train units.
    """

    def __init__(self, train: int) -> None:
        self.runs = 0
        self._train = train
        self._parts: list[Words] = []
        self._waiting: list[NDArray[np.bool_]] = []

    def add(self, block: NDArray[np.bool_]) -> None:
        """Add masks: (run, train) bool."""
        self._waiting.append(np.asarray(block, dtype=bool))
        self.runs += len(block)
        count = sum(map(len, self._waiting))
        whole = count - count % bits.WORD
        if whole >= _CHUNK:
            merged = np.concatenate(self._waiting)
            self._parts.append(bits.pack_runs(merged[:whole]))
            self._waiting = [merged[whole:]]

    def finish(self) -> Words:
        """All words: (train, ceil(run / 64)) uint64."""
        parts = list(self._parts)
        if self._waiting:
            parts.append(bits.pack_runs(np.concatenate(self._waiting)))
        if not parts:
            return np.zeros((self._train, 0), dtype=np.uint64)
        return np.ascontiguousarray(np.concatenate(parts, axis=1))
