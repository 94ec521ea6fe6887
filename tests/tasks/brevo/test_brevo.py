"""Brevo: parameters, every door to a row, every option, and rows written from the docstring in plain Python."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

import golden_rows
import numpy as np
import pytest
from helpers import plain, python
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_brevo import Brevo

from synthshards import BrevoTask, UsageError, make_task
from synthshards.catalog import task_from_text
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import RaggedBatch, concat
from synthshards.tasks import task as task_module
from synthshards.tasks.brevo import task as brevo

CASES = golden_rows.cases("brevo")
TASK = make_task("brevo1-70", N=30)
MAX_ID = 2**32 - 2


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# Parameters --------------------------------------------------------------------------------------------------------


def test_the_parameters_and_presets_are_those_of_the_contract() -> None:
    assert BrevoTask().params.canonical() == {
        "N": 70, "multi": False, "mini_vocab": 4, "min_tlen": 2, "max_tlen": 4, "max_in": 4, "qa": False,
        "bos_token_id": 9999, "query_token_id": 9997, "answer_token_id": 9998, "eos_token_id": 9996,
    }  # fmt: skip
    assert {name: dict(preset.params) for name, preset in BrevoTask.presets.items()} == {
        **{f"brevo1-{N}": {"N": N} for N in (70, 90, 110)},
        **{f"brevo2-{N}": {"N": N, "multi": True} for N in (30, 40, 50)},
    }
    assert make_task("brevo").params == make_task("brevo1-70").params
    assert list(TASK.columns) == ["input_ids", "loss_mask", "n", "leaves", "edges", "depth", "answer_length"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"N": 2}, "brevo: N=2 is not legal (expected int >= 3); legal: int 3..16384"),
        ({"N": 16_385}, "brevo: N=16385 is not legal (expected int <= 16384); legal: int 3..16384"),
        ({"max_in": 0}, "brevo: max_in=0 is not legal (expected int >= 1); legal: int 1..64"),
        ({"max_in": 65}, "brevo: max_in=65 is not legal (expected int <= 64); legal: int 1..64"),
        ({"multi": 1}, "brevo: multi=1 is not legal (expected bool, got int); legal: true or false"),
        ({"qa": "yes"}, "brevo: qa='yes' is not legal (expected bool, got str); legal: true or false"),
        ({"eos_token_id": -1}, f"brevo: eos_token_id=-1 is not legal (expected int >= 0); legal: int 0..{MAX_ID}"),
        (
            {"multi": True, "N": 337},
            "brevo: mini_vocab=4 with words of 2..4 tokens makes 336 distinct words, fewer than N=337; "
            "legal: N ≤ 336, or a larger mini_vocab or max_tlen",
        ),
        (
            {"multi": True, "min_tlen": 5},
            "brevo: min_tlen=5 exceeds max_tlen=4; legal: min_tlen ≤ max_tlen",
        ),
        *(
            ({name: 3}, f"brevo: {name}=3 says nothing about multi=false; leave it out")
            for name in ("mini_vocab", "min_tlen", "max_tlen")
        ),
        ({"N": 9996}, "brevo: ids clash: nodes (1..N) and eos_token_id share 9996; legal: ids that stay apart"),
        ({"bos_token_id": 70}, "brevo: ids clash: nodes (1..N) and bos_token_id share 70; legal: ids that stay apart"),
        (
            {"multi": True, "query_token_id": 8},
            "brevo: ids clash: word tokens (1..2*mini_vocab) and query_token_id share 8; legal: ids that stay apart",
        ),
        *(
            (
                {b: getattr(BrevoTask().params, a)},
                f"brevo: ids clash: {a} and {b} share {getattr(BrevoTask().params, a)}; "
                "legal: ids that stay apart, but for eos_token_id = answer_token_id",
            )
            for a, b in (
                ("bos_token_id", "query_token_id"),
                ("bos_token_id", "answer_token_id"),
                ("bos_token_id", "eos_token_id"),
                ("query_token_id", "answer_token_id"),
                ("query_token_id", "eos_token_id"),
            )
        ),
    ],
    ids=str,
)
def test_illegal_parameters(params: dict[str, Any], said: str) -> None:
    assert refusal(BrevoTask, params) == said


def test_legal_extremes() -> None:
    for params in (
        {"N": 9995}, {"multi": True, "N": 336}, {"bos_token_id": 71}, {"bos_token_id": 0},
        {"multi": True, "bos_token_id": 9}, {"eos_token_id": 9998}, {"answer_token_id": MAX_ID, "eos_token_id": MAX_ID},
        {"mini_vocab": 4, "min_tlen": 2, "max_tlen": 4}, {"multi": True, "N": 3, "mini_vocab": 2, "min_tlen": 4},
    ):  # fmt: skip
        assert BrevoTask(params).params.canonical().items() >= params.items()


def test_parameters_from_a_command_line() -> None:
    task = task_from_text("brevo2-40", ["max_in=2", "qa=true"])
    assert task.params == make_task("brevo2-40", max_in=2, qa=True).params
    said = refusal(task_from_text, "brevo", ["max_in=x"])
    assert said.startswith("brevo: max_in='x' is not legal")


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
        assert task.score_answer(row, row["input_ids"][row["loss_mask"].index(True) :])


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_caller_s_generator(case: str) -> None:
    task = CASES[case]
    makers: list[Callable[[], Any]] = [lambda: 5, lambda: random.Random(5), lambda: np.random.default_rng(5)]
    for make in makers:
        row = plain(task.generate_example(make()))
        assert row == plain(task.generate_example(make()))
        assert task.validate_example(row), task.validate_example(row).reason


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 2**63 - 40), count=st.integers(0, 40), cut=st.integers(0, 40))
def test_any_batch_is_its_slices(start: int, count: int, cut: int) -> None:
    cut = min(cut, count)
    whole = TASK.batch(9, "train", start, count)
    parts = [TASK.batch(9, "train", start, cut), TASK.batch(9, "train", start + cut, count - cut)]
    assert rows_of(concat(parts)) == rows_of(whole)
    assert rows_of(whole.slice(cut, count)) == rows_of(parts[1])


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, 2**63 - 1), max_size=12), case=st.sampled_from(sorted(CASES)))
def test_any_indices_in_any_order(indices: list[int], case: str) -> None:
    task = CASES[case]
    batch = task.generate(task.key(4, "eval"), np.array(indices, np.uint64), Buffers())
    assert rows_of(batch) == [plain(task.example(4, "eval", i)) for i in indices]


# The docstring is enough to write the rows -------------------------------------------------------------------------


def written(task: Any, rows: int, seed: int = 0, split: str = "train", start: int = 0) -> list[dict[str, Any]]:
    """Rows from the docstring alone."""
    return Brevo(task.params.canonical()).rows(seed, split, range(start, start + rows))


def made(task: Any, rows: int, seed: int = 0, split: str = "train", start: int = 0) -> list[dict[str, Any]]:
    """The package's rows."""
    out = rows_of(task.batch(seed, split, start, rows))
    for row in out:
        del row["labels"]
    return out


