"""What the tasks' metrics share: `TaskEvaluation`, options, results with errors, and whole answers, teacher-forced.

Teacher-forced means that the model reads the right row, and each token of an answer must be its most likely next one.
For whole answers this equals greedy generation: as long as the model is right, both make it read the same tokens, and
at its first mistake both count the answer as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan, sqrt
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from synthshards.errors import UsageError
from synthshards.tasks.task import Task

from ..logits import evaluating, logits_at

Row: TypeAlias = Mapping[str, Any]
#: A batch of the loaders: `input_ids`, `labels` int64 [windows, length], and of packed ones `segment_ids` and
#: `position_ids`; other entries are not looked at.
Window: TypeAlias = Mapping[str, Tensor]
#: (input_ids, labels, segment_ids), each int64 [length], of one window → the answers in it, int64 [n, 2]: where the
#: tokens of each start and stop. Labels of them all are set.
FindAnswers: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """How to measure. Only `samples`, `temperature` and `seed` affect the result.

    Attributes:
        batch_tokens: tokens per batch; the logits of a batch are held in memory.
        batch_rows: rows to generate at a time.
        isolate: packed rows do not attend to one another (see `logits_at`).
        seed: for what is drawn from the model, where a metric draws.
        samples: how often it draws; None is the number of rows.
        temperature: of these draws.
        tokenizer: for rows of text: a fast tokenizer of transformers, or an object that behaves like one.
        used_tokens: number of tokens that these texts use; the embeddings of all others are not counted as parameters.
            None counts all.
    """

    batch_tokens: int = 8192
    batch_rows: int = 64
    isolate: bool = True
    seed: int = 0
    samples: int | None = None
    temperature: float = 1.0
    tokenizer: Any = None
    used_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "batch_rows", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}; legal: from 1")


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a model scored. Standard errors treat answers of one row as dependent, and rows as independent.

    Attributes:
        accuracy: the share of answers that are right as a whole, in 0..1.
        standard_error: of `accuracy`; NaN for a single row.
        count: number of answers.
        token_accuracy: the share of right tokens among all tokens in the loss, including markers such as ``<ans>``.
        token_standard_error: of `token_accuracy`.
        answer_token_accuracy: the share of right tokens among the answers' own, without markers.
        answer_token_standard_error: of `answer_token_accuracy`.
    """

    accuracy: float
    standard_error: float
    count: int
    token_accuracy: float
    token_standard_error: float
    answer_token_accuracy: float
    answer_token_standard_error: float

    def columns(self) -> dict[str, float]:
        """Name → figure, as columns of a CSV: `accuracy`, the task's own figures, then the rest."""
        own = [f.name for f in fields(self) if f.name not in Score.__dataclass_fields__]
        rest = [name for name in Score.__dataclass_fields__ if name != "accuracy"]
        return {name: getattr(self, name) for name in ("accuracy", *own, *rest)}


def mean_and_error(total: np.ndarray, count: np.ndarray) -> tuple[float, float]:
    """The mean of all values, and its standard error with independent rows of dependent values.

    Args:
        total, count: [rows]: the sum and the number of each row's values. Rows without values say nothing.

    Returns:
        NaN where there are no values, and for the error where there is but one row.
    """
    total, count = total[count > 0].astype(np.float64), count[count > 0].astype(np.float64)
    rows, values = len(count), count.sum()
    if not rows:
        return nan, nan
    mean = float(total.sum() / values)
    if rows == 1:
        return mean, nan
    off = total - mean * count
    return mean, sqrt(float(off @ off) * rows / (rows - 1)) / float(values)


