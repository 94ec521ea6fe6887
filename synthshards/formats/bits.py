"""Packing small numbers into bits, least significant first, and back: Arrow's booleans, Parquet's indices."""

from __future__ import annotations

import numpy as np

from ..kernels.arrays import U8, U16
from ..kernels.jit import kernel

_0, _ONE, _8, _32, _BYTE = (np.uint64(i) for i in (0, 1, 8, 32, 0xFF))


def pack_bits(values: np.ndarray) -> np.ndarray:
    """Booleans as bits: uint8, the last one filled up with zeros."""
    return np.packbits(values, bitorder="little")


@kernel
def pack(codes: U16, bits: np.uint64, out: U8) -> int:
    """Pack numbers below 2^bits (a multiple of eight of them) into `out`, the first in the lowest bits.

    Args:
        codes: [n].
        out: [bytes], at least n·bits/8; may be the memory of `codes`.

    Returns:
        the bytes used.
    """
    held, have, at = np.uint64(0), np.uint64(0), 0
    for i in range(len(codes)):
        held |= np.uint64(codes[i]) << have
        have += bits
        if have >= _32:
            for j in range(4):
                out[at + j] = held >> np.uint64(8 * j) & _BYTE
            at += 4
            held >>= _32
            have -= _32
    while have > _0:
        out[at] = held & _BYTE
        at += 1
        held >>= _8
        have -= _8
    return at


@kernel
def unpack(packed: U8, bits: np.uint64, out: U16) -> None:
    """The inverse: fills out [n] from packed [bytes], at least n·bits/8 of them."""
    held, have, at = np.uint64(0), np.uint64(0), 0
    mask = (_ONE << bits) - _ONE
    for i in range(len(out)):
        while have < bits:
            held |= np.uint64(packed[at]) << have
            at += 1
            have += _8
        out[i] = held & mask
        held >>= bits
        have -= bits


@kernel
def unpack_bits(packed: U8, skip: int, out: U8) -> None:
    """Fill out [n] with the bits of packed [bytes] from bit `skip` (0..7) on, the first the lowest.

    Twice as fast as NumPy's, and into memory that is there (measured).
    """
    count = len(out)
    at = min((8 - skip) % 8, count)
    for i in range(at):
        out[i] = packed[0] >> np.uint8(skip + i) & np.uint8(1)
    whole = (count - at) // 8
    bytes_ = packed[(skip + at) // 8 :]
    eights = out[at : at + 8 * whole]
    for i in range(whole):
        byte = np.uint64(bytes_[i])
        for j in range(8):
            eights[8 * i + j] = byte >> np.uint64(j) & _ONE
    for i in range(at + 8 * whole, count):
        out[i] = bytes_[whole] >> np.uint8(i - at - 8 * whole) & np.uint8(1)
