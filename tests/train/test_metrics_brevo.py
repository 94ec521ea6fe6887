"""Brevo's metric: free generation, where every valid order is right and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Script, peeking, taught

from synthshards import BrevoTask
from synthshards.errors import UsageError
from synthshards.train.evaluation.generation import generate
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows
from synthshards.train.evaluation.metrics.brevo import measure

MARKS = {"bos_token_id": 30, "query_token_id": 31, "answer_token_id": 32, "eos_token_id": 33}
VOCAB = 34
TASKS = {
    "brevo1": BrevoTask(N=9, qa=True, **MARKS),
    "brevo2": BrevoTask(N=9, multi=True, mini_vocab=3, qa=True, **MARKS),
    "one id for <ans> and <eos>": BrevoTask(N=9, qa=True, **{**MARKS, "eos_token_id": 32}),
}


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def start_of(row: dict[str, Any]) -> int:
    """Where the answer begins: behind <ans>, the first token that is trained on."""
    return row["loss_mask"].tolist().index(True) + 1


def scripted(rows: list[dict[str, Any]], says: Callable[[int, list[int]], list[int]]) -> Script:
    """A model that says to row i what `says(i, right answer)` returns."""
    script = {}
    for i, row in enumerate(rows):
        ids = row["input_ids"].tolist()
        script[tuple(ids[: start_of(row)])] = says(i, ids[start_of(row) :])
    return Script(script, VOCAB)


def another_order(task: BrevoTask, row: dict[str, Any]) -> list[int]:
    """A valid answer in an order of our own: of all nodes that may come next always the one with the largest name."""
    p, ids = task.params, row["input_ids"].tolist()
    cut = ids.index(p.query_token_id)

    def names(some: list[int]) -> list[tuple[int, ...]]:
        if not p.multi:
            return [(token,) for token in some]
        out, word = [], []
        for token in some:
            word.append(token)
            if token > p.mini_vocab:
                out.append(tuple(word))
                word = []
        return out

    flat = names(ids[1:cut])
    edges = list(zip(flat[::2], flat[1::2], strict=True))
    left = set(names(ids[start_of(row) : -1]))
    order: list[tuple[int, ...]] = []
    while left:
        free = [node for node in left if not any(a in left for a, b in edges if b == node)]
        order.append(max(free))
        left.remove(order[-1])
    return [*(token for name in order for token in name), p.eos_token_id]


@pytest.mark.parametrize("kind", TASKS)
def test_every_valid_order_is_right(kind: str) -> None:
    task = TASKS[kind]
    rows = eval_rows(task, 0, 25)
    score = measure(scripted(rows, lambda _i, right: right), task, rows, MetricOptions(batch_rows=7))
    assert (score.accuracy, score.standard_error, score.count) == (1.0, 0.0, 25)
    others = [another_order(task, row) for row in rows]
    assert any(new != row["input_ids"][start_of(row) :].tolist() for new, row in zip(others, rows, strict=True))
    score = measure(scripted(rows, lambda i, _right: others[i]), task, rows)
    assert score.accuracy == 1.0


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda right: right[1:],  # a name (or a part of one) is missing
        lambda right: right[:-1],  # no <eos>: then the oracle goes on with token 0
        lambda right: right[-1:],  # nothing but <eos>
        lambda right: [32, *right],  # a second <ans>
        lambda right: [*right[:-2], 6 if right[-2] == 5 else 5, right[-1]],  # another query
        lambda right: [*right[:-1], 32, right[-1]],
    ],
)
def test_nothing_else_is_right(kind: str, spoil: Callable[[list[int]], list[int]]) -> None:
    task = TASKS[kind]
    rows = eval_rows(task, 0, 10)
    score = measure(scripted(rows, lambda _i, right: spoil(right)), task, rows)
    if kind == "one id for <ans> and <eos>" and spoil([1, 2, 32]) == [1, 2, 32, 32]:
        assert score.accuracy == 1.0, "there <ans> behind the names is <eos>"
    else:
        assert score.accuracy == 0.0


def test_a_third_of_the_rows_right() -> None:
    task = TASKS["brevo1"]
    rows = eval_rows(task, 0, 30)
    score = measure(scripted(rows, lambda i, right: right if i % 3 == 0 else [33]), task, rows)
    assert score.accuracy == pytest.approx(1 / 3)
    assert score.standard_error == pytest.approx(np.std([1.0] * 10 + [0.0] * 20, ddof=1) / np.sqrt(30))


def test_token_accuracies_are_of_the_rows_own_order() -> None:
    task = TASKS["brevo2"]
    rows = eval_rows(task, 0, 12)
    peek = measure(peeking(VOCAB), task, rows)
    assert (peek.token_accuracy, peek.answer_token_accuracy) == (1.0, 1.0)
    no_marks = measure(peeking(VOCAB, lambda ids: torch.where(ids > 31, 0, ids)), task, rows)
    masked = sum(int(row["loss_mask"].sum()) for row in rows)
    assert no_marks.answer_token_accuracy == 1.0
    assert no_marks.token_accuracy == pytest.approx((masked - 24) / masked)


def test_a_real_model() -> None:
    """What a model of transformers says is scored as its free generation, prompt by prompt, is."""
    task = BrevoTask(N=3, qa=True, bos_token_id=5, query_token_id=6, answer_token_id=7, eos_token_id=8)
    model, rows = taught(task, 9, 200), eval_rows(task, 0, 80)
    hits = []
    for row in rows:
        new = generate(model, [row["input_ids"][: start_of(row)]], max_new_tokens=20, stop_ids=[8])[0].tolist()
        hits.append(new[-1] == 8 and 7 not in new and bool(task.score_answer(row, new)))
    assert measure(model, task, rows).accuracy == pytest.approx(np.mean(hits))
    assert 0 < sum(hits) < len(hits)


def test_no_rows() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        measure(peeking(VOCAB), TASKS["brevo1"], [])
    assert EVALUATIONS["brevo"].measure is measure
