"""Depo's checker and scorer: each way to break a row is refused, and for the reason that it breaks."""

from __future__ import annotations

import pytest
from depo_mutations import MUTATIONS
from depo_parts import TASKS, take_apart
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synthshards import make_task


@settings(max_examples=40, deadline=None)
@given(data=st.data(), i=st.integers(0, 5000))
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_row_is_refused_for_its_fault(name: str, data: st.DataObject, i: int) -> None:
    mutate, tasks = MUTATIONS[name]
    task = TASKS[data.draw(st.sampled_from(tasks))]
    parts = take_apart(task, task.example(0, "train", i))
    assume(parts.n >= 4)  # three nodes leave nothing to drop
    row, reason = mutate(parts, lambda below: data.draw(st.integers(0, below - 1)))
    verdict = task.validate_example(row)
    assert not verdict
    assert verdict.reason == reason


@pytest.mark.parametrize("name", TASKS)
def test_what_is_taken_apart_and_written_again_is_the_row(name: str) -> None:
    # The mutations would prove nothing if the unbroken row were refused, or were another row.
    task = TASKS[name]
    for row in task.take(0, 200):
        again = take_apart(task, row).row()
        assert again["input_ids"] == row["input_ids"].tolist()
        assert again["labels"] == row["labels"].tolist()
        assert task.validate_example(again), task.validate_example(again).reason
        assert task.validate_example({k: again[k] for k in ("input_ids", "loss_mask")}), "facts are not required"


def test_a_row_of_other_parameters_is_refused() -> None:
    row = next(row for row in TASKS["plain"].take(0, 50) if row["n"] == 11)
    assert make_task("depo1-225", N=10).validate_example(row).reason == "11 edges; legal: 3..10"
    assert make_task("depo1-225", N=12, qa=True).validate_example(row).reason == "11 edges; legal: 12"
    assert make_task("depo1-225", N=12, M=9).validate_example(row).reason == "10 queries; legal: 9"


# Scoring -----------------------------------------------------------------------------------------------------------

ROW = next(row for row in TASKS["plain"].take(0, 50) if row["queries"] == 10)
ANSWERS = [answer for _, _, answer in take_apart(TASKS["plain"], ROW).queries]
FLAT = [t for word in ANSWERS for t in word]


def score(ids: list[int]) -> str | None:
    verdict = TASKS["plain"].score_answer(ROW, ids)
    assert bool(verdict) == (verdict.reason is None)
    return verdict.reason


def test_right_answers() -> None:
    assert score(FLAT) is None
    assert score([t for word in ANSWERS for t in (9500, *word)]) is None
    assert score([*FLAT[: len(ANSWERS[0])], 9500, *FLAT[len(ANSWERS[0]) :]]) is None
    assert score([*ANSWERS[-1]]) is None
    assert score([9500, *ANSWERS[-1]]) is None


@pytest.mark.parametrize("at", range(10))
def test_one_wrong_word_among_all(at: int) -> None:
    wrong = (1, 51) if ANSWERS[at] != (1, 51) else (2, 51)
    given_ = [*ANSWERS[:at], wrong, *ANSWERS[at + 1 :]]
    said = f"answer {at + 1} is {list(wrong)}, not {list(ANSWERS[at])}"
    assert score([t for word in given_ for t in word]) == said


def test_answers_that_are_no_answers() -> None:
    assert len(ANSWERS) == 10
    assert score([]) == "0 words answer 10 queries; legal: 1 or 10"
    assert score([t for word in ANSWERS[:3] for t in word]) == "3 words answer 10 queries; legal: 1 or 10"
    assert score([*FLAT, 1, 51]) == "11 words answer 10 queries; legal: 1 or 10"
    assert score([1]) == "word at 0 does not end"
    assert score([9500]) == "word at 1 does not end"
    assert score([*ANSWERS[-1], 9500]) == f"word at {len(ANSWERS[-1]) + 1} does not end"
    assert score([1, 2, 51]) == "word at 0 has 3 tokens; legal: 1..2"
    assert score([1, 9500, 51]) == "token 9500 at 1 stands where a word token 1..100 belongs"
    assert score([9500, 9500, 51]) == "token 9500 at 1 stands where a word token 1..100 belongs"
    assert score([9001, 51]) == "token 9001 at 0 stands where a word token 1..100 belongs"
    other = next(word for word in ANSWERS if word != ANSWERS[-1])
    assert score([*other]) == f"answer 1 is {list(other)}, not {list(ANSWERS[-1])}"
    assert TASKS["plain"].score_answer({"input_ids": [1]}, FLAT).reason == "the row does not start with <bos> (0)"
