"""Depo: is the word after `<ans>` the right one, as a whole? At n = N and a fixed number of steps.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Depo and its appendix: rows with n = N
(`qa=True`) that all ask for k steps (`fixed_k=k`), in windows of 2,048 tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from torch import nn

from synthshards.errors import UsageError
from synthshards.tasks.depo import DepoParams
from synthshards.tasks.task import Task

from .common import MetricOptions, Row, Score, Stratum, TaskEvaluation, Window, score_rows, score_windows

_DEFAULT = MetricOptions()


def answers(p: DepoParams, ids: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The whole words behind the `<ans>` of one window: int64 [n, 2], without `<ans>`.

    A word that the window's end cuts off, or whose `<ans>` lies in the window before, is none.
    """
    start = np.flatnonzero(labels == p.answer_token_id) + 1
    ends = np.flatnonzero(ids > p.mini_vocab)  # of a word's tokens the last alone is so large
    at = np.searchsorted(ends, start)
    start, at = start[at < len(ends)], at[at < len(ends)]
    whole = segments[ends[at]] == segments[start - 1]
    return np.stack([start[whole], ends[at][whole] + 1], 1)


def measure(model: nn.Module, task: Task, rows: Iterable[Row], options: MetricOptions = _DEFAULT) -> Score:
    """The share of queries that the model answers with the whole right word, teacher-forced.

    Args:
        model: over the task's ids.
        task: a Depo task; for the paper's figures with ``qa=True, fixed_k=k``.
        rows: its rows, each by itself at positions from 0.
        options: see `MetricOptions`.

    Raises:
        UsageError: no rows, or a row longer than the model's context.
    """
    return score_rows(model, rows, partial(answers, task.params), options)


def measure_windows(
    model: nn.Module, task: Task, windows: Iterable[Window], options: MetricOptions = _DEFAULT
) -> Score:
    """The same in packed windows; every answer counts that a window holds as a whole.

    Pack as the paper does (`packing="paper"`): of a row that "concat" carries over, the second window holds answers
    without the edges, and they count, too.

    Args:
        windows: batches of a loader: `input_ids`, `labels`, `segment_ids`, `position_ids`, int64 [windows, length].

    Raises:
        UsageError: no whole answer, or windows longer than the model's context.
    """
    return score_windows(model, windows, partial(answers, task.params), options)


def chance(task: Task, rows: Iterable[Row]) -> float | None:
    """Any of the other nodes is as likely as another, and k steps on a cycle of n nodes lead back where n divides k."""
    del task
    shares = [1.0 if k % row["n"] == 0 else 1 / (row["n"] - 1) for row in rows for k in row["ks"]]
    return sum(shares) / len(shares) if shares else None


def hops_of(task: Task, hops: Sequence[int] | None) -> list[int]:
    """The hops to evaluate: those asked for, or the powers of two up to K.

    Raises:
        UsageError: a hop above K, or none.
    """
    K = task.params.K
    if hops is None:
        return [1 << i for i in range(K.bit_length()) if 1 << i <= K]
    if not hops:
        raise UsageError("eval.hops=[]; legal: at least one hop, or null")
    for hop in hops:
        if hop > K:
            raise UsageError(f"eval.hops: {hop} is above dataset.K={K}; legal: 1..{K}")
    return list(dict.fromkeys(hops))


def strata(task: Task, hops: Sequence[int] | None, qa: bool) -> list[Stratum]:
    """One for each hop, which every query of its rows asks for."""
    params = task.params.canonical()
    return [stratum_of(type(task)({**params, "qa": qa, "fixed_k": hop})) for hop in hops_of(task, hops)]


def stratum_of(task: Task) -> Stratum:
    """The stratum of rows that all ask for one hop.

    Raises:
        UsageError: they ask for several.
    """
    hop = task.params.fixed_k
    if hop is None:
        raise UsageError("its rows ask for different hops; legal: rows of one, fixed_k=HOP")
    return Stratum(task, f"hop_{hop}", hop)


EVALUATION = TaskEvaluation(
    title="Depo",
    measure=measure,
    measure_windows=measure_windows,
    chance=chance,
    strata=strata,
    stratum_of=stratum_of,
    file_suffix="_hop",
)
