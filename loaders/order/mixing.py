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

from collections.abc import Iterator, Sequence
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

_0, _1, _2 = np.uint64(0), np.uint64(1), np.uint64(2)
#: Units that are walked before anything cleverer is tried.
_NEAR_BY = 4096


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


@kernel
def _walk(shares: U64, total: np.uint64, counts: U64, left: U64, place: np.uint64, stop: np.uint64) -> np.uint64:
    """Count the units of positions place .. stop−1 of one period, up to the first of a component that has none left.

    Where one component has more than half of all units, its runs are counted at once.

    Args:
        shares, counts: [components]; place = Σ counts ≤ stop ≤ total.
        left: [components], units that each can still give; counted down.

    Returns:
        the position that it has come to.
    """
    # Of each component's next unit: the first position that may have it (early, and what the division leaves over), and
    # the one that it is due before.
    n = shares.size
    early, over, due = np.empty(n, np.uint64), np.empty(n, np.uint64), np.empty(n, np.uint64)
    stride, rest = total // shares, total % shares
    for i in range(n):
        early[i], over[i] = counts[i] * total // shares[i], counts[i] * total % shares[i]
        due[i] = early[i] + stride[i] + (over[i] + rest[i] + shares[i] - _1) // shares[i]
    while place < stop:
        best, deadline = 0, np.uint64(0xFFFFFFFFFFFFFFFF)
        for i in range(n):
            if early[i] <= place and due[i] < deadline:
                best, deadline = i, due[i]
        if left[best] == _0:
            return place
        share, run = shares[best], _1
        if _2 * share > total:
            run = min(left[best], stop - place)
            if share < total:  # until its next unit is too early
                run = min(run, (share * (place + _1) - counts[best] * total - _1) // (total - share) + _1)
            for i in range(n):
                if i != best and early[i] > place:
                    run = min(run, early[i] - place)
                elif i != best:  # until the run's next unit is due after that of i, or with it and behind it
                    last = due[i] - (_1 if i < best else _0)
                    run = min(run, share * last // total - counts[best])
        counts[best] += run
        left[best] -= run
        place += run
        if run == _1:
            early[best], over[best] = early[best] + stride[best], over[best] + rest[best]
            if over[best] >= share:
                early[best], over[best] = early[best] + _1, over[best] - share
        else:
            early[best], over[best] = counts[best] * total // share, counts[best] * total % share
        ahead = over[best] + rest[best]
        due[best] = early[best] + stride[best] + (_2 if ahead > share else _1 if ahead > _0 else _0)
    return place


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

        In constant time a unit when calls follow one another; else after a short walk up to `start`.
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
        at, known = self._known
        if at // self.total == period and 0 <= position - at <= _NEAR_BY:
            return place, self._walked(known, at % self.total, place)
        span = _NEAR_BY
        while 32 * span < place:
            # The schedule always gives the unit that is due first. So it keeps two sets of units waiting in their
            # order, where the units of one are due no later than those of the other, one by one; and what waits at any
            # position lies between the units due first and those due last. Where these two have met, it is known.
            first, last = (self._walked(counts, place - span, place) for counts in self._extremes(place - span))
            if (first == last).all():
                return place, first
            span *= 16
        return place, self._walked(np.zeros(len(self.shares), np.uint64), 0, place)

    def _extremes(self, place: int) -> Iterator[np.ndarray]:
        """Counts that a place of the period could have: those units wait that are due first; that are due last."""
        floors = [place * share // self.total for share in self.shares]
        waiting = [
            (-(-(n + 1) * self.total // share), i)
            for i, (n, share) in enumerate(zip(floors, self.shares, strict=True))
            if n * self.total != place * share
        ]
        waiting.sort()
        given = place - sum(floors)
        for ahead in (waiting[len(waiting) - given :], waiting[:given]):
            counts = np.array(floors, np.uint64)
            counts[[i for _, i in ahead]] += _1
            yield counts

    def _walked(self, counts: np.ndarray, place: int, stop: int) -> np.ndarray:
        """The counts at `stop`, from those at `place` of the same period."""
        counts = counts.copy()
        if place < stop:
            enough = np.full(len(counts), self.total, np.uint64)
            _walk(self._shares, np.uint64(self.total), counts, enough, np.uint64(place), np.uint64(stop))
        return counts

    def length(self, rows: Sequence[int | None]) -> int | None:
        """Units before the first that a component with so many rows cannot give; None: there is no such unit."""
        limits = [(n, share) for n, share in zip(rows, self.shares, strict=True) if n is not None]
        if not limits:
            return None
        position = min(n * self.total // share for n, share in limits)  # before it none can be missing
        while True:
            given = self.counts(position)
            left = [self.total if n is None else min(n - c, self.total) for n, c in zip(rows, given, strict=True)]
            place, counts = self._at(position)
            total = np.uint64(self.total)
            end = int(_walk(self._shares, total, counts, np.array(left, np.uint64), np.uint64(place), total))
            position += end - place
            if end < self.total:
                return position
