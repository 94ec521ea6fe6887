"""Numeric facts in Parquet pages: as indices of the fewest bits into a dictionary per block."""

from __future__ import annotations

import numpy as np

from ...kernels.arrays import I64, U8, U16, U32
from ...kernels.jit import helper, kernel
from ...ragged import BLOCK_ROWS
from .dictionary import number, put_indices
from .levels import write_levels


@helper
def _widened(value: np.uint16, width: int, out: U8, at: int) -> int:
    """Write a number as `width` bytes to out[at]; return their end."""
    out[at] = value & np.uint16(0xFF)
    out[at + 1] = value >> np.uint16(8)
    out[at + 2 : at + width] = 0
    return at + width


@kernel
def write_facts(
    values: U16, offsets: I64, width: int, slots: U32, codes: U16, distinct: U16, out: U8, ends: I64
) -> None:
    """Write the pages of a column of numbers below 2^16, block after block of 1,024 rows.

    Args:
        values: [values]; offsets: [rows + 1] of lists, empty for scalars.
        width: bytes of a number in the file, 4 or 8.
        slots: [65536], all zero, and again so on return.
        codes: [values of the largest block, in whole groups of eight]; distinct: [as many]; overwritten.
        out: [bytes], filled; each block's dictionary, and then its data page.
        ends: [blocks, 6], filled with the number of distinct values, both pages' ends, the number of levels, and the
            lowest and the highest value (0 where there are none).
    """
    lists = len(offsets) > 0
    rows = len(offsets) - 1 if lists else len(values)
    at = 0
    for block in range(len(ends)):
        first, last = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, rows)
        levels = last - first
        bounds = offsets[first : last + 1] if lists else offsets
        if lists:
            first, last = bounds[0], bounds[levels]
        some = values[first:last]
        count = number(some, slots, codes, distinct)
        ends[block, 0] = count
        lowest, highest = 0xFFFF, 0
        for i in range(count):
            lowest, highest = min(lowest, int(distinct[i])), max(highest, int(distinct[i]))
            at = _widened(distinct[i], width, out, at)
        ends[block, 1] = at
        if lists:
            size, levels = write_levels(bounds, out[at:])
            at += size
        at = put_indices(codes, len(some), count, out, at)
        ends[block, 2], ends[block, 3], ends[block, 4], ends[block, 5] = at, levels, min(lowest, highest), highest
