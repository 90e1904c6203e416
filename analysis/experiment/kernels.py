"""Compiled kernels: what is done to each number of a block of (target, bit) float32 rows, one target after the other.

Rows are C-contiguous and stay in the cache while all is done to them. Each kernel takes the first of its targets and a
step, so that threads share a block; sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, compiled_with

_reordered = compiled_with("contract", "reassoc")


def on_rows(threads: int, kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a kernel on all targets of a block, in so many threads."""
    if threads == 1:
        kernel(0, 1, *arguments)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first: kernel(first, threads, *arguments), range(threads)))


@_reordered
def residuals(
    first: int, step: int, outputs: Any, said: Any, there: Any, rest: Any, runs: Any
) -> None:
    """Outputs less what a fit says, less their mean over the bits that count.

    Parameters
    ----------
    first, step : int
    outputs, said : (target, bit) float32
    there : (target, bit) or (1, bit) bool
    rest : (target, bit) float32
        Written: 0 for bits that do not count.
    runs : (target,) float64
        Written: bits that count.
    """
    for t in range(first, len(rest), step):
        counts, out = there[t if len(there) > 1 else 0], rest[t]
        total, count = 0.0, 0
        for b in range(len(out)):
            out[b] = outputs[t, b] - said[t, b] if counts[b] else np.float32(0.0)
            total += out[b]
            count += counts[b]
        mean = np.float32(total / max(count, 1))
        for b in range(len(out)):
            out[b] = out[b] - mean if counts[b] else np.float32(0.0)
        runs[t] = count


@_reordered
def _centre(row: Any, used: Any) -> None:
    total, count = 0.0, 0.0
    for b in range(len(row)):
        row[b] *= used[b]
        total += row[b]
        count += used[b]
    mean = np.float32(total / count)
    for b in range(len(row)):
        row[b] = (row[b] - mean) * used[b]


@_reordered
def combinations(
    first: int, step: int, x: Any, y: Any, weight: Any, used: Any, level: Any, out: Any
) -> None:
    """Weighted sums of two blocks, centred, less a multiple of one row.

    Parameters
    ----------
    first, step : int
    x, y : (target, bit) float32
    weight : (3, target) float32
        Of x, of y, and of what is taken off.
    used, level : (bit,) float32
        1 where a bit is used; what is taken off.
    out : (target, bit) float32
        Written.
    """
    for t in range(first, len(out), step):
        row, a, b, c = out[t], weight[0, t], weight[1, t], weight[2, t]
        for k in range(len(row)):
            row[k] = a * x[t, k] + b * y[t, k]
        _centre(row, used)
        if c != 0:
            for k in range(len(row)):
                row[k] -= c * level[k]


@_reordered
def weighed(
    first: int, step: int, rest: Any, x: Any, y: Any, weight: Any, used: Any, out: Any
) -> None:
    """What each mask adds to a product with its residual outputs: rest times a weighted sum of two blocks, centred.

    Parameters
    ----------
    first, step : int
    rest, x, y : (target, bit) float32
    weight : (2, target) float32
        Of x and of y, which is not read where its weight is 0.
    used : (bit,) float32
        1 where a bit is used.
    out : (target, bit) float32
        Written.
    """
    for t in range(first, len(out), step):
        row, a, b = out[t], weight[0, t], weight[1, t]
        if b == 0:
            for k in range(len(row)):
                row[k] = rest[t, k] * (a * x[t, k])
        else:
            for k in range(len(row)):
                row[k] = rest[t, k] * (a * x[t, k] + b * y[t, k])
        _centre(row, used)


@_reordered
def _dot(x: Any, y: Any) -> float:
    total = 0.0
    for k in range(len(x)):
        total += np.float64(x[k]) * np.float64(y[k])
    return total


@_reordered
def dots(first: int, step: int, x: Any, y: Any, made: Any) -> None:
    """Inner products of rows: (target,) float64 is written to `made`."""
    for t in range(first, len(made), step):
        made[t] = _dot(x[t], y[t])


@_reordered
def covariances(first: int, step: int, a: Any, b: Any, ia: Any, ib: Any, made: Any) -> None:
    """Inner products of all rows of a target, of A with B over the masks that both have.

    Parameters
    ----------
    first, step : int
    a, b : (k, target, bit) float32
        k blocks of either; B may have none.
    ia, ib : (mask,) int64
        Bits of A and of B that are one mask.
    made : (target, k of A and B, k of A and B) float64
        Written.
    """
    na, nb = len(a), len(b)
    for t in range(first, len(made), step):
        for i in range(na):
            for j in range(i, na):
                made[t, i, j] = made[t, j, i] = _dot(a[i, t], a[j, t])
        for i in range(nb):
            for j in range(i, nb):
                made[t, na + i, na + j] = made[t, na + j, na + i] = _dot(b[i, t], b[j, t])
        for i in range(na):
            for j in range(nb):
                x, y, total = a[i, t], b[j, t], 0.0
                for k in range(len(ia)):
                    total += np.float64(x[ia[k]]) * np.float64(y[ib[k]])
                made[t, i, na + j] = made[t, na + j, i] = total


@compiled
def moments(first: int, step: int, a: Any, b: Any, partner: Any, alone: Any, made: Any) -> None:
    """Sums of squares, cubes and fourth powers of what masks add under A and B, those of a mask that both have together.

    Parameters
    ----------
    first, step : int
    a, b : (target, bit) float32
    partner : (bit of A,) int64
        The bit of B that is the same mask, -1 for none.
    alone : (mask,) int64
        Bits of B that are no mask of A.
    made : (3, target) float64
        Written.
    """
    for t in range(first, len(a), step):
        second, third, fourth = 0.0, 0.0, 0.0
        for k in range(len(partner)):
            value = np.float64(a[t, k])
            if partner[k] >= 0:
                value += np.float64(b[t, partner[k]])
            square = value * value
            second += square
            third += square * value
            fourth += square * square
        for k in alone:
            value = np.float64(b[t, k])
            square = value * value
            second += square
            third += square * value
            fourth += square * square
        made[0, t], made[1, t], made[2, t] = second, third, fourth


@compiled
def sparse_times(
    first: int, step: int, start: Any, index: Any, value: Any, dense: Any, out: Any
) -> None:
    """Rows of a sparse matrix (its indptr, indices and data) times a dense one: (row, column) float32 is written."""
    for t in range(first, len(out), step):
        out[t] = 0
        for k in range(start[t], start[t + 1]):
            row, by = dense[index[k]], value[k]
            for c in range(len(row)):
                out[t, c] += by * row[c]
