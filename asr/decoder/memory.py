"""Reads and writes at raw addresses, for kernels in which counting references to arrays would take most of
the time.

An address is an int64 (`array.ctypes.data`), an index counts elements of the type. Whoever passes an address
keeps its array alive. Nothing is checked: the kernels assert their bounds once, where a size is known.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic


def _load(kind: types.Type) -> Any:
    @intrinsic
    def load(typing, address, index):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = builder.inttoptr(args[0], context.get_value_type(kind).as_pointer())
            return builder.load(builder.gep(pointer, [args[1]]))

        return kind(types.int64, types.int64), generate

    return load


def _store(kind: types.Type) -> Any:
    @intrinsic
    def store(typing, address, index, value):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = builder.inttoptr(args[0], context.get_value_type(kind).as_pointer())
            builder.store(args[2], builder.gep(pointer, [args[1]]))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, kind), generate

    return store


load_i8, load_i16, load_i32, load_i64 = (
    _load(types.int8),
    _load(types.int16),
    _load(types.int32),
    _load(types.int64),
)
load_f32 = _load(types.float32)
store_i32, store_i64, store_f32 = _store(types.int32), _store(types.int64), _store(types.float32)


@intrinsic
def count_bits(typing, value):  # type: ignore[no-untyped-def]
    """How many bits of an int64 are set."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.int64(types.int64), generate


@intrinsic
def lowest_bit(typing, value):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set; 64 for 0."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate
