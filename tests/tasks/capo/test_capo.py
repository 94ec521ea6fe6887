"""The Capo task's programmatic face: every door gives the same row, options do what they say, people are shared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from capo_parts import CASES, SMALL, everything, facts, rows_of
from helpers import plain, python
from hypothesis import given, settings
from hypothesis import strategies as st
from law_statistics import chi_square, independent

from synthshards.errors import UsageError
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import concat
from synthshards.tasks.capo.people import person
from synthshards.tasks.capo.task import CapoTask

# One row, many doors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_all_doors_give_the_same_valid_rows(case: str) -> None:
    task = CASES[case]
    rows = rows_of(task.batch(3, "train", 0, 12))
    assert [plain(row) for row in task.take(3, 12)] == rows
    assert [plain(row) for row in task.iter_examples(3, 12)] == rows
    assert [plain(task.example(3, "train", i)) for i in range(12)] == rows
    for row in rows:
        assert task.validate_example({**row, "seed": 3}), task.validate_example({**row, "seed": 3}).reason


@pytest.mark.parametrize("case", CASES)
def test_rows_of_a_caller_s_generator_are_of_the_people_of_seed_0(case: str) -> None:
    task = CASES[case]
    makers: list[Callable[[], Any]] = [lambda: 5, lambda: random.Random(5), lambda: np.random.default_rng(5)]
    for make in makers:
        row = plain(task.generate_example(make()))
        assert row == plain(task.generate_example(make()))
        assert task.validate_example({**row, "seed": 0}), task.validate_example({**row, "seed": 0}).reason
    people = {task.generate_example(i)["person_id"] for i in range(60)}
    assert len(people) > 15
    first = task.num_chosen if task.params.people == "all" else task.params.num_people  # type: ignore[attr-defined]
    assert max(people) >= first // 2 > min(people)  # index 0 is nobody's own place


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 179), count=st.integers(0, 60), cut=st.integers(0, 60))
def test_any_batch_is_its_slices(start: int, count: int, cut: int) -> None:
    count = min(count, 180 - start)
    cut = min(cut, count)
    whole = SMALL.batch(9, "train", start, count)
    parts = [SMALL.batch(9, "train", start, cut), SMALL.batch(9, "train", start + cut, count - cut)]
    assert rows_of(concat(parts)) == rows_of(whole)
    assert rows_of(whole.slice(0, cut)) == rows_of(parts[0])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), case=st.sampled_from(sorted(CASES)))
def test_any_indices_in_any_order(data: st.DataObject, case: str) -> None:
    task = CASES[case]
    last = (task.num_examples or 0) - 1
    indices = data.draw(st.lists(st.integers(0, last), max_size=12))
    batch = task.generate(task.key(4, "eval"), np.array(indices, np.uint64), Buffers())
    assert rows_of(batch) == [plain(task.example(4, "eval", i)) for i in indices]


def test_buffers_serve_tasks_of_every_form_in_turn() -> None:
    buffers = Buffers()
    for count in (5, 300, 40):
        for case, task in CASES.items():
            rows = min(count, task.num_examples or 0)
            assert rows_of(task.batch(1, "train", 0, rows, buffers=buffers)) == rows_of(
                task.batch(1, "train", 0, rows)
            ), case


def test_types_and_shapes() -> None:
    for task in CASES.values():
        batch = task.batch(0, "train", 0, 20)
        assert batch.kinds == task.columns
        assert next(iter(batch.columns)) == "text"
        assert batch.text.dtype == np.uint8
        assert batch.offsets[-1] == len(batch.text)
        assert all(len(column) == 20 for column in batch.columns.values())
        for column in batch.columns.values():
            assert column.offsets is None or (column.offsets.dtype, column.offsets[0]) == (np.int64, 0)
    row = SMALL.example(0, "train", 0)
    assert {name: type(value) for name, value in row.items()} == {
        **dict.fromkeys(("text", "first_name", "middle_name", "last_name", "pronoun"), str),
        **dict.fromkeys(("birth_city", "university", "major", "employer", "work_city"), str),
        **dict.fromkeys(("person_id", "exposure_idx", "birth_month", "birth_day", "birth_year"), int),
        "spans": list,
    }


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 30 * 6),
        ({"people": "train", "num_people": 31}, 16 * 6),
        ({"people": "test", "num_people": 31}, 15 * 6),
        ({"form": "qa"}, 30 * 6 * 6),
        ({"form": "qa", "people": "test"}, 15 * 6 * 6),
        ({"form": "biod"}, 30 * 6),
        ({"num_people": 2, "people": "train"}, 6),
        ({"num_people": 2, "people": "test"}, 6),
        ({"num_people": 3, "people": "test"}, 6),
    ],
    ids=str,
)
def test_it_is_finite(params: dict[str, Any], count: int) -> None:
    task = CapoTask({"num_people": 30, "exposures": 6, **params})
    assert task.num_examples == count
    assert len(everything(task)) == count
    with pytest.raises(UsageError, match=f"^capo: rows 0..{count} asked for; legal: 0..{count - 1}$"):
        task.batch(0, "train", 0, count + 1)


def test_the_most_people() -> None:
    for params in ({"num_people": 160_000_000, "exposures": 65_535}, {"num_people": 160_000_000, "form": "qa"}):
        task = CapoTask(params)
        for at in (0, task.num_examples - 40):
            for row in task.batch(2**64 - 1, "train", at, 40).rows():
                verdict = task.validate_example({**row, "seed": 2**64 - 1})
                assert verdict, verdict.reason
        assert row["exposure_idx"] == task.params.exposures - 1


def test_rows_do_not_depend_on_compilation() -> None:
    """The reference is the same code without Numba: 20 rows of each case, and those in the middle of a pass."""
    script = """
