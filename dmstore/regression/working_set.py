"""Compiled kernels: the compact covariance of the columns that a target works with."""

from __future__ import annotations

from typing import Any

import numpy as np

import dmstore.regression.popcount  # noqa: F401 - it says what to install where numba is missing

import numba  # isort: skip


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def extend(gram: Any, mean: Any, runs: int, members: Any, old: int, new: int, block: Any) -> None:
    """Fill rows and columns `old` to `new` of the compact covariance of the working set."""
    scale = 1.0 / runs
    for a in range(old, new):
        row = gram[members[a]]
        level = mean[members[a]]
        for b in range(new):
            block[a, b] = row[members[b]] * scale - level * mean[members[b]]
    _mirror(block, old, new)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _mirror(block: Any, old: int, new: int) -> None:
    """Columns `old` to `new` of the rows before, from the rows that were filled."""
    for a in range(old):
        for b in range(old, new):
            block[a, b] = block[b, a]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def grow(block: Any, rows: int, columns: int) -> Any:
    """A larger array that begins with a block; the rest holds anything."""
    larger = np.empty((rows, columns), dtype=block.dtype)
    larger[: block.shape[0], : block.shape[1]] = block
    return larger
