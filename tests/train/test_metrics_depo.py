"""Depo's metric, and what all teacher-forced metrics share: whole words, tokens, standard errors, packed windows."""

from __future__ import annotations

from functools import cache
from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from oracles import packed, peeking, taught
from torch import Tensor

from synthshards import DepoTask, open_dataset
from synthshards.errors import UsageError
from synthshards.train.evaluation.generation import generate
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows
from synthshards.train.evaluation.metrics.common import mean_and_error, split_windows
from synthshards.train.evaluation.metrics.depo import answers, measure, measure_windows

ANS, V = 18, 3
TASK = DepoTask(
    N=5, K=4, M=3, mini_vocab=V, qa=True, fixed_k=2, bos_token_id=0, query_token_base=10, answer_token_id=ANS,
    separator_token_id=19,
)  # fmt: skip
VOCAB = 20
ROWS = eval_rows(TASK, 0, 40)


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def words(row: dict[str, Any]) -> list[list[int]]:
    """The answers of a row, found by reading it."""
    ids, found = row["input_ids"].tolist(), []
    for at, token in enumerate(ids):
        if token == ANS:
            stop = at + 1
            while ids[stop] <= V:
                stop += 1
            found.append(ids[at + 1 : stop + 1])
    return found


def test_a_model_that_knows_scores_1() -> None:
    score = measure(peeking(VOCAB), TASK, ROWS)
    assert score.columns() == {
        "accuracy": 1.0, "standard_error": 0.0, "count": 120, "token_accuracy": 1.0, "token_standard_error": 0.0,
        "answer_token_accuracy": 1.0, "answer_token_standard_error": 0.0,
    }  # fmt: skip
    assert next(iter(score.columns())) == "accuracy"


def test_a_model_that_is_always_wrong_scores_0() -> None:
    score = measure(peeking(VOCAB, lambda ids: (ids + 1) % VOCAB), TASK, ROWS)
    assert (score.accuracy, score.token_accuracy, score.answer_token_accuracy, score.count) == (0.0, 0.0, 0.0, 120)


def test_one_wrong_token_makes_a_word_wrong() -> None:
    """A model that never says 5: words with a 5 are wrong, and their other tokens are right."""
    score = measure(peeking(VOCAB, lambda ids: torch.where(ids == 5, 4, ids)), TASK, ROWS)
    answers = [word for row in ROWS for word in words(row)]
    tokens = [token for word in answers for token in word]
    assert score.accuracy == pytest.approx(np.mean([5 not in word for word in answers]))
    assert score.answer_token_accuracy == pytest.approx(np.mean([token != 5 for token in tokens]))
    assert score.token_accuracy == pytest.approx((sum(t != 5 for t in tokens) + 120) / (len(tokens) + 120))
    assert len({score.accuracy, score.answer_token_accuracy, score.token_accuracy, 0.0, 1.0}) == 5
    assert any(len(word) == 2 and 5 in word for word in answers)


def test_the_answer_mark_counts_as_a_token_alone() -> None:
    score = measure(peeking(VOCAB, lambda ids: torch.where(ids == ANS, 0, ids)), TASK, ROWS)
    tokens = sum(len(word) for row in ROWS for word in words(row))
    assert (score.accuracy, score.answer_token_accuracy) == (1.0, 1.0)
    assert score.token_accuracy == pytest.approx(tokens / (tokens + 120))


@cache
def learned() -> Any:
    """A model that has learned what an answer looks like, and guesses."""
    return taught(TASK, VOCAB, 120)


def test_teacher_forced_is_greedy_generation() -> None:
    """Answer by answer: the word that the model says behind <ans>, left to itself, is right just where it counts."""
    rows = eval_rows(TASK, 0, 60)
    prompts, right = [], []
    for row in rows:
        ids = row["input_ids"].tolist()
        marks = [at for at, token in enumerate(ids) if token == ANS]
        for at, word in zip(marks, words(row), strict=True):
            prompts.append(ids[: at + 1])
            right.append(word)
    said = generate(learned(), prompts, max_new_tokens=2, stop_ids=range(V + 1, 2 * V + 1))  # a word, to its end
    hits = [new.tolist() == word for new, word in zip(said, right, strict=True)]
    assert 0.05 < np.mean(hits) < 0.95, "neither all right nor all wrong, or the comparison proves nothing"
    one_by_one = [measure(learned(), TASK, [row]) for row in rows]
    assert [round(score.accuracy * 3) for score in one_by_one] == np.reshape(hits, (-1, 3)).sum(1).tolist()
    score = measure(learned(), TASK, rows, MetricOptions(batch_tokens=100))
    assert (score.accuracy, score.count) == (pytest.approx(np.mean(hits)), 180)


