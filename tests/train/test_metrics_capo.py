"""Capo's metric: bits by the published formula, from models whose losses are known, and whole answers to questions."""

from __future__ import annotations

from functools import cache
from math import isnan, log, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Oracle, peeking, sure_of, tiny_gpt2, tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from synthshards import CapoTask
from synthshards.errors import UsageError
from synthshards.tasks.capo import capacity
from synthshards.tasks.capo.biography import SPANS
from synthshards.train.evaluation.metrics import EVALUATIONS, MetricOptions, eval_rows
from synthshards.train.evaluation.metrics.capo import CapoScore, measure, parameters, telling_span, token_nats

PEOPLE = 60
BIOS = CapoTask(num_people=PEOPLE, exposures=2, permute=False, order=1)
QA = CapoTask(num_people=PEOPLE, exposures=1, form="qa")
VOCAB, EOS = 400, 0
#: What Part 3.3 sums over, beside the pronoun.
VALUES = ("birth_date", "birth_city", "university", "major", "employer")


pytestmark = pytest.mark.usefixtures("one_thread")  # tests share the machine


@cache
def tokenizer() -> Any:
    """Byte pairs, the space before a word in the word's first token, as in GPT-2."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<eos>"], initial_alphabet=alphabet)
    plain.train_from_iterator([row["text"] for row in eval_rows(BIOS, 5, 100)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>")


@cache
def options(**more: Any) -> MetricOptions:
    return MetricOptions(tokenizer=tokenizer(), **more)


def words_of(text: str, part: tuple[int, int]) -> list[int]:
    """The ids of a part of a text that starts and ends with whole words, tokenized by itself."""
    start, stop = part
    spaced = start > 0 and text[start - 1] == " "
    ids: list[int] = tokenizer()(text[start - spaced : stop], add_special_tokens=False)["input_ids"]
    return ids[1:] if tokenizer().decode(ids[:1]) == " " else ids  # a space that is a token of its own is no part


def parts(row: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: tuple(row["spans"][2 * i : 2 * i + 2]) for i, name in enumerate(SPANS)}  # type: ignore[misc]


def counts(row: dict[str, Any]) -> tuple[int, int]:
    """Tokens of the name, and of the values with the pronoun."""
    at = parts(row)
    pronoun = telling_span(row)
    assert pronoun is not None
    values = [words_of(row["text"], span) for span in (*(at[name] for name in VALUES), pronoun)]
    return len(words_of(row["text"], at["full_name"])), sum(map(len, values))


def test_a_model_that_knows_nothing_at_all() -> None:
    """Uniform over its vocabulary: every token costs ln V, so the losses are numbers of tokens."""
    rows = eval_rows(BIOS, 0, 50)
    score = measure(Oracle(lambda ids: torch.zeros(*ids.shape, VOCAB)), BIOS, rows, options())
    assert isinstance(score, CapoScore)
    names, values = np.array([counts(row) for row in rows]).T
    assert score.p1 == pytest.approx(names.mean() * log(VOCAB), rel=1e-5)
    assert score.p2 == pytest.approx(values.mean() * log(VOCAB), rel=1e-5)
    assert score.bits == pytest.approx(capacity.bits(PEOPLE, score.p1, score.p2))
    assert score.biographies == 50
    assert len({row["person_id"] for row in rows}) == 50, "one biography each: it is the plain standard error"
    spread = np.std(names + values, ddof=1) * log(VOCAB) / sqrt(50)
    assert score.bits_standard_error == pytest.approx(PEOPLE * spread / log(2), rel=1e-4)
    assert score.count == 0
    assert isnan(score.accuracy)


def test_a_model_that_knows_everything_reaches_the_best_possible() -> None:
    """It is sure of all but who comes next, and that it guesses among N: p1 = ln N, p2 = 0."""
    first = {words_of(row["text"], parts(row)["full_name"])[0] for row in eval_rows(BIOS, 0, 60)}

    def says(ids: Tensor) -> Tensor:
        logits = sure_of(torch.roll(ids, -1, 1), VOCAB)
        guess = torch.full((VOCAB,), log((PEOPLE - 1) / (VOCAB - 1)))
        for row in range(len(ids)):
            target = int(ids[row, 1])
            assert target in first
            logits[row, 0] = guess
            logits[row, 0, target] = 0.0  # a share of 1/N
        return logits

    score = measure(Oracle(says), BIOS, eval_rows(BIOS, 0, 60), options())
    assert score.p1 == pytest.approx(log(PEOPLE), rel=1e-5)
    assert score.p2 == 0.0
    assert score.bits == pytest.approx(capacity.best_bits(PEOPLE), rel=1e-5)


@pytest.mark.parametrize("name", [*VALUES, "pronoun", "full_name", "work_city"])
def test_what_counts_and_what_does_not(name: str) -> None:
    """A model that is sure of all but one value (uniform there): only that value's tokens cost, the work city's do not.

    Read one by one, so that the model may know the place.
    """
    for row in eval_rows(BIOS, 0, 5):
        encoded = tokenizer()(row["text"], add_special_tokens=False, return_offsets_mapping=True)
        span = telling_span(row) if name == "pronoun" else parts(row)[name]
        assert span is not None
        inside = [a < span[1] and b > span[0] for a, b in encoded["offset_mapping"]]
        logits = sure_of(torch.tensor([*encoded["input_ids"], EOS]), VOCAB)
        logits[:-1][torch.tensor(inside)] = 0.0
        score = measure(Oracle(lambda _ids, said=logits: said[: _ids.shape[1]][None]), BIOS, [row], options())
        cost = sum(inside) * log(VOCAB)
        assert (score.p1, score.p2) == pytest.approx(
            {"full_name": (cost, 0.0), "work_city": (0.0, 0.0)}.get(name, (0.0, cost)), rel=1e-5
        )
        assert cost > 0


def test_the_nats_of_a_text_are_those_of_the_model_alone() -> None:
    model = tiny_llama(VOCAB, positions=512)
    rows = eval_rows(BIOS, 0, 5)
    texts = [np.array([EOS, *tokenizer()(row["text"], add_special_tokens=False)["input_ids"]]) for row in rows]
    found = token_nats(model, texts, MetricOptions(batch_tokens=500))
    for ids, nats in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.from_numpy(ids)[None]).logits[0].double().log_softmax(-1)
        right = -logits[torch.arange(len(ids) - 1), torch.from_numpy(ids[1:])].numpy()
        np.testing.assert_allclose(nats, [0, *right], rtol=1e-4, atol=1e-4)


def test_only_biographies_with_the_employer_first_count() -> None:
    free = CapoTask(num_people=PEOPLE, exposures=2)
    rows = eval_rows(free, 0, 60)
    kept = [row for row in rows if parts(row)["employer"] < parts(row)["work_city"]]
    uniform = Oracle(lambda ids: torch.zeros(*ids.shape, VOCAB))
    score = measure(uniform, free, rows, options())
    assert score.biographies == len(kept)
    assert 15 < len(kept) < 45
    assert score.p2 == pytest.approx(np.mean([counts(row)[1] for row in kept]) * log(VOCAB), rel=1e-5)
    city_first = CapoTask(num_people=PEOPLE, exposures=2, permute=False)
    with pytest.raises(UsageError, match="none of 9 biographies tells the employer before the work city"):
        measure(uniform, city_first, eval_rows(city_first, 0, 9), options())


def test_a_person_met_twice_says_no_more_than_once() -> None:
    uniform = Oracle(lambda ids: torch.zeros(*ids.shape, VOCAB))
    rows = eval_rows(BIOS, 0, 30)
    once, twice = measure(uniform, BIOS, rows, options()), measure(uniform, BIOS, [*rows, *rows], options())
    assert twice.biographies == 60
    assert twice.bits_standard_error == pytest.approx(once.bits_standard_error)


@pytest.mark.parametrize("they", [False, True])
def test_the_telling_word(they: bool) -> None:
    """The first pronoun behind the name that is no part of a name or a value."""
    words = {"he": {"he", "his", "him"}, "she": {"she", "her"}, "they": {"they", "their", "them"}}
    task = CapoTask(num_people=300, exposures=1, they=they)
    seen = set()
    for row in eval_rows(task, 0, 300):
        start, stop = telling_span(row) or (0, 0)
        before, word = row["text"][:start], row["text"][start:stop]
        assert word.lower() in words[row["pronoun"]]
        assert not words[row["pronoun"]] & {part.strip(".,'s").lower() for part in before.split()}
        seen.add((row["pronoun"], word))
    assert len(seen) > 4
    fooled = {"text": "He Her His lives. Her town is Her.", "pronoun": "she", "spans": [0, 10, 30, 33]}
    assert telling_span(fooled) == (18, 21)
    assert telling_span({**fooled, "pronoun": "they"}) is None


def test_questions_are_answered_with_the_whole_value() -> None:
    rows = eval_rows(QA, 0, 40)
    score = measure(peeking(VOCAB), QA, rows, options())
    assert (score.accuracy, score.standard_error, score.count) == (1.0, 0.0, 40)
    assert isnan(score.bits)
    texts = [tokenizer()(row["text"], add_special_tokens=False)["input_ids"] for row in rows]
    values = [words_of(row["text"], parts(row)[row["question"]]) for row in rows]
    wrong = max(range(1, VOCAB), key=lambda token: sum(token in value for value in values))
    score = measure(peeking(VOCAB, lambda ids: torch.where(ids == wrong, wrong - 1, ids)), QA, rows, options())
    assert score.accuracy == pytest.approx(np.mean([wrong not in value for value in values]))
    assert 0 < score.accuracy < 1
    tokens = [token for value in values for token in [*value, EOS]]
    assert score.answer_token_accuracy == pytest.approx(np.mean([token != wrong for token in tokens]))
    everything = [token for text in texts for token in [*text, EOS]]
    assert score.token_accuracy == pytest.approx(np.mean([token != wrong for token in everything]))


def test_a_value_must_end() -> None:
    rows = eval_rows(QA, 0, 10)
    score = measure(peeking(VOCAB, lambda ids: torch.where(ids == EOS, 1, ids)), QA, rows, options())
    assert score.accuracy == 0.0
    assert score.answer_token_accuracy > 0.5


def test_both_kinds_of_rows_at_once() -> None:
    bios, questions = eval_rows(BIOS, 0, 8), eval_rows(QA, 0, 12)
    model = tiny_gpt2(VOCAB, positions=512)
    both = measure(model, BIOS, [*bios, *questions], options()).columns()
    apart = {**measure(model, QA, questions, options()).columns()}
    apart |= {k: v for k, v in measure(model, BIOS, bios, options()).columns().items() if "bits" in k or k[0] in "pb"}
    assert both == pytest.approx(apart)
    assert list(both)[:3] == ["accuracy", "bits", "bits_per_parameter"]
    assert both["bits_per_parameter"] == pytest.approx(both["bits"] / parameters(model))


def test_rows_of_embeddings_that_no_text_uses_are_no_parameters() -> None:
    tied, untied = tiny_gpt2(VOCAB), tiny_llama(VOCAB)
    for model, tables in ((tied, 1), (untied, 2)):
        every = sum(p.numel() for p in model.parameters())
        assert parameters(model) == every
        assert parameters(model, VOCAB) == every
        assert parameters(model, 100) == every - tables * 300 * 32
    score = measure(tied_long(), BIOS, eval_rows(BIOS, 0, 3), options(used_tokens=100))
    assert score.bits_per_parameter == pytest.approx(score.bits / parameters(tied_long(), 100))
    with pytest.raises(UsageError, match=r"used_tokens=401; legal: 1\.\.400"):
        parameters(tied, 401)


@cache
def tied_long() -> Any:
    return tiny_gpt2(VOCAB, positions=512)


class Slow:
    """As transformers' tokenizers in Python do."""

    eos_token_id = EOS

    def __call__(self, texts: list[str], **options: Any) -> Any:
        raise NotImplementedError


