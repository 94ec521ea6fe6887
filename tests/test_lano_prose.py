"""Lano's rows again in plain Python, from docs/randomness.md alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import lcm, prod
from typing import Any

import golden_rows
import pytest
import reference
from helpers import plain, python

from synthshards.grammar import Grammar, load_grammar
from synthshards.ragged import RaggedBatch
from synthshards.tasks.expansion import MAX_NUMBERS, WIDE, stages, tables

CASES = golden_rows.cases("lano")


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


def planned(grammar: Grammar) -> list[tuple[int, int]]:
    """randomness.md, "Stages": which there are."""
    rules, below, out = grammar.rules, grammar.depth, list[tuple[int, int]]()
    while below:
        above = below - 1
        if below > 1:
            heads = grammar.levels[below - 2]
            longest = max(sum(max(map(len, rules[s])) for s in rule) for head in heads for rule in rules[head])
            if longest <= 16 and sum(radix(grammar, head, 2) for head in heads) <= 32_768:
                above = below - 2
        out.insert(0, (above, below))
        below = above
    return out


def ways(grammar: Grammar, rule: Sequence[int]) -> int:
    return prod(len(grammar.rules[s]) for s in rule)


def radix(grammar: Grammar, symbol: int, levels: int) -> int:
    rules = grammar.rules[symbol]
    return len(rules) * (lcm(*(ways(grammar, rule) for rule in rules)) if levels == 2 else 1)


def expansion(grammar: Grammar, symbol: int, levels: int, s: int) -> list[int]:
    """randomness.md, "Stages": what the number s makes of a symbol."""
    rules = grammar.rules[symbol]
    if levels == 1:
        return list(rules[s])
    L = lcm(*(ways(grammar, rule) for rule in rules))
    rule = rules[s // L]
    e = (s % L) // (L // ways(grammar, rule))
    out: list[int] = []
    for child in reversed(rule):
        e, digit = divmod(e, len(grammar.rules[child]))
        out[:0] = grammar.rules[child][digit]
    return out


def by_the_prose(task: Any, seed: int, split: str, i: int) -> dict[str, Any]:
    """randomness.md, "Sentences", "Tokens and facts of Lano": a row."""
    p, grammar = task.params, task.grammar
    key = reference.key_of(reference.identity_digest("lano", 1, p.canonical(), seed, split))
    source = reference.words(reference.start(key, i))
    row = [grammar.root]
    for above, below in planned(grammar):
        most = max(radix(grammar, symbol, below - above) for symbol in grammar.levels[above])
        group = max(g for g in range(1, 9) if g == 1 or most**g <= 2**52)
        grown: list[int] = []
        for at in range(0, len(row), group):
            part = row[at : at + group]
            numbers = reference.numbers(source, *(radix(grammar, symbol, below - above) for symbol in part))
            for symbol, s in zip(part, numbers, strict=True):
                grown += expansion(grammar, symbol, below - above, s)
        row = grown
    ids = [p.bos_token_id] * (p.framing == "bos") + row
    return {"input_ids": ids, "loss_mask": [True] * len(ids), "labels": ids, "length": len(row)}


@pytest.mark.parametrize("case", CASES)
def test_rows_follow_the_prose(case: str) -> None:
    task = CASES[case]
    assert planned(task.grammar) == stages(task.grammar)  # type: ignore[attr-defined]
    indices = [*range(8), 2**32, 2**63 - 1]
    assert [plain(task.example(5, "eval", i)) for i in indices] == [by_the_prose(task, 5, "eval", i) for i in indices]


def test_the_sample_of_the_docstring() -> None:
    grammar = load_grammar("S -> A A | A B\nB -> 1 2\nA -> 2 2 1 | 1")
    shown = ["2 2 1 2 2 1", "2 2 1 1", "1 2 2 1", "1 1", "2 2 1 1 2", "2 2 1 1 2", "1 1 2", "1 1 2"]
    assert [" ".join(map(str, expansion(grammar, grammar.root, 2, s))) for s in range(8)] == shown
    made = tables(grammar, "uint16")
    assert made.radix.tolist() == [8]
    spelled = [made.outer[r, : made.outer_size[r]].tolist() for r in made.row]
    assert [" ".join(map(str, body)) for body in spelled] == shown


def test_stages_at_their_limits() -> None:
    # 16 symbols are one row of a table, 17 are too many; radices of 32,768 are allowed in sum, more are not.
    def plan(text: str) -> list[tuple[int, int]]:
        return stages(load_grammar(text))

    assert plan("S -> " + "A " * 8 + "\nA -> 1 1") == [(0, 2)]
    assert plan("S -> " + "A " * 8 + "| A B\nA -> 1 1\nB -> " + "1 " * 15) == [(0, 1), (1, 2)]
    eight = "A -> " + " | ".join(f"{a} {b}" for a in (1, 2) for b in (1, 2, 3, 4))
    assert plan(f"S -> A A A A A\n{eight}") == [(0, 2)]  # 8^5
    assert plan(f"S -> A A A A A | A\n{eight}") == [(0, 1), (1, 2)]
    assert (MAX_NUMBERS, WIDE) == (8**5, 16)


#: Prints 50 rows of several grammars as JSON, then whether compilation was off.
PLAIN = """
import json
import golden_rows
from helpers import plain
from synthshards.kernel import JIT_DISABLED
for name, task in sorted(golden_rows.cases("lano").items()):
    print(json.dumps([plain(row) for row in task.batch(11, "train", 100, COUNT).rows()]))
print(JIT_DISABLED)
"""


@pytest.mark.slow
def test_compiled_rows_equal_interpreted_ones() -> None:
    count = 4  # of each of twenty grammars
    said = python("-W", "ignore", "-c", PLAIN.replace("COUNT", str(count)), NUMBA_DISABLE_JIT="1").stdout.splitlines()
    assert said.pop() == "True"
    assert [json.loads(line) for line in said] == [
        rows_of(task.batch(11, "train", 100, count)) for _, task in sorted(CASES.items())
    ]
