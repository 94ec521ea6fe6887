"""How many of Mano's expressions divide by units only, and how often the commonest value comes: exact fractions."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import comb, factorial, gcd


@cache
def _classes(ttype: str, p: int) -> tuple[dict[int, int], dict[tuple[int, int], dict[int, int]]]:
    """How operations join classes of values, where class g, a divisor of p, is the values v with gcd(v, p) = g.

    Returns:
        class → number of values; (class a, class b), a ≤ b → class c → number of x ∘ y that make one given value of c,
        over all operations ∘ of `ttype` and all x, y of which one is in a and the other in b.
    """
    divisors = [g for g in range(1, p + 1) if p % g == 0]
    members = {g: sum(gcd(v, p) == g for v in range(1, p + 1)) for g in divisors}
    made: dict[tuple[int, int], dict[int, int]] = {}

    def count(a: int, b: int, c: int, number: int) -> None:
        entry = made.setdefault((min(a, b), max(a, b)), {})
        entry[c] = entry.get(c, 0) + number

    sums = len(set("as") & set(ttype))
    for g in divisors:
        for v in range(p if sums else 0):
            count(gcd(v, p), gcd(g - v, p), g, sums)  # of v + w = g and v − w = g, w is in the same class
        if "d" in ttype:
            count(g, 1, g, members[1])
        if "m" in ttype:
            for h in divisors:
                c = gcd(g * h, p)
                count(g, h, c, members[g] * members[h] // members[c])
    return members, made


def _ways(ttype: str, p: int, L: int) -> Iterator[dict[int, int]]:
    """For ℓ = 1..L: class → the number of accepted draws of ℓ operations that make one given value of that class.

    A draw is a shape (of ℓ! equally likely ones), operators and values; it is accepted if it divides by units only. In
    every expression values that differ by a unit factor are equally likely, so it is enough to count classes.
    """
    members, made = _classes(ttype, p)
    ways = [dict.fromkeys(members, 1)]
    for length in range(1, L + 1):
        now = dict.fromkeys(members, 0)
        choose = [comb(length - 1, left) for left in range(length)]
        for (a, b), results in made.items():
            pairs = sum(choose[left] * ways[left][a] * ways[length - 1 - left][b] for left in range(length))
            for c, number in results.items():
                now[c] += pairs * number
        ways.append(now)
        yield now


def accepted_shares(ttype: str, p: int, L: int) -> Iterator[Fraction]:
    """The exact probability that a draw of ℓ operations divides by units only, for ℓ = 1..L."""
    members, _ = _classes(ttype, p)
    for length, ways in enumerate(_ways(ttype, p, L), 1):
        accepted = sum(members[g] * ways[g] for g in members)
        yield Fraction(accepted, len(ttype) ** length * p ** (length + 1) * factorial(length))


@cache
def commonest_share(ttype: str, p: int, length: int) -> Fraction:
    """The exact probability of the value that expressions of ℓ ≥ 1 operations have most often.

    >>> [round(100 * float(commonest_share("asm", 23, length)), 2) for length in (10, 13, 16)]
    [7.03, 7.13, 7.21]
    """
    members, _ = _classes(ttype, p)
    *_, ways = _ways(ttype, p, length)
    return Fraction(max(ways.values()), sum(members[g] * ways[g] for g in members))


def _lower_bounds(ttype: str, p: int, L: int) -> Iterator[int]:
    """Multiples of 2^-192 that `accepted_shares` reaches, and exceeds by less than 2^-160: soon found for any L."""
    members, made = _classes(ttype, p)
    shares = [dict.fromkeys(members, 2**192 // p)]  # the same in probabilities, each rounded down
    for length in range(1, L + 1):
        now = dict.fromkeys(members, 0)
        for (a, b), results in made.items():
            pairs = sum(shares[left][a] * shares[length - 1 - left][b] for left in range(length))
            for c, number in results.items():
                now[c] += pairs * number // (length * len(ttype) << 192)
        shares.append(now)
        yield sum(members[g] * now[g] for g in members)


@cache
def first_below(ttype: str, p: int, L: int, least: Fraction) -> tuple[int, float] | None:
    """The least ℓ ≤ L at which a draw is accepted with a probability below `least`, and that probability."""
    for length, bound in enumerate(_lower_bounds(ttype, p, L) if "d" in ttype else (), 1):
        share = Fraction(bound, 2**192)
        if share < least <= share + Fraction(1, 2**160):  # too close to tell
            *_, share = accepted_shares(ttype, p, length)
        if share < least:
            return length, float(share)
    return None
