"""Rows picked from anywhere, without copying them: blocks of rows, and which row of which block comes when.

A kernel that fills a batch reads rows from the blocks they lie in, in whatever order is asked for. Blocks come and go,
so it is given the rows' addresses; `RowRefs` holds the blocks meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import DTypeLike

from synthshards.errors import DataError
from synthshards.kernels.arrays import I64, U64, Values
from synthshards.kernels.jit import helper, kernel
from synthshards.ragged import RaggedBatch

#: Bytes of a cache line.
_LINE = np.uint64(64)


class RowTable(NamedTuple):
    """Rows and where they lie, as kernels take them: arrays of one shape, [rows] or [lanes, rows].

    Attributes:
        length: [rows], tokens.
        indices: [rows], global indices.
        ids, mask: [rows], addresses of the row's first id (uint16 or uint32) and of its first byte of the mask.
    """

    length: I64
    indices: I64
    ids: U64
    mask: U64


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
def array_at(address: np.uint64, size: int, dtype: DTypeLike) -> Values:
    """The 1-D array of `size` elements that lies at an address."""
    array: Values = carray(_pointer(address), size, dtype)
    return array


@helper
def fetch_row(ids: int | np.uint64, mask: int | np.uint64, skip: int, count: int, size: np.uint64) -> None:
    """Ask memory for tokens skip .. skip+count−1 of a row: those of a shuffle lie where no processor foresees them.

    Args:
        ids, mask: addresses of the row's first id and of its first byte of the mask.
        size: bytes of an id.
    """
    at = np.uint64(ids) + np.uint64(skip) * size
    end = at + np.uint64(count) * size
    while at < end:
        prefetch(at)
        at += _LINE
    at = np.uint64(mask) + np.uint64(skip)
    end = at + np.uint64(count)
    while at < end:
        prefetch(at)
        at += _LINE


@kernel
def _locate(addresses: U64, part: I64, row: I64, size: np.uint64, table: RowTable) -> int:
    """Fill all of `table` but its indices: row i is row row[i] of block part[i].

    Args:
        addresses: [blocks, 5], `Block.addresses` of each.
        part, row: [rows].
        size: bytes of an id.

    Returns:
        the first row that does not lie in its block, the number of rows if all do.
    """
    ids, mask, length = table.ids, table.mask, table.length
    for i in range(part.size):
        block = addresses[part[i]]
        if not 0 <= row[i] < np.int64(block[3]):
            return i
        offsets = array_at(block[2], row[i] + 2, np.int64)
        start, stop = offsets[row[i]], offsets[row[i] + 1]
        if not 0 <= start <= stop <= np.int64(block[4]):
            return i
        ids[i], mask[i] = block[0] + np.uint64(start) * size, block[1] + np.uint64(start)
        length[i] = stop - start
    return part.size


class Block:
    """Token rows that lie together; the addresses of their ids, mask and offsets, and how many rows and tokens these
    have (uint64 [5]).
    """

    __slots__ = ("addresses", "batch", "dtype", "held")

    def __init__(self, batch: RaggedBatch) -> None:
        self.batch = batch
        self.held = ids, mask, offsets = batch.input_ids, batch.loss_mask, batch.offsets
        assert all(a.flags.c_contiguous for a in self.held), "flat arrays"
        assert mask.itemsize == 1, "a byte a mask bit"
        assert offsets.dtype == np.int64, "int64 offsets"
        self.dtype = ids.dtype
        rows, tokens = offsets.size - 1, min(ids.size, mask.size)
        self.addresses = [*(a.__array_interface__["data"][0] for a in self.held), rows, tokens]


class RowRefs:
    """n rows in the order asked for, lying in blocks. Addresses are good for as long as this object is held.

    Attributes:
        index: int64 [n]: each row's global index.
        blocks: what holds them (ids of one dtype).
        part, row: int64 [n]: row i is row `row[i]` of `blocks[part[i]]`.
        table: the rows as kernels take them, `length` its int64 [n]: tokens of each row.
        like: an empty array of the ids' dtype, for kernels.

    Raises:
        DataError: a row that is not within its block.
    """

    def __init__(self, index: np.ndarray, blocks: Sequence[Block], part: np.ndarray, row: np.ndarray) -> None:
        self.index, self.blocks, self.part, self.row = index.astype(np.int64), blocks, part, row
        addresses = np.array([block.addresses for block in blocks], np.uint64).reshape(-1, 5)
        dtype = blocks[0].dtype if blocks else np.dtype(np.uint16)
        assert all(block.dtype == dtype for block in blocks), "one width of ids"
        self.like = np.empty(0, dtype)
        self.length = np.empty(len(index), np.int64)
        ids, mask = np.empty(len(index), np.uint64), np.empty(len(index), np.uint64)
        self.table = RowTable(self.length, self.index, ids, mask)
        located = _locate(addresses, part, row, np.uint64(dtype.itemsize), self.table)
        if located < len(index):
            raise DataError(f"row {self.index[located]} is not within the tokens of its block: the shard is damaged")

    def __len__(self) -> int:
        return len(self.index)

    @staticmethod
    def of(index: np.ndarray, batch: RaggedBatch) -> RowRefs:
        """All rows of one batch, in its order."""
        n = len(index)
        assert len(batch) == n, "a row an index"
        return RowRefs(index, [Block(batch)], np.zeros(n, np.int64), np.arange(n, dtype=np.int64))

    def fact(self, name: str, at: int) -> Any:
        """A column of row `at`, as a Python value."""
        row = int(self.row[at])
        return self.blocks[int(self.part[at])].batch.columns[name].slice(row, row + 1).tolist()[0]
