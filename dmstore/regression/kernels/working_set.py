"""Compiled kernels: the covariance of the columns that a target works with, lying together in memory.

It is kept in flat memory that a thread has for all its targets. ``place`` says how: a row has
``place[0]`` numbers, and the first ``place[1]`` members have rows and columns there. The memory is bounded:
what a larger working set misses is made of its source whenever it is asked for, which gives the same
numbers.

Kept is the covariance divided by `quantum`, and rounded where that is not 1: these are integers of 16 bits. The
diagonal is kept by itself, since variances are far larger than covariances.

A source is ``(gram, members, level, runs, quantum)`` or, with the packed masks of the members,
``(rows, level, runs, quantum)``; `level` is the mean of each member.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, implements
from dmstore.regression.kernels.popcount import counts

# Rows counted at a time.
_ROWS = 16
# Side of a tile of the transposition: its lines stay in the second cache.
_TILE = 64
# Largest of the integers that a covariance is kept as, and how many sampling errors that is.
LARGEST, _ERRORS = 32767, 16.0


def quantum_of(runs: int) -> float:
    """Step of a covariance that is kept in 16 bits.

    Over m runs that of two units drawn by themselves has a sampling error of 1 / (4 sqrt(m)) at most.
    """
    return 0.25 * min(1.0, _ERRORS / math.sqrt(runs)) / LARGEST


@compiled
def _put(counted: Any, level: Any, own: float, runs: int, quantum: float, out: Any) -> int:
    """Covariances from a member's counts with others and their means; returns the largest of integers.

    Two members have the same covariance whichever of them is the one, bit by bit.
    """
    scale, lowest, highest = 1.0 / (runs * quantum), np.int32(0), np.int32(0)
    if quantum != 1.0:
        # float32 has more digits than these up to a million runs, and beyond nearly as many.
        near, mine, units = np.float32(scale), np.float32(own), np.float32(1.0 / quantum)
        for b in range(len(counted)):
            expected = mine * np.float32(level[b]) * units
            rounded = np.int32(np.rint(np.float32(counted[b]) * near - expected))
            lowest, highest = min(lowest, rounded), max(highest, rounded)
            out[b] = rounded
    else:
        for b in range(len(counted)):
            out[b] = counted[b] * scale - own * level[b]
    return int(max(-lowest, highest))


@compiled
def _from_gram(source: Any, a: int, first: Any, last: int, out: Any) -> int:
    gram, members, level, runs, quantum = source
    row = gram[members[a]]
    values = np.empty(last - first, dtype=row.dtype)
    for b in range(first, last):
        values[b - first] = row[members[b]]
    largest: int = _put(values, level[first:last], level[a], runs, quantum, out[first:last])
    return largest


@compiled
def _from_rows(source: Any, a: int, first: int, last: int, out: Any) -> int:
    rows, level, runs, quantum = source
    values = np.empty((1, last - first), dtype=np.int32)
    counts(rows[a : a + 1], rows[first:last], values)
    largest: int = _put(values[0], level[first:last], level[a], runs, quantum, out[first:last])
    return largest


def _fetch(source: Any, a: int, first: int, last: int, out: Any) -> int:
    """Covariances of member `a` with members `first` to `last` to ``out[first:last]``; the largest."""
    raise NotImplementedError


@implements(_fetch)
def _fetch_of(source: Any, a: Any, first: Any, last: Any, out: Any) -> Any:
    if len(source) == 5:
        return lambda source, a, first, last, out: _from_gram(source, a, first, last, out)
    return lambda source, a, first, last, out: _from_rows(source, a, first, last, out)


def _fill(source: Any, old: int, new: int, held: int, flat: Any, side: int) -> int:
    """Rows `old` to `new` left of the diagonal, those below `held` to memory; returns the largest."""
    raise NotImplementedError


@compiled
def _fill_from_gram(source: Any, old: int, new: int, held: int, flat: Any, side: int) -> int:
    largest, beyond = 0, np.empty(new, dtype=flat.dtype)
    # What is not kept is only looked at for how large it is.
    for a in range(old, new if source[-1] != 1.0 else min(new, held)):
        out = flat[a * side : a * side + a] if a < held else beyond
        largest = max(largest, _from_gram(source, a, np.int64(0), a, out))
    return largest


@compiled
def _fill_from_rows(source: Any, old: int, new: int, held: int, flat: Any, side: int) -> int:
    rows, level, runs, quantum = source
    largest, beyond = 0, np.empty(new, dtype=flat.dtype)
    pairs = np.empty((_ROWS, new), dtype=np.int32)
    last = new if quantum != 1.0 else min(new, held)
    for start in range(old, last, _ROWS):
        stop = min(start + _ROWS, last)
        counts(rows[start:stop], rows[:stop], pairs)
        for a in range(start, stop):
            out = flat[a * side : a * side + a] if a < held else beyond[:a]
            there = _put(pairs[a - start, :a], level, level[a], runs, quantum, out)
            largest = max(largest, there)
    return largest


@implements(_fill)
def _fill_of(source: Any, old: Any, new: Any, held: Any, flat: Any, side: Any) -> Any:
    if len(source) == 5:
        return lambda source, old, new, held, flat, side: _fill_from_gram(
            source, old, new, held, flat, side
        )
    return lambda source, old, new, held, flat, side: _fill_from_rows(
        source, old, new, held, flat, side
    )


@compiled
def extend(source: Any, old: Any, new: Any, flat: Any, place: Any) -> bool:
    """Take members `old` to `new` of a source in.

    Parameters
    ----------
    source : tuple
    old, new : int
    flat : (number,) int16, float32 or float64
        Memory.
    place : (2,) int64
        How it holds the first `old` members, and in the end all of them as far as there is room. Of an
        empty working set it says how long the rows were in the last one.

    Returns
    -------
    bool
        Whether integers reach as far as the covariances do.
    """
    most = int(math.sqrt(len(flat)))
    before, held = min(old, most), min(new, most)
    if held > place[0]:
        # An odd number of cache lines a row: columns would fall on one another in the cache.
        line = 64 // flat.itemsize
        wider = min(((max(held, place[0] * 4 // 3) // line) | 1) * line + 2 * line, most)
        _widen(flat, place[0], before, wider)
        place[0] = wider
    place[1], side = held, place[0]
    largest = _fill(source, old, new, held, flat, side)
    block = flat[: held * side].reshape(held, side)
    for a in range(before, held):
        block[a, a] = 0
    for a0 in range(0, held, _TILE):
        a1 = min(a0 + _TILE, held)
        for b0 in range(max(a0, before // _TILE * _TILE), held, _TILE):
            for a in range(a0, a1):
                for b in range(max(b0, before, a + 1), min(b0 + _TILE, held)):
                    block[a, b] = block[b, a]
    return largest <= LARGEST


@compiled
def _widen(flat: Any, side: int, rows: int, wider: int) -> None:
    """Move rows apart, in place: none is written over before it has moved."""
    row = np.empty(rows, dtype=flat.dtype)
    for a in range(rows - 1, 0, -1):
        row[:] = flat[a * side : a * side + rows]
        flat[a * wider : a * wider + rows] = row


@compiled
def row_of(source: Any, flat: Any, place: Any, a: int, spare: Any) -> Any:
    """What memory holds of a member's row, and the rest of it, made in `spare` (member,)."""
    there = place[1] if a < place[1] else 0
    if there < len(spare):
        _fetch(source, a, there, len(spare), spare)
        if a >= there:
            spare[a] = 0
    return flat[a * place[0] : a * place[0] + there], spare[there:]
