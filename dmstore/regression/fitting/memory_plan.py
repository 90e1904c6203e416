"""What a fit does with the memory that it may take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmstore.core.memory import available, scratch_array
from dmstore.errors import InputError
from dmstore.regression.fitting.blocks import TARGETS
from dmstore.regression.problem.design import gram_dtype
from dmstore.regression.solvers import unpenalised

# What Python, the libraries and compiled kernels take.
_PROCESS = 400 << 20
# What a thread takes beside its working set, and what that should have at least before a Gram has any.
_THREAD, _WORKING = 96 << 20, 192 << 20


@dataclass(frozen=True)
class Room:
    """A plan of the memory.

    Attributes
    ----------
    stages : int
        Stages that make a pass: there is room for a Gram of each.
    allocate : callable
        Given a number of train units and a dtype, a Gram of zeros.
    working : int
        Bytes for the working sets of all threads.
    """

    stages: int
    allocate: Callable[[int, Any], NDArray[Any]]
    working: int


@dataclass(frozen=True)
class Need:
    """What a fit needs memory for.

    Attributes
    ----------
    words : sequence of int
        Bytes of the packed masks of each group of runs.
    train : int
        Number of train units.
    runs : int
        In all groups.
    most : int
        Most runs that saw one unit.
    raw : int
        Bytes of an output.
    stages : int
        In all.
    results : int
        Arrays of (target, train) float32 that are found.
    kept : int
        Bytes of results that stay in memory beside the fit.
    folds, lam0, shared, own, whole : bool
        Whether folds choose lam; lam is 0; any target is fitted on shared runs, and any on its own; the
        solver takes a block through all stages at once.
    """

    words: Sequence[int]
    train: int
    runs: int
    most: int
    raw: int
    stages: int
    results: int
    kept: int
    folds: bool
    lam0: bool
    shared: bool
    own: bool
    whole: bool

    @property
    def block(self) -> int:
        """Bytes for a block of targets: products of the groups, outputs and results."""
        # Sums of two groups stand beside both, and with folds beside those that lam_max needs.
        products = 8 * self.train * (len(self.words) + (6 if self.folds else 4))
        # As they are, and in the order of the bits; rounded while products are made, and of runs that
        # choose lam. On own designs they are in float64.
        narrow = 8 if self.raw == 8 else 4
        outputs = self.runs * (2 * self.raw + 2 * narrow + (16 if self.own else 0))
        return TARGETS * (products + outputs + 4 * self.train * self.results)

    def beside(self, threads: int) -> int:
        """Bytes for all but Grams and working sets."""
        # Groups that choose lam are joined, and so are twice there: all folds, or the holdout's parts.
        joined = self.words if self.folds else self.words[len(self.words) // 2 :]
        # On own designs a thread has the packed masks of its working set, twice where that grows.
        rows = 2 * threads * sum(self.words) if self.own else 0
        packed = sum(self.words) + sum(joined) + rows
        return packed + self.block + self.kept + threads * _THREAD + _PROCESS

    def unpenalised(self, threads: int) -> int:
        """Bytes for decompositions without a penalty: while one is made, and each thread's on own designs."""
        if not self.lam0:
            return 0
        whole = unpenalised.KEPT + unpenalised.MEANWHILE + 4
        return (unpenalised.MEANWHILE + (threads * whole if self.own else 0)) * self.train**2

    @property
    def gram(self) -> int:
        """Bytes of a Gram, with what is made of it."""
        each = np.dtype(gram_dtype(self.most)).itemsize + (unpenalised.KEPT if self.lam0 else 0)
        return each * self.train**2


def plan(need: Need, memory: int | None, threads: int, scratch: str | Path | None) -> Room:
    """Divide memory: Grams for as many stages at once as have room, the rest for working sets.

    Where no `memory` is given it is what is free, or what one Gram and all else need, if that is more.

    Raises
    ------
    InputError
        If it is less than what is needed beside the Grams.
    """
    beside = need.beside(threads)
    meanwhile = need.unpenalised(threads)
    if memory is None:
        memory = max(available(), beside + meanwhile + need.gram + threads * _WORKING)
    if memory < beside:
        msg = (
            f"{memory / 1e9:.2g} GB of memory are too little: {math.ceil(beside / 1e8) / 10} GB are needed beside "
            f"the Grams, which may lie on scratch; give that with --memory, or fewer --threads"
        )
        raise InputError(msg)
    takes = meanwhile + (unpenalised.KEPT * need.train**2 if need.shared else 0)
    if need.lam0 and memory < beside + takes:
        msg = (
            f"{memory / 1e9:.1f} GB of memory are too little: lam 0 takes {takes / 1e9:.1f} GB beside "
            f"{beside / 1e9:.1f}; give more with --memory, fewer --threads or a positive --lam"
        )
        raise InputError(msg)
    left = memory - beside - meanwhile

    if not need.shared:
        # Own designs need no Gram.
        return Room(need.stages, in_memory, left)
    least = need.stages if need.whole else 1
    grams = max(left - threads * _WORKING, 0) // max(need.gram, 1)
    if not grams:
        return Room(least, functools.partial(on_scratch, scratch), left)
    grams = max(least, min(grams, need.stages))
    return Room(grams, in_memory, max(left - grams * need.gram, 0))


def in_memory(train: int, dtype: Any) -> NDArray[Any]:
    """A Gram of zeros."""
    return np.zeros((train, train), dtype=dtype)


def on_scratch(folder: str | Path | None, train: int, dtype: Any) -> NDArray[Any]:
    """A Gram of zeros in a file."""
    return scratch_array(folder, (train, train), dtype)
