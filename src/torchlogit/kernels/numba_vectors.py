"""Operations that LLVM does not find by itself in a loop of Python: vectors kept in registers, prefetching, numbers
at an address.

A row of a table has ``S`` outputs, contiguous. With a plain inner loop over them Numba keeps each sum in memory and
vectorises nothing when ``S`` is 24: 118 ns a stored entry, where these take 20 (200,000 rows, 25 entries a row, 100,000
columns, 23 classes, one core).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_tools: Any = cgutils  # without types
_DOUBLE, _WORD, _BYTE = ir.DoubleType(), ir.IntType(64), ir.IntType(8)


def _operation(function: Callable[..., Any]) -> Any:
    return intrinsic(prefer_literal=True)(function)


def _word(value: int) -> ir.Constant:
    return ir.Constant(_WORD, value)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Pointer to the first element."""
    return context.make_array(kind)(context, builder, array).data


def _vector_at(builder: Any, base: Any, index: Any, width: int) -> Any:
    return builder.bitcast(builder.gep(base, [index]), ir.VectorType(_DOUBLE, width).as_pointer())


def _load(builder: Any, base: Any, index: Any, width: int) -> Any:
    loaded = builder.load(_vector_at(builder, base, index, width))
    loaded.align = 8
    return loaded


def _store(builder: Any, value: Any, base: Any, index: Any, width: int) -> None:
    builder.store(value, _vector_at(builder, base, index, width)).align = 8


def _spread(builder: Any, value: Any, width: int) -> Any:
    """A vector of equal elements."""
    empty = ir.Constant(ir.VectorType(_DOUBLE, width), ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])


def _entry(builder: Any, indices: Any, line: Any, q: Any, origin: Any) -> tuple[Any, Any]:
    """Column and value of one stored entry."""
    index, value = builder.load(builder.gep(indices, [q])), builder.load(builder.gep(line, [builder.sub(q, origin)]))
    if index.type != _WORD:
        index = builder.sext(index, _WORD)
    if value.type != _DOUBLE:
        value = builder.fpext(value, _DOUBLE)
    return index, value


@_operation
def gather_row(
    typing: Any, table: Any, column: Any, indices: Any, first: Any, last: Any, line: Any, origin: Any, out: Any,
    at: Any, stride: Any, width: Any, chunks: Any,
) -> Any:  # fmt: skip
    """``out[at:] += sum over q in first:last of line[q - origin] * table.flat[indices[q] * stride + column:]``.

    ``width * chunks`` elements, both literals: they stay in registers from the first entry to the last.
    """
    lanes, count = width.literal_value, chunks.literal_value
    word = types.intp
    signature = types.void(table, word, indices, word, word, line, word, out, word, word, width, chunks)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, _, first, last, _, origin, _, at, stride, _, _ = arguments
        bases = [_data(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 5, 7)]
        steps = [_word(lanes * c) for c in range(count)]
        sums = [
            _tools.alloca_once_value(builder, _load(builder, bases[3], builder.add(at, step), lanes)) for step in steps
        ]
        with _tools.for_range_slice(builder, first, last, _word(1)) as (q, _):
            index, value = _entry(builder, bases[1], bases[2], q, origin)
            factor = _spread(builder, value, lanes)
            row = builder.add(builder.mul(index, stride), column)
            for total, step in zip(sums, steps, strict=True):
                there = _load(builder, bases[0], builder.add(row, step), lanes)
                builder.store(_multiply_add(builder, factor, there, builder.load(total)), total)
        for total, step in zip(sums, steps, strict=True):
            _store(builder, builder.load(total), bases[3], builder.add(at, step), lanes)
        return context.get_dummy_value()

    return signature, codegen


@_operation
def scatter_row(
    typing: Any, table: Any, column: Any, indices: Any, first: Any, last: Any, line: Any, origin: Any, slope: Any,
    at: Any, stride: Any, width: Any, chunks: Any,
) -> Any:  # fmt: skip
    """``table.flat[indices[q] * stride + column:] += line[q - origin] * slope[at:]`` for every q in first:last."""
    lanes, count = width.literal_value, chunks.literal_value
    word = types.intp
    signature = types.void(table, word, indices, word, word, line, word, slope, word, word, width, chunks)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, column, _, first, last, _, origin, _, at, stride, _, _ = arguments
        bases = [_data(context, builder, signature.args[i], arguments[i]) for i in (0, 2, 5, 7)]
        steps = [_word(lanes * c) for c in range(count)]
        slopes = [_load(builder, bases[3], builder.add(at, step), lanes) for step in steps]
        with _tools.for_range_slice(builder, first, last, _word(1)) as (q, _):
            index, value = _entry(builder, bases[1], bases[2], q, origin)
            factor = _spread(builder, value, lanes)
            row = builder.add(builder.mul(index, stride), column)
            for part, step in zip(slopes, steps, strict=True):
                here = builder.add(row, step)
                there = _load(builder, bases[0], here, lanes)
                _store(builder, _multiply_add(builder, factor, part, there), bases[0], here, lanes)
        return context.get_dummy_value()

    return signature, codegen


@_operation
def prefetch(typing: Any, table: Any, element: Any) -> Any:
    """Ask for the cache line of ``table.flat[element]`` before it is needed."""
    signature = types.void(table, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = _data(context, builder, signature.args[0], arguments[0])
        pointer = builder.bitcast(builder.gep(base, [arguments[1]]), _BYTE.as_pointer())
        integer = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), integer, integer, integer])
        function = _tools.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, second_level, data = (ir.Constant(integer, value) for value in (0, 2, 1))
        builder.call(function, [pointer, read, second_level, data])
        return context.get_dummy_value()

    return signature, codegen


@_operation
def number_at(typing: Any, like: Any, address: Any, element: Any) -> Any:
    """The number ``element`` of an array that begins at ``address``, of the same type as those of ``like``."""
    signature = like.dtype(like, types.int64, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        base = builder.inttoptr(arguments[1], context.get_value_type(like.dtype).as_pointer())
        return builder.load(builder.gep(base, [arguments[2]]))

    return signature, codegen
