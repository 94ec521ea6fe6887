"""The random streams: published answers, exact uniformity, exact size law, keys that never meet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice, product
from math import isqrt, prod
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from synthshards import UsageError, make_task
from synthshards.kernels import rng
from synthshards.kernels.jit import kernel
from synthshards.tasks.node_counts import SizeLaw, draw_size, size_law

U = np.uint64
WORDS = st.integers(0, 2**64 - 1)

# Random123's tests/kat_vectors, the three lines "philox4x32 10": counter, key, result.
PHILOX = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
# xoshiro256++ from the state 1, 2, 3, 4: the answers of its authors' own C code, as rand_xoshiro records them.
XOSHIRO = [
    41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205, 9973669472204895162,
    14011001112246962877, 12406186145184390807, 15849039046786891736, 10450023813501588000,
]  # fmt: skip


def state_giving(x: int) -> tuple[np.uint64, ...]:
    """A xoshiro256++ state whose next word is x: s0 = 0 leaves rotl(s3, 23)."""
    return U(0), U(0x9E3779B97F4A7C15), U(0xD1B54A32D192ED03), U(reference.rotl(x, 41))


@kernel
def drawn(s: Any, product: Any, ranges: Any, out: Any) -> Any:
    """As the tasks' kernels draw: one word for the product, one digit a range."""
    s, x = rng.word_for(s, product)
    for i in range(ranges.size):
        out[i] = rng.mulhi(x, ranges[i])
        x *= ranges[i]
    s, after = rng.next_word(s)
    return after


@kernel
def high(a: Any, b: Any) -> Any:
    return rng.mulhi(a, b)


@pytest.mark.parametrize(("counter", "key", "right"), PHILOX)
def test_philox_gives_the_published_answers(counter: str, key: str, right: str) -> None:
    c, k, r = ([int(word, 16) for word in text.split()] for text in (counter, key, right))
    assert [int(word) for word in rng.philox(*map(U, k), *map(U, c))] == r
    assert list(reference.philox(k, c)) == r


def test_xoshiro_gives_the_published_answers() -> None:
    state: Any = (U(1), U(2), U(3), U(4))
    made = []
    for _ in XOSHIRO:
        state, word = rng.next_word(tuple(map(U, state)))  # Numba hands back Python integers
        made.append(int(word))
    assert made == XOSHIRO
    assert list(islice(reference.words((1, 2, 3, 4)), len(XOSHIRO))) == XOSHIRO


