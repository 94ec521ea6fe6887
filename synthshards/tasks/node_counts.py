"""The size law of Depo and Brevo: n in 3..N with p(n) ∝ 1 / (n + √N), drawn with integers only.

Source: the published code of arXiv 2512.17351 (the paper's text gives it in several forms; its code in this one).
"""

from __future__ import annotations

from functools import cache
from math import isqrt
from typing import NamedTuple

import numpy as np

from ..kernels.arrays import I64, U64
from ..kernels.jit import helper
from ..kernels.rng import State, next_word

_56 = np.uint64(56)


class SizeLaw(NamedTuple):
    """The law's thresholds [N - 3], and a guide [256] into them by a word's top byte: see `size_law`."""

    thresholds: U64
    guide: I64


@cache
def size_law(N: int) -> SizeLaw:
    """The law as kernels take it.

    With r = isqrt(N·2^128) (that is √N·2^64), weight w(n) = 2^160 // (n·2^64 + r) and W the sum of all weights,
    threshold j is (w(3) + … + w(3 + j))·2^64 // W for j = 0..N-4. A 64-bit word x gives n = 3 + the number of
    thresholds ≤ x. Entry b of the guide is the number of thresholds ≤ b·2^56, where that count may start.
    """
    root = isqrt(N << 128)
    weights = [(1 << 160) // ((n << 64) + root) for n in range(3, N + 1)]
    total = sum(weights)
    thresholds, running = [], 0
    for weight in weights[:-1]:
        running += weight
        thresholds.append((running << 64) // total)
    table = np.array(thresholds, dtype=np.uint64)
    starts = np.arange(256, dtype=np.uint64) << _56
    return SizeLaw(table, np.searchsorted(table, starts, side="right").astype(np.int64))


@helper
def draw_size(s: State, law: SizeLaw) -> tuple[State, int]:
    """One draw of n: (new state, n)."""
    thresholds, guide = law.thresholds, law.guide
    s, x = next_word(s)
    j = guide[np.int64(x >> _56)]
    while j < thresholds.size and thresholds[j] <= x:
        j += 1
    return s, j + 3
