"""How many bits of knowledge a model holds, exactly: "Physics of Language Models: Part 3.3" (arXiv 2404.05405).

Losses are mean sums of nats over the tokens of a thing, measured on training data (sections on bit complexity and on
the lower bound for it):

    p1   a full name, after the end of the text before it
    p2   a person's values: birth date, birth city, university, major, employer, and the pronoun. The work city is left
         out, because the employer fixes it; so write the employer before it (`order=1`, or `couple`). bioD: one value.
    p3   (bioD) what is still to be guessed of each of an attribute's strings

    bioS   N·log2(N0 / e^p1) + N·log2(S0 / e^p2)
    bioD   N·log2(N0 / e^p1) + N·K·log2(D^C / e^p2) + K·D·log2(T^L / (D·e^p3))

N0 is the number of full names, and S0 the number of combinations of all other values. A model that knows everything has
p1 = ln N, because the order of the names cannot be known, and p2 = 0:

Examples:
    >>> [round(best_bits(n) / 1e6, 2) for n in (50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)]
    [2.96, 5.82, 11.45, 27.96, 54.91, 107.83]
"""

from __future__ import annotations

from math import log, log2

from ...errors import UsageError
from .people import DAYS, MONTHS, YEARS, load_pools

_NAT = 1 / log(2)


def name_space() -> int:
    """N0: the number of full names, 400·400·1000."""
    return load_pools().names


def fact_space(they: bool = False) -> int:
    """S0: pronoun, birth date, birth city, university, major and employer, 2·(12·28·200)·200·300·100·263.

    Args:
        they: whether "they" is a third pronoun: the factor 2 becomes 3.
    """
    pools = load_pools()
    dates = len(MONTHS) * DAYS * YEARS
    values = len(pools.birth_cities) * len(pools.universities) * len(pools.majors) * len(pools.companies)
    return (2 + they) * dates * values


def bits(num_people: int, p1: float, p2: float, they: bool = False) -> float:
    """Bits of knowledge about `num_people` people of bioS at the losses p1 and p2 (nats).

    Raises:
        UsageError: num_people < 1, or a negative loss.
    """
    _check(num_people, p1=p1, p2=p2)
    return num_people * (log2(name_space()) - p1 * _NAT + log2(fact_space(they)) - p2 * _NAT)


def best_bits(num_people: int, they: bool = False) -> float:
    """The most that there is to know: p1 = ln N, p2 = 0."""
    _check(num_people)
    return bits(num_people, log(num_people), 0.0, they)


def biod_bits(num_people: int, K: int, C: int, D: int, L: int, T: int, p1: float, p2: float, p3: float) -> float:
    """Bits of knowledge of bioD(N, K, C, D, L, T); p2 is the mean of one value's nats.

    Raises:
        UsageError: num_people < 1, or a negative loss.
    """
    _check(num_people, p1=p1, p2=p2, p3=p3)
    names = num_people * (log2(name_space()) - p1 * _NAT)
    values = num_people * K * (C * log2(D) - p2 * _NAT)
    strings = K * D * (L * log2(T) - log2(D) - p3 * _NAT)
    return names + values + strings


def best_biod_bits(num_people: int, K: int, C: int, D: int, L: int, T: int) -> float:
    """The most that there is to know of bioD: p1 = ln N, p2 = p3 = 0."""
    _check(num_people)
    return biod_bits(num_people, K, C, D, L, T, log(num_people), 0.0, 0.0)


def per_parameter(knowledge: float, parameters: int) -> float:
    """Bits per parameter. Do not count the embedding rows of tokens that the data never use.

    Raises:
        UsageError: parameters < 1.
    """
    if parameters < 1:
        raise UsageError(f"parameters={parameters}; legal: from 1")
    return knowledge / parameters


def _check(num_people: int, **losses: float) -> None:
    if num_people < 1:
        raise UsageError(f"num_people={num_people}; legal: from 1")
    for name, loss in losses.items():
        if not loss >= 0:
            raise UsageError(f"{name}={loss} nats; legal: from 0")
