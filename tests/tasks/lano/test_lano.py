"""Lano: parameters, identities, and every door to a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import golden_rows
import numpy as np
import pytest
from helpers import plain, python
from hypothesis import given, settings
from hypothesis import strategies as st

from synthshards import LanoTask, UsageError, make_task
from synthshards.catalog import task_from_identity, task_from_text
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import RaggedBatch, concat
from synthshards.tasks import task as task_module
from synthshards.tasks.lano.grammar import SHIPPED, load_grammar
from synthshards.tasks.lano.grammar_sampler import draw_grammar
from synthshards.tasks.task import TokenRows

CASES = golden_rows.cases("lano")
TASK = make_task("lano")
MINE = "S -> NP VP | VP\nNP -> 1 2 | 3 # a noun\nVP -> 2 | 2 1\n"
TEXT = "9 -> 7 8 | 8\n7 -> 1 2 | 3\n8 -> 2 | 2 1\n"


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


# Parameters and identity -------------------------------------------------------------------------------------------

DEFAULTS = {
    "framing": "none", "bos_token_id": 0, "grammar_seed": 0, "depth": 6, "symbols": "3", "min_degree": 3,
    "max_degree": 4, "min_rule_length": 2, "max_rule_length": 3, "distinct_symbols": False, "distinct_rules": True,
}  # fmt: skip


def test_the_identity_of_a_shipped_grammar_is_its_name_and_digest() -> None:
    assert LanoTask().params.canonical() == {"grammar": f"cfg3f {SHIPPED['cfg3f']}", **DEFAULTS}
    assert LanoTask(grammar=f"cfg3f {SHIPPED['cfg3f']}").key(0, "train").tolist() == TASK.key(0, "train").tolist()
    other = SHIPPED["cfg3g"]
    assert refusal(LanoTask, grammar=f"cfg3f {other}") == (
        f"lano: grammar cfg3f has digest '{other}'; legal: {SHIPPED['cfg3f']}, that of this release"
    )


def test_the_identity_of_a_users_grammar_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "mine.cfg").write_text(MINE)
    tasks = [LanoTask(grammar=source) for source in (MINE, TEXT, str(tmp_path / "mine.cfg"))]
    tasks.append(task_from_text("lano", [f"grammar={tmp_path}/mine.cfg"]))
    tasks.append(task_from_text("lano-cfg3k", [f"grammar={MINE}"]))
    for task in tasks:
        assert task.params.canonical() == {"grammar": TEXT, **DEFAULTS}
        assert plain(task.example(0, "train", 5)) == plain(tasks[0].example(0, "train", 5))
    (tmp_path / "mine.cfg").unlink()
    assert task_from_identity("lano", tasks[2].params.canonical()).grammar == tasks[0].grammar  # type: ignore[attr-defined]
    # The same rules as a file are another identity than by name, and another order of rules is another grammar.
    assert LanoTask(grammar=load_grammar("cfg3f").text).params.canonical() != TASK.params.canonical()
    assert LanoTask(grammar=MINE.replace("NP VP | VP", "VP | NP VP")).params.canonical()["grammar"] != TEXT


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_alone_gives_the_task_again(case: str) -> None:
    task = CASES[case]
    identity = task.identity(7, "eval")
    stored = json.loads(json.dumps(identity.as_dict(), ensure_ascii=False))
    again = task_from_identity(stored["task"], stored["params"])
    assert again.identity(7, "eval").fingerprint == identity.fingerprint
    assert again.params == task.params or task.params.grammar == "drawn"
    assert again.columns == task.columns
    assert rows_of(again.batch(7, "eval", 3, 5)) == rows_of(task.batch(7, "eval", 3, 5))


def test_a_drawn_grammar_depends_on_what_it_is_drawn_from_alone() -> None:
    drawn = {"grammar": "drawn", "grammar_seed": 3, "depth": 4, "symbols": "3,4,5,6"}
    task = LanoTask(drawn)
    assert task.grammar == draw_grammar(3, (3, 4, 5, 6))
    assert LanoTask(drawn, framing="bos", bos_token_id=77).grammar == task.grammar
    assert task.key(0, "train").tolist() != task.key(1, "train").tolist()  # the dataset's seed draws sentences alone
    assert LanoTask(drawn, grammar_seed=4).grammar != task.grammar
    for name, value in (
        ("max_degree", 5),
        ("max_rule_length", 4),
        ("distinct_symbols", True),
        ("distinct_rules", False),
    ):
        assert LanoTask(drawn, **{name: value}).grammar != task.grammar


def test_symbols_may_be_one_number_or_one_for_each_level() -> None:
    drawn = [LanoTask(grammar="drawn", depth=3, symbols=s) for s in (4, "4", "4,4,4", " 4, 4,4", "04,4,4")]
    assert {task.params.canonical()["symbols"] for task in drawn} == {"4,4,4"}
    assert {task.grammar for task in drawn} == {draw_grammar(0, (4, 4, 4))}
    assert {len(task.grammar.levels) for task in drawn} == {4}
    typed = task_from_text("lano", ["grammar=drawn", "depth=3", "symbols=4", "grammar_seed=18446744073709551615"])
    assert typed.grammar == draw_grammar(2**64 - 1, (4, 4, 4))  # type: ignore[attr-defined]


ILLEGAL: list[tuple[dict[str, Any], str]] = [
    ({"grammar": 3}, "lano: grammar=3 is not legal (expected str, got int); legal: str"),
    (
        {"grammar": "cfg3ff"},
        "lano: grammar 'cfg3ff' is neither shipped nor a file; did you mean 'cfg3f'?; legal: cfg3b",
    ),
    ({"grammar": "S -> 1\nS -> 2"}, "lano: grammar: line 2: S has its rules in line 1 already"),
    ({"framing": "eos"}, "lano: framing='eos' is not legal (invalid enum value 'eos'); legal: 'none' 'bos'"),
    ({"bos_token_id": -1}, "lano: bos_token_id=-1 is not legal (expected int >= 0); legal: int 0..4294967294"),
    (
        {"bos_token_id": 1},
        "lano: bos_token_id=1 clashes with the terminals 1..3 or the reserved ids 4..6 (eos, mask, sep)",
    ),
    ({"bos_token_id": 6, "framing": "bos"}, "lano: bos_token_id=6 clashes with the terminals 1..3 or the reserved ids"),
    (
        {"grammar": "cfg3e1", "bos_token_id": 12},
        "lano: bos_token_id=12 clashes with the terminals 1..9 or the reserved",
    ),
    ({"grammar_seed": 1}, "lano: grammar_seed=1 is for drawn grammars; legal: only with grammar=drawn"),
    ({"depth": 5}, "lano: depth=5 is for drawn grammars; legal: only with grammar=drawn"),
    ({"symbols": "3,3"}, "lano: symbols='3,3' is for drawn grammars; legal: only with grammar=drawn"),
    ({"distinct_rules": False}, "lano: distinct_rules=False is for drawn grammars; legal: only with grammar=drawn"),
    ({"grammar": "drawn", "symbols": "3,3"}, "lano: symbols='3,3' has 2 numbers; legal: 1 or depth=6"),
    (
        {"grammar": "drawn", "symbols": "3;3"},
        "lano: symbols='3;3' is not legal; legal: a number, or one for each level",
    ),
    ({"grammar": "drawn", "symbols": ""}, "lano: symbols='' is not legal; legal: a number, or one for each level"),
    ({"grammar": "drawn", "symbols": "-3"}, "lano: symbols='-3' is not legal; legal: a number, or one for each level"),
    ({"grammar": "drawn", "symbols": 0}, "lano: symbols=[0, 0, 0, 0, 0, 0]; legal: 1..64 levels of 1 or more symbols"),
    ({"grammar": "drawn", "max_degree": 2}, "lano: min_degree=3, max_degree=2; legal: 1 ≤ min_degree ≤ max_degree"),
    (
        {"grammar": "drawn", "symbols": "3,3,3,3,3,1"},
        "lano: level 5 needs up to 12 different right-hand sides, and only 2",
    ),
    ({"grammar": "drawn", "grammar_seed": 2**64}, f"lano: grammar_seed={2**64} is not legal; legal: int 0..2^64-1"),
    (
        {"grammar": "drawn", "grammar_seed": -1},
        "lano: grammar_seed=-1 is not legal (expected int >= 0); legal: int from 0",
    ),
    ({"grammar": "drawn", "bos_token_id": 6}, "lano: bos_token_id=6 clashes with the terminals 1..3"),
    ({"degree": 3}, "lano: no parameter 'degree'; did you mean 'min_degree'?; legal: grammar, framing, bos_token_id"),
]


@pytest.mark.parametrize(("params", "said"), ILLEGAL, ids=[str(i[0]) for i in ILLEGAL])
def test_illegal_parameters(params: dict[str, Any], said: str) -> None:
    assert refusal(LanoTask, params).startswith(said)
    assert refusal(make_task, "lano", params) == refusal(LanoTask, **params)


def test_bos_may_be_any_free_id() -> None:
    for bos, kind in ((0, "uint16"), (7, "uint16"), (65_535, "uint16"), (65_536, "uint32"), (2**32 - 2, "uint32")):
        task = make_task("lano-cfg3f", framing="bos", bos_token_id=bos)
        row = task.example(0, "train", 0)
        assert task.columns["input_ids"] == f"list<{kind}>"
        assert row["input_ids"][0] == bos
        assert (row["length"], row["loss_mask"].all()) == (len(row["input_ids"]) - 1, True)
        assert task.validate_example(row)
    assert make_task("lano-cfg3f", bos_token_id=70_000).columns["input_ids"] == "list<uint16>"  # it stands in no row


def test_columns() -> None:
    assert TASK.columns == {"input_ids": "list<uint16>", "loss_mask": "list<bool>", "length": "uint16"}
    many = LanoTask(grammar="S -> A A\nA -> " + " | ".join(map(str, range(1, 65_537))))
    assert many.columns["input_ids"] == "list<uint32>"
    assert all(many.validate_example(row) for row in many.take(0, 5))
    long = LanoTask(grammar="S -> " + "A " * 2000 + "\nA -> " + "1 " * 40 + "| 2")
    assert long.columns["length"] == "uint32"
    row = long.example(0, "train", 0)
    assert row["length"] == len(row["input_ids"]) > 2000
    assert long.validate_example(row)
    assert TASK.size_fact in TASK.columns


@pytest.mark.parametrize("name", SHIPPED)
def test_presets(name: str) -> None:
    task = make_task(f"lano-{name}")
    assert task.grammar == load_grammar(name)  # type: ignore[attr-defined]
    preset = LanoTask.presets[f"lano-{name}"]
    assert abs(preset.mean_length - load_grammar(name).lengths[2]) <= 0.05
    levels, terminals = len(load_grammar(name).levels) - 1, load_grammar(name).terminals
    assert preset.about.startswith(f"{name}: {levels} levels above {terminals} terminals, ")


# One row, many doors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_all_doors_give_the_same_valid_rows(case: str) -> None:
    task = CASES[case]
    rows = rows_of(task.batch(3, "train", 0, 12))
    assert [plain(row) for row in task.take(3, 12)] == rows
    assert [plain(row) for row in islice(task.iter_examples(3), 12)] == rows
    assert [plain(task.example(3, "train", i)) for i in range(12)] == rows
    for row in [*rows, plain(task.generate_example(5))]:
        assert task.validate_example(row), task.validate_example(row).reason


@settings(max_examples=60, deadline=None)
@given(
    start=st.integers(0, 2**63 - 40), count=st.integers(0, 40), cut=st.integers(0, 40), case=st.sampled_from([*CASES])
)
def test_any_batch_is_its_slices(start: int, count: int, cut: int, case: str) -> None:
    task, cut = CASES[case], min(cut, count)
    whole = task.batch(9, "train", start, count)
    parts = [task.batch(9, "train", start, cut), task.batch(9, "train", start + cut, count - cut)]
    assert rows_of(concat(parts)) == rows_of(whole)
    assert rows_of(whole.slice(0, cut)) == rows_of(parts[0])


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, 2**63 - 1), max_size=12), case=st.sampled_from(sorted(CASES)))
def test_any_indices_in_any_order(indices: list[int], case: str) -> None:
    task = CASES[case]
    batch = task.generate(task.key(4, "eval"), np.array(indices, np.uint64), Buffers())
    assert rows_of(batch) == [plain(task.example(4, "eval", i)) for i in indices]


@pytest.mark.parametrize("case", ["lano/lano-cfg3f", "lano/bos-wide", "lano/long-rules", "lano/one-level"])
def test_rows_do_not_depend_on_the_room_at_first(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = CASES[case]
    right, fills = rows_of(task.batch(0, "train", 0, 300)), []
    real = task_module.token_rows

    def tight(fill: Callable[..., int], dtype: str, rows: int, mean: float, longest: int, buffers: Buffers) -> Any:
        def counted(first: int, *rest: Any) -> int:
            fills.append(first)
            return fill(first, *rest)

        return real(counted, dtype, rows, 0.001, longest, buffers)  # room for the longest row alone

    monkeypatch.setattr("synthshards.tasks.lano.task.token_rows", tight)
    assert rows_of(task.batch(0, "train", 0, 300)) == right
    assert len(fills) > 3, "the buffers did not have to grow"
    assert fills == sorted(set(fills)), "a row was made twice"


def test_the_estimated_room_is_enough_for_an_ordinary_batch() -> None:
    for task in CASES.values():
        mean = task.grammar.lengths[2] + (task.params.framing == "bos")  # type: ignore[attr-defined]
        assert len(task.batch(0, "train", 0, 4096).input_ids) <= 4096 * mean * 1.1


@pytest.mark.parametrize("case", ["lano/lano-cfg3i", "lano/bos-wide", "lano/long-rules", "lano/one-level"])
def test_nothing_is_written_outside_the_room(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Stores are 16 wide: even the longest sentence must find its room, and what lies behind must stay.
    def walled(fill: Callable[..., int], dtype: str, rows: int, mean: float, longest: int, buffers: Buffers) -> Any:
        for first in range(rows):
            ids, mask = np.full(longest + 64, 77, dtype), np.zeros(longest + 64, bool)
            offsets = np.zeros(rows + 1, np.int64)
            assert first < fill(first, TokenRows(ids[:longest], mask[:longest], offsets)) <= rows
            assert (ids[longest:] == 77).all()
            assert not mask[longest:].any()
            assert fill(first, TokenRows(ids[: longest - 1], mask[: longest - 1], offsets)) == first
        return TokenRows(np.empty(0, dtype), np.empty(0, bool), np.zeros(rows + 1, np.int64))

    monkeypatch.setattr("synthshards.tasks.lano.task.token_rows", walled)
    CASES[case].batch(0, "train", 0, 300)


#: Prints the golden digests of Lano, and what the chart says about some rows, with every index checked.
CHECKED = """
import golden_rows
for name, task in golden_rows.cases("lano").items():
    assert all(task.validate_example(row) for row in task.take(0, 3))
    task.grammar.next_token_distributions(task.example(0, "train", 0)["input_ids"])
    print(name, golden_rows.content(task))
"""


@pytest.mark.slow
def test_no_index_is_out_of_bounds(tmp_path: Path) -> None:
    said = python("-c", CHECKED, NUMBA_BOUNDSCHECK="1", SYNTHSHARDS_CACHE=str(tmp_path)).stdout.splitlines()
    assert said == [f"{name} {golden_rows.content(task)}" for name, task in CASES.items()]
