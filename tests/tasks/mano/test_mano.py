"""Mano: parameters, every door to a row, every option, the checker, and rows written from the docstring."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from itertools import combinations, islice
from typing import Any

import golden_rows
import numpy as np
import pytest
from helpers import plain, python
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference_mano import Mano

from synthshards import ManoTask, UsageError, make_task
from synthshards.catalog import task_from_text
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import RaggedBatch, concat

CASES = golden_rows.cases("mano")
TASK = make_task("mano-10")
SUBSETS = ["".join(letters) for count in range(1, 5) for letters in combinations("asmd", count)]


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# Parameters --------------------------------------------------------------------------------------------------------


def test_the_parameters_and_presets_are_those_of_the_contract() -> None:
    assert ManoTask().params.canonical() == {
        "L": 10, "ttype": "asm", "value_mod": 23, "knowledge_augment": True, "qa": False, "bos_token_id": 9999,
    }  # fmt: skip
    assert {name: dict(preset.params) for name, preset in ManoTask.presets.items()} == {
        f"mano-{L}": {"L": L} for L in (10, 13, 16)
    }
    assert make_task("mano").params == TASK.params
    assert list(TASK.columns) == ["input_ids", "loss_mask", "length", "answer"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"L": 0}, "mano: L=0 is not legal (expected int >= 1); legal: int 1..499"),
        # <len_500> would be 5000, the value 0.
        ({"L": 500}, "mano: L=500 is not legal (expected int <= 499); legal: int 1..499"),
        ({"value_mod": 1}, "mano: value_mod=1 is not legal (expected int >= 2); legal: int 2..4998"),
        ({"value_mod": 4999}, "mano: value_mod=4999 is not legal (expected int <= 4998); legal: int 2..4998"),
        ({"qa": 1}, "mano: qa=1 is not legal (expected bool, got int); legal: true or false"),
        ({"ttype": ""}, "mano: ttype='' is not legal; legal: one or more of a s m d, each once"),
        ({"ttype": "asx"}, "mano: ttype='asx' is not legal; legal: one or more of a s m d, each once"),
        ({"ttype": "aa"}, "mano: ttype='aa' is not legal; legal: one or more of a s m d, each once"),
        *(
            (
                {"bos_token_id": bos, **more},
                f"mano: ids clash: bos_token_id={bos} or its synonym meets operators and marks (1..105), "
                "values (5000..5022) or falls below 0; legal: ids that stay apart",
            )
            for bos, more in (
                (0, {}),
                (1, {}),
                (2, {}),
                (105, {}),
                (106, {}),
                (5000, {}),
                (5022, {}),
                (5023, {}),
                (1, {"knowledge_augment": False}),
                (105, {"knowledge_augment": False}),
                (5000, {"knowledge_augment": False}),
            )
        ),
        (
            {"ttype": "d", "value_mod": 6, "L": 16},
            "mano: with ttype='d' and value_mod=6 a draw of 7 operations divides by units only with probability "
            "0.00046; legal: at least 1 in 1,000, so L ≤ 6 or a value_mod with more units",
        ),
    ],
    ids=str,
)
def test_illegal_parameters(params: dict[str, Any], said: str) -> None:
    assert refusal(ManoTask, params) == said


def test_legal_extremes() -> None:
    for params in (
        {"L": 499}, {"value_mod": 4998}, {"value_mod": 2}, {"bos_token_id": 107}, {"bos_token_id": 4999},
        {"bos_token_id": 5024}, {"bos_token_id": 0, "knowledge_augment": False},
        {"bos_token_id": 5023, "knowledge_augment": False}, {"L": 6, "ttype": "d", "value_mod": 6},
        {"L": 499, "ttype": "asmd"},
    ):  # fmt: skip
        assert ManoTask(params).params.canonical().items() >= params.items()


def test_operators_are_a_set() -> None:
    assert [ManoTask(ttype=letters).params.ttype for letters in SUBSETS] == SUBSETS
    for letters in ("sam", "mas", "msa"):
        assert ManoTask(ttype=letters).params == ManoTask().params
    assert ManoTask(ttype="dmsa").key(0, "train").tolist() == ManoTask(ttype="asmd").key(0, "train").tolist()


def test_parameters_from_a_command_line() -> None:
    assert task_from_text("mano-13", ["ttype=das", "qa=true"]).params == ManoTask(L=13, ttype="asd", qa=True).params


# One row, many doors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_all_doors_give_the_same_valid_rows(case: str) -> None:
    task = CASES[case]
    rows = rows_of(task.batch(3, "train", 0, 12))
    assert [plain(row) for row in task.take(3, 12)] == rows
    assert [plain(row) for row in islice(task.iter_examples(3), 12)] == rows
    assert [plain(task.example(3, "train", i)) for i in range(12)] == rows
    for row in rows:
        assert task.validate_example(row), task.validate_example(row).reason
        assert task.score_answer(row, row["input_ids"][-1:])
        assert task.score_answer(row, row["input_ids"][-2:])


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_caller_s_generator(case: str) -> None:
    task = CASES[case]
    makers: list[Callable[[], Any]] = [lambda: 5, lambda: random.Random(5), lambda: np.random.default_rng(5)]
    for make in makers:
        row = plain(task.generate_example(make()))
        assert row == plain(task.generate_example(make()))
        assert task.validate_example(row), task.validate_example(row).reason


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 2**63 - 400), count=st.integers(0, 400), cut=st.integers(0, 400), qa=st.booleans())
def test_any_batch_is_its_slices(start: int, count: int, cut: int, qa: bool) -> None:
    task = ManoTask(ttype="asmd", qa=qa)  # lanes are dealt out in blocks of 128, and some draw again
    cut = min(cut, count)
    whole = task.batch(9, "train", start, count)
    parts = [task.batch(9, "train", start, cut), task.batch(9, "train", start + cut, count - cut)]
    assert rows_of(concat(parts)) == rows_of(whole)
    assert rows_of(whole.slice(cut, count)) == rows_of(parts[1])


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, 2**63 - 1), max_size=12), case=st.sampled_from(sorted(CASES)))
def test_any_indices_in_any_order(indices: list[int], case: str) -> None:
    task = CASES[case]
    batch = task.generate(task.key(4, "eval"), np.array(indices, np.uint64), Buffers())
    assert rows_of(batch) == [plain(task.example(4, "eval", i)) for i in indices]


def test_buffers_used_again_give_the_same_rows() -> None:
    buffers = Buffers()
    for start, count in ((0, 50), (7, 300), (900, 3), (0, 0), (0, 301)):
        right = rows_of(TASK.batch(0, "train", start, count))
        assert rows_of(TASK.batch(0, "train", start, count, buffers=buffers)) == right
    wide = ManoTask(bos_token_id=70_000)
    assert rows_of(wide.batch(0, "train", 0, 200, buffers=buffers)) == rows_of(wide.batch(0, "train", 0, 200))


def test_types_and_shapes() -> None:
    batch = TASK.batch(0, "train", 0, 20)
    assert batch.kinds == TASK.columns
    assert {name: column.values.dtype.name for name, column in batch.columns.items()} == {
        "input_ids": "uint16", "loss_mask": "bool", "length": "uint16", "answer": "uint16",
    }  # fmt: skip
    assert (batch.offsets.dtype, batch.offsets[0], batch.offsets[-1]) == (np.int64, 0, len(batch.loss_mask))
    assert batch.loss_mask.all()
    assert (batch.columns["input_ids"].lengths() == 2 * batch.columns["length"].values.astype(int) + 5).all()
    row = TASK.example(0, "train", 0)
    assert (type(row["length"]), type(row["answer"])) == (int, int)
    assert row["labels"].tolist() == row["input_ids"].tolist()
    assert ManoTask(bos_token_id=65_535).columns["input_ids"] == "list<uint16>"
    assert ManoTask(bos_token_id=65_536).columns["input_ids"] == "list<uint32>"


# The docstring is enough to write the rows -------------------------------------------------------------------------


def written(task: Any, rows: int, seed: int = 0, split: str = "train", start: int = 0) -> list[dict[str, Any]]:
    """Rows from the docstring alone."""
    return Mano(task.params.canonical()).rows(seed, split, range(start, start + rows))


def made(task: Any, rows: int, seed: int = 0, split: str = "train", start: int = 0) -> list[dict[str, Any]]:
    """The package's rows."""
    out = rows_of(task.batch(seed, split, start, rows))
    for row in out:
        del row["labels"]
    return out


