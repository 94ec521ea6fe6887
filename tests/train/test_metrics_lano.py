"""Lano's metric: sentences drawn from models whose law is known, and the divergence from the grammar's own law."""

from __future__ import annotations

from itertools import product
from math import isnan, log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Oracle, peeking, sure_of, tiny_gpt2
from torch import Tensor

from synthshards import LanoTask
from synthshards.errors import UsageError
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows
from synthshards.train.evaluation.metrics.lano import LanoScore, divergences, draw, measure, sentences

#: Twelve sentences of 2 to 6 terminals.
GRAMMAR = "S -> A B | B A A\nA -> 1 | 2 3\nB -> 2 | 1 2\n"
BOS, VOCAB = 9, 12
TASK = LanoTask(grammar=GRAMMAR, framing="bos", bos_token_id=BOS)
V = TASK.grammar.terminals


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


def exact() -> Oracle:
    """The grammar's own law behind every prefix that has one; behind the others, <bos>."""

    def says(ids: Tensor) -> Tensor:
        logits = sure_of(torch.full_like(ids, BOS), VOCAB)
        for row, text in enumerate(ids.tolist()):
            end = next((at for at in range(1, len(text)) if text[at] in (BOS, 0)), len(text))  # 0 is padding
            law = TASK.grammar.next_token_distributions(text[1:end])
            known = torch.from_numpy(law[~np.isnan(law[:, 0])])
            logits[row, : len(known)] = -torch.inf
            logits[row, : len(known), [*range(1, V + 1), BOS]] = known.log().float()
        return logits

    return Oracle(says)


def uniform() -> Oracle:
    """Each terminal and the end with the same probability, all else with none."""

    def says(ids: Tensor) -> Tensor:
        logits = torch.full((*ids.shape, VOCAB), -torch.inf)
        logits[..., [*range(1, V + 1), BOS]] = 0.0
        return logits

    return Oracle(says)


def test_the_exact_law_scores_1_and_no_divergence() -> None:
    score = measure(exact(), TASK, eval_rows(TASK, 0, 60), MetricOptions(samples=300))
    assert isinstance(score, LanoScore)
    assert (score.accuracy, score.standard_error, score.count) == (1.0, 0.0, 300)
    assert score.kl == pytest.approx(0.0, abs=1e-7)
    assert list(score.columns())[:3] == ["accuracy", "kl", "kl_standard_error"]


def test_drawn_sentences_follow_the_law() -> None:
    """Over all sentences: the shares of 3,000 draws against their probabilities, by χ²."""
    said = [tuple(new[:-1]) for new in draw(exact(), TASK, 3000, MetricOptions(batch_rows=1000))]
    law = {ids: np.exp(TASK.grammar.log_prob(ids)) for ids in set(said)}
    assert sum(law.values()) == pytest.approx(1.0), "every sentence comes up"
    chi2 = sum((said.count(ids) - 3000 * p) ** 2 / (3000 * p) for ids, p in law.items())
    assert chi2 < (len(law) - 1) + 4 * sqrt(2 * (len(law) - 1))


def test_a_uniform_model() -> None:
    """What share of its texts parses, and how far it is from the law, worked out by enumeration."""
    longest = TASK.grammar.lengths[1]
    share = sum(
        (1 / (V + 1)) ** (length + 1)
        for length in range(1, longest + 1)
        for ids in product(range(1, V + 1), repeat=length)
        if TASK.grammar.contains(ids)
    )
    rows = eval_rows(TASK, 0, 40)
    score = measure(uniform(), TASK, rows, MetricOptions(samples=3000, batch_rows=1000))
    assert abs(score.accuracy - share) < 4 * sqrt(share * (1 - share) / 3000)
    assert score.accuracy > 0
    each = []
    for row in rows:
        laws = TASK.grammar.next_token_distributions(row["input_ids"][1:])
        smooth = (laws + 1e-5) / (1 + (V + 1) * 1e-5)
        each.append(np.mean([sum(p * log(p * (V + 1)) for p in law) for law in smooth]))
    assert score.kl == pytest.approx(np.mean(each))
    assert score.kl_standard_error == pytest.approx(np.std(each, ddof=1) / sqrt(40))
    np.testing.assert_allclose(
        divergences(uniform(), TASK, sentences(TASK, rows), MetricOptions(batch_tokens=10)), each
    )


