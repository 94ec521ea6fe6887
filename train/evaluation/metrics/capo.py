"""Capo: how many bits does the model know about people, and does it answer questions about them?

Sources: "Physics of Language Models: Part 3.3" (arXiv 2404.05405), the capacity of bioS (see `tasks.capo.capacity`);
Part 3.1 (arXiv 2309.14316), questions. Training joins entries by <EOS>, so a text is read behind one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log, nan
from typing import Any

import numpy as np
import torch
from torch import nn

from synthshards.errors import UsageError
from synthshards.tasks.capo.biography import SPANS, token_spans
from synthshards.tasks.capo.capacity import bits as bits_of
from synthshards.tasks.capo.capacity import per_parameter
from synthshards.tasks.capo.people import DAYS, MONTHS, YEARS, load_pools
from synthshards.tasks.task import Task

from ..logits import evaluating, logits_at
from .common import MetricOptions, Row, Score, Stratum, TaskEvaluation, mean_and_error, row_windows, tally

_DEFAULT = MetricOptions()
#: What p2 sums over, beside the pronoun; the employer fixes the work city.
VALUES = ("birth_date", "birth_city", "university", "major", "employer")
#: A person's pronoun → the words that tell it.
_TELLING = {
    "he": re.compile(r"\b(?:he|his|him)\b", re.IGNORECASE),
    "she": re.compile(r"\b(?:she|her)\b", re.IGNORECASE),
    "they": re.compile(r"\b(?:they|their|them)\b", re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True)
class CapoScore(Score):
    """`accuracy` and `count` are of questions, and NaN and 0 without any; so are the token accuracies.

    Attributes:
        bits: of knowledge about all of the task's people; NaN without biographies, as are the next five, and of a
            model whose logits are no numbers.
        bits_per_parameter: by `parameters`.
        p1, p2: nats of a full name, and of a person's values (see `synthshards.tasks.capo.capacity`).
        biographies: that were counted.
    """

    bits: float = nan
    bits_per_parameter: float = nan
    bits_standard_error: float = nan
    bits_per_parameter_standard_error: float = nan
    p1: float = nan
    p2: float = nan
    biographies: int = 0


def measure(model: nn.Module, task: Task, rows: Iterable[Row], options: MetricOptions = _DEFAULT) -> CapoScore:
    """The share of questions whose value the model gives as a whole, and the bits that it knows.

    Args:
        task: a Capo task; `num_people`, `they` and the seed of the rows decide which people are meant.
        rows: of `form=qa`, which are asked, of `form=bios`, which are read for bits, or both. The paper measures bits
            on training data; a biography counts that tells the employer before the work city (`order=1`, `couple`, or
            half of those in a free order) and that tells the pronoun.
        options: `tokenizer` is needed.

    Raises:
        UsageError: no rows, no tokenizer, bioD, biographies of which none counts, or a text longer than the context.
    """
    rows = list(rows)
    if not rows:
        raise UsageError("there are no rows, so there is nothing to measure; legal: at least one")
    if task.params.form == "biod":
        raise UsageError("capo: bits of form=biod are not measured; legal: form=bios or form=qa")
    questions = [row for row in rows if "question" in row]
    biographies = [row for row in rows if "question" not in row]
    figures = answered(model, questions, options) if questions else _UNASKED
    bits: dict[str, Any] = knowledge(model, task, biographies, options) if biographies else {}
    return CapoScore(**figures, **bits)


_UNASKED: dict[str, Any] = {
    **dict.fromkeys(("accuracy", "token_accuracy", "answer_token_accuracy"), nan),
    **dict.fromkeys(("standard_error", "token_standard_error", "answer_token_standard_error"), nan),
    "count": 0,
}


def answered(model: nn.Module, questions: Sequence[Row], options: MetricOptions) -> dict[str, Any]:
    """The fields of a `Score` of questions, teacher-forced: an answer is the value's tokens and the <EOS> behind it."""
    rows, spans = [], {}
    for row, (ids, offsets) in zip(questions, tokenized(questions, options), strict=True):
        at = 2 * SPANS.index(row["question"])
        start = token_spans(row["spans"][at : at + 2], offsets)[0]
        ids = np.array([*ids, ids[0]])
        spans[tuple(ids)] = (start, len(ids))
        rows.append({"input_ids": ids, "labels": np.where(np.arange(len(ids)), ids, -100)})
    batches = row_windows(rows, options.batch_tokens)

    def find(ids: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
        return np.array([spans[tuple(ids[segments == 1])]])

    return tally(model, batches, find).figures()


def knowledge(model: nn.Module, task: Task, biographies: Sequence[Row], options: MetricOptions) -> dict[str, Any]:
    """`bits` and what belongs to them.

    Raises:
        UsageError: no biography tells the employer before the work city, and the pronoun.
    """
    person, names, values, read = [], [], [], []
    for row, (ids, offsets) in zip(biographies, tokenized(biographies, options), strict=True):
        pronoun = telling_span(row)
        at = {name: row["spans"][2 * i : 2 * i + 2] for i, name in enumerate(SPANS)}
        if pronoun is None or at["employer"][0] > at["work_city"][0]:
            continue
        person.append(row["person_id"])
        names.append(_tokens_in([at["full_name"]], offsets))
        values.append(_tokens_in([*(at[name] for name in VALUES), pronoun], offsets))
        read.append(ids)
    if not read:
        raise UsageError(
            f"none of {len(biographies)} biographies tells the employer before the work city, and the pronoun; "
            "legal: order=1, couple=true, or permute=true"
        )
    nats = token_nats(model, read, options)
    if not all(np.isfinite(one).all() for one in nats):  # a model that has diverged: what it knows is not known
        return {"biographies": len(read)}
    p1 = np.array([n[at].sum() for n, at in zip(nats, names, strict=True)])
    p2 = np.array([n[at].sum() for n, at in zip(nats, values, strict=True)])
    people, they = task.params.num_people, task.params.they
    (first, _), (second, _), (_, error) = (_by_person(np.array(person), nats) for nats in (p1, p2, p1 + p2))
    total, spread = bits_of(people, first, second, they), people * error / log(2)
    size = parameters(model, options.used_tokens)
    return {
        "bits": total,
        "bits_standard_error": spread,
        "bits_per_parameter": per_parameter(total, size),
        "bits_per_parameter_standard_error": spread / size,
        "p1": first,
        "p2": second,
        "biographies": len(read),
    }


def _by_person(person: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error of rows' values; a person's rows are dependent."""
    _, which = np.unique(person, return_inverse=True)
    return mean_and_error(np.bincount(which, values), np.bincount(which))


def telling_span(row: Row) -> tuple[int, int] | None:
    """The characters of the first word of a biography that tells the pronoun; None where none does."""
    hidden = [tuple(row["spans"][i : i + 2]) for i in range(0, len(row["spans"]), 2)]
    for match in _TELLING[row["pronoun"]].finditer(row["text"]):
        if not any(start < match.end() and match.start() < stop for start, stop in hidden):
            return match.span()
    return None


def _tokens_in(spans: Iterable[Sequence[int]], offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """The tokens, in ascending order and each once, that touch any of some character spans."""
    tokens: set[int] = set()
    for span in spans:
        start, stop = token_spans(span, offsets)
        tokens |= set(range(start, stop))
    return np.array(sorted(tokens))


def tokenized(rows: Sequence[Row], options: MetricOptions) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
    """The token ids of each row's text behind an <EOS>, int64, and each token's characters (those of <EOS>: none).

    Raises:
        UsageError: no tokenizer, or one without an <EOS> or without offsets.
    """
    tokenizer = options.tokenizer
    if tokenizer is None:
        raise UsageError("capo: rows are text; legal: with MetricOptions(tokenizer=…)")
    end = tokenizer.eos_token_id
    if end is None:
        raise UsageError("capo: the tokenizer has no eos_token_id; legal: one that has")
    try:
        encoded: Mapping[str, Any] = tokenizer(
            [row["text"] for row in rows], add_special_tokens=False, return_offsets_mapping=True
        )
    except NotImplementedError:
        raise UsageError("capo: the tokenizer gives no offsets; legal: a fast one (PreTrainedTokenizerFast)") from None
    return [
        (np.array([end, *ids], np.int64), [(0, 0), *map(tuple, offsets)])
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def token_nats(model: nn.Module, texts: Sequence[np.ndarray], options: MetricOptions = _DEFAULT) -> list[np.ndarray]:
    """−log of the probability that the model gives each token of each text: float64 [length], 0 for the first."""
    out: list[np.ndarray] = [np.empty(0)] * len(texts)
    windows = row_windows([{"input_ids": ids, "labels": ids} for ids in texts], options.batch_tokens)
    with evaluating(model):
        for window in windows:
            ids, inside = window["input_ids"], window["segment_ids"] == 1
            chosen = torch.zeros_like(inside)
            chosen[:, :-1] = inside[:, 1:]
            logits = logits_at(model, window, chosen)
            target = ids[:, 1:][inside[:, 1:]].to(logits.device)
            nats = nn.functional.cross_entropy(logits.float(), target, reduction="none").double().cpu().numpy()
            each = np.split(nats, np.cumsum(chosen.sum(1).tolist())[:-1])
            for i, nats_of_text in zip(window["row"].tolist(), each, strict=True):
                out[i] = np.concatenate([[0.0], nats_of_text])
    return out


def parameters(model: nn.Module, used_tokens: int | None = None) -> int:
    """The model's parameters, shared ones once.

    Args:
        used_tokens: of the embeddings' rows (at the model's entrance, and at its end where that has its own) only so
            many count. None: all.
    """
    every = {id(p): p for p in model.parameters()}
    total = sum(p.numel() for p in every.values())
    if used_tokens is None:
        return total
    ends: dict[int, torch.Tensor] = {}
    for name in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(model, name, lambda: None)()
        if module is not None:
            ends |= {id(p): p for p in module.parameters()}  # a bias has a number for each token, too
    for p in ends.values():
        if not 1 <= used_tokens <= p.shape[0]:
            raise UsageError(f"used_tokens={used_tokens}; legal: 1..{p.shape[0]}, the model's vocabulary")
        total -= (p.shape[0] - used_tokens) * (p.numel() // p.shape[0])
    return total


def chance(task: Task, rows: Iterable[Row]) -> float | None:
    """The commonest value of what a question asks for, among all that people are made of; None without questions."""
    del task
    pools = load_pools()
    shares = {
        "birth_date": 1 / (len(MONTHS) * DAYS * YEARS),
        "birth_city": _commonest(pools.birth_cities),
        "university": _commonest(pools.universities),
        "major": _commonest(pools.majors),
        "employer": _commonest(pools.companies),
        "work_city": _commonest(pools.work_cities),
    }
    chances = [shares[row["question"]] for row in rows if "question" in row]
    return sum(chances) / len(chances) if chances else None


def _commonest(values: Sequence[str]) -> float:
    return max(Counter(values).values()) / len(values)


def strata(task: Task, hops: Sequence[int] | None, qa: bool) -> list[Stratum]:
    """Questions about people whom training does not ask about, and biographies: bits are of what was trained on."""
    del hops, qa
    p = task.params
    unseen = type(task)(num_people=p.num_people, they=p.they, form="qa", people="test")
    return [Stratum(unseen, "capo_qa"), Stratum(task, "capo_bios", trained=True)]


def questions(task: Task) -> Task:
    """Questions about the half of the people that training may ask."""
    p = task.params
    return type(task)(num_people=p.num_people, exposures=p.exposures, they=p.they, form="qa", people="train")


EVALUATION = TaskEvaluation(
    title="Capo",
    measure=measure,
    chance=chance,
    strata=strata,
    stratum_of=lambda task: Stratum(task, trained=task.params.form != "qa"),
    together=True,
    second_panel="bits",
    progress_columns=("bits", "bits_per_parameter"),
    mixable=False,
    questions=questions,
)