@pytest.mark.parametrize("case", CASES)
def test_rows_of_the_docstring(case: str) -> None:
    assert made(CASES[case], 25) == written(CASES[case], 25)


@settings(max_examples=60, deadline=None)
@given(
    N=st.integers(3, 40), max_in=st.integers(1, 12), multi=st.booleans(), qa=st.booleans(),
    seed=st.integers(0, 2**64 - 1), start=st.integers(0, 2**63 - 4),
)  # fmt: skip
def test_rows_of_the_docstring_under_any_options(
    N: int, max_in: int, multi: bool, qa: bool, seed: int, start: int
) -> None:
    task = BrevoTask(N=N, max_in=max_in, multi=multi, qa=qa)
    assert made(task, 3, seed, "any_1", start) == written(task, 3, seed, "any_1", start)


@pytest.mark.slow
def test_a_long_row_of_the_docstring() -> None:
    # Lists of more than 256 entries draw three numbers a word.
    for params in ({"N": 700}, {"N": 300, "multi": True, "qa": True}, {"N": 300, "max_in": 64, "qa": True}):
        task = BrevoTask(params)
        assert made(task, 2) == written(task, 2)


def test_rows_without_numba() -> None:
    rows = {case: made(CASES[case], 6) for case in ("brevo/brevo1-110", "brevo/brevo2-30", "brevo/max-in-9")}
    code = (
        "import sys, golden_rows; from helpers import plain\n"
        "for case, task in golden_rows.cases('brevo').items():\n"
        "    if case in sys.argv[1:]:\n"
        "        rows = [plain(row) for row in task.batch(0, 'train', 0, 6).rows()]\n"
        "        print(repr((case, [{k: v for k, v in row.items() if k != 'labels'} for row in rows])))\n"
    )
    done = python("-W", "ignore", "-c", code, *rows, NUMBA_DISABLE_JIT="1")
    assert dict(map(eval, done.stdout.splitlines())) == rows


def test_the_sample_of_the_docstring_is_a_row() -> None:
    line = next(line for line in (sys.modules[BrevoTask.__module__].__doc__ or "").splitlines() if "<bos>" in line)
    task = BrevoTask(N=12)
    rows = [task.decode(task.example(0, "train", i)["input_ids"]) for i in range(300)]
    assert line.split() in rows