def test_other_tokens_than_terminals_and_the_end_do_not_diverge_but_do_not_parse() -> None:
    """The published divergence looks at {terminals, end} alone."""
    law = exact()

    def says(ids: Tensor) -> Tensor:
        logits = law.says(ids)
        logits[..., 11] = 1.0
        return logits

    score = measure(Oracle(says), TASK, eval_rows(TASK, 0, 20), MetricOptions(samples=100))
    assert score.kl == pytest.approx(0.0, abs=1e-7)
    assert score.accuracy < 0.5


@pytest.mark.parametrize("said", [1, BOS, V + 1, V + 2])
def test_what_never_parses(said: int) -> None:
    """One terminal for ever, the empty sentence, and reserved ids."""
    model = Oracle(lambda ids: sure_of(torch.full_like(ids, said), VOCAB))
    score = measure(model, TASK, eval_rows(TASK, 0, 5))
    assert (score.accuracy, score.count) == (0.0, 5)
    longest = TASK.grammar.lengths[1]
    assert [len(new) for new in draw(model, TASK, 2)] == [1 if said == BOS else longest + 2] * 2


def test_a_sentence_must_end() -> None:
    """A model that says a whole sentence, but then the reserved <eos> and no <bos>."""
    sentence = [1, 1, 2]
    assert TASK.grammar.contains(sentence)

    def ending(*end: int) -> Oracle:
        text = [*sentence, *end, *[V + 1] * 20]

        def says(ids: Tensor) -> Tensor:
            return sure_of(torch.tensor(text[: ids.shape[1]]).expand(len(ids), -1), VOCAB)

        return Oracle(says)

    rows = eval_rows(TASK, 0, 3)
    assert measure(ending(BOS), TASK, rows).accuracy == 1.0
    assert measure(ending(V + 1), TASK, rows).accuracy == 0.0
    assert measure(ending(V + 1, BOS), TASK, rows).accuracy == 0.0


def test_rows_with_and_without_bos_are_the_same_sentences() -> None:
    bare = LanoTask(grammar=GRAMMAR, bos_token_id=BOS)
    rows = bare.batch(3, "eval", 0, 8).rows()
    framed = [{**row, "input_ids": np.array([BOS, *row["input_ids"]])} for row in bare.batch(3, "eval", 0, 8).rows()]
    options = MetricOptions(samples=10)
    model = tiny_gpt2(VOCAB)
    assert measure(model, bare, rows, options).columns() == measure(model, TASK, framed, options).columns()


def test_token_accuracies() -> None:
    rows = eval_rows(TASK, 0, 12)
    count = sum(row["length"] for row in rows)
    score = measure(peeking(VOCAB), TASK, rows)
    assert (score.token_accuracy, score.answer_token_accuracy) == (1.0, 1.0)
    endless = measure(peeking(VOCAB, lambda ids: torch.where(ids == BOS, 1, ids)), TASK, rows)
    assert endless.answer_token_accuracy == 1.0
    assert endless.token_accuracy == pytest.approx(count / (count + 12))


def test_draws_repeat_with_the_seed_and_fit_the_context() -> None:
    model: Any = tiny_gpt2(VOCAB, positions=8, spread=0.1)

    def drawn(seed: int) -> list[list[int]]:
        return draw(model, TASK, 20, MetricOptions(seed=seed))

    assert drawn(1) == drawn(1) != drawn(2)
    short = tiny_gpt2(VOCAB, positions=4, spread=0.1)
    assert max(len(new) for new in draw(short, TASK, 20)) == 5, "four tokens, and the sign that it did not end"
    hot = draw(model, TASK, 20, MetricOptions(seed=1, temperature=2.0))
    assert hot != drawn(1)


def test_one_row_and_no_row() -> None:
    score = measure(uniform(), TASK, eval_rows(TASK, 0, 1))
    assert score.count == 1
    assert isnan(score.kl_standard_error)
    with pytest.raises(UsageError, match="nothing to measure"):
        measure(uniform(), TASK, [])
    assert EVALUATIONS["lano"].measure is measure
