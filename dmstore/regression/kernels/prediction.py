"""Compiled kernels: what weights say of runs whose masks are packed, by masked additions.

A word of a mask is four masks of vectors of 16 numbers, so a run that did not see a unit costs no more
than one that did, and nothing is unpacked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, intrinsic

from llvmlite import ir  # isort: skip
from numba import types  # isort: skip

# Numbers of a vector, and columns that are added at once.
_LANES, _COLUMNS = 16, 4


@intrinsic
def _add_four(
    typing_context: Any,
    words: Any,
    second: Any,
    third: Any,
    fourth: Any,
    weight: Any,
    count: Any,
    out: Any,
) -> Any:
    """Add four float32 weights, at address `weight`, where the bits of four rows of words are set."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *rows, weight, count, out = arguments
        word, single = ir.IntType(64), ir.FloatType()
        vector = ir.VectorType(single, _LANES)
        mask = ir.VectorType(ir.IntType(1), _LANES)
        zero = ir.Constant(vector, [0.0] * _LANES)

        def constant(value: int) -> Any:
            return ir.Constant(word, value)

        def splat(place: int) -> Any:
            address = builder.add(weight, constant(4 * place))
            value = builder.load(builder.inttoptr(address, single.as_pointer()))
            filled = ir.Constant(vector, ir.Undefined)
            for lane in range(_LANES):
                filled = builder.insert_element(filled, value, ir.Constant(ir.IntType(32), lane))
            return filled

        values = [splat(place) for place in range(_COLUMNS)]
        before = builder.block
        loop, after = builder.append_basic_block("words"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(word)
        at.add_incoming(constant(0), before)
        offset = builder.mul(at, constant(8))
        bits = [
            builder.load(builder.inttoptr(builder.add(row, offset), word.as_pointer()))
            for row in rows
        ]
        for part in range(64 // _LANES):
            place = builder.add(builder.mul(at, constant(64)), constant(part * _LANES))
            address = builder.add(out, builder.mul(place, constant(4)))
            pointer = builder.inttoptr(address, vector.as_pointer())
            total = builder.load(pointer)
            total.align = 4
            for value, row in zip(values, bits, strict=True):
                short = builder.trunc(
                    builder.lshr(row, constant(part * _LANES)), ir.IntType(_LANES)
                )
                chosen = builder.select(builder.bitcast(short, mask), value, zero)
                total = builder.fadd(total, chosen)
            builder.store(total, pointer).align = 4
        following = builder.add(at, constant(1))
        at.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), build


@compiled
def predict(words: Any, weight: Any, members: Any, out: Any) -> None:
    """Sum over some units of weight times mask.

    Parameters
    ----------
    words : (train, words) uint64
        C-contiguous, at least one word.
    weight : (train,) float
    members : (unit,) int64
    out : (64 words,) float32
        Written.
    """
    out[:] = 0.0
    columns, values = np.empty(_COLUMNS, dtype=np.int64), np.zeros(_COLUMNS, dtype=np.float32)
    count, row = words.shape[1], words.strides[0]
    start, filled = words.ctypes.data, 0
    for j in members:
        if weight[j] == 0.0:
            continue
        columns[filled], values[filled] = j, weight[j]
        filled += 1
        if filled == _COLUMNS:
            _add(start, row, columns, values, count, out)
            filled = 0
    if filled:
        # Columns that are left over are followed by one with weight 0.
        for place in range(filled, _COLUMNS):
            columns[place], values[place] = columns[0], 0.0
        _add(start, row, columns, values, count, out)


@compiled
def _add(start: int, row: int, columns: Any, values: Any, count: int, out: Any) -> None:
    _add_four(
        start + row * columns[0],
        start + row * columns[1],
        start + row * columns[2],
        start + row * columns[3],
        values.ctypes.data,
        count,
        out.ctypes.data,
    )


@compiled
def mean_square(predicted: Any, outputs: Any, bias: float, runs: int) -> float:
    """Mean squared error of ``bias + predicted``.

    Parameters
    ----------
    predicted, outputs : (bit,)
        Both 0 where there is no run.
    bias : float
    runs : int
        How many there are.
    """
    total = 0.0
    for i in range(len(outputs)):
        left = np.float64(outputs[i]) - bias - np.float64(predicted[i])
        total += left * left
    return (total - (len(outputs) - runs) * bias * bias) / runs
