"""Drawn grammars: every constraint, the law in plain Python, and shapes that are refused."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from typing import Any

import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import synthshards.tasks.lano.grammar_sampler
from synthshards.errors import UsageError
from synthshards.tasks.lano.grammar import parse_grammar
from synthshards.tasks.lano.grammar_sampler import _below, check_shape, draw_grammar


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    low, short = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    shape = {
        "symbols": tuple(sizes),
        "degrees": (low, low + draw(st.integers(0, 3))),
        "rule_lengths": (short, short + draw(st.integers(0, 2))),
        "distinct_symbols": draw(st.booleans()),
        "distinct_rules": draw(st.booleans()),
    }
    try:
        check_shape("w", **shape)
    except UsageError:
        assume(False)
    return shape


@settings(max_examples=200, deadline=None)
@given(shape=shapes(), seed=st.integers(0, 2**64 - 1))
def test_drawn_grammars_obey_every_constraint(shape: dict[str, Any], seed: int) -> None:
    grammar = draw_grammar(seed, **shape)
    assert tuple(len(level) for level in grammar.levels) == (1, *shape["symbols"])
    for upper, lower in pairwise(grammar.levels):
        bodies = [body for symbol in upper for body in grammar.rules[symbol]]
        places = sum(map(len, bodies))
        assert len({s for body in bodies for s in body}) == min(places, len(lower)), "a symbol of no use"
        assert {shape["degrees"][0] <= len(grammar.rules[symbol]) <= shape["degrees"][1] for symbol in upper} == {True}
        assert {shape["rule_lengths"][0] <= len(body) <= shape["rule_lengths"][1] for body in bodies} == {True}
        for symbol in upper:
            assert len(set(grammar.rules[symbol])) == len(grammar.rules[symbol])
        if shape["distinct_rules"]:
            assert len(set(bodies)) == len(bodies)
        if shape["distinct_symbols"]:
            assert all(len(set(body)) == len(body) for body in bodies)
    if {s for bodies in grammar.rules.values() for body in bodies for s in body} >= set(grammar.levels[-1]):
        assert parse_grammar(grammar.text) == grammar
        assert parse_grammar(grammar.text).levels == grammar.levels


def by_the_docstring(seed: int, shape: dict[str, Any]) -> str:
    """grammar_sampler.py's docstring followed in plain Python."""
    (low, high), (short, long) = shape["degrees"], shape["rule_lengths"]
    identity = {
        "depth": len(shape["symbols"]), "distinct_rules": shape["distinct_rules"],
        "distinct_symbols": shape["distinct_symbols"], "grammar_seed": seed, "max_degree": high,
        "max_rule_length": long, "min_degree": low, "min_rule_length": short, "symbols": list(shape["symbols"]),
        "task": "lano", "task_version": 1,
    }  # fmt: skip
    digest = hashlib.sha256(b"synthshards grammar\0" + reference.canonical(identity).encode()).digest()
    source = reference.words(reference.start(reference.key_of(digest), 0))

    def below(n: int) -> int:
        return reference.numbers(source, n)[0]

    sizes = [1, *shape["symbols"]]
    numbers: list[list[int]] = [list(range(1, sizes[-1] + 1))]
    for size in reversed(sizes[:-1]):
        first = numbers[0][-1] + (4 if len(numbers) == 1 else 1)
        numbers.insert(0, list(range(first, first + size)))
    lines = []
    for upper, lower in pairwise(numbers):
        level: list[list[list[int]]] = []
        for _ in upper:
            mine: list[list[int]] = []
            level.append(mine)
            for _ in range(low + below(high - low + 1)):
                while True:
                    length, body = short + below(long - short + 1), list[int]()
                    while len(body) < length:
                        candidates = [s for s in lower if not (shape["distinct_symbols"] and s in body)]
                        body.append(candidates[below(len(candidates))])
                    rivals = [b for other in level for b in other] if shape["distinct_rules"] else mine
                    if body not in rivals:
                        break
                mine.append(body)
        for newcomer in lower:
            held = [s for mine in level for body in mine for s in body]
            if newcomer not in held:
                places = [(b, k) for mine in level for b in mine for k in range(len(b)) if held.count(b[k]) > 1]
                if places:
                    b, k = places[below(len(places))]
                    b[k] = newcomer
        for symbol, mine in zip(upper, level, strict=True):
            lines.append(f"{symbol} -> " + " | ".join(" ".join(map(str, body)) for body in mine) + "\n")
    return "".join(lines)


@settings(max_examples=60, deadline=None)
@given(shape=shapes(), seed=st.integers(0, 2**64 - 1))
def test_drawn_grammars_follow_the_docstring(shape: dict[str, Any], seed: int) -> None:
    assert draw_grammar(seed, **shape).text == by_the_docstring(seed, shape)