# Options -----------------------------------------------------------------------------------------------------------


def degrees(task: Any, row: dict[str, Any]) -> tuple[int, int]:
    """The most parents and the most children of a node of a one-token row."""
    ids = row["input_ids"].tolist()
    ends = ids[1 : ids.index(task.params.query_token_id)]
    parents, children = ends[::2], ends[1::2]
    return max(map(children.count, children)), max(map(parents.count, parents))


@pytest.mark.parametrize("max_in", [1, 2, 3, 4, 5, 9])
def test_max_in_caps_parents_and_children(max_in: int) -> None:
    task = BrevoTask(N=40, max_in=max_in, qa=True)
    most = [degrees(task, row) for row in task.take(0, 60)]
    assert (max(m[0] for m in most), max(m[1] for m in most)) == (max_in, max_in)


@pytest.mark.parametrize("multi", [False, True])
def test_qa_has_all_nodes(multi: bool) -> None:
    rows = BrevoTask(N=20, multi=multi, qa=True).take(0, 100)
    assert {row["n"] for row in rows} == {20}
    assert {row["leaves"] for row in rows} == {1, 2, 3, 4, 5}
    assert {row["n"] for row in BrevoTask(N=5, multi=multi).take(0, 100)} == {3, 4, 5}


def test_the_longest_rows_fit() -> None:
    # Reference: the longest QA rows seen in 1,000 are 665 (Brevo1-110) and 1,033 (Brevo2-50) tokens.
    for name, seen in (("brevo1-110", 665), ("brevo2-50", 1033)):
        lengths = make_task(name, qa=True).batch(0, "train", 0, 1000).columns["input_ids"].lengths()
        assert abs(int(lengths.max()) - seen) < 0.1 * seen


def test_nodes_without_an_edge_never_appear_and_get_no_word() -> None:
    for task in (BrevoTask(N=5, qa=True), BrevoTask(N=5, multi=True, qa=True)):
        hidden = 0
        for row, right in zip(
            task.take(0, 300), Brevo(task.params.canonical()).rows(0, "train", range(300)), strict=True
        ):
            parsed = brevo._parse(task.params, row["input_ids"].tolist())
            hidden += 5 - len(parsed.parents())
            assert row["input_ids"].tolist() == right["input_ids"]
        assert hidden > 5


def test_eos_may_be_ans() -> None:
    task, other = BrevoTask(N=20, eos_token_id=9998), BrevoTask(N=20)
    for row in task.take(0, 40):
        ids = row["input_ids"].tolist()
        assert ids.count(9998) == 2
        assert (ids.index(9998), ids[-1]) == (row["loss_mask"].tolist().index(True), 9998)
        names = task.decode(ids)
        assert (names.count("<ans>"), names.count("<eos>"), names[-1]) == (1, 1, "<eos>")
        assert task.validate_example(row), task.validate_example(row).reason
        assert not other.validate_example(row)
        answer = ids[ids.index(9998) + 1 : -1]
        for given_ids in (answer, [9998, *answer], [*answer, 9998], [9998, *answer, 9998]):
            assert task.score_answer(row, given_ids)
        for given_ids in ([], [9998], [9998, 9998], [9998, 9998, *answer]):
            assert not task.score_answer(row, given_ids)


def test_ids_of_one_s_own() -> None:
    task = BrevoTask(N=20, multi=True, bos_token_id=0, query_token_id=9, answer_token_id=10, eos_token_id=70_000)
    for row in task.take(0, 20):
        ids = row["input_ids"].tolist()
        assert (ids[0], ids[-1], ids.count(9), ids.count(10)) == (0, 70_000, 1, 1)
        assert task.validate_example(row)
        assert not BrevoTask(N=20, multi=True).validate_example(row)


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"bos_token_id": 65_535}, "list<uint16>"),
        ({"bos_token_id": 65_536}, "list<uint32>"),
        ({"query_token_id": 65_536}, "list<uint32>"),
        ({"answer_token_id": 65_536}, "list<uint32>"),
        ({"eos_token_id": 65_536}, "list<uint32>"),
        ({"multi": True, "mini_vocab": 40_000, "max_tlen": 2, "bos_token_id": 0, "query_token_id": 80_001,
          "answer_token_id": 80_002, "eos_token_id": 80_003}, "list<uint32>"),
    ],
    ids=str,
)  # fmt: skip
def test_ids_are_as_wide_as_the_largest_possible(params: dict[str, Any], kind: str) -> None:
    task = BrevoTask(N=10, **params)
    assert task.columns["input_ids"] == kind
    assert task.validate_example(task.example(0, "train", 0))


