"""Compiled kernels: masks as numbers, the gradient of all columns, and the certificate.

Kernels release the GIL. The dtype of what is written decides the precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, compiled_with

# Columns whose gradient is worked on at a time: they stay in the second cache.
_PANEL = 8192


@compiled
def unpack(words: Any, first: int, out: Any) -> None:
    """Masks of the runs from word `first` on, as numbers: (unit, words) uint64 to (unit, run)."""
    one = np.uint64(1)
    for unit in range(out.shape[0]):
        row = out[unit]
        for word in range(min(out.shape[1] // 64, words.shape[1] - first)):
            value = words[unit, first + word]
            for bit in range(64):
                row[64 * word + bit] = (value >> np.uint64(bit)) & one


@compiled_with("reassoc", "contract")
def _take(out: Any, row: Any, scale: Any, shift: Any) -> None:
    for i in range(len(out)):
        out[i] -= scale * (row[i] - shift)


@compiled_with("reassoc", "contract")
def _take_four(out: Any, rows: Any, scales: Any, shift: Any) -> None:
    r0, r1, r2, r3 = rows
    s0, s1, s2, s3 = scales[0], scales[1], scales[2], scales[3]
    for i in range(len(out)):
        out[i] -= (
            s0 * (r0[i] - shift)
            + s1 * (r1[i] - shift)
            + s2 * (r2[i] - shift)
            + s3 * (r3[i] - shift)
        )


@compiled_with("reassoc", "contract")
def _take_four_twice(one: Any, two: Any, rows: Any, scales: Any, others: Any, shift: Any) -> None:
    r0, r1, r2, r3 = rows
    s0, s1, s2, s3 = scales[0], scales[1], scales[2], scales[3]
    t0, t1, t2, t3 = others[0], others[1], others[2], others[3]
    for i in range(len(one)):
        a, b, c, d = r0[i] - shift, r1[i] - shift, r2[i] - shift, r3[i] - shift
        one[i] -= s0 * a + s1 * b + s2 * c + s3 * d
        two[i] -= t0 * a + t1 * b + t2 * c + t3 * d


@compiled
def residual(gram: Any, mean: Any, moment: Any, runs: int, weights: Any, out: Any) -> None:
    """``out = moment - C weight`` of some weights, from the integer Gram, in the dtype of `out`.

    C = gram / runs - mean mean' is the covariance of the masks. What a row of the Gram says of all weights
    is taken at once: reading them is what this costs.

    Parameters
    ----------
    weights : (vector, train)
    out : (vector, train)
    """
    train, vectors = len(moment), len(weights)
    there = np.zeros(train, dtype=np.bool_)
    for v in range(vectors):
        for j in range(train):
            there[j] |= weights[v, j] != 0.0
    support = np.flatnonzero(there)
    count = len(support)
    scales, shift = np.empty((vectors, count), dtype=out.dtype), np.empty(1, dtype=out.dtype)
    level, spread, middle = np.zeros(vectors), np.zeros(vectors), 0.0
    for a in range(count):
        j = support[a]
        middle += mean[j] / count
        for v in range(vectors):
            level[v] += mean[j] * weights[v, j]
            spread[v] += weights[v, j] / runs
            scales[v, a] = weights[v, j] / runs
    # Counts of independent masks lie around this integer: less it, little cancels in float32.
    middle = np.floor(runs * middle * middle)
    shift[0] = middle
    for start in range(0, train, _PANEL):
        stop = min(start + _PANEL, train)
        for v in range(vectors):
            part = out[v][start:stop]
            for i in range(start, stop):
                part[i - start] = moment[i] + (mean[i] * level[v] - spread[v] * middle)
        for a in range(0, count - 3, 4):
            rows = (
                gram[support[a], start:stop],
                gram[support[a + 1], start:stop],
                gram[support[a + 2], start:stop],
                gram[support[a + 3], start:stop],
            )
            for v in range(0, vectors - 1, 2):
                _take_four_twice(
                    out[v][start:stop], out[v + 1][start:stop], rows, scales[v][a : a + 4],
                    scales[v + 1][a : a + 4], shift[0],
                )  # fmt: skip
            if vectors % 2:
                last = vectors - 1
                _take_four(out[last][start:stop], rows, scales[last][a : a + 4], shift[0])
        for a in range(count - count % 4, count):
            for v in range(vectors):
                _take(out[v][start:stop], gram[support[a], start:stop], scales[v, a], shift[0])


@compiled
def certify(
    gram: Any, mean: Any, moment: Any, runs: int, variance: float, weight: Any, lam: float
) -> Any:
    """Certificate of one target, in float64 from the integers.

    Returns
    -------
    kkt : float
        Largest violation of the optimality conditions relative to lam.
    gap : float
        Duality gap relative to the objective at zero weights (the output's variance).
    """
    train = len(moment)
    support = np.flatnonzero(weight)
    rests = np.empty((1, train))
    residual(gram, mean, moment, runs, weight.reshape(1, train), rests)
    rest = rests[0]
    worst, largest, size, inner, fitted = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(train):
        gradient = 2.0 * rest[j]
        largest = max(largest, abs(gradient))
        if weight[j] > 0.0:
            worst = max(worst, abs(gradient - lam))
        elif weight[j] < 0.0:
            worst = max(worst, abs(gradient + lam))
        else:
            worst = max(worst, abs(gradient) - lam)
    for k in support:
        size += abs(weight[k])
        inner += weight[k] * moment[k]
        fitted += weight[k] * (moment[k] - rest[k])
    # Mean squares of the residual outputs and their product with the outputs, all centred.
    loss = max(variance - 2.0 * inner + fitted, 0.0)
    product = variance - inner
    scale = 1.0 if largest <= lam else lam / largest
    dual = 2.0 * scale * product - scale * scale * loss
    gap = loss + lam * size - dual
    return (worst / lam if lam > 0.0 else worst), (gap / variance if variance > 0.0 else 0.0)