@pytest.mark.parametrize("case", CASES)
def test_rows_of_the_docstring(case: str) -> None:
    assert made(CASES[case], 150) == written(CASES[case], 150)


@settings(max_examples=80, deadline=None)
@given(
    L=st.integers(1, 40), p=st.integers(2, 4998), ttype=st.sampled_from(SUBSETS), augment=st.booleans(),
    qa=st.booleans(), seed=st.integers(0, 2**64 - 1), start=st.integers(0, 2**63 - 10),
)  # fmt: skip
def test_rows_of_the_docstring_under_any_options(
    L: int, p: int, ttype: str, augment: bool, qa: bool, seed: int, start: int
) -> None:
    try:
        task = ManoTask(L=L, value_mod=p, ttype=ttype, knowledge_augment=augment, qa=qa)
    except UsageError:
        assume(False)
    assert made(task, 5, seed, "any_1", start) == written(task, 5, seed, "any_1", start)
    for row in task.batch(seed, "any_1", start, 5).rows():
        assert task.validate_example(row), task.validate_example(row).reason


def test_the_longest_row_of_the_docstring() -> None:
    task = ManoTask(L=499, qa=True, value_mod=4998)
    assert made(task, 3) == written(task, 3)
    assert all(task.validate_example(row) for row in task.take(0, 3))


