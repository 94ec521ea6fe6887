"""Lano's rows follow docs/randomness.md (reference_lano), and compiled ones equal interpreted ones."""

from __future__ import annotations

import json
from typing import Any

import golden_rows
import pytest
from helpers import plain, python
from reference_lano import by_the_prose, expansion, planned

from synthshards.ragged import RaggedBatch
from synthshards.tasks.lano.expansion import MAX_NUMBERS, WIDE, expansion_tables, stages
from synthshards.tasks.lano.grammar import load_grammar

CASES = golden_rows.cases("lano")


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


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
    made = expansion_tables(grammar, "uint16")
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
from synthshards.kernels.jit import JIT_DISABLED
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