def test_the_standard_error_takes_a_rows_answers_together() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random((200, 1)) < 0.3).astype(float)
    mean, error = mean_and_error(hits[:, 0], np.ones(200))
    assert (mean, error) == (pytest.approx(hits.mean()), pytest.approx(hits.std(ddof=1) / sqrt(200)))
    # Ten answers that are always alike say no more than one.
    assert mean_and_error(10 * hits[:, 0], np.full(200, 10)) == (pytest.approx(mean), pytest.approx(error))
    # Rows of different sizes: the spread of the mean over many repeated draws.
    sizes = rng.integers(1, 9, 100)
    draws = [mean_and_error(rng.binomial(sizes, np.where(rng.random(100) < 0.5, 0.2, 0.8)), sizes) for _ in range(2000)]
    assert np.mean([error for _, error in draws]) == pytest.approx(np.std([mean for mean, _ in draws]), rel=0.05)
    # Rows without answers say nothing, one row says nothing about the error.
    assert mean_and_error(np.array([1.0, 0, 2]), np.array([2, 0, 2])) == mean_and_error(np.array([1, 2]), np.full(2, 2))
    mean, error = mean_and_error(np.array([1.0]), np.array([4]))
    assert mean == 0.25
    assert isnan(error)


def counted(window: dict[str, Tensor]) -> int:
    """Whole answers of packed windows, by reading them."""
    count = 0
    for ids, segments in zip(window["input_ids"].tolist(), window["segment_ids"].tolist(), strict=True):
        for at, token in enumerate(ids):
            stop = at + 1
            while token == ANS and stop < len(ids) and segments[stop] == segments[at]:
                if ids[stop] > V:
                    count += 1
                    break
                stop += 1
    return count


@pytest.mark.parametrize("carry", [False, True])
def test_windows_count_every_whole_answer(carry: bool) -> None:
    count, cut = 0, 0
    for length in range(60, 75):  # rows of some 29 tokens, cut in all places
        window = packed(ROWS, length, carry)
        score = measure_windows(peeking(VOCAB), TASK, [window], MetricOptions(batch_tokens=150))
        assert (score.accuracy, score.token_accuracy) == (1.0, 1.0)
        assert score.count == counted(window)
        count += score.count
        cut += int((window["labels"] == ANS).sum()) - score.count
    assert count > 1000
    assert cut > 10, "some words were cut, and did not count"


def test_a_cut_word_does_not_end_in_the_next_row() -> None:
    ids = np.array([0, 1, 12, 5, ANS, 2, 0, 3, 12, 4, ANS, 1, 4, 0])
    segments = np.array([1] * 6 + [2] * 8)
    labels = np.where(np.isin(np.arange(14), [4, 5, 10, 11, 12]), ids, -100)
    assert answers(TASK.params, ids, labels, segments).tolist() == [[11, 13]]


def test_windows_go_through_the_model_in_small_batches() -> None:
    window = packed(ROWS, 64)
    parts = list(split_windows([window, window], 130))
    assert {part["labels"].shape for part in parts} == {(2, 64)}
    for name in ("input_ids", "labels", "segment_ids", "position_ids"):
        assert torch.equal(torch.cat([part[name] for part in parts]), torch.cat([window[name]] * 2))
    assert len(list(split_windows([window], 10))) == len(window["labels"])


def test_windows_score_as_rows_do() -> None:
    """Where rows do not see one another, and none is cut, packing changes nothing but what is predicted of <bos>."""
    model, rows = learned(), ROWS[:8]
    length = len(rows[0]["input_ids"]) + len(rows[1]["input_ids"])
    window = packed(rows[:2], length)
    score, right = measure_windows(model, TASK, [window]), measure(model, TASK, rows[:2])
    assert score.columns() == pytest.approx(right.columns())
    assert score.count == 6