import golden_rows
from synthshards.digest import ContentDigest
for name, task in golden_rows.cases("capo").items():
    if not name.startswith("capo/capo-") or name == "capo/capo-2m":
        digest = ContentDigest(task.columns)
        digest.update(task.batch(1, "train", 0, 10))
        digest.update(task.batch(1, "train", task.num_examples // 3, 10))
        print(digest.hexdigest())
"""
    with_numba, without = (
        python("-W", "ignore", "-c", script, NUMBA_DISABLE_JIT=flag).stdout.split() for flag in ("", "1")
    )
    assert len(with_numba) == len(CASES) - 5
    assert with_numba == without


# Who is met when ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", ["all", "train", "test"])
@pytest.mark.parametrize("form", ["bios", "biod", "qa"])
def test_each_person_appears_exactly_so_often(form: str, people: str) -> None:
    task = CapoTask(num_people=41, exposures=5, form=form, people=people)
    rows = everything(task)
    seen = Counter((row["person_id"], row["exposure_idx"], row.get("question")) for row in rows)
    assert set(seen.values()) == {1}
    met = Counter(row["person_id"] for row in rows)
    assert len(met) == task.num_chosen
    assert set(met.values()) == {5 * (6 if form == "qa" else 1)}
    assert {row["exposure_idx"] for row in rows} == set(range(5))


@pytest.mark.parametrize("params", [{}, {"form": "qa"}, {"people": "test"}], ids=str)
@pytest.mark.parametrize("num_people", [2, 3, 10, 97, 1000])
def test_one_person_s_rows_lie_apart(num_people: int, params: dict[str, Any]) -> None:
    """Between two rows of one person stand at least half of the people."""
    task = CapoTask({"num_people": num_people, "exposures": 12, **params})
    ids = task.batch(3, "train", 0, task.num_examples).columns["person_id"].values
    nearest = min(np.diff(np.flatnonzero(ids == p)).min() for p in np.unique(ids)[:100])
    assert nearest > task.num_chosen // 2


def test_a_batch_in_order_holds_nobody_twice() -> None:
    task = CapoTask(num_people=500, exposures=40)
    ids = task.batch(0, "train", 0, task.num_examples).columns["person_id"].values
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(ids, 96), 1)
    assert not (np.diff(windows, axis=1) == 0).any()


def test_every_pass_has_an_order_of_its_own() -> None:
    task = CapoTask(num_people=60, exposures=8)
    orders = [
        tuple(task.batch(0, split, 60 * t, 60).columns["person_id"].values.tolist())
        for split in ("train", "eval")
        for t in range(8)
    ]
    assert len(set(orders)) == 16
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert len({order[0] for order in orders}) > 5


def test_orders_are_even() -> None:
    """Any person comes at any place of a pass (chi-square over 2,000 datasets of 12 people)."""
    task = CapoTask(num_people=12, exposures=2)
    key = np.concatenate([np.zeros(2, np.uint64), task.shared_state(0)])
    firsts, seconds, returns = [], [], []
    for i in range(4000):
        key[0] = i
        ids = task.generate(key, np.arange(24, dtype=np.uint64), Buffers()).columns["person_id"].values.astype(int)
        firsts.append(ids[0])
        seconds.append((ids[1] - ids[0]) % 12)
        returns.append(int(np.flatnonzero(ids[12:18] == ids[0])[0]))  # it comes again in the same half
    assert chi_square(np.bincount(firsts, minlength=12)) > 1e-6
    assert chi_square(np.bincount(returns, minlength=6)) > 1e-6
    assert independent(np.array(firsts), np.array(returns)) > 1e-6
    # Neighbours come from one half of the circle: the next is d places on, or back, with (6 - d)/30 for d = 1..5.
    shares = np.array([0, *(6 - min(d, 12 - d) for d in range(1, 12))]) / 30
    assert chi_square(np.bincount(seconds, minlength=12)[1:], shares[1:]) > 1e-6
    with_bias = [0 if i % 20 == 0 else first for i, first in enumerate(firsts)]
    assert chi_square(np.bincount(with_bias, minlength=12)) < 1e-6


# People ------------------------------------------------------------------------------------------------------------


def test_people_are_shared_by_splits_forms_exposures_and_presentation() -> None:
    them: dict[int, tuple[Any, ...]] = {row["person_id"]: facts(row) for row in everything(SMALL)}
    assert len(them) == 30
    for params in (
        {"form": "qa"}, {"people": "test"}, {"people": "train", "form": "qa"}, {"permute": False}, {"couple": True},
        {"fullname": True}, {"permute": False, "order": 1}, {"reverse_md": True}, {"fresh": 2}, {"exposures": 2},
    ):  # fmt: skip
        for split in ("train", "eval"):
            for row in everything(CapoTask({"num_people": 30, "exposures": 6, **params}), split=split):
                assert facts(row) == them[row["person_id"]], params
    for row in everything(CapoTask(num_people=30, exposures=2, form="biod")):
        assert tuple(row[n] for n in ("first_name", "last_name", "pronoun")) == tuple(
            getattr(person(0, 30, row["person_id"]), n) for n in ("first_name", "last_name", "pronoun")
        )


@pytest.mark.parametrize(("params", "seed"), [({}, 1), ({"num_people": 31}, 0), ({"they": True}, 0)])
def test_another_seed_has_other_people(params: dict[str, Any], seed: int) -> None:
    ours = {row["person_id"]: facts(row) for row in everything(SMALL)}
    theirs = {row["person_id"]: facts(row) for row in everything(CapoTask(SMALL.params.canonical(), **params), seed)}
    assert not {names[3:6] for names in ours.values()} & {names[3:6] for names in theirs.values()}


def test_the_people_s_key_has_the_version_and_the_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SMALL.shared_state(0).tolist()
    assert before == CapoTask(num_people=30, form="qa", people="test").shared_state(0).tolist()
    monkeypatch.setattr(CapoTask, "version", 2)
    assert before[:2] != SMALL.shared_state(0).tolist()[:2]


def test_halves_share_nobody_and_are_not_cut_by_number() -> None:
    train, test = (
        {row["person_id"] for row in everything(CapoTask(num_people=101, exposures=1, people=half))}
        for half in ("train", "test")
    )
    assert (len(train), len(test)) == (51, 50)
    assert not train & test
    assert 10 < sum(p % 2 for p in train) < 41
    assert 10 < sum(p < 50 for p in train) < 41


def test_split_and_seed_give_other_wordings() -> None:
    texts = [
        {row["person_id"]: row["text"] for row in everything(CapoTask(num_people=30, exposures=1), 0, split)}
        for split in ("train", "eval")
    ]
    assert all(texts[0][p] != texts[1][p] for p in range(30))
