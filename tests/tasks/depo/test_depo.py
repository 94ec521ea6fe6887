"""The Depo task's programmatic face: every way to ask for a row gives the same row, under every option."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import golden_rows
import numpy as np
import pytest
from helpers import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from synthshards import DepoTask, UsageError, make_task
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import RaggedBatch, concat
from synthshards.tasks import task as task_module
from synthshards.tasks.task import TokenRows

CASES = golden_rows.cases("depo")
TASK = make_task("depo1-225", N=30)


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    return [plain(row) for row in batch.rows()]


# One row, many doors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_all_doors_give_the_same_valid_rows(case: str) -> None:
    task = CASES[case]
    rows = rows_of(task.batch(3, "train", 0, 12))
    assert [plain(row) for row in task.take(3, 12)] == rows
    assert [plain(row) for row in task.iter_examples(3, 12)] == rows
    assert [plain(row) for row in islice(task.iter_examples(3), 12)] == rows
    assert [plain(task.example(3, "train", i)) for i in range(12)] == rows
    for row in rows:
        assert task.validate_example(row), task.validate_example(row).reason


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_caller_s_generator(case: str) -> None:
    task = CASES[case]
    makers: list[Callable[[], Any]] = [lambda: 5, lambda: random.Random(5), lambda: np.random.default_rng(5)]
    for make in makers:
        row = plain(task.generate_example(make()))
        assert row == plain(task.generate_example(make()))
        assert task.validate_example(row), task.validate_example(row).reason
    rng = random.Random(5)
    first, second = task.generate_example(rng), task.generate_example(rng)
    assert plain(first) != plain(second)
    assert plain(task.generate_example(0)) not in [plain(row) for row in task.take(0, 5)]


def test_iter_examples_goes_past_its_own_chunks() -> None:
    rows = [plain(row) for row in islice(TASK.iter_examples(1), 600)]
    assert rows == rows_of(TASK.batch(1, "train", 0, 600))
    assert len(list(TASK.iter_examples(1, 257))) == 257
    assert list(TASK.iter_examples(1, 0)) == []


def test_splits_and_seeds_give_other_rows() -> None:
    rows = [
        plain(TASK.example(seed, split, 0))["input_ids"] for seed, split in ((0, "train"), (0, "eval"), (1, "train"))
    ]
    assert rows[0] != rows[1] != rows[2] != rows[0]


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 2**63 - 40), count=st.integers(0, 40), cut=st.integers(0, 40))
def test_any_batch_is_its_slices(start: int, count: int, cut: int) -> None:
    cut = min(cut, count)
    whole = TASK.batch(9, "train", start, count)
    parts = [TASK.batch(9, "train", start, cut), TASK.batch(9, "train", start + cut, count - cut)]
    assert len(whole) == count
    assert rows_of(concat(parts)) == rows_of(whole)
    assert rows_of(whole.slice(0, cut)) == rows_of(parts[0])
    assert rows_of(whole.slice(cut, count)) == rows_of(parts[1])


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, 2**63 - 1), max_size=12), case=st.sampled_from(sorted(CASES)))
def test_any_indices_in_any_order(indices: list[int], case: str) -> None:
    task = CASES[case]
    batch = task.generate(task.key(4, "eval"), np.array(indices, np.uint64), Buffers())
    assert rows_of(batch) == [plain(task.example(4, "eval", i)) for i in indices]


@pytest.mark.parametrize(
    ("start", "count", "said"), [(-1, 1, "-1..-1"), (0, -1, "0..-2"), (2**63 - 2, 3, f"{2**63 - 2}..{2**63}")]
)
def test_rows_that_do_not_exist(start: int, count: int, said: str) -> None:
    with pytest.raises(UsageError, match=f"^depo: rows {said} asked for; legal: 0..{2**63 - 1}$"):
        TASK.batch(0, "train", start, count)
    assert len(TASK.batch(0, "train", 2**63 - 2, 2)) == 2


def test_types_and_shapes() -> None:
    batch = TASK.batch(0, "train", 0, 20)
    assert {name: column.values.dtype.name for name, column in batch.columns.items()} == {
        "input_ids": "uint16", "loss_mask": "bool", "n": "uint16", "queries": "uint16", "ks": "uint16",
    }  # fmt: skip
    assert batch.kinds == TASK.columns
    assert (batch.offsets.dtype, batch.offsets[0], len(batch.offsets)) == (np.int64, 0, 21)
    assert batch.offsets[-1] == len(batch.input_ids) == len(batch.loss_mask)
    row = TASK.example(0, "train", 0)
    assert (row["input_ids"].dtype, row["labels"].dtype, row["loss_mask"].dtype) == (np.int64, np.int64, np.bool_)
    assert [type(row[name]) for name in ("n", "queries", "ks")] == [int, int, list]
    assert row["labels"].tolist() == [t if on else -100 for t, on in zip(row["input_ids"], row["loss_mask"])]  # noqa: B905


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"bos_token_id": 65_535}, "list<uint16>"),
        ({"bos_token_id": 65_536}, "list<uint32>"),
        ({"query_token_base": 65_527}, "list<uint16>"),
        ({"query_token_base": 65_528}, "list<uint32>"),
        ({"answer_token_id": 65_536}, "list<uint32>"),
        ({"separator_token_id": 65_536}, "list<uint32>"),
        ({"mini_vocab": 32_768, "query_token_base": 70_000, "bos_token_id": 0}, "list<uint32>"),
    ],
    ids=str,
)
def test_ids_are_as_wide_as_the_largest_possible(params: dict[str, Any], kind: str) -> None:
    if "mini_vocab" in params:
        params = {**params, "separator_token_id": 70_100, "answer_token_id": 70_101}
    task = make_task("depo1-225", N=10, **params)
    assert task.columns["input_ids"] == kind
    assert task.validate_example(task.example(0, "train", 0))


# Options -----------------------------------------------------------------------------------------------------------


def test_qa_has_all_nodes_and_powers_of_two() -> None:
    assert make_task("depo1-225", N=20, qa=True).params.hops() == [1, 2, 4, 8]
    assert DepoTask(K=32, qa=True).params.hops() == [1, 2, 4, 8, 16, 24, 32]
    assert DepoTask(K=12, qa=True).params.hops() == [1, 2, 4, 8, 12]
    assert DepoTask(K=1, qa=True).params.hops() == [1]
    assert DepoTask(K=5).params.hops() == [1, 2, 3, 4, 5]
    rows = make_task("depo1-225", N=20, K=12, qa=True).take(0, 50)
    assert {row["n"] for row in rows} == {20}
    assert {k for row in rows for k in row["ks"]} == {1, 2, 4, 8, 12}


def test_fixed_k_wins_over_qa() -> None:
    for qa in (False, True):
        rows = make_task("depo1-225", N=20, qa=qa, fixed_k=7).take(0, 20)
        assert {k for row in rows for k in row["ks"]} == {7}
        assert ({row["n"] for row in rows} == {20}) == qa


def test_number_of_queries() -> None:
    assert {(row["n"], row["queries"]) for row in make_task("depo1-225", N=5, M=4).take(0, 99)} == {
        (3, 3), (4, 4), (5, 4),
    }  # fmt: skip
    assert {row["queries"] - row["n"] for row in make_task("depo1-225", N=9, M=9).take(0, 99)} == {0}


def test_k_wraps() -> None:
    # k = n asks for the node itself, and n is at most 4 here.
    task = make_task("depo1-225", N=4, K=8, fixed_k=8, qa=True)
    for row in task.take(0, 20):
        names = task.decode(row["input_ids"].tolist())
        text = " ".join(names)
        for query in text.split("<query_8> ")[1:]:
            asked, answer = query.strip().split(" <ans> ")
            assert asked == answer


def test_separator_and_ids() -> None:
    plain_task = make_task("depo1-225", N=12)
    other = make_task(
        "depo1-225", N=12, separator=True, bos_token_id=7777, separator_token_id=101, query_token_base=200,
        answer_token_id=70_000,
    )  # fmt: skip
    for row in other.take(0, 20):
        ids = row["input_ids"].tolist()
        assert ids[0] == 7777
        assert ids.count(101) == row["n"]
        assert ids.count(70_000) == row["queries"] == sum(201 <= t <= 208 for t in ids)
        assert other.validate_example(row)
        assert not plain_task.validate_example(row)


def test_names_of_tokens() -> None:
    names = TASK.decode(np.array([0, 1, 50, 51, 100, 101, 9000, 9001, 9008, 9009, 9500, 9700]))
    assert names == [
        "<bos>", "1", "50", "51", "100", "<unknown_101>", "<unknown_9000>", "<query_1>", "<query_8>",
        "<unknown_9009>", "<ans>", "<sep>",
    ]  # fmt: skip


# Buffers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["depo/depo1-225", "depo/wide-ids", "depo/no-table", "depo/long-names"])
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

    monkeypatch.setattr("synthshards.tasks.depo.token_rows", counting)
    assert rows_of(task.batch(0, "train", 0, 300)) == right
    assert len(fills) > 4, "the buffers did not have to grow"
    assert fills == sorted(set(fills)), "a row was made twice"


def test_the_estimated_room_is_enough_for_an_ordinary_batch() -> None:
    for name in ("depo1-225", "depo2-125"):
        task = make_task(name)
        batch = task.batch(0, "train", 0, 4096)
        assert len(batch.input_ids) <= 4096 * task._mean_length() * 1.1  # type: ignore[attr-defined]


def test_many_queries_do_not_ask_for_the_memory_of_many_more() -> None:
    # Each of about 112 nodes is queried once.
    assert make_task("depo1-225", M=65_535)._mean_length() < 1000  # type: ignore[attr-defined]


def test_buffers_used_again_give_the_same_rows() -> None:
    buffers = Buffers()
    for start, count in ((0, 50), (7, 300), (900, 3), (0, 0), (0, 301)):
        assert rows_of(TASK.batch(0, "train", start, count, buffers=buffers)) == rows_of(
            TASK.batch(0, "train", start, count)
        )
    before = TASK.batch(0, "train", 0, 10, buffers=buffers)
    assert np.shares_memory(before.input_ids, TASK.batch(0, "train", 5, 10, buffers=buffers).input_ids)


def test_rows_taken_from_buffers_are_copies() -> None:
    buffers = Buffers()
    rows = list(TASK.batch(0, "train", 0, 5, buffers=buffers).rows())
    kept = [plain(row) for row in rows]
    TASK.batch(1, "train", 0, 500, buffers=buffers)
    assert [plain(row) for row in rows] == kept


def test_tasks_of_other_id_widths_may_share_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    # The ids' array is then made anew and the mask's is not: the kernel must not trust that both are as long.
    narrow, wide = make_task("depo1-225"), make_task("depo1-225", bos_token_id=70_000)
    buffers = Buffers()
    lengths = []
    real = task_module.token_rows

    def watching(fill: Callable[..., int], *args: Any) -> Any:
        def watched(first: int, out: TokenRows) -> int:
            lengths.append((out.ids.size, out.mask.size))
            return fill(first, out)

        return real(watched, *args)

    monkeypatch.setattr("synthshards.tasks.depo.token_rows", watching)
    for task, count in ((narrow, 1000), (wide, 1100), (narrow, 1200)):
        assert rows_of(task.batch(0, "train", 0, count, buffers=buffers)) == rows_of(task.batch(0, "train", 0, count))
    assert all(ids == mask for ids, mask in lengths)