@given(key0=WORDS, key1=WORDS, i=st.integers(0, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_words_of_a_sample(key0: int, key1: int, i: int) -> None:
    made = rng.words(np.array([key0, key1], U), U(i), 5).tolist()
    assert made == list(islice(reference.words(reference.start((key0, key1), i)), 5))


@given(a=WORDS, b=WORDS)
@settings(max_examples=200, deadline=None)
def test_mulhi(a: int, b: int) -> None:
    assert int(high(U(a), U(b))) == a * b >> 64


def test_mulhi_at_the_ends() -> None:
    ends = [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
    assert all(int(high(U(a), U(b))) == a * b >> 64 for a, b in product(ends, ends))


# Exactness: the rule on 8-bit words, every word tried; then the kernel's rule is the same at 64 bits. ----------------


def small_ranges() -> Iterator[tuple[int, ...]]:
    """All lists of up to four ranges with a product of at most 256 (ones only as a list of their own)."""
    yield (1,)
    stack: list[tuple[int, ...]] = [(n,) for n in range(2, 257)]
    while stack:
        ranges = stack.pop()
        yield ranges
        if len(ranges) < 4:
            stack += [(*ranges, n) for n in range(2, 256 // prod(ranges) + 1)]


def test_numbers_are_exactly_uniform_over_every_8_bit_word() -> None:
    tried = 0
    for ranges in small_ranges():
        counts: Counter[tuple[int, ...]] = Counter()
        for x in range(256):
            try:
                counts[tuple(reference.numbers(iter([x]), *ranges, bits=8))] += 1
            except StopIteration:  # this word is thrown away
                counts[()] += 1
        rejected = counts.pop((), 0)
        assert rejected == 256 % prod(ranges), ranges
        assert set(counts.values()) == {256 // prod(ranges)}, ranges
        assert set(counts) == set(product(*(range(n) for n in ranges))), ranges
        tried += 1
    assert tried > 2000


def word_with_low_half(target: int, P: int) -> int:
    """A word x with x·P mod 2^64 = target (a multiple of the power of two in P)."""
    power = P & -P
    assert target % power == 0
    size = 2**64 // power
    return target // power * pow(P // power, -1, size) % size if size > 1 else 0


def assert_drawn(x: int, ranges: list[int]) -> bool:
    """The kernel draws what the reference does from the same word, and uses as many words. True if x was kept."""
    out, state = np.empty(len(ranges), U), state_giving(x)
    after = drawn(state, U(prod(ranges)), np.array(ranges, U), out)
    source = reference.words(tuple(map(int, state)))  # type: ignore[arg-type]
    assert out.tolist() == reference.numbers(source, *ranges)
    assert int(after) == next(source)
    fresh = reference.words(tuple(map(int, state)))  # type: ignore[arg-type]
    return list(islice(fresh, 2))[1] == int(after)


RANGES = [
    [3], [7, 5], [10, 8], [225, 224, 223, 222, 221, 220], [256, 255, 254, 253, 252, 251], [6, 5, 4, 3, 2, 1],
    [5000] * 4, [6561] * 4, [65535, 65534, 65533], [3 * 10**18], [2**62 - 1], [2**62 - 2], [12, 2**40],
]  # fmt: skip


@pytest.mark.parametrize("ranges", RANGES, ids=str)
def test_the_kernel_keeps_and_throws_away_the_right_words(ranges: list[int]) -> None:
    P = prod(ranges)
    power, least = P & -P, 2**64 % P
    for target, kept in ((0, False), (least - power, False), (least, True), (2**64 - power, True)):
        assert assert_drawn(word_with_low_half(target, P), ranges) == kept, target


@pytest.mark.parametrize("ranges", [[1], [2], [1, 1], [2**20, 2**30], [4, 16]], ids=str)
def test_no_word_is_thrown_away_for_a_power_of_two(ranges: list[int]) -> None:
    assert all(assert_drawn(x, ranges) for x in (0, 1, 2**63, 2**64 - 1))


@given(x=WORDS, ranges=st.lists(st.integers(1, 2**15), min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_kernel_draws_as_the_reference(x: int, ranges: list[int]) -> None:
    assert_drawn(x, ranges)


@given(x=WORDS, n=st.integers(1, 2**62))
@settings(max_examples=100, deadline=None)
def test_below(x: int, n: int) -> None:
    _state, number = rng.below(state_giving(x), U(n))
    assert int(number) == reference.numbers(reference.words(tuple(map(int, state_giving(x)))), n)[0]  # type: ignore[arg-type]


# The size law ------------------------------------------------------------------------------------------------------

SIZES = [3, 4, 5, 9, 75, 100, 125, 225, 300, 375, 1024, 65535]


@pytest.mark.parametrize("N", SIZES)
def test_size_thresholds_are_the_exact_rationals(N: int) -> None:
    # With a root of 300 more bits than the law's, each exact share is known to far below 2^-60.
    scale = 2**400
    root = isqrt(N * scale * scale)
    weights = [scale * scale // (n * scale + root) for n in range(3, N + 1)]
    total, running = sum(weights), 0
    table, guide = size_law(N)
    assert len(table) == N - 3
    for threshold, weight in zip(table.tolist(), weights, strict=False):
        running += weight
        exact = (running << 128) // total  # the share of this threshold times 2^128
        assert abs((threshold << 64) - exact) < 2**68
    assert table.tolist() == reference.thresholds(N)
    assert guide.tolist() == [sum(t <= b << 56 for t in table.tolist()) for b in range(256)]


@pytest.mark.parametrize("N", SIZES[:-1])
def test_a_size_is_drawn_on_the_right_side_of_each_threshold(N: int) -> None:
    table, guide = size_law(N)
    for x in {0, 2**64 - 1, *(t + d for t in table.tolist()[:: max(1, N // 60)] for d in (-1, 0, 1))}:
        _state, n = draw_size(state_giving(x), SizeLaw(table, guide))
        assert int(n) == 3 + sum(t <= x for t in table.tolist())


# Keys and streams --------------------------------------------------------------------------------------------------


def test_key_from_rng_is_deterministic_and_advances() -> None:
    for make in (lambda: random.Random(7), lambda: np.random.default_rng(7)):
        a, b = make(), make()
        first, second = rng.key_from_rng(a).tolist(), rng.key_from_rng(a).tolist()
        assert first != second, "the generator did not advance"
        assert [rng.key_from_rng(b).tolist(), rng.key_from_rng(b).tolist()] == [first, second]
    assert rng.key_from_rng(7).tolist() == rng.key_from_rng(7).tolist() != rng.key_from_rng(8).tolist()


@pytest.mark.parametrize("wrong", [None, True, 1.0, "7", np.random.RandomState(0), random])
def test_key_from_rng_refuses_others(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"^rng is \w+; legal: int, random.Random, numpy.random.Generator$"):
        rng.key_from_rng(wrong)


def test_keys_differ_in_whatever_the_identity_differs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for name, params in (("depo1-225", {}), ("depo1-225", {"K": 4}), ("depo1-225", {"qa": True}), ("depo2-75", {})):
        task = make_task(name, params)
        keys += [task.key(seed, split) for seed in (0, 1, 2**64 - 1) for split in ("train", "eval", "train_0")]
    monkeypatch.setattr(type(task), "version", 2)
    keys.append(make_task("depo1-225").key(0, "train"))
    keys += [rng.key_from_rng(number) for number in (0, 1)]
    assert len({tuple(key.tolist()) for key in keys}) == len(keys) == 39


def test_equal_identities_share_their_key_however_they_are_spelled() -> None:
    one, other = make_task("depo"), make_task("depo1-300", N=225)
    assert one.key(5, "train").tolist() == other.key(5, "train").tolist()


def test_every_bit_of_key_and_index_starts_another_stream() -> None:
    key, i = (0x0123456789ABCDEF, 0xFEDCBA9876543210), 5
    starts = {reference.start(key, i)}
    starts |= {reference.start((key[0] ^ 1 << bit, key[1]), i) for bit in range(64)}
    starts |= {reference.start((key[0], key[1] ^ 1 << bit), i) for bit in range(64)}
    starts |= {reference.start(key, i ^ 1 << bit) for bit in range(63)}
    assert len(starts) == 1 + 64 + 64 + 63
    assert len({half for s in starts for half in (s[:2], s[2:])}) == 2 * len(starts), "two blocks are the same"


def test_neighbouring_seeds_splits_and_indices_share_no_word() -> None:
    task = make_task("depo1-225")
    seen: set[int] = set()
    for seed in range(8):
        for split in ("train", "test"):
            for i in range(64):
                seen.update(rng.words(task.key(seed, split), U(i), 16).tolist())
    assert len(seen) == 8 * 2 * 64 * 16  # by chance two of 16,384 words agree once in 10^11 such tests
