"""Sufficient statistics of a design: exact integer Grams, means, and products with outputs.

They add up over chunks, appends and folds, so that statistics of any union of groups of runs
follow from those of the groups.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.regression.kernels import popcount
from dmstore.regression.problem.moments import Moments
from dmstore.regression.problem.packing import Words, padded

# Rows of a Gram that a thread does at a time.
_ROWS = 4 * popcount.TILE


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
        per_bit = np.zeros(bits.WORD * sum(group.shape[1] for group in self._words))
        place = 0
        for group, values in zip(self._words, moments.values, strict=True):
            per_bit[place : place + len(values)] = values[:, target]
            place += bits.WORD * group.shape[1]
        return per_bit

    def with_gram(self, gram: NDArray[Any]) -> Design:
        """The same runs, with their Gram known."""
        return Design(self.runs, gram, self._words)

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