def test_types_and_shapes() -> None:
    batch = TASK.batch(0, "train", 0, 20)
    assert batch.kinds == TASK.columns
    assert {name: column.values.dtype.name for name, column in batch.columns.items()} == {
        "input_ids": "uint16", "loss_mask": "bool", "n": "uint16", "leaves": "uint16", "edges": "uint32",
        "depth": "uint16", "answer_length": "uint16",
    }  # fmt: skip
    assert (batch.offsets.dtype, batch.offsets[0], batch.offsets[-1]) == (np.int64, 0, len(batch.loss_mask))
    row = TASK.example(0, "train", 0)
    assert {type(row[name]) for name in list(TASK.columns)[2:]} == {int}


def test_names_of_tokens() -> None:
    assert TASK.decode([9999, 1, 30, 31, 9997, 9998, 9996, 0]) == [
        "<bos>", "1", "30", "<unknown_31>", "<query>", "<ans>", "<eos>", "<unknown_0>",
    ]  # fmt: skip
    assert make_task("brevo2-30").decode([8, 9]) == ["8", "<unknown_9>"]


# Buffers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["brevo/brevo1-70", "brevo/brevo2-30", "brevo/wide-ids", "brevo/long-names"])
def test_rows_do_not_depend_on_the_room_at_first(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = CASES[case]
    right, fills = rows_of(task.batch(0, "train", 0, 300)), []
    monkeypatch.setattr(type(task), "_mean_length", lambda _self: 0.001)  # room for the longest row alone
    real = task_module.token_rows

    def counting(fill: Callable[..., int], *args: Any) -> Any:
        def counted(*inner: Any) -> int:
            fills.append(inner[0])
            return fill(*inner)

        return real(counted, *args)

    monkeypatch.setattr("synthshards.tasks.brevo.task.token_rows", counting)
    assert rows_of(task.batch(0, "train", 0, 300)) == right
    assert len(fills) > 4, "the buffers did not have to grow"
    assert fills == sorted(set(fills)), "a row was made twice"


def test_the_estimated_room_is_enough_for_an_ordinary_batch() -> None:
    for name, qa in (("brevo1-110", False), ("brevo1-110", True), ("brevo2-50", False), ("brevo2-50", True)):
        task = make_task(name, qa=qa)
        batch = task.batch(0, "train", 0, 4096)
        longest = 5 + (2 * task.params.N * 4 + task.params.N) * (task.params.max_tlen if task.params.multi else 1)
        assert len(batch.input_ids) <= 4096 * task._mean_length() * 1.1 + longest  # type: ignore[attr-defined]


def test_no_row_writes_beyond_the_room_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # What lies behind the room is not touched: each row's bound is true for each way to name nodes.
    real = brevo._fill
    for params in (
        {"N": 12, "qa": True},
        {"N": 12, "multi": True, "min_tlen": 4},
        {"N": 9, "multi": True, "max_tlen": 17},
    ):
        task = BrevoTask(params)
        right = rows_of(task.batch(0, "train", 5, 3))
        for room in range(40, 500, 7):

            def fill(key: Any, indices: Any, first: Any, out: Any, *rest: Any, room: int = room) -> Any:
                ids = out.ids
                ids[room:] = 77
                done = real(key, indices, first, out._replace(ids=ids[:room]), *rest)
                assert (ids[room:] == 77).all()
                return done if done > first else real(key, indices, first, out, *rest)

            monkeypatch.setattr(brevo, "_fill", fill)
            assert rows_of(task.batch(0, "train", 5, 3)) == right
        monkeypatch.setattr(brevo, "_fill", real)


def test_buffers_used_again_give_the_same_rows() -> None:
    buffers = Buffers()
    for start, count in ((0, 50), (7, 300), (900, 3), (0, 0), (0, 301)):
        assert rows_of(TASK.batch(0, "train", start, count, buffers=buffers)) == rows_of(
            TASK.batch(0, "train", start, count)
        )


def test_the_presets_say_their_mean_length() -> None:
    # Measured over 2^20 rows each; over 100,000 others the mean is within five of its standard errors.
    for name, preset in BrevoTask.presets.items():
        lengths = make_task(name).batch(1, "mean", 0, 100_000).columns["input_ids"].lengths()
        assert abs(lengths.mean() - preset.mean_length) < 5 * lengths.std() / 100_000**0.5 + 0.05, name


def test_the_prose_of_the_docstring_names_every_step() -> None:
    doc = sys.modules[BrevoTask.__module__].__doc__ or ""
    assert re.findall(r"^(\d)\. ", doc, re.MULTILINE) == list("12345")