def test_rows_that_see_one_another_are_an_option() -> None:
    model, window = learned(), packed(ROWS, 64)
    plain = {**window, "position_ids": torch.arange(64).expand(window["input_ids"].shape)}
    plain["segment_ids"] = (window["segment_ids"] > 0).long()
    together = measure_windows(model, TASK, [window], MetricOptions(isolate=False))
    assert together.token_accuracy == measure_windows(model, TASK, [plain]).token_accuracy
    assert together.token_accuracy != measure_windows(model, TASK, [window]).token_accuracy


def test_the_loaders_windows_are_what_it_reads() -> None:
    """Windows of the loader score as those packed by hand of the same rows."""
    params = {name: getattr(TASK.params, name) for name in TASK.params.__struct_fields__}
    dataset = open_dataset("depo", seed=0, split="eval", num_examples=40, **params)
    stream = dataset.batches(batch_size=3, seq_len=64, packing="paper")
    score = measure_windows(learned(), TASK, stream)
    assert score.columns() == pytest.approx(measure_windows(learned(), TASK, [packed(ROWS, 64)]).columns())
    assert 0 < score.accuracy < 1


def test_long_words_and_the_papers_ids() -> None:
    task = DepoTask(N=9, K=4, mini_vocab=3, min_tlen=5, max_tlen=7, qa=True, fixed_k=4)
    rows = eval_rows(task, 1, 3)
    assert measure(peeking(9600), task, rows).columns()["count"] == 27
    scored = measure_windows(peeking(9600), task, [packed(rows, 400)])
    assert (scored.accuracy, scored.count) == (1.0, counted_long(rows, 400))


def counted_long(rows: list[dict[str, Any]], length: int) -> int:
    """Answers of the packed rows that end within their window: the first row of each is whole."""
    window = packed(rows, length)
    ids, segments = window["input_ids"].numpy(), window["segment_ids"].numpy()
    count = 0
    for w, at in zip(*np.nonzero(ids == 9500), strict=True):
        inside = np.flatnonzero((segments[w] == segments[w, at]) & (np.arange(length) > at))
        count += bool((ids[w, inside] > 3).any())
    return count


def test_what_cannot_be_measured() -> None:
    with pytest.raises(UsageError, match="no whole answer"):
        measure(peeking(VOCAB), TASK, [])
    window = packed(ROWS, 64)
    del window["position_ids"]
    with pytest.raises(UsageError, match="a packed window has no position_ids"):
        measure_windows(peeking(VOCAB), TASK, [window])
    with pytest.raises(UsageError, match="batch_tokens=0; legal: from 1"):
        MetricOptions(batch_tokens=0)


def test_chance_is_a_guess_among_the_other_nodes() -> None:
    chance = EVALUATIONS["depo"].chance
    assert chance(TASK, ROWS) == pytest.approx(1 / 4)
    around = DepoTask(N=4, K=4, qa=True, fixed_k=4)
    assert chance(around, eval_rows(around, 0, 5)) == 1  # four steps on four nodes lead back
    free = DepoTask(N=5, K=7)
    rows = eval_rows(free, 0, 60)
    assert {row["n"] for row in rows} == {3, 4, 5}
    each = [1.0 if k % row["n"] == 0 else 1 / (row["n"] - 1) for row in rows for k in row["ks"]]
    assert chance(free, rows) == pytest.approx(np.mean(each))
    assert chance(free, []) is None


def test_the_hops_of_eval_sets() -> None:
    strata = EVALUATIONS["depo"].strata
    assert [one.hop for one in strata(DepoTask(K=12), None, True)] == [1, 2, 4, 8]
    (one,) = strata(DepoTask(K=12), [5, 5], False)
    assert (one.label, one.task.params.fixed_k, one.task.params.qa, one.trained) == ("hop_5", 5, False, False)


def test_the_evaluation_has_this_measure() -> None:
    assert EVALUATIONS["depo"].measure is measure
    assert EVALUATIONS["depo"].measure_windows is measure_windows


def test_eval_rows_are_those_of_the_split() -> None:
    rows = eval_rows(TASK, 7, 2, split="test", start=3)
    assert [row["input_ids"].tolist() for row in rows] == [
        TASK.example(7, "test", i)["input_ids"].tolist() for i in (3, 4)
    ]