@dataclass(frozen=True, eq=False)
class Tally:
    """Right ones and how many there are, float64 [rows, 2], of whole answers, masked tokens, and answers' tokens."""

    answers: np.ndarray
    tokens: np.ndarray
    answer_tokens: np.ndarray

    def figures(self) -> dict[str, Any]:
        """The fields of a `Score`.

        Raises:
            UsageError: there is no whole answer.
        """
        count = int(self.answers[:, 1].sum())
        if not count:
            raise UsageError("the rows hold no whole answer, so there is nothing to measure; legal: at least one")
        figures: dict[str, Any] = {"count": count}
        for prefix, name in (("", "answers"), ("token_", "tokens"), ("answer_token_", "answer_tokens")):
            mean, error = mean_and_error(*getattr(self, name).T)
            figures |= {f"{prefix}accuracy": mean, f"{prefix}standard_error": error}
        return figures


@dataclass(frozen=True)
class Stratum:
    """Rows of one kind that a task is evaluated on.

    Attributes:
        task: generates them.
        label: distinguishes them from the task's other strata; "" if there are none.
        hop: the number of steps of each answer, a column of its own; None for tasks without hops.
        trained: whether these are training rows; otherwise they are of the split "eval".
    """

    task: Task
    label: str = ""
    hop: int | None = None
    trained: bool = False


def with_qa(task: Task, qa: bool) -> Task:
    """The task with `qa` (the hardest size alone, n = N or ℓ = L) on or off, where it has that."""
    params = task.params.canonical()
    return type(task)({**params, "qa": qa}) if "qa" in params else task


def _one_stratum(task: Task, hops: Sequence[int] | None, qa: bool) -> list[Stratum]:
    del hops
    return [Stratum(with_qa(task, qa))]


@dataclass(frozen=True, kw_only=True)
class TaskEvaluation:
    """How a task is evaluated during training: everything that the training scripts know about a particular task.

    Attributes:
        title: of its picture.
        measure: (model, task, rows, options) → the score of a stratum, or of all of them together (see `together`).
        measure_windows: the same for packed windows instead of rows, if the paper evaluates in windows.
        chance: (task, rows) → the accuracy on these rows of a guesser who knows the law, but of each row only what the
            guess is about (its nodes, its length, its question); None if not known.
        strata: (task, `eval.hops`, `eval.qa`) → what to evaluate on.
        stratum_of: the stratum of stored rows; raises `UsageError` if they belong to several.
        together: whether there is one score for all strata.
        second_panel: the column that the picture shows below the accuracy.
        progress_columns: columns that the progress line shows beside accuracies.
        file_suffix: part of file names after the task's name.
        mixable: whether the task can be part of a mixture.
        questions: for text tasks, (task) → the task of its questions, which `dataset.qa_share` mixes in.
    """

    title: str
    measure: Callable[[nn.Module, Task, Iterable[Row], MetricOptions], Score]
    measure_windows: Callable[[nn.Module, Task, Iterable[Window], MetricOptions], Score] | None = None
    chance: Callable[[Task, Iterable[Row]], float | None] = lambda task, rows: None
    strata: Callable[[Task, Sequence[int] | None, bool], list[Stratum]] = _one_stratum
    stratum_of: Callable[[Task], Stratum] = Stratum
    together: bool = False
    second_panel: str | None = None
    progress_columns: tuple[str, ...] = ()
    file_suffix: str = ""
    mixable: bool = True
    questions: Callable[[Task], Task] | None = None


def eval_rows(task: Task, seed: int, count: int, *, split: str = "eval", start: int = 0) -> list[dict[str, Any]]:
    """Rows start..start+count-1 of (seed, split) of a task."""
    return list(task.batch(seed, split, start, count).rows())