def test_what_cannot_be_measured() -> None:
    rows = eval_rows(BIOS, 0, 2)
    with pytest.raises(UsageError, match=r"rows are text; legal: with MetricOptions\(tokenizer=…\)"):
        measure(tied_long(), BIOS, rows)
    with pytest.raises(UsageError, match="nothing to measure"):
        measure(tied_long(), BIOS, [], options())
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer)
    with pytest.raises(UsageError, match="no eos_token_id"):
        measure(tied_long(), BIOS, rows, MetricOptions(tokenizer=endless))
    with pytest.raises(UsageError, match="gives no offsets"):
        measure(tied_long(), BIOS, rows, MetricOptions(tokenizer=Slow()))
    biod = CapoTask(num_people=PEOPLE, exposures=1, form="biod")
    with pytest.raises(UsageError, match="form=biod are not measured"):
        measure(tied_long(), biod, eval_rows(biod, 0, 2), options())
    assert EVALUATIONS["capo"].measure is measure


def test_chance_is_the_commonest_value_of_what_is_asked() -> None:
    chance = EVALUATIONS["capo"].chance
    rows = eval_rows(QA, 0, 60)
    alone = {row["question"]: chance(QA, [row]) for row in rows}
    assert alone == {
        "birth_date": 1 / 67_200, "birth_city": 1 / 200, "university": 1 / 300, "major": 1 / 100, "employer": 1 / 263,
        "work_city": 36 / 263,
    }  # fmt: skip
    assert chance(QA, [*rows, *eval_rows(BIOS, 0, 3)]) == pytest.approx(np.mean([alone[r["question"]] for r in rows]))
    assert chance(BIOS, eval_rows(BIOS, 0, 3)) is None


def test_strata_of_stored_rows() -> None:
    """Questions come before what was trained on, whatever their manifests are called."""
    stratum_of = EVALUATIONS["capo"].stratum_of
    assert [stratum_of(task).trained for task in (QA, BIOS)] == [False, True]