def test_rows_without_numba() -> None:
    rows = {case: made(CASES[case], 40) for case in ("mano/mano-16", "mano/composite")}
    code = (
        "import sys, golden_rows; from helpers import plain\n"
        "for case, task in golden_rows.cases('mano').items():\n"
        "    if case in sys.argv[1:]:\n"
        "        rows = [plain(row) for row in task.batch(0, 'train', 0, 40).rows()]\n"
        "        print(repr((case, [{k: v for k, v in row.items() if k != 'labels'} for row in rows])))\n"
    )
    done = python("-W", "ignore", "-c", code, *rows, NUMBA_DISABLE_JIT="1")
    assert dict(map(eval, done.stdout.splitlines())) == rows


def test_the_sample_of_the_docstring_is_a_row() -> None:
    doc = sys.modules[ManoTask.__module__].__doc__ or ""
    line = next(line for line in doc.splitlines() if line.strip().startswith("<bos"))
    assert line.split() in [TASK.decode(TASK.example(0, "train", i)["input_ids"]) for i in range(100)]


# Options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttype", SUBSETS)
def test_any_set_of_operators(ttype: str) -> None:
    task = ManoTask(ttype=ttype, value_mod=23, L=8)
    signs = dict(zip("asmd", "+-×÷", strict=True))
    names = [name for row in task.take(0, 200) for name in task.decode(row["input_ids"])]
    assert {name for name in names if name[0] in "+-×÷"} == {signs[o] + prime for o in ttype for prime in ("", "'")}


def test_without_synonyms() -> None:
    task = ManoTask(knowledge_augment=False)
    names = {name for row in task.take(0, 300) for name in task.decode(row["input_ids"])}
    assert not [name for name in names if "'" in name]
    augmented = plain(TASK.example(0, "train", 7))
    assert not task.validate_example(augmented) or not [n for n in TASK.decode(augmented["input_ids"]) if "'" in n]


def test_qa_has_all_operations() -> None:
    assert {row["length"] for row in ManoTask(L=12, qa=True).take(0, 50)} == {12}
    assert {row["length"] for row in ManoTask(L=3).take(0, 50)} == {1, 2, 3}


def test_composite_moduli_divide_by_units_only() -> None:
    task = ManoTask(ttype="d", value_mod=12, L=3)
    for row in task.take(0, 300):
        assert row["answer"] in range(12)
        assert row["input_ids"][-3] - 5000 in (1, 5, 7, 11)  # the last value of a ÷ is a right side, a unit


