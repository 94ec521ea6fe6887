"""Grammars: texts, shipped files and their published facts, and drawn worlds."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import synthshards.grammar
from synthshards.errors import DataError, UsageError
from synthshards.grammar import SHIPPED, Grammar, canonical_source, load_grammar, parse_grammar
from synthshards.grammar_draw import check_world, draw_grammar

FILES = Path(synthshards.grammar.__file__).parent / "grammars"
THREES = [1, 3, 3, 3, 3, 3, 3]
#: name → (symbols a level, rules of a symbol, the root, shortest, mean rounded, longest sentence), as published.
PUBLISHED: dict[str, tuple[list[int], set[int], int, tuple[int, int, int]]] = {
    "cfg3b": (THREES, {2}, 22, (138, 276, 432)),
    "cfg3e1": ([1, 3, 9, 27, 81, 27, 9], {3}, 160, (66, 199, 557)),
    "cfg3e2": ([1, 3, 9, 27, 27, 9, 4], {3}, 83, (82, 246, 645)),
    "cfg3f": (THREES, {3, 4}, 22, (64, 250, 729)),
    "cfg3g": (THREES, {3}, 22, (80, 252, 729)),
    "cfg3h": (THREES, {2, 3}, 22, (97, 236, 459)),
    "cfg3i": (THREES, {2}, 22, (114, 308, 564)),
    "cfg3j": ([*THREES, 3], {3}, 25, (128, 544, 2052)),
    "cfg3k": ([*THREES, 3], {3, 4}, 25, (132, 516, 1458)),
}


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# Shipped -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_facts(name: str) -> None:
    sizes, degrees, root, (shortest, mean, longest) = PUBLISHED[name]
    grammar = load_grammar(name)
    assert [len(level) for level in grammar.levels] == sizes
    assert {len(bodies) for bodies in grammar.rules.values()} == degrees
    assert {len(body) for bodies in grammar.rules.values() for body in bodies} == {2, 3}
    assert grammar.root == root == sum(sizes) + 3
    assert grammar.levels[-1] == tuple(range(1, sizes[-1] + 1))
    assert (grammar.depth, grammar.terminals) == (len(sizes) - 1, sizes[-1])
    low, high, exact = grammar.lengths
    assert (low, round(exact), high) == (shortest, mean, longest)
    for upper, lower in pairwise(grammar.levels):
        bodies = [body for symbol in upper for body in grammar.rules[symbol]]
        assert len(set(bodies)) == len(bodies), "a right-hand side stands twice in a level"
        assert {s for body in bodies for s in body} <= set(lower)
    distinct = all(len(set(body)) == len(body) for bodies in grammar.rules.values() for body in bodies)
    assert distinct == (name == "cfg3b")


def test_only_cfg3e1_has_symbols_of_no_use() -> None:
    dead = {}
    for name in SHIPPED:
        grammar = load_grammar(name)
        reached = {grammar.root}
        for level in grammar.levels[:-1]:
            reached |= {s for symbol in level if symbol in reached for body in grammar.rules[symbol] for s in body}
        dead[name] = len(set(grammar.rules) - reached)
    assert {name: count for name, count in dead.items() if count} == {"cfg3e1": 13}


def test_checksums_are_those_of_the_files() -> None:
    assert sorted(SHIPPED) == sorted(PUBLISHED) == sorted(path.stem for path in FILES.iterdir())
    for name, digest in SHIPPED.items():
        data = (FILES / f"{name}.cfg").read_bytes()
        assert "sha256:" + hashlib.sha256(data).hexdigest() == digest == load_grammar(name).digest
        assert load_grammar(name).text.encode() == data


def test_a_damaged_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "grammars").mkdir()
    text = (FILES / "cfg3f.cfg").read_text()
    (tmp_path / "grammars" / "cfg3f.cfg").write_text(text.replace("22 -> 20 21", "22 -> 21 20"))
    monkeypatch.setattr("synthshards.grammar.files", lambda _package: tmp_path)
    synthshards.grammar._shipped.cache_clear()
    with pytest.raises(
        DataError, match=r"^grammars/cfg3f.cfg is damaged: digest sha256:\w+; legal: digest sha256:d16f"
    ):
        load_grammar("cfg3f")
    for broken in (b"", text.encode()[:-20], b"\xff" + text.encode()):
        (tmp_path / "grammars" / "cfg3f.cfg").write_bytes(broken)
        with pytest.raises(DataError, match=r"^grammars/cfg3f.cfg is damaged: "):
            load_grammar("cfg3f")
    (tmp_path / "grammars" / "cfg3f.cfg").unlink()
    with pytest.raises(DataError, match=r"^grammars/cfg3f.cfg is damaged: .* No such file"):
        load_grammar("cfg3f")
    (tmp_path / "grammars" / "cfg3f.cfg").write_bytes(text.replace("\n", "\r\n").encode())  # a checkout's line ends
    assert load_grammar("cfg3f").digest == SHIPPED["cfg3f"]
    synthshards.grammar._shipped.cache_clear()


def test_the_length_distribution_of_cfg3f() -> None:
    grammar = load_grammar("cfg3f")
    shares = grammar.length_distribution()
    n = np.arange(len(shares))
    mean = float(shares @ n)
    assert len(shares) == 730
    assert math.isclose(shares.sum(), 1, rel_tol=1e-12)
    assert np.flatnonzero(shares)[[0, -1]].tolist() == [64, 729]
    assert math.isclose(mean, grammar.lengths[2], rel_tol=1e-12)
    assert (round(mean, 2), round(math.sqrt(float(shares @ (n - mean) ** 2)), 2)) == (249.86, 69.38)
    deciles = np.searchsorted(np.cumsum(shares), np.arange(1, 10) / 10)
    assert deciles.tolist() == [159, 180, 202, 224, 248, 271, 293, 315, 343]
    assert f"{shares[512:].sum():.1e}" == "1.2e-06"  # the share that, with <bos>, exceeds the paper's context of 512


def test_loading_by_name_digest_text_and_file(tmp_path: Path) -> None:
    grammar = load_grammar("cfg3f")
    assert load_grammar(f"cfg3f {SHIPPED['cfg3f']}") is grammar
    (tmp_path / "mine").write_bytes(b"\xef\xbb\xbf" + grammar.text.replace("\n", "\r\n").encode())
    for source in (grammar.text, str(tmp_path / "mine"), tmp_path / "mine"):
        assert load_grammar(source) == grammar
        assert hash(load_grammar(source)) == hash(grammar)
    assert load_grammar("cfg3g") != grammar
    assert canonical_source("cfg3f") == canonical_source(canonical_source("cfg3f")) == f"cfg3f {SHIPPED['cfg3f']}"
    assert canonical_source(str(tmp_path / "mine")) == canonical_source(grammar.text) == grammar.text


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    digest = SHIPPED["cfg3f"]
    assert refusal(load_grammar, f"cfg3f {digest[:-1]}0").endswith(f"legal: {digest}, that of this release")
    assert refusal(load_grammar, "cfg3").startswith("grammar 'cfg3' is neither shipped nor a file; did you mean 'cfg3")
    assert refusal(load_grammar, "mine").endswith("cfg3j, cfg3k, a file, or rules like 'S -> 1 2 | 2 1'")
    assert "neither shipped nor a file" in refusal(load_grammar, tmp_path)
    assert "neither shipped nor a file" in refusal(load_grammar, "")
    assert "a\\x00b" in refusal(load_grammar, "a\0b")
    (tmp_path / "latin").write_bytes(b"S -> 1 # \xe9")
    assert "cannot be read ('utf-8' codec" in refusal(load_grammar, tmp_path / "latin")
    (tmp_path / "big").write_bytes(b"#" * (1 << 21))
    assert "legal: at most 1048576" in refusal(load_grammar, tmp_path / "big")
    (tmp_path / "bad").write_text("S -> 1\nS -> 2\n")
    assert refusal(load_grammar, tmp_path / "bad") == f"{tmp_path}/bad: line 2: S has its rules in line 1 already"


# Texts -------------------------------------------------------------------------------------------------------------


def test_names_become_published_numbers() -> None:
    text = "# mine\n\n S->NP  VP|VP\t#two\nNP -> 1 2 | 3\nVP -> 2"
    grammar = parse_grammar(text)
    assert grammar.text == "9 -> 7 8 | 8\n7 -> 1 2 | 3\n8 -> 2\n"
    assert grammar.levels == ((9,), (7, 8), (1, 2, 3))
    assert grammar.rules == {9: ((7, 8), (8,)), 7: ((1, 2), (3,)), 8: ((2,),)}
    assert parse_grammar(grammar.text) == grammar
    # Lines of several levels may stand in any order behind the root's; within a level their order is kept.
    assert (
        parse_grammar("S -> A B\nA -> X\nX -> 1\nB -> X Y\nY -> 1 1").text
        == "9 -> 7 8\n7 -> 5\n8 -> 5 6\n5 -> 1\n6 -> 1 1\n"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_published_numbers_are_kept(name: str) -> None:
    assert parse_grammar((FILES / f"{name}.cfg").read_text()).text == (FILES / f"{name}.cfg").read_text()


LINE = "legal: like 'S -> 1 2 | 2 1'"
MISTAKES = [
    ("", "g: no rules; legal: lines like 'S -> 1 2 | 2 1', the root's first"),
    ("# only\n\n", "g: no rules; legal: lines like 'S -> 1 2 | 2 1', the root's first"),
    ("S -> 1\nA", f"g: line 2: 'A' is no rule; {LINE}"),
    ("S -> 1 |", f"g: line 1: 'S -> 1 |' is no rule; {LINE}"),
    ("S ->", f"g: line 1: 'S ->' is no rule; {LINE}"),
    ("-> 1", f"g: line 1: '-> 1' is no rule; {LINE}"),
    ("S T -> 1", f"g: line 1: 'S T -> 1' is no rule; {LINE}"),
    ("S -> 1 -> 2", f"g: line 1: 'S -> 1 -> 2' is no rule; {LINE}"),
    ("S -> 1 # ok\n\nS -> 2", "g: line 3: S has its rules in line 1 already"),
    ("S -> 1 2 | 2 | 1  2", "g: line 1: S has the right-hand side '1 2' twice"),
    ("S -> A A\nA -> 1 x", "g: line 2: 'x' has no rules and is no terminal; legal: 1, 2, 3 …"),
    ("S -> 01", "g: line 1: '01' has no rules and is no terminal; legal: 1, 2, 3 …"),
    ("S -> 0 1", "g: line 1: '0' has no rules and is no terminal; legal: 1, 2, 3 …"),
    ("S -> 1 -2", "g: line 1: '-2' has no rules and is no terminal; legal: 1, 2, 3 …"),
    ("S -> 99999999", "g: line 1: '99999999' has no rules and is no terminal; legal: 1, 2, 3 …"),
    ("S -> 1 3", "g: terminal 2 is missing; legal: terminals 1..V without holes"),
    ("S -> 2", "g: terminal 1 is missing; legal: terminals 1..V without holes"),
    (
        "S -> A 1\nA -> 1 2",
        "g: line 1: S expands to symbols of different levels, A (1 above the terminals) and 1 (a terminal, for it has "
        "no rules); legal: symbols of one level",
    ),
    (
        "S -> A | B\nA -> C\nB -> 1\nC -> 1",
        "g: line 1: S expands to symbols of different levels, A (2 above the terminals) and B (1 above the terminals); "
        "legal: symbols of one level",
    ),
    ("S -> A\nA -> B\nB -> A | 1", "g: line 2: A leads back to itself"),
    ("S -> S | 1", "g: line 1: S leads back to itself"),
    (
        "S -> A\nA -> 1\nT -> A A",
        "g: line 3: T is 2 above the terminals, the root S 2 above the terminals; legal: the first line is the root's, "
        "and the root alone stands on top",
    ),
    ("A -> 1\nS -> A", "g: line 2: S is 2 above the terminals, the root A 1 above the terminals"),
    (
        "\n".join(f"A{i} -> A{i + 1}" for i in range(64)) + "\nA64 -> 1",
        "g: line 1: A0 leads back to itself, or is over 64",
    ),
    (
        "S -> " + " ".join(["A"] * 1001) + "\nA -> " + " ".join(["1"] * 1000),
        "grammar: its longest sentence has 1001000 ",
    ),
    ("S -> " + "1 " * 600_000, "g: 1200005 characters or more; legal: at most 1048576"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES, ids=[m[1][:50] for m in MISTAKES])
def test_mistakes_are_named_by_line(text: str, said: str) -> None:
    assert refusal(parse_grammar, text, "g").startswith(said)


def test_the_limits_themselves_are_legal() -> None:
    assert parse_grammar("\n".join(f"A{i} -> A{i + 1}" for i in range(63)) + "\nA63 -> 1").depth == 64
    assert parse_grammar("S -> " + " ".join(["A"] * 1000) + "\nA -> " + " ".join(["1"] * 1000)).lengths[1] == 1_000_000


# Drawn -------------------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    low, short = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    world = {
        "symbols": tuple(sizes),
        "degrees": (low, low + draw(st.integers(0, 3))),
        "rule_lengths": (short, short + draw(st.integers(0, 2))),
        "distinct_symbols": draw(st.booleans()),
        "distinct_rules": draw(st.booleans()),
    }
    try:
        check_world("w", **world)
    except UsageError:
        assume(False)
    return world


@settings(max_examples=200, deadline=None)
@given(world=worlds(), seed=st.integers(0, 2**64 - 1))
def test_drawn_grammars_obey_every_constraint(world: dict[str, Any], seed: int) -> None:
    grammar = draw_grammar(seed, **world)
    assert tuple(len(level) for level in grammar.levels) == (1, *world["symbols"])
    for upper, lower in pairwise(grammar.levels):
        bodies = [body for symbol in upper for body in grammar.rules[symbol]]
        places = sum(map(len, bodies))
        assert len({s for body in bodies for s in body}) == min(places, len(lower)), "a symbol of no use"
        assert {world["degrees"][0] <= len(grammar.rules[symbol]) <= world["degrees"][1] for symbol in upper} == {True}
        assert {world["rule_lengths"][0] <= len(body) <= world["rule_lengths"][1] for body in bodies} == {True}
        for symbol in upper:
            assert len(set(grammar.rules[symbol])) == len(grammar.rules[symbol])
        if world["distinct_rules"]:
            assert len(set(bodies)) == len(bodies)
        if world["distinct_symbols"]:
            assert all(len(set(body)) == len(body) for body in bodies)
    if {s for bodies in grammar.rules.values() for body in bodies for s in body} >= set(grammar.levels[-1]):
        assert parse_grammar(grammar.text) == grammar
        assert parse_grammar(grammar.text).levels == grammar.levels


def by_the_docstring(seed: int, world: dict[str, Any]) -> str:
    """grammar_draw.py's docstring followed in plain Python."""
    (low, high), (short, long) = world["degrees"], world["rule_lengths"]
    identity = {
        "depth": len(world["symbols"]), "distinct_rules": world["distinct_rules"],
        "distinct_symbols": world["distinct_symbols"], "grammar_seed": seed, "max_degree": high,
        "max_rule_length": long, "min_degree": low, "min_rule_length": short, "symbols": list(world["symbols"]),
        "task": "lano", "task_version": 1,
    }  # fmt: skip
    digest = hashlib.sha256(b"synthshards grammar\0" + reference.canonical(identity).encode()).digest()
    source = reference.words(reference.start(reference.key_of(digest), 0))

    def below(n: int) -> int:
        return reference.numbers(source, n)[0]

    sizes = [1, *world["symbols"]]
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
                        candidates = [s for s in lower if not (world["distinct_symbols"] and s in body)]
                        body.append(candidates[below(len(candidates))])
                    rivals = [b for other in level for b in other] if world["distinct_rules"] else mine
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
@given(world=worlds(), seed=st.integers(0, 2**64 - 1))
def test_drawn_grammars_follow_the_docstring(world: dict[str, Any], seed: int) -> None:
    assert draw_grammar(seed, **world).text == by_the_docstring(seed, world)


