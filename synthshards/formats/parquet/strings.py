"""Strings in Parquet pages: texts each with its length before it, facts as numbers of a dictionary.

Capo's people have 200 birth cities and 300 universities: a block of 1,024 rows repeats them, and a byte or two a row
is all that is left. Strings are told apart by a table of hashes that lives for one block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.arrays import I64, U8, U16
from ...kernels.copying import copy_bytes
from ...kernels.jit import helper, kernel
from ...ragged import BLOCK_ROWS
from .dictionary import put_indices

_0, _1, _2, _3, _4, _8, _16, _24, _32 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 8, 16, 24, 32))
_ODD = np.uint64(0x9E3779B97F4A7C15)


@helper
def _four(data: U8, at: np.uint64) -> np.uint64:
    """Bytes at..at+3 as a number (one load: indices are unsigned)."""
    low = np.uint64(data[at]) | np.uint64(data[at + _1]) << _8
    return low | np.uint64(data[at + _2]) << _16 | np.uint64(data[at + _3]) << _24


@helper
def _eight(data: U8, at: np.uint64) -> np.uint64:
    """Bytes at..at+7 as a number."""
    return _four(data, at) | _four(data, at + _4) << _32


@helper
def _number_strings(data: U8, offsets: I64, slots: U16, codes: U16, firsts: I64) -> int:
    """Number the rows' strings in order of first appearance.

    Args:
        data: [bytes].
        offsets: [rows + 1], from anywhere in `data`.
        slots: [a power of two, at least twice as many as rows], overwritten.
        codes: [rows], filled with the number of each row's string.
        firsts: [rows], filled with the row where each number appears first.

    Returns:
        how many distinct strings there are.
    """
    slots[:] = 0
    last = np.uint64(len(slots) - 1)
    heads, tails = np.empty(len(firsts), np.uint64), np.empty(len(firsts), np.uint64)
    distinct = 0
    for row in range(len(offsets) - 1):
        start, stop = np.uint64(offsets[row]), np.uint64(offsets[row + 1])
        length = stop - start
        # Both ends, overlapping in what is short: all of up to 16 bytes, without a loop whose end nobody foresees.
        head, tail = _0, _0
        if length >= _8:
            head, tail = _eight(data, start), _eight(data, stop - _8)
        elif length >= _4:
            head, tail = _four(data, start), _four(data, stop - _4)
        elif length > _0:
            head = np.uint64(data[start]) | np.uint64(data[start + (length >> _1)]) << _8
            tail = np.uint64(data[stop - _1])
        mixed = head * _ODD
        mixed = ((mixed ^ mixed >> _32) + tail) * _ODD
        at = (mixed ^ mixed >> _32) & last
        code: Any = np.int64(slots[at])
        while code > 0:
            first = firsts[code - 1]
            other = np.uint64(offsets[first])
            differs = (heads[code - 1] ^ head) | (tails[code - 1] ^ tail)
            if differs == _0 and np.uint64(offsets[first + 1]) - other == length:
                i = _8
                while i + _8 < length:
                    differs |= _eight(data, start + i) ^ _eight(data, other + i)
                    i += _8
                if differs == _0:
                    break
            at = (at + _1) & last
            code = np.int64(slots[at])
        if code == 0:
            firsts[distinct] = row
            heads[distinct], tails[distinct] = head, tail
            distinct += 1
            code = distinct
            slots[at] = code
        codes[row] = code - 1
    return distinct


@helper
def _write_string(data: U8, offsets: I64, row: int, out: U8, at: int) -> int:
    """Write a row's length (uint32) and bytes to out[at]; return their end."""
    start, length = offsets[row], offsets[row + 1] - offsets[row]
    for i in range(4):
        out[at + i] = length >> (8 * i) & 0xFF
    copy_bytes(out, at + 4, data, start, length)
    end: int = at + 4 + length
    return end


@helper
def _precedes(data: U8, offsets: I64, row: int, other: int) -> bool:
    """Whether a row's string is lower than another's, byte by byte."""
    start, length = offsets[row], offsets[row + 1] - offsets[row]
    second, limit = offsets[other], offsets[other + 1] - offsets[other]
    for i in range(min(length, limit)):
        if data[start + i] != data[second + i]:
            below: bool = data[start + i] < data[second + i]
            return below
    shorter: bool = length < limit
    return shorter


@kernel
def write_strings(
    data: U8, offsets: I64, numbered: bool, slots: U16, codes: U16, firsts: I64, out: U8, ends: I64
) -> None:
    """Write the pages of a column of strings, block after block of 1,024 rows.

    Args:
        data: [bytes].
        offsets: [rows + 1].
        numbered: with dictionaries.
        slots: [2,048]; codes: [1,024]; firsts: [1,024]; overwritten.
        out: [bytes], filled; each block's dictionary, if it has one, and then its data page.
        ends: [blocks, 7], filled with the number of distinct strings (0: no dictionary), both pages' ends, and where in
            `data` the lowest and the highest string begin and end.
    """
    rows = len(offsets) - 1
    at = 0
    for block in range(len(ends)):
        first = block * BLOCK_ROWS
        count = min(BLOCK_ROWS, rows - first)
        bounds = offsets[first : first + count + 1]
        distinct = _number_strings(data, bounds, slots, codes, firsts) if numbered else 0
        begin, lowest, highest = at, 0, 0
        for i in range(distinct if numbered else count):
            row = firsts[i] if numbered else i
            if _precedes(data, bounds, row, lowest):
                lowest = row
            elif _precedes(data, bounds, highest, row):
                highest = row
            at = _write_string(data, bounds, row, out, at)
        ends[block, 0], ends[block, 1] = distinct, begin
        if numbered:
            ends[block, 1] = at
            at = put_indices(codes, count, distinct, out, at)
        ends[block, 2] = at
        ends[block, 3:5], ends[block, 5:7] = bounds[lowest : lowest + 2], bounds[highest : highest + 2]


@kernel
def read_strings(data: U8, offsets: I64, out: U8) -> bool:
    """The inverse: fills offsets [rows + 1] and out [bytes]; False unless data [bytes] is exactly so many strings."""
    at = 0
    offsets[0] = 0
    for row in range(len(offsets) - 1):
        if at + 4 > len(data):
            return False
        length = 0
        for i in range(4):
            length |= int(data[at + i]) << (8 * i)
        at += 4
        if at + length > len(data) or offsets[row] + length > len(out):
            return False
        copy_bytes(out, offsets[row], data, at, length)
        offsets[row + 1] = offsets[row] + length
        at += length
    return at == len(data)


@kernel
def string_lengths(codes: U16, ends: I64, offsets: I64) -> bool:
    """Fill offsets [rows + 1] of strings given by their codes [rows]; False if a code is out of range.

    Args:
        ends: [distinct + 1], the dictionary's offsets.
    """
    offsets[0] = 0
    for row in range(len(codes)):
        code = codes[row]
        if code >= len(ends) - 1:
            return False
        offsets[row + 1] = offsets[row] + ends[code + 1] - ends[code]
    return True


@kernel
def look_up_strings(codes: U16, data: U8, ends: I64, offsets: I64, out: U8) -> None:
    """Fill out [bytes] with the strings that codes [rows] name.

    Args:
        data, ends: [bytes] and [distinct + 1], the dictionary.
        offsets: [rows + 1], as `string_lengths` fills them.
    """
    for row in range(len(codes)):
        code = codes[row]
        copy_bytes(out, offsets[row], data, ends[code], ends[code + 1] - ends[code])
