"""Compiled kernels: rows of a sparse matrix times sixteen columns at once, which stay in registers while a row is summed."""

from __future__ import annotations

from typing import Any

from dmstore.regression.kernels.compiled import compiled, intrinsic

from llvmlite import ir  # isort: skip
from numba import types  # isort: skip

# Columns that are multiplied at once: one vector, as two of AVX2 or one of AVX-512.
COLUMNS = 16


@intrinsic
def _sum_row(
    typing_context: Any,
    indices: Any,
    data: Any,
    start: Any,
    stop: Any,
    columns: Any,
    row: Any,
    out: Any,
) -> Any:
    """``out[row] = sum of data[k] * columns[indices[k]]`` for k from `start` to before `stop`, in this order."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def first(place: int) -> Any:
            kind = signature.args[place]
            return context.make_array(kind)(context, builder, arguments[place]).data

        places, values, dense, made = (first(place) for place in (0, 1, 4, 6))
        start, stop, row = (arguments[place] for place in (2, 3, 5))
        word, number = ir.IntType(64), values.type.pointee
        vector = ir.VectorType(number, COLUMNS)
        size = context.get_abi_sizeof(number)

        def sixteen(pointer: Any, line: Any) -> Any:
            offset = builder.mul(line, ir.Constant(word, COLUMNS))
            return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

        before = builder.block
        test, loop, after = (builder.append_basic_block(name) for name in ("test", "sum", "done"))
        builder.branch(test)
        builder.position_at_end(test)
        at, total = builder.phi(word), builder.phi(vector)
        at.add_incoming(start, before)
        total.add_incoming(ir.Constant(vector, [0.0] * COLUMNS), before)
        builder.cbranch(builder.icmp_signed("<", at, stop), loop, after)
        builder.position_at_end(loop)
        line = builder.load(builder.gep(places, [at]))
        if line.type != word:
            line = builder.sext(line, word)
        by, one = builder.load(builder.gep(values, [at])), ir.Constant(vector, ir.Undefined)
        for lane in range(COLUMNS):
            one = builder.insert_element(one, by, ir.Constant(ir.IntType(32), lane))
        of = builder.load(sixteen(dense, line))
        of.align = size
        flags = ("contract",)
        more = builder.fadd(total, builder.fmul(one, of, flags=flags), flags=flags)
        following = builder.add(at, ir.Constant(word, 1))
        at.add_incoming(following, loop)
        total.add_incoming(more, loop)
        builder.branch(test)
        builder.position_at_end(after)
        builder.store(total, sixteen(made, row)).align = size
        return context.get_dummy_value()

    return types.void(indices, data, types.intp, types.intp, columns, types.intp, out), build


@compiled
def times_sixteen(indptr: Any, indices: Any, data: Any, columns: Any, out: Any) -> None:
    """A sparse matrix times sixteen columns.

    Parameters
    ----------
    indptr, indices, data
        Of a CSR matrix (row, column).
    columns : (column, 16)
        C-contiguous, in the dtype of `data`.
    out : (row, 16)
        The same; written.
    """
    for row in range(len(out)):
        _sum_row(indices, data, indptr[row], indptr[row + 1], columns, row, out)
