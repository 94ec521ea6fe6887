"""One evaluation of one task of a run: rows of its score table, and the same figures under their names in logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from synthshards.loaders.dataset import Dataset
from synthshards.tasks.task import Row, Task

from .metrics import MetricOptions, evaluation_of


class EvalRows(Protocol):
    """Rows of one stratum, by what their figures are called."""

    @property
    def label(self) -> str: ...

    @property
    def hop(self) -> int | None: ...

    @property
    def task(self) -> Task: ...

    def rows(self) -> list[Row]: ...

    def dataset(self) -> Dataset: ...


def scores(
    model: nn.Module,
    name: str,
    task: Task,
    sets: Sequence[EvalRows],
    options: MetricOptions,
    packed_seq_len: int | None = None,
) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """The metric of a task on each set, or on all of them together.

    Args:
        model: over the task's own ids (see `TaskView`).
        name: what the figures of all sets together are called.
        task: the law of the rows that are trained on.
        packed_seq_len: tokens of the windows to measure in, where the task's metric knows them; None: rows.

    Yields:
        A row of the score table (with `hop` first, where the set has one), and figures such as ``eval/hop_8_accuracy``.
    """
    evaluation = evaluation_of(task.name)
    if evaluation.together:
        rows = [row for one in sets for row in one.rows()]
        columns = evaluation.measure(model, task, rows, options).columns()
        yield columns, _named(name, columns)
        return
    for one in sets:
        if packed_seq_len is not None and evaluation.measure_windows is not None:
            windows = one.dataset().batches(  # all of them, on whichever rank evaluates
                options.batch_rows, packing="paper", seq_len=packed_seq_len, rank=0, world_size=1
            )
            score = evaluation.measure_windows(model, one.task, windows, options)
        else:
            score = evaluation.measure(model, one.task, one.rows(), options)
        columns = score.columns()
        yield ({"hop": one.hop, **columns} if one.hop is not None else columns), _named(one.label, columns)


def progress_line(name: str, task: Task, row: Mapping[str, Any]) -> str:
    """A line for eyes of a row of the score table."""
    what = f"{name} hop {row['hop']}" if "hop" in row else name
    more = "".join(f"  {key} {row[key]:.4g}" for key in ("token_accuracy", *evaluation_of(task.name).progress_columns))
    return f"  {what}: accuracy {row['accuracy']:.4f} ± {row['standard_error']:.4f}{more}"


def _named(label: str, columns: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{label}_{name}": value for name, value in columns.items()}
