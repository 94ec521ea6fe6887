"""Copying and comparing bytes inside kernels, at the speed of memory.

`copy_bytes` and `equal_bytes` are for pieces of any length. `copy32` and `copy64` have no loop and no branch, two or
four instructions: texts are put together from short pieces whose lengths nobody can predict, and copying a fixed width
each time, and moving the cursor by the piece's own length, is faster than any loop over the length. Whoever copies so
must leave that much room behind the last piece, in the source and in the target.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .arrays import U8
from .jit import JIT_DISABLED, helper

if JIT_DISABLED:

    def copy32(out: U8, at: int | np.int64, data: U8, start: int | np.int64) -> None:
        """out[at:at+32] = data[start:start+32], of uint8 arrays that do not overlap; nothing is checked."""
        out[at : at + 32] = data[start : start + 32]

    def copy64(out: U8, at: int | np.int64, data: U8, start: int | np.int64) -> None:
        """out[at:at+64] = data[start:start+64], of uint8 arrays that do not overlap; nothing is checked."""
        out[at : at + 64] = data[start : start + 64]

else:

    def _copy(width: int) -> Any:
        def typed(typingctx: Any, out: Any, at: Any, data: Any, start: Any) -> Any:
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                from llvmlite import ir

                vector = ir.VectorType(ir.IntType(8), width)
                ends = []
                for array, index, kind in ((args[0], args[1], 0), (args[2], args[3], 2)):
                    view = context.make_array(signature.args[kind])(context, builder, array)
                    place = builder.gep(view.data, [index])
                    ends.append(builder.bitcast(place, vector.as_pointer()))
                loaded = builder.load(ends[1])
                loaded.align = 1
                builder.store(loaded, ends[0]).align = 1
                return context.get_dummy_value()

            return types.void(out, types.int64, data, types.int64), codegen

        return typed

    copy32 = intrinsic(_copy(32))
    copy64 = intrinsic(_copy(64))


@helper
def copy_bytes(out: U8, at: int, data: U8, start: int, count: int) -> None:
    """out[at:at+count] = data[start:start+count], of uint8 arrays.

    The loop runs from 0 over views: Numba lets an index such as at + i be negative, and then uses no wide registers
    (7 times as slow here). Assigning the slices is right but asks first whether they overlap.
    """
    target, source = out[at : at + count], data[start : start + count]
    for i in range(count):
        target[i] = source[i]


@helper
def equal_bytes(some: U8, data: U8, at: int, count: int) -> bool:
    """Whether some[:count] is data[at:at+count], of uint8 arrays. No early exit, for the same reason."""
    other = data[at : at + count]
    differences = 0
    for i in range(count):
        differences += some[i] != other[i]
    return differences == 0