def row_windows(rows: Iterable[Row], batch_tokens: int) -> Iterator[dict[str, Tensor]]:
    """Token rows as windows of one row each, padded behind it: at most `batch_tokens` at a time, the longest first.

    Yields:
        `input_ids`, `labels` (−100 on padding) and `segment_ids` (1, and 0 on padding), int64 [rows, length]; `row`,
        int64 [rows]: which of the rows given each is.
    """
    rows = list(rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    at = 0
    while at < len(order):
        length = len(rows[order[at]]["input_ids"])
        batch = order[at : at + max(1, batch_tokens // max(1, length))]
        at += len(batch)
        window = {
            "row": torch.tensor(batch),
            "input_ids": torch.zeros(len(batch), length, dtype=torch.int64),
            "labels": torch.full((len(batch), length), -100, dtype=torch.int64),
            "segment_ids": torch.zeros(len(batch), length, dtype=torch.int64),
        }
        for i, number in enumerate(batch):
            row = rows[number]
            size = len(row["input_ids"])
            window["input_ids"][i, :size] = torch.as_tensor(row["input_ids"])
            window["labels"][i, :size] = torch.as_tensor(row["labels"])
            window["segment_ids"][i, :size] = 1
        yield window


def split_windows(windows: Iterable[Window], batch_tokens: int) -> Iterator[dict[str, Tensor]]:
    """The same windows in smaller batches, of at most `batch_tokens` (but of at least one window)."""
    names = ("input_ids", "labels", "segment_ids", "position_ids")
    for window in windows:
        tensors = {name: window[name] for name in names if name in window}
        if missing := [name for name in names if name not in tensors]:
            raise UsageError(f"a packed window has no {missing[0]}; legal: {', '.join(names)}")
        count, length = tensors["input_ids"].shape
        step = max(1, batch_tokens // length)
        for at in range(0, count, step):
            yield {name: values[at : at + step] for name, values in tensors.items()}


def tally(model: nn.Module, windows: Iterable[Window], find: FindAnswers, *, isolate: bool = True) -> Tally:
    """How much of some windows the model predicts, each a batch as `row_windows` or `split_windows` makes it.

    A window's first token is never predicted. Rows are a window's segments; a row cut in two is two.

    Raises:
        UsageError: a window is longer than the model's context.
    """
    counts: list[np.ndarray] = []
    with evaluating(model):
        for window in windows:
            ids, labels, segments = (window[name].cpu().numpy() for name in ("input_ids", "labels", "segment_ids"))
            chosen = np.zeros(ids.shape, bool)
            chosen[:, :-1] = labels[:, 1:] != -100
            best, predicted = logits_at(model, window, torch.from_numpy(chosen), isolate=isolate).max(-1)
            predicted[~best.isfinite()] = -1  # a model that has diverged predicts nothing, not the id 0
            right = np.zeros(ids.shape, bool)
            right[:, 1:][chosen[:, :-1]] = predicted.cpu().numpy() == ids[:, 1:][chosen[:, :-1]]
            for i in range(len(ids)):
                counts.append(_count(right[i], labels[i], segments[i], find(ids[i], labels[i], segments[i])))
    all_rows = np.concatenate(counts) if counts else np.zeros((0, 6))
    return Tally(all_rows[:, 0:2], all_rows[:, 2:4], all_rows[:, 4:6])


def _count(right: np.ndarray, labels: np.ndarray, segments: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The six columns of a `Tally`, float64 [segments of this window, 6]."""
    masked = labels != -100
    masked[0] = False
    sums = np.concatenate([[0], np.cumsum(right)])
    start, stop = answers[:, 0], answers[:, 1]
    assert all(masked[a:b].all() for a, b in answers), "an answer that is not masked"
    hits, sizes = sums[stop] - sums[start], stop - start
    counts = np.zeros((int(segments.max(initial=0)) + 1, 6))
    for column, where, values in (
        (0, segments[start], hits == sizes), (1, segments[start], 1), (2, segments[masked], right[masked]),
        (3, segments[masked], 1), (4, segments[start], hits), (5, segments[start], sizes),
    ):  # fmt: skip
        np.add.at(counts[:, column], where, values)
    return counts


def score_rows(model: nn.Module, rows: Iterable[Row], find: FindAnswers, options: MetricOptions) -> Score:
    """The score of teacher-forced answers in rows, each by itself."""
    return Score(**tally(model, row_windows(rows, options.batch_tokens), find).figures())


def score_windows(model: nn.Module, windows: Iterable[Window], find: FindAnswers, options: MetricOptions) -> Score:
    """The score of teacher-forced answers in packed windows."""
    batches = split_windows(windows, options.batch_tokens)
    return Score(**tally(model, batches, find, isolate=options.isolate).figures())
