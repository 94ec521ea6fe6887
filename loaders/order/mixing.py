"""Which component of a mixture gives the unit at each position: a low-discrepancy schedule, not a draw.

Weights become integers a₁ … aₙ with sum A. After q units, component i should have given aᵢ·q/A. At each position the
schedule takes, among the components that would not run ahead of that by a whole unit, the one whose next unit is due
first (the earliest-deadline rule of R. Tijdeman, *The chairman assignment problem*, Discrete Math. 32, 1980). At every
prefix each component has given its share to within one unit, exactly its share at multiples of A, and no position
depends on the number of ranks.

>>> Schedule([0.5, 0.25, 0.25]).components(0, 8).tolist()
[0, 1, 0, 2, 0, 1, 0, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from synthshards.errors import UsageError
from synthshards.kernels.arrays import I64, U64
from synthshards.kernels.jit import kernel

#: A is at most this, so that products of two numbers up to A fit 64 bits. Weights that need more are rounded.
LARGEST_SUM = 1 << 31
#: Weights nearer than this (relatively) to a fraction of small numbers mean that fraction: 0.333333333333 is 1/3.
_NEAR = 1e-11

_1 = np.uint64(1)


@kernel
def _advance(shares: U64, total: np.uint64, counts: U64, place: np.uint64, out: I64) -> None:
    """Write the components of positions place, place + 1 … (place = Σ counts < total) and count them.

    Counts start anew with every period of `total` units.

    Args:
        shares, counts: [components]; out: [positions].
    """
    for q in range(out.size):
        best, deadline = 0, np.uint64(0xFFFFFFFFFFFFFFFF)
        for i in range(shares.size):
            if counts[i] * total < shares[i] * (place + _1):
                due = ((counts[i] + _1) * total + shares[i] - _1) // shares[i]
                if due < deadline:
                    best, deadline = i, due
        out[q] = best
        counts[best] += _1
        place += _1
        if place == total:
            place = np.uint64(0)
            for i in range(shares.size):
                counts[i] = np.uint64(0)


def integer_weights(weights: Sequence[float | int | Fraction]) -> list[int]:
    """The smallest integers in the proportions of `weights`.

    Floats mean the decimal number they print as. Weights whose integers would add up to more than 2^31 are rounded to
    multiples of 2^−31 of their sum (never to 0).

    Raises:
        UsageError: a weight that is no positive finite number.

    >>> integer_weights([0.7, 0.3])
    [7, 3]
    """
    exact = []
    for weight in weights:
        try:
            value = Fraction(str(weight)) if isinstance(weight, float) else Fraction(weight)
        except (TypeError, ValueError, OverflowError):
            value = Fraction(0)
        if isinstance(weight, bool) or value <= 0:
            raise UsageError(f"a weight of {weight!r} in a mixture; legal: numbers above 0")
        small = value.limit_denominator(1000)
        exact.append(small if small and abs(small - value) <= value * Fraction(_NEAR) else value)
    common = lcm(*(value.denominator for value in exact))
    shares = [int(value * common) for value in exact]
    if sum(shares) // gcd(*shares) > LARGEST_SUM:
        whole = sum(shares)
        room = LARGEST_SUM - len(shares)
        shares = [max(1, share * room // whole) for share in shares]
    divisor = gcd(*shares)
    return [share // divisor for share in shares]


class Schedule:
    """The schedule of a mixture.

    Args:
        weights: positive numbers, one a component.

    Attributes:
        shares: the integers a₁ … aₙ.
        total: their sum A, the period of the schedule.
    """

    def __init__(self, weights: Sequence[float | int | Fraction]) -> None:
        self.shares = integer_weights(weights)
        self.total = sum(self.shares)
        self._shares = np.array(self.shares, np.uint64)
        self._known = 0, np.zeros(len(self.shares), np.uint64)  # a position and the counts there: threads take both

    def components(self, start: int, count: int) -> np.ndarray:
        """int64 [count]: the component at positions start, start + 1 …

        In constant time a unit when calls follow one another; else from the start of the period.
        """
        place, counts = self._at(start)
        out = np.empty(count, np.int64)
        _advance(self._shares, np.uint64(self.total), counts, np.uint64(place), out)
        self._known = start + count, counts
        return out

    def counts(self, position: int) -> list[int]:
        """How many units each component has given before `position`."""
        counts = self._at(position)[1]
        self._known = position, counts
        periods = position // self.total
        return [periods * share + int(n) for share, n in zip(self.shares, counts, strict=True)]

    def _at(self, position: int) -> tuple[int, np.ndarray]:
        """The place in the period, and the counts there (a copy)."""
        period, place = divmod(position, self.total)
        at, known_counts = self._known
        if not (at <= position and at // self.total == period):
            known_counts, at = np.zeros(len(self.shares), np.uint64), position - place
        counts = known_counts.copy()
        skip = np.empty(min(position - at, 1 << 16), np.int64)
        while at < position:
            step = min(position - at, skip.size)
            _advance(self._shares, np.uint64(self.total), counts, np.uint64(at % self.total), skip[:step])
            at += step
        return place, counts

    def length(self, rows: Sequence[int | None]) -> int | None:
        """Units before the first that a component with so many rows cannot give; None: there is no such unit."""
        limits = [(n, share) for n, share in zip(rows, self.shares, strict=True) if n is not None]
        if not limits:
            return None
        position = min(n // share for n, share in limits) * self.total
        left = [None if n is None else n - c for n, c in zip(rows, self.counts(position), strict=True)]
        while True:
            for component in self.components(position, 4096).tolist():
                remaining = left[component]
                if remaining == 0:
                    return position
                if remaining is not None:
                    left[component] = remaining - 1
                position += 1
