"""What a grammar says about a sentence, against every derivation written out in fractions, and at full length."""

from __future__ import annotations

import math
import random
import time
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from naive_grammar import TINY, Recursive, Tokens, count_derivations, exact_log, language, next_tokens

from synthshards.errors import UsageError
from synthshards.tasks.lano.grammar import SHIPPED, Grammar, load_grammar, parse_grammar, smoothed_kl
from synthshards.tasks.lano.grammar_sampler import draw_grammar


def sentence(grammar: Grammar, rng: random.Random, pick: Any = None) -> Tokens:
    """A sentence by plain recursion; `pick` chooses a rule instead of the random generator."""

    def grow(symbol: int) -> Tokens:
        if symbol not in grammar.rules:
            return (symbol,)
        bodies = grammar.rules[symbol]
        body = pick(bodies) if pick else rng.choice(bodies)
        return tuple(t for s in body for t in grow(s))

    return grow(grammar.root)


def strings(grammar: Grammar, longest: int) -> list[Tokens]:
    """All rows of terminals up to a length, as long as they are no more than some thousands."""
    out: list[Tokens] = []
    for length in range(longest + 1):
        if grammar.terminals**length > 3000:
            break
        out += product(range(1, grammar.terminals + 1), repeat=length)
    return out


def assert_as_enumerated(grammar: Grammar, tried: list[Tokens]) -> None:
    """Everything that can be asked about `tried`, against the whole language."""
    sentences = language(grammar.rules, grammar.root)
    assert sum(p for p, _ in sentences.values()) == 1
    for tokens in tried:
        p, count = sentences.get(tokens, (Fraction(0), 0))
        assert grammar.contains(tokens) == (count > 0)
        assert grammar.derivations(tokens) == count
        assert math.isclose(math.exp(grammar.log_derivations(tokens)), count, rel_tol=1e-12)
        assert math.isclose(math.exp(grammar.log_prob(tokens)), p, rel_tol=1e-12)
        found = grammar.next_token_distributions(tokens)
        assert found.shape == (len(tokens) + 1, grammar.terminals + 1)
        laws = [next_tokens(sentences, tokens[:t], grammar.terminals) for t in range(len(tokens) + 1)]
        alive = sum(law is not None for law in laws)
        assert np.isnan(found[alive:]).all()
        np.testing.assert_allclose(found[:alive], [law for law in laws if law], rtol=1e-12, atol=0)
        assert grammar.longest_prefix(tokens) == alive - 1


@pytest.mark.parametrize("name", TINY)
def test_small_grammars_against_enumeration(name: str) -> None:
    grammar = parse_grammar(TINY[name])
    every = strings(grammar, grammar.lengths[1] + 1)
    assert_as_enumerated(grammar, [*every, *language(grammar.rules, grammar.root)])
    assert {grammar.contains(tokens) for tokens in every} == {True, False}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    symbols=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    degree=st.integers(1, 3),
    lengths=st.sampled_from([(1, 1), (1, 2), (2, 3), (1, 3)]),
    distinct=st.booleans(),
)
def test_drawn_grammars_against_enumeration(
    seed: int, symbols: tuple[int, ...], degree: int, lengths: tuple[int, int], distinct: bool
) -> None:
    try:
        grammar = draw_grammar(seed, symbols, (1, degree), lengths, distinct_rules=distinct)
    except UsageError:
        assume(False)
    assume(count_derivations(grammar.rules, grammar.root) <= 3000)
    rng = random.Random(seed)
    every = list(language(grammar.rules, grammar.root))
    tried = rng.sample(every, min(12, len(every)))
    for tokens in list(tried):  # and what is no sentence, or another one
        broken = list(tokens)
        broken[rng.randrange(len(broken))] = rng.randint(0, grammar.terminals + 2)
        tried += [tuple(broken), tokens + tokens[:1], tokens[:-1]]
    assert_as_enumerated(grammar, tried)


def test_ambiguity_is_a_sum_of_products() -> None:
    # 1 1 1 is A(1) A(1 1) and A(1 1) A(1), and A(1 1 1) alone: three; the two splits of 1^4 that miss 3 + 1 count, too.
    grammar = parse_grammar(TINY["ambiguous"])
    assert [grammar.derivations([1] * n) for n in range(8)] == [0, 1, 2, 3, 3, 2, 1, 0]
    # Both halves ambiguous: the numbers multiply (an addition would give 2 + 2).
    assert parse_grammar("S -> A A\nA -> B | C\nB -> 1\nC -> 1").derivations([1, 1]) == 4


