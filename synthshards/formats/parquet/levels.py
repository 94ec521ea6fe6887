"""The levels of a Parquet list column: how a flat run of values falls into rows. `pages` shows an example.

Each of a column's two level blocks has one entry a value, and one for each empty list. Repetition levels say whether an
entry goes on with the row before (1) or begins a row (0); definition levels whether there is a value (1) or an empty
list (0). Rows are long runs of equal levels, so run lengths are all we write, and all we read.
"""

from __future__ import annotations

from ...kernels.arrays import I64, U8
from ...kernels.jit import helper, kernel


@helper
def _run(out: U8, at: int, count: int, level: int) -> int:
    """Write one RLE run of a level at out[at], nothing for count 0; return the end."""
    if count == 0:
        return at
    head = count << 1
    while head > 0x7F:
        out[at] = head & 0x7F | 0x80
        head >>= 7
        at += 1
    out[at] = head
    out[at + 1] = level
    return at + 2


@kernel
def write_levels(offsets: I64, out: U8) -> tuple[int, int]:
    """Write both level blocks of a list column.

    Args:
        offsets: [rows + 1], those of some rows of it, from anywhere.
        out: [bytes], at least 24 a row and 32 more.

    Returns:
        the end of what was written, and the number of levels: one an element, one an empty list.
    """
    rows = len(offsets) - 1
    at, levels, begun = 4, 0, 0
    for row in range(rows):
        more = offsets[row + 1] - offsets[row] - 1
        begun += 1
        levels += max(more, 0) + 1
        if more > 0:
            at = _run(out, at, begun, 0)
            at = _run(out, at, more, 1)
            begun = 0
    at = _run(out, at, begun, 0)
    middle = at
    at += 4
    present, absent = 0, 0
    for row in range(rows):
        length = offsets[row + 1] - offsets[row]
        if length > 0:
            at = _run(out, at, absent, 0)
            absent = 0
            present += length
        else:
            at = _run(out, at, present, 1)
            present = 0
            absent += 1
    at = _run(out, at, present, 1)  # one of the two is 0
    at = _run(out, at, absent, 0)
    for i in range(4):
        out[i] = (middle - 4) >> (8 * i) & 0xFF
        out[middle + i] = (at - middle - 4) >> (8 * i) & 0xFF
    return at, levels


@helper
def _read_run(data: U8, at: int, end: int) -> tuple[int, int, int]:
    """One RLE run of levels 0 or 1 within data[at:end]: (count, level, its end); count 0 if it is none."""
    head, shift = 0, 0
    while at + 1 < end and shift < 35:
        byte = int(data[at])
        head |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            level = int(data[at])
            if head & 1 or level > 1:
                return 0, 0, at
            return head >> 1, level, at + 1
        shift += 7
    return 0, 0, at


@kernel
def read_levels(data: U8, lengths: I64) -> int:
    """Read both level blocks at the start of a page.

    Args:
        data: [bytes], the page.
        lengths: [rows], filled with each row's length.

    Returns:
        where the values begin, or -1 if these are not the levels of so many rows.
    """
    end = 0
    for block in range(2):
        at = end + 4
        if at > len(data):
            return -1
        size = 0
        for i in range(4):
            size |= int(data[end + i]) << (8 * i)
        end = at + size
        if end > len(data):
            return -1
        row = 0
        while at < end:
            count, level, at = _read_run(data, at, end)
            if count == 0:
                return -1
            if block == 0 and level == 0:  # so many rows begin
                if row + count > len(lengths):
                    return -1
                lengths[row : row + count] = 1
                row += count
            elif block == 0:  # the last row goes on
                if row == 0:
                    return -1
                lengths[row - 1] += count
            while block == 1 and count > 0:
                if row == len(lengths) or count < lengths[row] or (level == 0 and lengths[row] != 1):
                    return -1
                count -= lengths[row]
                if level == 0:
                    lengths[row] = 0
                row += 1
        if row != len(lengths):
            return -1
    return end
