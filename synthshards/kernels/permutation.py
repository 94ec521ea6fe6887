"""Keyed permutations of 0..n-1 in constant time and memory: which row is about which person, and who has which name.

A Feistel network over the pairs (u, v) with u < a and v < b, where a = ⌈√n⌉ and b = ⌈n/a⌉, so that a·b exceeds n by
less than a. Six rounds add to one half a number that a keyed hash makes of the other:

    u = x // b,  v = x mod b
    u = (u + h(k0, v, a)) mod a,   v = (v + h(k1, u, b)) mod b,   u = … k2,   v = … k3,   u = … k4,   v = … k5
    x = u·b + v,   and the whole again while x ≥ n

h(k, y, m) is z·m // 2^64, where z is word number y + 1 of SplitMix64 (Steele, Lea, Flood: *Fast splittable pseudorandom
number generators*, OOPSLA 2014) started at k. Each round can be undone whatever h is, so that the network is a
permutation for every key. The six round keys are words of a stream: see `round_keys`.

>>> sorted(permuted(x, 10, (1, 2, 3, 4, 5, 6)) for x in range(10)) == list(range(10))
True
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TypeAlias

import numpy as np

from .arrays import U64
from .jit import helper
from .rng import Key, mulhi, next_word, stream, words

ROUNDS = 6
_GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_G, _A, _B = np.uint64(_GOLDEN), np.uint64(_M1), np.uint64(_M2)
_27, _30, _31 = np.uint64(27), np.uint64(30), np.uint64(31)
_1 = np.uint64(1)

RoundKeys: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]


def sides(n: int) -> tuple[int, int]:
    """a and b of the network on 0..n-1 (n ≥ 1)."""
    a = isqrt(n - 1) + 1 if n > 1 else 1
    return a, -(-n // a)


def _hash(k: int, y: int, m: int) -> int:
    z = (k + (y + 1) * _GOLDEN) & _MASK
    z = ((z ^ z >> 30) * _M1) & _MASK
    z = ((z ^ z >> 27) * _M2) & _MASK
    return (z ^ z >> 31) * m >> 64


def permuted(x: int, n: int, keys: Sequence[int]) -> int:
    """The place of x under the permutation of 0..n-1 that `keys` (six of 64 bits) name. Plain Python."""
    a, b = sides(n)
    while True:
        u, v = divmod(x, b)
        for r in range(0, ROUNDS, 2):
            u = (u + _hash(keys[r], v, a)) % a
            v = (v + _hash(keys[r + 1], u, b)) % b
        x = u * b + v
        if x < n:
            return x


def round_keys_of(key: U64, index: int) -> list[int]:
    """The first six words of stream `index` under `key`, as integers."""
    return [int(word) for word in words(key, np.uint64(index), ROUNDS)]


@helper
def round_keys(key: Key, index: np.uint64) -> RoundKeys:
    """The first six words of stream `index` (uint64) under `key`, as a tuple that stays in registers."""
    s = stream(key, index)
    s, k0 = next_word(s)
    s, k1 = next_word(s)
    s, k2 = next_word(s)
    s, k3 = next_word(s)
    s, k4 = next_word(s)
    s, k5 = next_word(s)
    return k0, k1, k2, k3, k4, k5


@helper
def _step(u: np.uint64, k: np.uint64, y: np.uint64, m: np.uint64) -> np.uint64:
    """(u + h(k, y, m)) mod m, for u < m."""
    z = k + (y + _1) * _G
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    u = u + mulhi(z ^ (z >> _31), m)
    return u - m if u >= m else u


@helper
def permute(x: np.uint64, n: np.uint64, a: np.uint64, b: np.uint64, keys: RoundKeys) -> np.uint64:
    """`permuted` inside kernels; a and b are those of `sides`."""
    k0, k1, k2, k3, k4, k5 = keys
    while True:
        u = x // b
        v = x - u * b
        u = _step(u, k0, v, a)
        v = _step(v, k1, u, b)
        u = _step(u, k2, v, a)
        v = _step(v, k3, u, b)
        u = _step(u, k4, v, a)
        v = _step(v, k5, u, b)
        x = u * b + v
        if x < n:
            return x