@pytest.mark.parametrize("name", ["cfg3f", "cfg3i", "cfg3e2", "cfg3k"])
def test_published_grammars_against_recursion_in_fractions(name: str) -> None:
    grammar, rng = load_grammar(name), random.Random(1)
    tokens = min((sentence(grammar, rng) for _ in range(30)), key=len)
    found = grammar.next_token_distributions(tokens)
    slow = Recursive(grammar.rules, grammar.root, tokens)
    assert math.isclose(grammar.log_prob(tokens), exact_log(slow.probability()), rel_tol=1e-14)
    for t in (0, 1, 2, 20, 50, len(tokens) - 1):
        joint = [slow.prefix_probability((*tokens[:t], v)) for v in range(1, grammar.terminals + 1)]
        total = slow.prefix_probability(tokens[:t])
        law = [float(p / total) for p in (*joint, total - sum(joint))]
        np.testing.assert_allclose(found[t], law, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", SHIPPED)
def test_next_tokens_chain_to_the_probability_of_the_sentence(name: str) -> None:
    grammar, rng = load_grammar(name), random.Random(2)
    longest = sentence(grammar, rng, lambda bodies: max(bodies, key=len))
    shortest = sentence(grammar, rng, lambda bodies: min(bodies, key=len))
    for tokens in [*(sentence(grammar, rng) for _ in range(5)), longest, shortest]:
        found = grammar.next_token_distributions(tokens)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert np.abs(found.sum(axis=1) - 1).max() <= 1e-12
        taken = found[np.arange(len(tokens) + 1), [*(t - 1 for t in tokens), grammar.terminals]]
        assert math.isclose(np.log(taken).sum(), grammar.log_prob(tokens), rel_tol=1e-12)
        assert grammar.longest_prefix(tokens) == len(tokens)


def test_two_thousand_tokens() -> None:
    # The longest sentence of cfg3j: its probability, 3^−1025 or so, is no float.
    grammar = load_grammar("cfg3j")

    def longest(symbol: int) -> tuple[Tokens, int]:
        """Tokens and expansions of the longest derivation from a symbol."""
        if symbol not in grammar.rules:
            return (symbol,), 0
        bodies = [[longest(s) for s in body] for body in grammar.rules[symbol]]
        best = max(bodies, key=lambda parts: sum(len(tokens) for tokens, _ in parts))
        return tuple(t for tokens, _ in best for t in tokens), 1 + sum(n for _, n in best)

    tokens, expansions = longest(grammar.root)
    assert len(tokens) == 2052
    assert grammar.derivations(tokens) == 1
    assert grammar.log_prob(tokens) < -1000
    assert math.isclose(grammar.log_prob(tokens), -expansions * math.log(3), rel_tol=1e-13)
    # Known by hand: the end has the probability 1 only behind the whole sentence, of which no longer one exists.
    found = grammar.next_token_distributions(tokens)
    assert found[-1, -1] == 1
    assert (found[:-1, -1] < 0.9).all()


def test_numbers_of_derivations_that_are_no_floats() -> None:
    # Every symbol yields 1s, in two ways or more: the number of derivations of n ones is a coefficient of a polynomial.
    depth = 11
    text = "".join(
        f"A{i} -> A{i + 1} | A{i + 1} A{i + 1} | B{i + 1}\nB{i} -> A{i + 1} | A{i + 1} B{i + 1}\n"
        for i in range(1, depth)
    )
    grammar = parse_grammar(f"S -> A1 | A1 A1 | B1\n{text}A{depth} -> 1\nB{depth} -> 1")
    n = 60
    one = [0, 1] + [0] * (n - 1)

    def times(a: list[int], b: list[int]) -> list[int]:
        return [sum(a[i] * b[k - i] for i in range(k + 1)) for k in range(n + 1)]

    a, b = one, one

    def plus(*parts: list[int]) -> list[int]:
        return [sum(column) for column in zip(*parts, strict=True)]

    for _ in range(depth - 1):
        a, b = plus(a, times(a, a), b), plus(a, times(a, b))
    counts = plus(a, times(a, a), b)
    assert counts[n] > 10**18
    for length in (1, 2, 30, n):
        assert grammar.derivations([1] * length) == counts[length]
        assert math.isclose(grammar.log_derivations([1] * length), math.log(counts[length]), rel_tol=1e-12)


def test_logs_of_numbers_beyond_floats() -> None:
    # 2^1200 derivations of the only sentence: each of 1,200 places has two.
    grammar = parse_grammar("S -> " + "A " * 1200 + "\nA -> B | C\nB -> 1\nC -> 1")
    tokens = [1] * 1200
    assert grammar.derivations(tokens) == 2**1200
    assert math.isclose(grammar.log_derivations(tokens), 1200 * math.log(2), rel_tol=1e-12)
    assert abs(grammar.log_prob(tokens)) < 1e-9
    np.testing.assert_allclose(grammar.next_token_distributions(tokens), [[1, 0]] * 1200 + [[0, 1]], atol=1e-9)


@pytest.mark.parametrize("name", ["cfg3f", "cfg3k"])
def test_milliseconds(name: str) -> None:
    grammar, rng = load_grammar(name), random.Random(3)
    tokens = sentence(grammar, rng)
    best = {}
    for ask in (grammar.contains, grammar.next_token_distributions, grammar.derivations):
        ask(tokens)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            ask(tokens)
            times.append(time.perf_counter() - start)
        best[ask.__name__] = min(times)
    assert best["contains"] < 0.03  # 0.2 and 0.7 ms on an idle core
    assert best["next_token_distributions"] < 0.06  # 0.3 and 1.1 ms
    assert best["derivations"] < 0.06  # 0.5 and 1.7 ms


def test_tokens_of_any_kind() -> None:
    grammar = load_grammar("cfg3f")
    tokens = sentence(grammar, random.Random(4))
    for kind in ("uint8", "uint16", "uint32", "int64", "uint64"):
        assert grammar.contains(np.array(tokens, kind))
    assert grammar.contains(list(tokens))
    assert not grammar.contains([])
    assert grammar.longest_prefix([]) == 0
    for stranger in (0, 4, 6, 255, -1, 10**12):
        changed = [*tokens[:10], stranger, *tokens[11:]]
        assert not grammar.contains(changed)
        assert grammar.log_prob(changed) == -math.inf
        assert grammar.log_derivations(changed) == -math.inf
        assert grammar.derivations(changed) == 0
        assert grammar.longest_prefix(changed) == 10
    for wrong in ([1.0, 2.0], [[1, 2]], ["1"], [True]):
        with pytest.raises(UsageError, match=r"^tokens are .*; legal: a flat sequence of integers$"):
            grammar.contains(wrong)  # type: ignore[arg-type]


# KL ----------------------------------------------------------------------------------------------------------------


def test_kl() -> None:
    p, q = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]), np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0]])
    assert math.isclose(smoothed_kl(p, q, 1e-300), (0.5 * math.log(2) + math.log(2)) / 2, rel_tol=1e-12)
    total = 0.0
    for row_p, row_q in zip(p, q, strict=True):
        for a, b in zip(row_p, row_q, strict=True):
            a, b = (a + 1e-5) / (1 + 3e-5), (b + 1e-5) / (1 + 3e-5)
            total += a * math.log(a / b)
    assert math.isclose(smoothed_kl(p, q), total / 2, rel_tol=1e-12)
    assert smoothed_kl(q, p) != smoothed_kl(p, q)


def test_kl_of_a_sentence_with_itself_is_zero_and_else_positive() -> None:
    grammar, rng = load_grammar("cfg3f"), random.Random(5)
    p = grammar.next_token_distributions(sentence(grammar, rng))
    assert smoothed_kl(p, p) == 0
    uniform = np.full_like(p, 1 / p.shape[1])
    assert 0.3 < smoothed_kl(p, uniform) < math.log(4)
    nearly = p + 0.01 * uniform
    assert 0 < smoothed_kl(p, nearly / nearly.sum(1, keepdims=True)) < 0.05


def test_kl_refuses_what_are_no_distributions() -> None:
    good = np.full((3, 4), 0.25)
    for p, q in ((good, good[:2]), (good[0], good[0]), (good * np.nan, good), (good, -good), (good, good * np.inf)):
        with pytest.raises(UsageError, match=r"^KL of "):
            smoothed_kl(p, q)
