"""Mano's metric: right, wrong, and the chance level of a model that knows only which value is the commonest."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from oracles import Oracle, packed, peeking, sure_of, tiny_llama

from synthshards import ManoTask
from synthshards.train.evaluation.generation import generate
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows
from synthshards.train.evaluation.metrics.mano import answers, measure, measure_windows

TASK = ManoTask(L=10, qa=True, bos_token_id=4999)
VOCAB = 5000 + 23
ZERO = 5000


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def test_a_model_that_knows_and_one_that_does_not() -> None:
    rows = eval_rows(TASK, 0, 30)
    score = measure(peeking(VOCAB), TASK, rows)
    assert (score.accuracy, score.standard_error, score.count) == (1.0, 0.0, 30)
    assert (score.token_accuracy, score.answer_token_accuracy) == (1.0, 1.0)
    wrong = measure(peeking(VOCAB, lambda ids: torch.where(ids >= ZERO, ZERO + (ids + 1 - ZERO) % 23, ids)), TASK, rows)
    assert (wrong.accuracy, wrong.answer_token_accuracy) == (0.0, 0.0)
    assert wrong.token_accuracy == pytest.approx(12 / 24), "12 of the 24 tokens behind <bos> are values"


def test_the_chance_level_is_that_of_always_saying_0() -> None:
    """7.03% at ℓ = L = 10, exact for + − × mod 23."""
    rows = eval_rows(TASK, 0, 3000)
    zero = Oracle(lambda ids: sure_of(torch.full_like(ids, ZERO), VOCAB))
    score = measure(zero, TASK, rows)
    assert score.accuracy == pytest.approx(np.mean([row["answer"] == 0 for row in rows]))
    assert score.standard_error == pytest.approx(sqrt(0.0703 * 0.9297 / 3000), rel=0.1)
    assert abs(score.accuracy - 0.0703) < 4 * score.standard_error
    assert score.count == 3000


def test_it_is_what_the_model_says_behind_the_mark() -> None:
    task = ManoTask(L=2, value_mod=2, ttype="a", qa=True, knowledge_augment=False, bos_token_id=4999)
    rows = eval_rows(task, 0, 60)
    model = tiny_llama(VOCAB)
    # A random model never says one of two values: let it have no other tokens.
    with torch.no_grad():
        model.lm_head.weight[:ZERO] = 0
        model.lm_head.weight[ZERO + 2 :] = 0
    said = generate(model, [row["input_ids"][:-1] for row in rows], max_new_tokens=1)
    hits = [bool(task.score_answer(row, new)) for row, new in zip(rows, said, strict=True)]
    score = measure(model, task, rows, MetricOptions(batch_tokens=64))
    assert score.accuracy == pytest.approx(np.mean(hits))
    assert 0.1 < score.accuracy < 0.9


@pytest.mark.parametrize("carry", [False, True])
def test_windows_count_every_value_that_stands_with_its_mark(carry: bool) -> None:
    rows = eval_rows(ManoTask(L=3), 0, 60)  # of all lengths, with the marks of all of them
    vocab = 10_000
    cut = 0
    for length in (40, 41, 42, 43):
        window = packed(rows, length, carry)
        score = measure_windows(peeking(vocab), ManoTask(L=3), [window])
        # A value stands last in its row: positions tell a row's end by the start of the next.
        ids, segments = window["input_ids"].numpy(), window["segment_ids"].numpy()
        marks = np.isin(ids[:, :-1], [14, 15, 24, 25, 34, 35])
        assert score.count == int((marks & (segments[:, 1:] == segments[:, :-1])).sum())
        assert score.accuracy == 1.0
        cut += int(np.isin(ids[:, -1], [14, 15, 24, 25, 34, 35]).sum())
    assert cut, "some window ends with a mark, whose value is cut off"


def test_the_token_behind_a_mark_that_ends_its_row_is_no_value() -> None:
    ids = np.array([9999, 10, 1, 5001, 5002, 14, 9998, 11, 5, 5003, 5004, 15, 5007])
    segments = np.array([1] * 6 + [2] * 7)
    assert answers(ManoTask(L=3).params, ids, ids, segments).tolist() == [[12, 13]]


@pytest.mark.parametrize(("qa", "exact"), [(True, 0.0703), (False, 0.0662)])
def test_chance_is_the_share_of_the_commonest_value(qa: bool, exact: float) -> None:
    task, evaluation = ManoTask(qa=qa), EVALUATIONS["mano"]
    rows = eval_rows(task, 0, 3000)
    chance = evaluation.chance(task, rows)
    assert chance == pytest.approx(exact, abs=1e-4 if qa else 1e-3)  # here ℓ is that of the rows
    guessed = np.mean([row["answer"] == 0 for row in rows])
    assert guessed == pytest.approx(chance, abs=3 * sqrt(exact / 3000))
    assert evaluation.chance(task, []) is None


def test_the_tables() -> None:
    assert EVALUATIONS["mano"].measure is measure
    assert EVALUATIONS["mano"].measure_windows is measure_windows