def test_newcomers_take_places() -> None:
    # As many places as symbols: every symbol of each level stands exactly once, whatever was drawn first.
    world = {"symbols": (4, 16, 64), "degrees": (2, 2), "rule_lengths": (2, 2), "distinct_symbols": True}
    for seed in range(20):
        grammar = draw_grammar(seed, **world)  # type: ignore[arg-type]
        for upper, lower in pairwise(grammar.levels):
            assert sorted(s for symbol in upper for body in grammar.rules[symbol] for s in body) == list(lower)
        assert grammar.text == by_the_docstring(seed, {**world, "distinct_rules": True})


def test_the_sample_of_the_docstring() -> None:
    text = draw_grammar(0, (2, 2), (2, 2), (1, 2)).text
    assert text == "8 -> 6 7 | 6\n6 -> 2 1 | 1\n7 -> 1 1 | 2\n"
    doc = synthshards.grammar_draw.__doc__  # type: ignore[attr-defined]
    assert all(f"    {line}\n" in doc for line in text.splitlines())


def test_another_seed_or_world_is_another_grammar() -> None:
    seen = {draw_grammar(seed, (3,) * 6).text for seed in range(50)}
    assert len(seen) == 50
    # A parameter that happens not to bind still makes another world.
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
def test_worlds_that_cannot_be_drawn(changed: dict[str, Any], said: str) -> None:
    world: dict[str, Any] = {
        "symbols": (3, 3), "degrees": (3, 4), "rule_lengths": (2, 3), "distinct_symbols": False, "distinct_rules": True,
    }  # fmt: skip
    check_world("w", **world)
    assert refusal(check_world, "w", **{**world, **changed}).startswith(said)
    assert refusal(draw_grammar, 0, **{**world, **changed}).startswith(said.replace("w:", "grammar:", 1))


def test_the_tightest_worlds_can_be_drawn() -> None:
    # All right-hand sides there are, and one more in each case is refused above or here.
    assert len(draw_grammar(1, (3, 2), (4, 4), (2, 3)).rules) == 4
    # Two places for three symbols: one of them is in no rule.
    grammar = draw_grammar(1, (3, 3), (1, 1), (2, 2))
    assert len(set(grammar.rules[grammar.root][0])) == 2
    text = draw_grammar(5, (1,), (3, 3), (1, 3)).text
    assert sorted(text.removeprefix("5 -> ").strip().split(" | ")) == ["1", "1 1", "1 1 1"]
    assert "only 3 can be made" in refusal(draw_grammar, 5, (1,), (4, 4), (1, 3))
    assert refusal(draw_grammar, 1 << 64, (3,)) == f"grammar_seed={1 << 64}; legal: 0..2^64-1"


def test_a_grammar_says_what_it_is() -> None:
    assert repr(load_grammar("cfg3j")) == f"<Grammar of levels 1 3 3 3 3 3 3 3, {SHIPPED['cfg3j']}>"
    assert load_grammar("cfg3j") != "cfg3j"
    assert isinstance(load_grammar("cfg3j"), Grammar)