def test_numbers_are_drawn_as_everywhere() -> None:
    # The words that must be thrown away are too rare to come up: 2^64 mod 3 = 1, and 0·3 is below that.
    assert _below(iter([0, 1 << 63]), 3) == 1
    assert _below(iter([0]), 4) == 0
    rng = random.Random(0)
    for _ in range(300):
        n, words = rng.randint(1 << 62, 1 << 63), [rng.getrandbits(64) for _ in range(60)]
        assert _below(iter(words), n) == reference.numbers(iter(words), n)[0]


def test_newcomers_take_places() -> None:
    # As many places as symbols: every symbol of each level stands exactly once, whatever was drawn first.
    shape = {"symbols": (4, 16, 64), "degrees": (2, 2), "rule_lengths": (2, 2), "distinct_symbols": True}
    for seed in range(20):
        grammar = draw_grammar(seed, **shape)  # type: ignore[arg-type]
        for upper, lower in pairwise(grammar.levels):
            assert sorted(s for symbol in upper for body in grammar.rules[symbol] for s in body) == list(lower)
        assert grammar.text == by_the_docstring(seed, {**shape, "distinct_rules": True})


def test_the_sample_of_the_docstring() -> None:
    text = draw_grammar(0, (2, 2), (2, 2), (1, 2)).text
    assert text == "8 -> 6 7 | 6\n6 -> 2 1 | 1\n7 -> 1 1 | 2\n"
    doc = synthshards.tasks.lano.grammar_sampler.__doc__  # type: ignore[attr-defined]
    assert all(f"    {line}\n" in doc for line in text.splitlines())


def test_another_seed_or_shape_is_another_grammar() -> None:
    seen = {draw_grammar(seed, (3,) * 6).text for seed in range(50)}
    assert len(seen) == 50
    # A parameter that happens not to bind is another shape all the same.
    one = draw_grammar(0, (3, 3), (3, 3), (2, 2), distinct_rules=True)
    assert one != draw_grammar(0, (3, 3), (3, 3), (2, 2), distinct_rules=False)


REFUSED = [
    ({"degrees": (3, 2)}, "w: min_degree=3, max_degree=2; legal: 1 ≤ min_degree ≤ max_degree"),
    ({"degrees": (0, 2)}, "w: min_degree=0, max_degree=2; legal: 1 ≤ min_degree ≤ max_degree"),
    ({"rule_lengths": (3, 2)}, "w: min_rule_length=3, max_rule_length=2; legal: 1 ≤ min_rule_length ≤ max_rule_length"),
    ({"symbols": ()}, "w: symbols=[]; legal: 1..64 levels of 1 or more symbols"),
    ({"symbols": (3, 0)}, "w: symbols=[3, 0]; legal: 1..64 levels of 1 or more symbols"),
    ({"symbols": (3,) * 13}, "w: max_rule_length=3 and depth=13 allow sentences of more than 1000000 terminals"),
    ({"symbols": (9000, 9000, 9)}, "w: rules of up to 216012 symbols in all; legal: at most 200000"),
    ({"distinct_symbols": True, "symbols": (3, 2)}, "w: distinct_symbols with max_rule_length=3, but level 2 has 2"),
    (
        {"symbols": (3, 2), "degrees": (5, 5)},
        "w: level 1 needs up to 15 different right-hand sides, and only 12 can be made of 2 symbols; legal: a smaller",
    ),
    (
        {"symbols": (3, 2), "degrees": (13, 13), "distinct_rules": False},
        "w: level 1 needs up to 13 different right-hand sides, and only 12 can be made of 2 symbols; legal: a smaller",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), REFUSED, ids=[r[1][:60] for r in REFUSED])
def test_shapes_that_cannot_be_drawn(changed: dict[str, Any], said: str) -> None:
    shape: dict[str, Any] = {
        "symbols": (3, 3), "degrees": (3, 4), "rule_lengths": (2, 3), "distinct_symbols": False, "distinct_rules": True,
    }  # fmt: skip
    check_shape("w", **shape)
    assert refusal(check_shape, "w", **{**shape, **changed}).startswith(said)
    assert refusal(draw_grammar, 0, **{**shape, **changed}).startswith(said.replace("w:", "grammar:", 1))


def test_the_tightest_shapes_can_be_drawn() -> None:
    # All right-hand sides there are, and one more in each case is refused above or here.
    assert len(draw_grammar(1, (3, 2), (4, 4), (2, 3)).rules) == 4
    # Two places for three symbols: one of them is in no rule.
    grammar = draw_grammar(1, (3, 3), (1, 1), (2, 2))
    assert len(set(grammar.rules[grammar.root][0])) == 2
    text = draw_grammar(5, (1,), (3, 3), (1, 3)).text
    assert sorted(text.removeprefix("5 -> ").strip().split(" | ")) == ["1", "1 1", "1 1 1"]
    assert "only 3 can be made" in refusal(draw_grammar, 5, (1,), (4, 4), (1, 3))
    assert refusal(draw_grammar, 1 << 64, (3,)) == f"grammar_seed={1 << 64}; legal: 0..2^64-1"
