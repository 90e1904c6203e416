"""Sufficient statistics of a design: exact integer Grams, means, and products with outputs.

They add up over chunks, appends and folds, so that statistics of any union of groups of runs
follow from those of the groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore import bits
from dmstore.regression import kernels

_CHUNK = 1024


@dataclass(frozen=True)
class Design:
    """What a lasso needs to know of some runs' masks.

    Attributes
    ----------
    runs : int
    gram : (train, train) int32
        Runs that saw both units; the diagonal counts the runs that saw the unit.
    """

    runs: int
    gram: NDArray[np.int32]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Share of runs that saw each unit: (train,) float64."""
        return np.diagonal(self.gram) / self.runs if self.runs else np.zeros(len(self.gram))

    def __add__(self, other: Design) -> Design:
        return Design(self.runs + other.runs, self.gram + other.gram)


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
    """

    runs: int
    product: NDArray[np.float64]
    total: NDArray[np.float64]
    square: NDArray[np.float64]
    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.runs + other.runs,
            self.product + other.product,
            self.total + other.total,
            self.square + other.square,
            np.minimum(self.lowest, other.lowest),
            np.maximum(self.highest, other.highest),
        )


def make_design(
    words: NDArray[np.uint64],
    runs: int,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Design:
    """Gram of masks by popcount.

    Parameters
    ----------
    words : (train, ceil(run / 64)) uint64
        Masks packed along runs; unused bits 0.
    runs : int
    threads : int
    progress : callable, optional
        Called with rows done and rows in all.

    Returns
    -------
    Design
        Exact: the counts are integers.
    """
    train = len(words)
    gram = np.zeros((train, train), dtype=np.int32)
    # Rows of the upper triangle get shorter, so many small pieces keep the threads even.
    edges = [*range(0, train, kernels.TILE * 4), train]
    pieces = list(itertools.pairwise(edges))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        jobs = [pool.submit(kernels.gram_rows, words, first, last, gram) for first, last in pieces]
        for done, job in enumerate(jobs, 1):
            job.result()
            if progress:
                progress(min(done * kernels.TILE * 4, train), train)
    lower = np.tril_indices(train, -1)
    gram[lower] = gram.T[lower]
    return Design(runs, gram)


def make_moments(
    words: NDArray[np.uint64], outputs: NDArray[Any], shift: NDArray[np.float64]
) -> Moments:
    """Products of masks and outputs of some targets, in float64.

    Parameters
    ----------
    words : (train, ceil(run / 64)) uint64
    outputs : (run, target)
    shift : (target,) float64
        Taken from the outputs first (any value near their mean), so that sums of squares keep
        their digits; statistics are of the shifted outputs.

    Returns
    -------
    Moments
    """
    runs, targets = outputs.shape
    values = outputs.astype(np.float64) - shift
    product = np.zeros((len(words), targets))
    for start in range(0, runs, _CHUNK):
        stop = min(start + _CHUNK, runs)
        chunk = bits.unpack_runs(words[:, start // bits.WORD : -(-stop // bits.WORD)], stop - start)
        product += chunk.T.astype(np.float64) @ values[start:stop]
    # Reductions over no runs at all have no minimum: infinities add up right.
    return Moments(
        runs,
        product,
        values.sum(axis=0),
        (values**2).sum(axis=0),
        values.min(axis=0, initial=np.inf),
        values.max(axis=0, initial=-np.inf),
    )


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
        self._parts: list[NDArray[np.uint64]] = []
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

    def finish(self) -> NDArray[np.uint64]:
        """All words: (train, ceil(run / 64)) uint64."""
        parts = list(self._parts)
        if self._waiting:
            parts.append(bits.pack_runs(np.concatenate(self._waiting)))
        if not parts:
            return np.zeros((self._train, 0), dtype=np.uint64)
        return np.ascontiguousarray(np.concatenate(parts, axis=1))