def test_names_of_tokens() -> None:
    ids = [9999, 9998, 70, 71, 74, 75, 100, 110, 1, 2, 3, 4, 5, 6, 7, 8, 5000, 5022, 5023, 72, 0, 10_000]
    assert TASK.decode(ids) == [
        "<bos>", "<bos'>", "<len_7>", "<len_7'>", "<ans_7>", "<ans_7'>", "<len_10>", "<unknown_110>", "+", "-", "×",
        "<unknown_4>", "+'", "-'", "×'", "<unknown_8>", "0", "22", "<unknown_5023>", "<unknown_72>", "<unknown_0>",
        "<unknown_10000>",
    ]  # fmt: skip
    assert ManoTask(knowledge_augment=False, ttype="md").decode([9998, 71, 75, 5, 4, 3, 74]) == [
        "<unknown_9998>", "<unknown_71>", "<unknown_75>", "<unknown_5>", "÷", "×", "<ans_7>",
    ]  # fmt: skip


def test_the_presets_say_their_mean_length() -> None:
    # 2ℓ + 5 tokens, ℓ uniform in 1..L.
    for name, preset in ManoTask.presets.items():
        task = make_task(name)
        assert preset.mean_length == task.params.L + 6
        lengths = task.batch(1, "mean", 0, 300_000).columns["input_ids"].lengths()
        assert abs(lengths.mean() - preset.mean_length) < 5 * lengths.std() / 300_000**0.5


# The checker and the scorer ----------------------------------------------------------------------------------------

ROW = [9999, 30, 3, 2, 5000, 5009, 5, 5020, 5004, 34, 5014]  # (0 − 9) × (20 + 4) = 14
PLACES = {"<len>": 1, "×": 2, "-": 3, "0": 4, "9": 5, "+'": 6, "20": 7, "4": 8, "<ans>": 9, "14": 10}


def checked(ids: list[int], task: Any = TASK, **more: Any) -> str | None:
    verdict = task.validate_example({"input_ids": ids, "loss_mask": [True] * len(ids), **more})
    assert bool(verdict) == (verdict.reason is None)
    return verdict.reason  # type: ignore[no-any-return]


def test_the_row_of_the_tests_is_valid() -> None:
    assert checked(ROW) is None
    assert checked(ROW, labels=ROW, length=3, answer=14) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({0: 9997}, "the row does not start with <bos> (9999)"),
        ({1: 32}, "no <len_l> at 1; legal: l = 1..10"),
        ({1: 110}, "no <len_l> at 1; legal: l = 1..10"),
        ({1: 0}, "no <len_l> at 1; legal: l = 1..10"),
        ({1: 40}, "11 tokens at 4 operations; legal: 13"),
        ({9: 44}, "no <ans_3> at 9"),
        ({9: 30}, "no <ans_3> at 9"),
        ({2: 4}, "token 4 at 2 is neither a value nor an operator of 'asm'"),
        ({2: 8}, "token 8 at 2 is neither a value nor an operator of 'asm'"),
        ({5: 5023}, "token 5023 at 5 is neither a value nor an operator of 'asm'"),
        ({5: 9999}, "token 9999 at 5 is neither a value nor an operator of 'asm'"),
        ({8: 1}, "the operator at 8 lacks a side"),
        ({7: 1}, "the operator at 7 lacks a side"),
        ({6: 5001}, "3 expressions follow one another; legal: one of 3 operations"),
        ({2: 5001}, "3 expressions follow one another; legal: one of 3 operations"),
        ({10: 5013}, "the value is 13, not 14"),
        ({10: 5023}, "the value is <unknown_5023>, not 14"),
        ({10: 9999}, "the value is <bos>, not 14"),
        ({2: 1}, "the value is 14, not 15"),
        ({8: 5005}, "the value is 14, not 5"),
        ({4: 5009, 5: 5000}, "the value is 14, not 9"),
    ],
    ids=str,
)
def test_a_broken_row_is_refused_for_its_fault(change: dict[int, int], reason: str) -> None:
    assert checked([change.get(at, token) for at, token in enumerate(ROW)]) == reason


