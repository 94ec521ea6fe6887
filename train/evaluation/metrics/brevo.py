"""Brevo: does the model list all ancestors in an order that is right? At n = N.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Brevo and its appendix: rows with n = N
(`qa=True`), greedy generation behind `<ans>`, and every valid order is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from torch import nn

from synthshards.tasks.task import Task

from ..generation import generate
from .common import MetricOptions, Row, Score, TaskEvaluation, row_windows, tally

_DEFAULT = MetricOptions()


def names(ids: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The names of the one answer of a row, between `<ans>` and `<eos>`: int64 [1, 2]."""
    del ids, segments
    masked = np.flatnonzero(labels != -100)
    return np.array([[masked[0] + 1, masked[-1]]])


def measure(model: nn.Module, task: Task, rows: Iterable[Row], options: MetricOptions = _DEFAULT) -> Score:
    """The share of rows that the model, left to itself behind `<ans>`, answers rightly, `<eos>` included.

    The token accuracies are teacher-forced: they count how often the next token is that of the row's own order, though
    others may be right, too.

    Args:
        task: a Brevo task; for the paper's figure with ``qa=True``.
        rows: its rows.

    Raises:
        UsageError: no rows, or a row longer than the model's context.
    """
    rows = list(rows)
    if not rows:
        return Score(**tally(model, [], names).figures())  # says that there is nothing to measure
    p = task.params
    prompts, limits = [], []
    for row in rows:
        ids, start = np.asarray(row["input_ids"]), int((np.asarray(row["labels"]) != -100).argmax()) + 1
        prompts.append(ids[:start])
        limits.append(len(ids) - start)  # all right answers are as long: none fits without <eos>
    completions = generate(
        model, prompts, max_new_tokens=limits, stop_ids=[p.eos_token_id], batch_size=options.batch_rows
    )
    # With <ans> before it: score_answer strips one, and a second one that the model says is wrong.
    hits = [bool(task.score_answer(row, [p.answer_token_id, *new])) for row, new in zip(rows, completions, strict=True)]
    forced = tally(model, row_windows(rows, options.batch_tokens), names)
    answers = np.stack([np.array(hits, np.float64), np.ones(len(rows))], 1)
    return Score(**replace(forced, answers=answers).figures())


EVALUATION = TaskEvaluation(title="Brevo", measure=measure)
