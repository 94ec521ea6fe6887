"""Lano's sentences have the law of their grammar, and each test of that can fail.

Statistics as in law_statistics.py, once on the package's rows, where p must not be below ALPHA, and once on rows of a
wrong law, where it must. Seeds are fixed; each use on true rows raises a false alarm with probability ALPHA.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from math import log, prod

import law_statistics as law
import numpy as np
import pytest
from naive_grammar import TINY, Tokens, language

from synthshards import LanoTask, make_task
from synthshards.ragged import RaggedBatch
from synthshards.tasks.lano.grammar import SHIPPED, Grammar, load_grammar, parse_grammar

pytestmark = pytest.mark.slow

ALPHA = 1e-6
#: Radices that differ from symbol to symbol, a group that is cut short, and rules with unlike numbers of ways.
UNEVEN = "S -> A B | B A A | C\nA -> 1 | 2 | 1 2\nB -> 2 2 | 1\nC -> 1 1 | 2 | 1 | 2 1 | 2 2 | 1 2 1"


@lru_cache(maxsize=3)
def batch(grammar: str, rows: int) -> RaggedBatch:
    return LanoTask(grammar=grammar).batch(0, "train", 0, rows)


def sentences(grammar: str, rows: int) -> list[Tokens]:
    made = batch(grammar, rows)
    return [tuple(ids) for ids in made.columns["input_ids"].tolist()]


# Wrong laws --------------------------------------------------------------------------------------------------------

Pick = Callable[[random.Random, int], Tokens]


def wrong_sentences(grammar: Grammar, pick: Pick, rows: int) -> list[Tokens]:
    """Rows of a law in which `pick` gives the body that replaces a symbol."""
    rng = random.Random(1)

    out = []
    for _ in range(rows):
        row: Sequence[int] = (grammar.root,)
        for _ in range(grammar.depth):
            row = [s for symbol in row for s in pick(rng, symbol)]
        out.append(tuple(row))
    return out


def leaning(grammar: Grammar) -> Pick:
    """One time in ten the first rule, without a choice."""

    def pick(rng: random.Random, symbol: int) -> Tokens:
        bodies = grammar.rules[symbol]
        return bodies[0] if rng.random() < 0.1 else rng.choice(bodies)

    return pick


def by_expansions(grammar: Grammar) -> Pick:
    """All two-level expansions of a symbol equally likely, as without the least common multiple."""
    ways = {
        symbol: [prod(len(grammar.rules.get(s, (0,))) for s in body) for body in bodies]
        for symbol, bodies in grammar.rules.items()
    }
    return lambda rng, symbol: rng.choices(grammar.rules[symbol], ways[symbol])[0]


def faithful(grammar: Grammar) -> Pick:
    """The right law, to see that it is not refused."""
    return lambda rng, symbol: rng.choice(grammar.rules[symbol])


# Whole sentences of small grammars ---------------------------------------------------------------------------------


def whole(grammar: Grammar, made: Sequence[Tokens]) -> float:
    """Sentences come in their exact shares."""
    exact = language(grammar.rules, grammar.root)
    counts = Counter(made)
    if not set(counts) <= set(exact):
        return 0.0
    return law.chi_square(np.array([counts[t] for t in exact]), np.array([float(p) for p, _ in exact.values()]))


@pytest.mark.parametrize("name", [name for name in TINY if name != "one rule"])
def test_sentences_of_small_grammars(name: str) -> None:
    assert whole(parse_grammar(TINY[name]), sentences(TINY[name], 100_000)) > ALPHA


def test_sentences_of_uneven_rules() -> None:
    grammar = parse_grammar(UNEVEN)
    assert whole(grammar, sentences(UNEVEN, 300_000)) > ALPHA
    assert whole(grammar, wrong_sentences(grammar, faithful(grammar), 50_000)) > ALPHA
    for wrong in (leaning, by_expansions):
        assert whole(grammar, wrong_sentences(grammar, wrong(grammar), 50_000)) < ALPHA


# Lengths, edges and the course of published grammars -----------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_lengths(name: str) -> None:
    made = batch(name, 300_000).columns["length"].values.astype(np.int64)
    grammar = load_grammar(name)
    shares = grammar.length_distribution()
    assert law.chi_square(np.bincount(made, minlength=len(shares)), shares) > ALPHA
    assert law.mean_is(made, grammar.lengths[2]) > ALPHA
    assert abs(made.mean() - LanoTask.presets[f"lano-{name}"].mean_length) < 1


def test_lengths_can_fail() -> None:
    grammar = load_grammar("cfg3f")
    shares = grammar.length_distribution()
    for wrong in (leaning, by_expansions):
        made = np.array([len(tokens) for tokens in wrong_sentences(grammar, wrong(grammar), 20_000)])
        p = law.chi_square(np.bincount(made, minlength=len(shares)), shares), law.mean_is(made, grammar.lengths[2])
        assert min(p) < ALPHA


def edge_shares(grammar: Grammar, width: int) -> dict[Tokens, float]:
    """The exact law of the first `width` tokens, by the chain of next-token distributions."""
    out = {}
    for prefix in product(range(1, grammar.terminals + 1), repeat=width):
        found = grammar.next_token_distributions(prefix)
        taken = found[np.arange(width), np.array(prefix) - 1]
        out[prefix] = float(np.prod(np.nan_to_num(taken)))
    return out


def edges(grammar: Grammar, made: Sequence[Tokens], width: int) -> float:
    """The first tokens of sentences have their law."""
    shares = edge_shares(grammar, width)
    assert abs(sum(shares.values()) - 1) < 1e-9
    counts = Counter(tokens[:width] for tokens in made)
    if any(shares[prefix] == 0 for prefix in counts):
        return 0.0
    possible = [prefix for prefix, p in shares.items() if p > 0]
    return law.chi_square(np.array([counts[t] for t in possible]), np.array([shares[t] for t in possible]))


def backwards(grammar: Grammar) -> Grammar:
    """The grammar of the reversed sentences."""
    rules = {symbol: tuple(body[::-1] for body in bodies) for symbol, bodies in grammar.rules.items()}
    return Grammar(grammar.levels, rules)


@pytest.mark.parametrize(("name", "width"), [(n, {"cfg3e1": 3, "cfg3e2": 4}.get(n, 6)) for n in SHIPPED])
def test_first_and_last_tokens(name: str, width: int) -> None:
    grammar, made = load_grammar(name), sentences(name, 50_000)
    assert edges(grammar, made, width) > ALPHA
    assert edges(backwards(grammar), [tokens[::-1] for tokens in made], width) > ALPHA


def test_first_tokens_can_fail() -> None:
    grammar = load_grammar("cfg3f")
    for wrong in (leaning, by_expansions):
        assert edges(grammar, wrong_sentences(grammar, wrong(grammar), 3000), 6) < ALPHA


def surprises(grammar: Grammar, made: Sequence[Tokens]) -> np.ndarray:
    """For each sentence, the sum of what its tokens (and its end) surprise by beyond what was to be expected.

    Each term has the mean 0 given what stands before it, whatever the grammar: that ties every row to the exact
    next-token distributions at every place.
    """
    out = []
    for tokens in made:
        p = grammar.next_token_distributions(tokens)
        if np.isnan(p).any():
            return np.array([1e9, 1e9 + 1])  # no sentence at all
        with np.errstate(divide="ignore"):
            logs = np.where(p > 0, np.log(p), 0)
        taken = logs[np.arange(len(tokens) + 1), [*(t - 1 for t in tokens), grammar.terminals]]
        out.append(float((taken - (p * logs).sum(1)).sum()))
    return np.array(out)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_course_of_sentences(name: str) -> None:
    grammar = load_grammar(name)
    assert law.mean_is(surprises(grammar, sentences(name, 600)), 0) > ALPHA


def test_the_course_of_sentences_can_fail() -> None:
    grammar = load_grammar("cfg3f")
    for wrong in (leaning, by_expansions):
        assert law.mean_is(surprises(grammar, wrong_sentences(grammar, wrong(grammar), 600)), 0) < ALPHA


def test_rows_are_independent_of_their_neighbours() -> None:
    made = batch("cfg3f", 300_000)
    lengths = made.columns["length"].values.astype(np.int64)
    fifths = np.searchsorted(np.quantile(lengths, [0.2, 0.4, 0.6, 0.8]), lengths)
    assert law.independent(fifths[:-1], fifths[1:]) > ALPHA
    starts = made.offsets[:-1]
    first = sum(made.input_ids[starts + k].astype(np.int64) * 3**k for k in range(3)) - 13
    assert law.independent(first[:-1], first[1:]) > ALPHA
    assert law.independent(first, first // 3) < ALPHA


def test_the_entropy_of_a_rule_is_used() -> None:
    # The mean log-probability of a sentence of an unambiguous grammar is −(expansions)·log 2 for two rules each.
    task = make_task("lano-cfg3b")
    for row in task.take(0, 20):
        bits = -load_grammar("cfg3b").log_prob(row["input_ids"]) / log(2)
        assert abs(bits - round(bits)) < 1e-9
