"""Indices into a Parquet dictionary: numbers for values, and back."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...errors import DataError
from ...kernels.arrays import U8, U16, U32, Values
from ...kernels.jit import helper, kernel
from ..base import unreadable
from ..bits import pack, unpack
from .thrift import varint


@kernel
def number(values: U16, codes: U32, out: U8 | U16, distinct: U16) -> int:
    """Number the values in order of first appearance.

    Args:
        values: [n].
        codes: [65536], all zero, and again so on return.
        out: [n], filled with the number of each value.
        distinct: [limit], filled with the value of each number.

    Returns:
        how many distinct values there are, or -1 if more than `limit`.
    """
    count = 0
    for i in range(len(values)):
        value = values[i]
        code = codes[value]
        if code == 0:
            if count == len(distinct):
                count = -1
                break
            distinct[count] = value
            count += 1
            code = np.uint32(count)
            codes[value] = code
        out[i] = code - 1
    for i in range(len(distinct) if count < 0 else count):
        codes[distinct[i]] = 0
    return count


@helper
def put_indices(codes: U16, count: int, distinct: int, out: U8, at: int) -> int:
    """Write the first `count` numbers, below `distinct`, in the fewest bits to out[at]; return their end.

    Args:
        codes: [count or more], with room for whole groups of eight, what is left of the last is overwritten.
    """
    bits = 1
    while 1 << bits < distinct:
        bits += 1
    groups = -(-count // 8)
    codes[count : 8 * groups] = 0
    out[at] = bits
    at += 1
    head = groups << 1 | 1
    while head > 0x7F:
        out[at] = head & 0x7F | 0x80
        head >>= 7
        at += 1
    out[at] = head
    at += 1
    return at + pack(codes[: 8 * groups], np.uint64(bits), out[at:])


@kernel
def look_up(indices: U16, dictionary: Values, out: Values) -> bool:
    """out[i] = dictionary[indices[i]]; False if an index is out of range.

    Args:
        indices, out: [n].
        dictionary: [distinct], of the dtype of `out`.
    """
    right = True
    for i in range(len(out)):
        index = indices[i]
        if index < len(dictionary):
            out[i] = dictionary[index]
        else:
            right = False
    return right


@lru_cache(maxsize=64)
def index_head(count: int, bits: int) -> np.ndarray:
    """What stands before indices: the bits of each, and one bit-packed run of groups of eight."""
    return np.frombuffer(bytes((bits,)) + varint(-(-count // 8) << 1 | 1), np.uint8)


def unpacked(values: np.ndarray, count: int) -> np.ndarray:
    """The indices that `values` (uint8, all of them) hold: uint8 or uint16 [count].

    Raises:
        DataError: they do not hold so many.
    """
    bits = int(values[0]) if len(values) else 0
    head = index_head(count, bits)
    packed = values[len(head) :]
    if not 1 <= bits <= 16 or not np.array_equal(values[: len(head)], head) or len(packed) != -(-count // 8) * bits:
        raise damaged("indices")
    if bits in (8, 16):
        return packed.view(f"<u{bits // 8}")[:count]
    out = np.empty(count, np.uint16)
    unpack(packed, np.uint64(bits), out)
    return out


def damaged(what: str) -> DataError:
    """The error over a page that the writer of this package did not make."""
    return unreadable("Parquet", f"unexpected {what} in a page")
