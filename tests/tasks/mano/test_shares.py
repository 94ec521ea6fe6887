"""How often a draw of Mano is accepted, and its commonest value: against enumeration, the paper and exact bounds."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import gcd

import pytest

from synthshards.tasks.mano.shares import _lower_bounds, accepted_shares, commonest_share, first_below

SUBSETS = ["".join(letters) for count in range(1, 5) for letters in combinations("asmd", count)]


def by_enumeration(ttype: str, p: int, L: int) -> list[list[Fraction]]:
    """For 1..L operations the share of draws that are accepted and make each value 0..p-1."""
    shares = [[Fraction(1, p)] * p]
    for length in range(1, L + 1):
        now = [Fraction(0)] * p
        for left in range(length):
            for a, share in enumerate(shares[left]):
                for b, other in enumerate(shares[length - 1 - left]):
                    weight = share * other / length / len(ttype)
                    for letter in ttype:
                        if letter == "d" and gcd(b, p) > 1:
                            continue
                        made = {"a": a + b, "s": a - b, "m": a * b, "d": a * pow(b, -1, p) if letter == "d" else 0}
                        now[made[letter] % p] += weight
        shares.append(now)
    return shares[1:]


@pytest.mark.parametrize("ttype", SUBSETS)
def test_accepted_shares_are_exact(ttype: str) -> None:
    for p in (2, 3, 4, 6, 9, 12):
        values = by_enumeration(ttype, p, 3)
        assert list(accepted_shares(ttype, p, 3)) == [sum(now) for now in values]
        assert [commonest_share(ttype, p, length) for length in (1, 2, 3)] == [max(now) / sum(now) for now in values]


def test_the_commonest_value_is_as_common_as_the_paper_says() -> None:
    """Chance at ℓ = 10, 13 and 16, modulo 23: 7.03, 7.13 and 7.21%."""
    assert [round(float(commonest_share("asm", 23, length)), 4) for length in (10, 13, 16)] == [0.0703, 0.0713, 0.0721]


def test_accepted_shares_of_the_facts() -> None:
    # Draws given up: 1% at ℓ = 1, about 20% at ℓ = 16.
    shares = list(accepted_shares("asmd", 23, 16))
    assert shares[0] == 1 - Fraction(1, 4 * 23)
    assert 0.8 < shares[-1] < 0.82
    assert list(accepted_shares("d", 6, 7)) == [Fraction(1, 3**length) for length in range(1, 8)]
    assert list(accepted_shares("asm", 6, 4)) == [1] * 4


@pytest.mark.parametrize("ttype", ["d", "ad", "sd", "md", "asmd"])
def test_shares_fall_with_every_operation_and_their_bounds_are_tight(ttype: str) -> None:
    for p in (2, 6, 23, 60, 101, 4998):
        last = Fraction(1)
        for share, bound in zip(accepted_shares(ttype, p, 14), _lower_bounds(ttype, p, 14), strict=True):
            assert share < last
            assert 0 <= share - Fraction(bound, 2**192) < Fraction(1, 2**161)
            last = share


def test_what_is_too_close_to_tell_is_told_exactly() -> None:
    # P(ℓ = 3) is exactly 1/27, which no multiple of a power of two is.
    exact = Fraction(1, 27)
    assert first_below("d", 6, 5, exact) == (4, 1 / 81)
    assert first_below("d", 6, 5, exact + Fraction(1, 2**170)) == (3, 1 / 27)
    assert first_below("d", 6, 5, exact + Fraction(1, 2**100)) == (3, 1 / 27)
    assert first_below("asm", 6, 499, Fraction(1)) is None
