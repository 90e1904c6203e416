"""Compiled kernels: counts of runs that saw both of two units, by popcount in register tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmstore.regression.kernels.compiled import compiled, intrinsic

from llvmlite import ir  # isort: skip
from numba import types  # isort: skip
from numba.core import cgutils  # isort: skip

# Words that one vector holds: rows of words must be a multiple of it long, and begin anywhere.
LANES = 8
# Rows and columns of a register tile: 16 sums and 8 vectors of words fit the registers of AVX-512.
_SIDE = 4
# Rows and columns of a block whose words stay in the second cache.
TILE = 48


@intrinsic
def _set_bits(typing_context: Any, word: Any) -> Any:
    """Number of set bits of a word: one instruction."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function = builder.module.declare_intrinsic("llvm.ctpop", [ir.IntType(64)])
        return builder.call(function, arguments)

    return types.uint64(types.uint64), build


@intrinsic
def _tile(
    typing_context: Any,
    one: Any,
    other: Any,
    one_row: Any,
    other_row: Any,
    count: Any,
    out: Any,
    out_row: Any,
) -> Any:
    """Counts of 4 rows at address `one` with 4 at `other`, `count` words each, stored as int32."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, number = ir.IntType(64), ir.IntType(32)
        vector = ir.VectorType(word, LANES)
        one, other, one_row, other_row, count, out, out_row = arguments
        module = builder.module
        popcount = cgutils.get_or_insert_function(
            module, ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{LANES}i64"
        )
        total = cgutils.get_or_insert_function(
            module, ir.FunctionType(word, [vector]), f"llvm.vector.reduce.add.v{LANES}i64"
        )

        def constant(value: int) -> Any:
            return ir.Constant(word, value)

        before = builder.block
        loop, after = builder.append_basic_block("words"), builder.append_basic_block("sums")
        builder.branch(loop)
        builder.position_at_end(loop)
        at = builder.phi(word)
        at.add_incoming(constant(0), before)
        sums = [[builder.phi(vector) for _ in range(_SIDE)] for _ in range(_SIDE)]
        for row in sums:
            for value in row:
                value.add_incoming(ir.Constant(vector, [0] * LANES), before)

        def load(base: Any, row: Any, number: int) -> Any:
            place = builder.add(builder.mul(row, constant(number)), at)
            address = builder.add(base, builder.mul(place, constant(8)))
            loaded = builder.load(builder.inttoptr(address, vector.as_pointer()))
            loaded.align = 8
            return loaded

        columns = [load(other, other_row, number) for number in range(_SIDE)]
        added = []
        for i in range(_SIDE):
            row = load(one, one_row, i)
            both = [builder.call(popcount, [builder.and_(row, column)]) for column in columns]
            added.append([builder.add(sums[i][j], both[j]) for j in range(_SIDE)])
        following = builder.add(at, constant(LANES))
        at.add_incoming(following, loop)
        for i in range(_SIDE):
            for j in range(_SIDE):
                sums[i][j].add_incoming(added[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        for i in range(_SIDE):
            for j in range(_SIDE):
                place = builder.add(builder.mul(out_row, constant(i)), constant(j))
                address = builder.add(out, builder.mul(place, constant(4)))
                sum_ = builder.trunc(builder.call(total, [added[i][j]]), number)
                builder.store(sum_, builder.inttoptr(address, number.as_pointer()))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7), build


@compiled
def counts(one: Any, other: Any, out: Any) -> None:
    """Counts of every row of one with every row of another.

    Parameters
    ----------
    one, other : (row, words), (column, words) uint64
        C-contiguous along the words, of which there are a multiple of :data:`LANES` and more than 0.
    out : (row, column) int32
        Written, not added to; it may be larger.
    """
    rows, words = one.shape
    columns = other.shape[0]
    if rows < _SIDE or columns < _SIDE:
        # Too few for a register tile.
        for i in range(rows):
            for j in range(columns):
                total = np.uint64(0)
                for k in range(words):
                    total += _set_bits(one[i, k] & other[j, k])
                out[i, j] = np.int32(total)
        return
    one_row, other_row, out_row = one.strides[0] // 8, other.strides[0] // 8, out.strides[0] // 4
    for i in range(0, rows, _SIDE):
        # The last tile overlaps the one before it.
        i = min(i, rows - _SIDE)
        for j in range(0, columns, _SIDE):
            j = min(j, columns - _SIDE)
            _tile(
                one.ctypes.data + 8 * i * one_row,
                other.ctypes.data + 8 * j * other_row,
                one_row,
                other_row,
                words,
                out.ctypes.data + 4 * (i * out_row + j),
                out_row,
            )


@compiled
def add_rows(words: Any, first: int, last: int, rows: Any) -> None:
    """Add the counts of some rows of a Gram, all their columns.

    Parameters
    ----------
    words : (train, words) uint64
        As :func:`counts` takes them.
    first, last : int
        Rows to do.
    rows : (last - first, train) int32 or uint16
    """
    train = words.shape[0]
    tile = np.empty((TILE, TILE), dtype=np.int32)
    for row0 in range(first, last, TILE):
        row1 = min(row0 + TILE, last)
        for column0 in range(0, train, TILE):
            column1 = min(column0 + TILE, train)
            counts(words[row0:row1], words[column0:column1], tile)
            for i in range(row0, row1):
                for j in range(column0, column1):
                    rows[i - first, j] += tile[i - row0, j - column0]


@compiled
def add_gram(words: Any, first: int, last: int, gram: Any, sign: int) -> None:
    """Add the counts of some rows to a Gram, and to the columns that mirror them.

    Parameters
    ----------
    words : (train, words) uint64
        As :func:`counts` takes them.
    first, last : int
        Rows to do, multiples of :data:`TILE` or the end; of each the columns from its block on. No
        two calls for different rows write the same place.
    gram : (train, train) int32 or uint16
    sign : int
        1, or -1 to take them away.
    """
    train = words.shape[0]
    tile = np.empty((TILE, TILE), dtype=np.int32)
    for row0 in range(first, last, TILE):
        row1 = min(row0 + TILE, train)
        for column0 in range(row0, train, TILE):
            column1 = min(column0 + TILE, train)
            counts(words[row0:row1], words[column0:column1], tile)
            for i in range(row0, row1):
                for j in range(column0, column1):
                    gram[i, j] += sign * tile[i - row0, j - column0]
            if column0 > row0:
                for j in range(column0, column1):
                    for i in range(row0, row1):
                        gram[j, i] += sign * tile[i - row0, j - column0]
