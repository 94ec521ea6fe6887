"""Mano: is the value after `<ans_ℓ>` the right one? At ℓ = L.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Mano and its appendix: rows with ℓ = L
(`qa=True`), in windows of 1,024 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
from torch import nn

from synthshards.tasks.mano.shares import commonest_share
from synthshards.tasks.mano.task import ManoParams
from synthshards.tasks.task import Task

from .common import MetricOptions, Row, Score, TaskEvaluation, Window, score_rows, score_windows

_DEFAULT = MetricOptions()


def answers(p: ManoParams, ids: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The values behind `<ans_ℓ>` or its synonym in one window: int64 [n, 2]."""
    del labels  # all of Mano is masked
    marks = [10 * length + 4 + synonym for length in range(1, p.L + 1) for synonym in range(1 + p.knowledge_augment)]
    at = np.flatnonzero(np.isin(ids[:-1], marks) & (segments[:-1] == segments[1:])) + 1
    return np.stack([at, at + 1], 1)


def measure(model: nn.Module, task: Task, rows: Iterable[Row], options: MetricOptions = _DEFAULT) -> Score:
    """The share of rows whose value the model predicts.

    `token_accuracy` is of all tokens but the first, expressions included, which nobody can predict.

    Args:
        task: a Mano task; for the paper's figure with ``qa=True``.
        rows: its rows, each by itself at positions from 0.

    Raises:
        UsageError: no rows, or a row longer than the model's context.
    """
    return score_rows(model, rows, partial(answers, task.params), options)


def measure_windows(
    model: nn.Module, task: Task, windows: Iterable[Window], options: MetricOptions = _DEFAULT
) -> Score:
    """The same in packed windows; every value counts that stands in a window with its mark.

    Args:
        windows: batches of a loader: `input_ids`, `labels`, `segment_ids`, `position_ids`, int64 [windows, length].

    Raises:
        UsageError: no value, or windows longer than the model's context.
    """
    return score_windows(model, windows, partial(answers, task.params), options)


def chance(task: Task, rows: Iterable[Row]) -> float | None:
    """The value that expressions of a row's length most often have: 0, where multiplication is among the operators."""
    p = task.params
    shares = [commonest_share(p.ttype, p.value_mod, row["length"]) for row in rows]
    return float(sum(shares) / len(shares)) if shares else None


EVALUATION = TaskEvaluation(title="Mano", measure=measure, measure_windows=measure_windows, chance=chance)
