"""Randomness: one stream of 64-bit words for each (identity, row index), and unbiased numbers from its words.

The scheme in one paragraph (docs/randomness.md spells it out byte by byte): the first 16 bytes of the identity's
sha256 are a 128-bit key. Philox4x32-10, a published counter-based generator (Salmon et al., SC 2011), turns the key
and the row index into 256 bits; they are the start state of a xoshiro256++ generator (Blackman & Vigna, 2021), whose
words the row then uses in order. Nothing depends on any other row, on time, or on global state.

A bounded number is drawn by Lemire's method (ACM TOMACS 2019) in its batched form (Brackett-Rozinsky & Lemire, 2024):
one word gives several numbers with ranges n1, n2, …: they are the digits, most significant first, of one unbiased
number below P = n1·n2·… in that mixed radix.

Kernel helpers carry the generator's state as a tuple of four uint64, which the compiler keeps in registers. Every
number they take is a uint64; a key is uint64 [2 or more], of which the first two count (or a tuple of two).
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, TypeAlias

import numpy as np
from numba import types
from numba.extending import intrinsic

from ..errors import UsageError
from .arrays import U64
from .jit import JIT_DISABLED, helper, kernel

State: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]
Key: TypeAlias = U64 | tuple[np.uint64, np.uint64]

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_0, _1 = np.uint64(0), np.uint64(1)
_17, _19, _23, _41, _45 = np.uint64(17), np.uint64(19), np.uint64(23), np.uint64(41), np.uint64(45)

if JIT_DISABLED:

    def mulhi(a: np.uint64, b: np.uint64) -> np.uint64:
        """High 64 bits of the 128-bit product of two uint64."""
        return np.uint64((int(a) * int(b)) >> 64)

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def mulhi(typingctx: Any, a: Any, b: Any) -> Any:
        """High 64 bits of the 128-bit product of two uint64 (one instruction on today's machines)."""

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            from llvmlite import ir

            wide = ir.IntType(128)
            product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
            return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

        return types.uint64(types.uint64, types.uint64), codegen


@helper
def philox(k0: np.uint64, k1: np.uint64, c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64) -> State:
    """Philox4x32-10: four 32-bit words (each in a uint64) for a two-word key and a four-word counter."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@helper
def stream(key: Key, index: np.uint64) -> State:
    """Start state of row `index` (uint64 below 2^63) under `key` (two uint64): Philox blocks 2·index, 2·index + 1.

    Philox is a bijection of its counter, so the two blocks differ and the state is never all zero.
    """
    k0, k1 = key[0] & _LOW, key[0] >> _32
    c2, c3 = key[1] & _LOW, key[1] >> _32
    block = index << _1
    a0, a1, a2, a3 = philox(k0, k1, block & _LOW, block >> _32, c2, c3)
    block |= _1
    b0, b1, b2, b3 = philox(k0, k1, block & _LOW, block >> _32, c2, c3)
    return a0 | (a1 << _32), a2 | (a3 << _32), b0 | (b1 << _32), b2 | (b3 << _32)


@helper
def next_word(s: State) -> tuple[State, np.uint64]:
    """One step of xoshiro256++: (new state, 64-bit word)."""
    s0, s1, s2, s3 = s
    mixed = s0 + s3
    word = ((mixed << _23) | (mixed >> _41)) + s0
    shifted = s1 << _17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << _45) | (s3 >> _19)
    return (s0, s1, s2, s3), word


@helper
def word_for(s: State, product: np.uint64) -> tuple[State, np.uint64]:
    """A word from which numbers can be drawn without bias whose ranges multiply to `product` (uint64 ≥ 1).

    The word x is accepted when x·product mod 2^64 ≥ 2^64 mod product. Then, for each range n in turn, the number is
    the high half of x·n and x becomes its low half: ``digit = mulhi(x, n); x *= n``.
    """
    s, x = next_word(s)
    if x * product < product:
        least = (_0 - product) % product
        while x * product < least:
            s, x = next_word(s)
    return s, x


@helper
def below(s: State, n: np.uint64) -> tuple[State, np.uint64]:
    """One unbiased number in 0..n-1 (n: uint64 ≥ 1): (new state, number as uint64)."""
    s, x = word_for(s, n)
    return s, mulhi(x, n)


@kernel
def words(key: U64, index: np.uint64, count: int) -> U64:
    """The first `count` 64-bit words of row `index` under key [2]: what docs/randomness.md defines."""
    out = np.empty(count, np.uint64)
    s = stream(key, index)
    for i in range(count):
        s, out[i] = next_word(s)
    return out


def key_of(digest: bytes) -> U64:
    """The stream key of a sha256 digest: its first 16 bytes as two little-endian uint64."""
    return np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)


def key_from_rng(rng: int | np.integer[Any] | random.Random | np.random.Generator) -> U64:
    """A key drawn from a caller's generator, in a domain of its own (never the stream of any dataset).

    Args:
        rng: an int (the same int gives the same key), a `random.Random` or a `numpy.random.Generator`;
            the latter two advance.

    Raises:
        UsageError: for anything else.
    """
    if isinstance(rng, np.integer):
        rng = int(rng)
    if isinstance(rng, bool) or not isinstance(rng, int | random.Random | np.random.Generator):
        raise UsageError(f"rng is {type(rng).__name__}; legal: int, random.Random, numpy.random.Generator")
    if isinstance(rng, int):
        material = f"int {rng}".encode()
    elif isinstance(rng, random.Random):
        material = b"bits " + rng.getrandbits(128).to_bytes(16, "little")
    else:
        material = b"bits " + rng.bytes(16)
    return key_of(hashlib.sha256(b"synthshards generate_example\0" + material).digest())
