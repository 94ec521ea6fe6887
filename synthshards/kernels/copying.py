"""Copies of a fixed width inside kernels: no loop, no branch, two or four instructions.

Texts are put together from short pieces whose lengths nobody can predict. Copying 32 or 64 bytes each time, and moving
the cursor by the piece's own length, is faster than any loop over the length. Whoever copies so must leave that much
room behind the last piece, in the source and in the target.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from .jit import JIT_DISABLED

if JIT_DISABLED:

    def copy32(out: Any, at: Any, data: Any, start: Any) -> None:
        """out[at:at+32] = data[start:start+32], of uint8 arrays that do not overlap; nothing is checked."""
        out[at : at + 32] = data[start : start + 32]

    def copy64(out: Any, at: Any, data: Any, start: Any) -> None:
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
