"""Grammars: texts, and the shipped files with their published facts."""

from __future__ import annotations

import hashlib
import math
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synthshards.tasks.lano.grammar
from synthshards.errors import DataError, UsageError
from synthshards.tasks.lano.grammar import SHIPPED, Grammar, canonical_source, load_grammar, parse_grammar

FILES = Path(synthshards.tasks.lano.grammar.__file__).parent / "grammars"
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
    monkeypatch.setattr("synthshards.tasks.lano.grammar.files", lambda _package: tmp_path)
    synthshards.tasks.lano.grammar._shipped.cache_clear()
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
    synthshards.tasks.lano.grammar._shipped.cache_clear()


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


def test_a_grammar_says_what_it_is() -> None:
    assert repr(load_grammar("cfg3j")) == f"<Grammar of levels 1 3 3 3 3 3 3 3, {SHIPPED['cfg3j']}>"
    assert load_grammar("cfg3j") != "cfg3j"
    assert isinstance(load_grammar("cfg3j"), Grammar)


def test_a_pickle_holds_no_arrays_of_what_was_asked_before() -> None:
    grammar = load_grammar("cfg3f")
    fresh = pickle.dumps(grammar)
    grammar.log_prob([1])
    assert pickle.dumps(grammar) == fresh
    assert pickle.loads(fresh) == grammar
