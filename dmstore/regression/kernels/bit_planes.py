"""Compiled kernels: products of packed masks with one vector over the runs.

The vector is taken in fixed point, a plane of bits for each of its digits, so that a product with a
mask is a sum of counts: the same popcount in register tiles as that of the Gram.

Kernels release the GIL.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled
from dmstore.regression.kernels.popcount import counts

# Units counted at a time: their words stay in the second cache while all planes pass.
_UNITS = 16


@compiled
def fill_planes(values: Any, step: float, out: Any) -> None:
    """Write numbers in two's complement, in units of `step`.

    Parameters
    ----------
    values : (bit,) float64
        Those that are 0 have no bit in any plane.
    step : float
    out : (plane, bit / 64) uint64
        The lowest digit first.
    """
    one = np.uint64(1)
    digits = np.empty(64, dtype=np.int64)
    for word in range(out.shape[1]):
        for bit in range(64):
            digits[bit] = np.int64(np.rint(values[64 * word + bit] / step))
        for plane in range(out.shape[0]):
            packed = np.uint64(0)
            for bit in range(64):
                packed |= (np.uint64(digits[bit] >> plane) & one) << np.uint64(bit)
            out[plane, word] = packed


@compiled
def add_products(words: Any, planes: Any, scales: Any, out: Any) -> None:
    """Add to each unit what the planes count among the runs that saw it.

    Parameters
    ----------
    words : (unit, words) uint64
        As :func:`counts` takes them.
    planes : (plane, words) uint64
        The same.
    scales : (plane,) float64
        What a bit of each plane is worth.
    out : (unit,) float64
    """
    units, count = words.shape[0], planes.shape[0]
    sums = np.empty((count, _UNITS), dtype=np.int32)
    for start in range(0, units, _UNITS):
        stop = min(start + _UNITS, units)
        counts(planes, words[start:stop], sums)
        for plane in range(count):
            for unit in range(start, stop):
                out[unit] += scales[plane] * sums[plane, unit - start]


@compiled
def take_columns(words: Any, support: Any, weight: Any, out: Any) -> None:
    """``out -= mask @ weight`` over the units of `support`.

    Parameters
    ----------
    words : (unit, words) uint64
    support : (number,) int64
    weight : (unit,) float64
    out : (bit,) float64
    """
    one = np.uint64(1)
    for unit in support:
        value = weight[unit]
        for word in range(words.shape[1]):
            bits = words[unit, word]
            part = out[64 * word : 64 * word + 64]
            for bit in range(64):
                part[bit] -= value * np.float64((bits >> np.uint64(bit)) & one)
