"""Rows picked from anywhere, without copying them: blocks of rows, and which row of which block comes when.

A kernel that fills a batch reads rows from the blocks they lie in, in whatever order is asked for. Blocks come and go,
so it is given their addresses; `Rows` holds the blocks for as long as anybody may read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from synthshards.kernel import helper, kernel
from synthshards.ragged import RaggedBatch


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:
    """A uint64 as a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask memory for the cache line at an address (uint64), to be read soon."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(i32, n) for n in (0, 3, 1))
        builder.call(function, [builder.inttoptr(args[0], cgutils.voidptr_t), read, keep, data])
        return context.get_dummy_value()

    return types.void(types.uint64), codegen


@helper
def array_at(address: Any, size: Any, dtype: Any) -> Any:
    """The 1-D array of `size` elements that lies at an address."""
    return carray(_pointer(address), size, dtype)


@kernel
def _measure(addresses: Any, part: Any, row: Any, start: Any, length: Any) -> None:
    for i in range(part.size):
        offsets = array_at(addresses[part[i], 2], row[i] + 2, np.int64)
        start[i] = offsets[row[i]]
        length[i] = offsets[row[i] + 1] - offsets[row[i]]


class Block:
    """Token rows that lie together, and the addresses (uint64 [3]) of their ids, mask and offsets."""

    __slots__ = ("addresses", "batch", "dtype", "held")

    def __init__(self, batch: RaggedBatch) -> None:
        self.batch = batch
        self.held = ids, mask, offsets = batch.input_ids, batch.loss_mask, batch.offsets
        assert all(a.flags.c_contiguous for a in self.held), "flat arrays"
        assert mask.itemsize == 1, "a byte a mask bit"
        assert offsets.dtype == np.int64, "int64 offsets"
        self.dtype = ids.dtype
        self.addresses = [a.__array_interface__["data"][0] for a in self.held]


class Rows:
    """n rows in the order asked for, lying in blocks.

    Attributes:
        index: int64 [n]: each row's global index.
        blocks: what holds them (ids of one dtype).
        part, row: int64 [n]: row i is row `row[i]` of `blocks[part[i]]`.
        addresses: uint64 [blocks, 3].
        like: an empty array of the ids' dtype, for kernels.
        start, length: int64 [n]: each row's first token in its block, and number of tokens.
    """

    def __init__(self, index: np.ndarray, blocks: Sequence[Block], part: np.ndarray, row: np.ndarray) -> None:
        self.index, self.blocks, self.part, self.row = index.astype(np.int64), blocks, part, row
        self.addresses = np.array([block.addresses for block in blocks], np.uint64).reshape(-1, 3)
        self.dtype = blocks[0].dtype if blocks else np.dtype(np.uint16)
        assert all(block.dtype == self.dtype for block in blocks), "one width of ids"
        self.start, self.length = np.empty(len(index), np.int64), np.empty(len(index), np.int64)
        self.like = np.empty(0, self.dtype)
        _measure(self.addresses, part, row, self.start, self.length)

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def of(index: np.ndarray, batch: RaggedBatch) -> Rows:
        """All rows of one batch, in its order."""
        n = len(index)
        assert len(batch) == n, "a row an index"
        return Rows(index, [Block(batch)], np.zeros(n, np.int64), np.arange(n, dtype=np.int64))

    def fact(self, name: str, start: int, stop: int) -> list[Any]:
        """A column of rows start..stop−1, as Python values."""
        out = []
        for part, row in zip(self.part[start:stop].tolist(), self.row[start:stop].tolist(), strict=True):
            out += self.blocks[part].batch.columns[name].slice(row, row + 1).tolist()
        return out
