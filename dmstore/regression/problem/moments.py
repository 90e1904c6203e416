"""Sufficient statistics of outputs: products with masks, sums, ranges; they add up over groups of runs."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core import bits
from dmstore.core.threads import blas_threads
from dmstore.regression.kernels import gradient
from dmstore.regression.problem.packing import Words

# Runs whose products are summed in float32, if the outputs are.
_SUMMED = 256


# Masks in all, up to which products cost little in float64 too.
_EXACT = 1 << 27


# Units whose products a thread works on at a time.
_UNITS = 1024


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
        for count, partial in pool.map(summary, range(0, len(outputs), _SUMMED)):
            runs, total, square = runs + count, total + partial[0], square + partial[1]
            lowest, highest = np.minimum(lowest, partial[2]), np.maximum(highest, partial[3])
        list(pool.map(work, range(0, train, _UNITS)))
    return Moments(runs, product, total, square, lowest, highest, (rounded,))


def centred(
    moments: Moments, mean: NDArray[np.float64], target: int
) -> tuple[float, NDArray[np.float64]]:
    """Mean of one output, and its covariance with the masks: (train,) float64."""
    runs = max(moments.runs, 1)
    output = float(moments.total[target]) / runs
    moment = moments.product[:, target] / runs - mean * output
    # Nothing covaries with what never changes; sums in float32 would say that it does a little.
    still = moments.lowest[target] == moments.highest[target]
    moment[still | (mean <= 0.0) | (mean >= 1.0)] = 0.0
    return output, moment


def add(parts: Sequence[Moments]) -> Moments:
    """The moments of all runs of some groups."""
    return functools.reduce(operator.add, parts)