def test_the_rest_of_the_law() -> None:
    assert checked([]) == "the row does not start with <bos> (9999)"
    assert checked([9999]) == "no <len_l> at 1; legal: l = 1..10"
    assert checked([9999, 10]) == "2 tokens at 1 operations; legal: 7"
    assert checked(ROW, ManoTask(L=4, qa=True)) == "<len_3> in evaluation; legal: 4"
    assert checked(ROW, ManoTask(knowledge_augment=False)) == (
        "token 5 at 6 is neither a value nor an operator of 'asm'"
    )
    for at in (0, 1, 9):
        change = {0: 9998, 1: 31, 9: 35}[at]
        other = [change if i == at else token for i, token in enumerate([*ROW[:6], 1, *ROW[7:]])]
        assert checked(other) is None
        assert checked(other, ManoTask(knowledge_augment=False))
    assert TASK.validate_example({"loss_mask": []}).reason == "the row has no 'input_ids'"
    assert TASK.validate_example({"input_ids": ROW}).reason == "the row has no 'loss_mask'"
    quiet = {"input_ids": ROW, "loss_mask": [True] * 10 + [False]}
    assert TASK.validate_example(quiet).reason == "loss_mask is 0 at 10; legal: 1"
    assert checked(ROW, labels=[*ROW[:-1], -100]) == "label -100 at 10; legal: 5014"
    assert checked(ROW, length=4) == "length is 4, not 3"
    assert checked(ROW, answer=13) == "answer is 13, not 14"
    division = [9999, 10, 4, 5007, 5005, 14, 5011]
    assert checked(division, ManoTask(ttype="d", value_mod=12, L=2)) is None  # 7 · 5 = 35 = 11 mod 12
    for b in (0, 2, 3, 4, 6, 8, 9, 10):
        division[4] = 5000 + b
        assert checked(division, ManoTask(ttype="d", value_mod=12, L=2)) == (
            f"the operator at 2 divides by {b}, which has no inverse mod 12"
        )


@settings(max_examples=150, deadline=None)
@given(i=st.integers(0, 10_000), data=st.data())
def test_no_change_of_one_token_is_valid_by_chance(i: int, data: st.DataObject) -> None:
    # One token less, more or another: valid only where it is a synonym, or where the value comes out the same.
    ids = TASK.example(0, "train", i)["input_ids"].tolist()
    at = data.draw(st.integers(0, len(ids) - 1))
    token = data.draw(st.one_of(st.sampled_from(sorted(TASK.token_ids())), st.integers(0, 10_100)))
    how = data.draw(st.sampled_from(["other", "more", "less"]))
    assert checked([*ids[:at], *ids[at + 1 :]]) is not None
    if how == "more":
        assert checked([*ids[:at], token, *ids[at:]]) is not None
    elif how == "other" and token != ids[at]:
        reason = checked([*ids[:at], token, *ids[at + 1 :]])
        old, new = (name.replace("'", "") for name in TASK.decode([ids[at], token]))
        if at == len(ids) - 1 or new[0] == "<" or old[0] == "<":
            assert (reason is None) == (old == new)
        elif reason is not None and old != new:
            kinds = {name[0] in "+-×" for name in (old, new)}
            assert ("lacks a side" in reason or "follow one another" in reason) == (len(kinds) == 2)


def test_scores_and_their_reasons() -> None:
    row = {"input_ids": ROW}
    for ids, reason in {
        (5014,): None,
        (34, 5014): None,
        (35, 5014): None,
        (5013,): "the answer is 13, not 14",
        (14,): "the answer is <ans_1>, not 14",
        (): "the answer has 0 tokens; legal: 1",
        (44, 5014): "the answer has 2 tokens; legal: 1",
        (5014, 5014): "the answer has 2 tokens; legal: 1",
        (34,): "the answer is <ans_3>, not 14",
    }.items():
        verdict = TASK.score_answer(row, ids)
        assert (bool(verdict), verdict.reason) == (reason is None, reason), ids
    # The row's own answer does not count: a wrong one is not a right answer.
    assert not TASK.score_answer({"input_ids": [*ROW[:-1], 5013]}, [5013])
    assert TASK.score_answer({"input_ids": [1]}, [5014]).reason == "the row does not start with <bos> (9999)"
