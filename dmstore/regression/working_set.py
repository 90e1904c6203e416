"""Compiled kernels: the compact covariance of the columns that a target works with."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.popcount import counts

import numba  # isort: skip

# Rows counted at a time.
_ROWS = 16


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def extend(gram: Any, mean: Any, runs: int, members: Any, old: int, new: int, block: Any) -> None:
    """Fill rows and columns `old` to `new` of the compact covariance of the working set."""
    scale = 1.0 / runs
    for a in range(old, new):
        row = gram[members[a]]
        level = mean[members[a]]
        for b in range(new):
            block[a, b] = row[members[b]] * scale - level * mean[members[b]]
    mirror(block, old, new)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def extend_by_rows(
    rows: Any, mean: Any, runs: int, members: Any, old: int, new: int, block: Any
) -> None:
    """The same where `rows` holds the packed masks of the working set already."""
    scale = 1.0 / runs
    found = np.empty((_ROWS, new), dtype=np.int32)
    for start in range(old, new, _ROWS):
        stop = min(start + _ROWS, new)
        counts(rows[start:stop], rows[:new], found)
        for a in range(start, stop):
            level = mean[members[a]]
            for b in range(a + 1):
                block[a, b] = found[a - start, b] * scale - level * mean[members[b]]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def mirror(block: Any, old: int, new: int) -> None:
    """Columns `old` to `new` above the diagonal, from the rows below it."""
    for a in range(new):
        for b in range(max(old, a + 1), new):
            block[a, b] = block[b, a]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def grow(block: Any, rows: int, columns: int) -> Any:
    """A larger array that begins with a block; the rest holds anything."""
    larger = np.empty((rows, columns), dtype=block.dtype)
    larger[: block.shape[0], : block.shape[1]] = block
    return larger


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def side_for(size: int, side: int) -> int:
    """Side of a block that a working set has outgrown: an odd number of cache lines a row, since
    columns would fall on one another in the cache.
    """
    return 32 * (max(size, side * 4 // 3) // 32) + 48
