"""Lano: does the model generate sentences of the grammar, with the grammar's own probabilities?

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Lano, after Part 1 (arXiv 2305.13673):
sentences generated from `<bos>` at temperature 1, and the KL divergence from the exact next-token law. Training
separates sentences by `<bos>`, so a sentence ends where the model says the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from synthshards.errors import UsageError
from synthshards.tasks.lano.grammar import smoothed_kl
from synthshards.tasks.lano.task import LanoTask
from synthshards.tasks.task import Task

from ..generation import generate
from ..logits import context_of, evaluating, logits_at
from .common import MetricOptions, Row, Score, TaskEvaluation, mean_and_error, row_windows, tally

_DEFAULT = MetricOptions()


@dataclass(frozen=True, kw_only=True)
class LanoScore(Score):
    """`accuracy` is the share of drawn sentences that parse, `count` their number.

    Attributes:
        kl: nats: the mean over sentences of the mean over their length + 1 positions of Σ p·log(p/q), where p is the
            exact law of what follows and q the model's, both over the terminals and the end, smoothed by 1e-5.
        kl_standard_error: over sentences.
    """

    kl: float
    kl_standard_error: float


def sentences(task: LanoTask, rows: Iterable[Row]) -> list[np.ndarray]:
    """The terminals of rows, with or without `<bos>` before them: int64 [length] each."""
    bos = task.params.bos_token_id
    all_ids = [np.asarray(row["input_ids"], np.int64) for row in rows]
    return [ids[1:] if len(ids) and ids[0] == bos else ids for ids in all_ids]


def measure(model: nn.Module, task: Task, rows: Iterable[Row], options: MetricOptions = _DEFAULT) -> LanoScore:
    """The share of drawn sentences that parse, and the KL on the sentences of `rows`.

    The token accuracies are teacher-forced on the same sentences, the end included or not.

    Args:
        task: a Lano task, with or without `<bos>` in its rows.
        rows: its rows, at least one.
        options: `samples` sentences are drawn, by the generator of `seed`; one that does not end within the longest
            sentence of the grammar, or within the model's context, does not parse.

    Raises:
        UsageError: no rows, or a sentence longer than the model's context.
    """
    assert isinstance(task, LanoTask), "a Lano task"
    texts = sentences(task, rows)
    if not texts:
        raise UsageError("there are no rows, so there is nothing to measure; legal: at least one")
    bos = task.params.bos_token_id
    framed = [np.array([bos, *ids, bos]) for ids in texts]
    forced = [{"input_ids": ids, "labels": np.where(np.arange(len(ids)), ids, -100)} for ids in framed]
    windows = row_windows(forced, options.batch_tokens)
    figures = tally(model, windows, lambda ids, labels, segments: _terminals(segments)).figures()
    parsed = np.array([bool(task.score_answer({}, new)) for new in draw(model, task, len(texts), options)])
    figures["accuracy"], figures["standard_error"] = mean_and_error(parsed, np.ones(len(parsed)))
    figures["count"] = len(parsed)
    each = divergences(model, task, texts, options)
    kl, error = mean_and_error(each, np.ones(len(each)))
    return LanoScore(**figures, kl=kl, kl_standard_error=error)


def _terminals(segments: np.ndarray) -> np.ndarray:
    """Between the two `<bos>` of a window's one sentence."""
    return np.array([[1, int(segments.sum()) - 1]])


def draw(model: nn.Module, task: LanoTask, count: int, options: MetricOptions = _DEFAULT) -> list[list[int]]:
    """`options.samples`, or else `count`, drawn sentences, each with the `<bos>` behind it.

    Those without, which did not end in time, are given the reserved `<mask>` in its place: they do not parse.
    """
    bos, longest = task.params.bos_token_id, task.grammar.lengths[1]
    context = context_of(model)
    limit = longest + 1 if context is None else min(longest + 1, context)
    generator = torch.Generator().manual_seed(options.seed)
    prompts = [np.array([bos])] * (options.samples or count)
    drawn = generate(
        model, prompts, max_new_tokens=limit, stop_ids=[bos], temperature=options.temperature, generator=generator,
        batch_size=options.batch_rows,
    )  # fmt: skip
    unfinished = task.grammar.terminals + 2
    return [[*new.tolist(), *([] if new[-1] == bos else [unfinished])] for new in drawn]


def divergences(
    model: nn.Module, task: LanoTask, texts: list[np.ndarray], options: MetricOptions = _DEFAULT
) -> np.ndarray:
    """The KL of each sentence, in nats, NaN where the model's logits are no numbers: float64 [sentences].

    Args:
        texts: sentences of the grammar: terminals, int64 [length] each.
    """
    bos, V = task.params.bos_token_id, task.grammar.terminals
    columns = torch.tensor([*range(1, V + 1), bos])  # the end is the next sentence's <bos>
    rows: list[dict[str, Any]] = [
        {"input_ids": np.array([bos, *ids]), "labels": np.zeros(len(ids) + 1, np.int64)} for ids in texts
    ]
    out = np.empty(len(texts))
    with evaluating(model):
        for window in row_windows(rows, options.batch_tokens):
            chosen = window["segment_ids"] == 1
            logits = logits_at(model, window, chosen)
            shares = logits[:, columns.to(logits.device)].double().softmax(-1).cpu().numpy()
            lengths = chosen.sum(1).tolist()
            laws = np.split(shares, np.cumsum(lengths)[:-1])
            for i, length, q in zip(window["row"].tolist(), lengths, laws, strict=True):
                assert len(texts[i]) + 1 == length, "the law behind each prefix"
                law = task.grammar.next_token_distributions(texts[i])
                out[i] = smoothed_kl(law, q) if np.isfinite(q).all() else np.nan
    return out


EVALUATION = TaskEvaluation(title="Lano", measure=measure, second_panel="kl", progress_columns=("kl",))
