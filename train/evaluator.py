"""The evaluations of a run: on which rows, when, and what is written and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from .config.options import EvalOptions
from .data.eval_sets import EvalSet, eval_sets, metric_options, stored_sets, write_manifests
from .data.train_tasks import TrainTask
from .data.trained_rows import TrainedRows
from .evaluation.evaluate import progress_line, scores
from .report.logs import Log
from .report.table import ScoreTable


class Evaluator:
    """What a run is evaluated on, and its score tables.

    Args:
        train_tasks: the tasks of the run.
        tables: the score table of each.
        options: the group `eval`.
        seed: of the run; what a model is asked to write is drawn under a seed derived from it and the step.

    Raises:
        UsageError: options that a task refuses, rows that are trained on, or no such manifests.
    """

    def __init__(
        self, train_tasks: Sequence[TrainTask], tables: Sequence[ScoreTable], options: EvalOptions, seed: int
    ) -> None:
        self.train_tasks, self.tables, self.options, self.seed = train_tasks, tables, options, seed
        folder = None if options.manifests is None else Path(options.manifests)
        self.sets = [eval_sets(one, options) if folder is None else stored_sets(folder, one) for one in train_tasks]
        self.fresh = options.resample_each_eval and folder is None
        self._trained = [TrainedRows(one) for one in train_tasks]
        #: Of the last evaluation, for ``run.json``: how many rows of each eval set had been trained on (None before the
        #: first), and with how many training rows of each task they were compared.
        self.trained_on: dict[str, dict[str, int | None]] = {
            "eval_rows_trained_on": {one.label: None for sets in self.sets for one in sets},
            "training_rows_compared": {one.name: None for one in train_tasks},
        }

    @property
    def in_windows(self) -> bool:
        """Whether any task is measured in packed windows."""
        measured = any(one.evaluation.measure_windows is not None for one in self.train_tasks)
        return self.options.packed_seq_len is not None and measured

    def write_manifests(self, folder: Path) -> None:
        """Write the manifests of rows that stay the same, unless they come from manifests themselves."""
        if not self.fresh and self.options.manifests is None:
            write_manifests([one for sets in self.sets for one in sets], folder)

    def done(self, step: int) -> bool:
        """Whether the evaluation behind a step is the last one that has been done."""
        return any(row["step"] == step for row in self.tables[0].rows[-1:])

    def evaluate(
        self, model: nn.Module, step: int, examples_seen: int, counts: Mapping[str, int], logs: Sequence[Log]
    ) -> list[str]:
        """Evaluate every task, write tables and pictures, then log; what to tell of it.

        Args:
            counts: the last columns of every table.
        """
        lines: list[str] = []
        figures: dict[str, float] = {}
        for train_task, sets, table in zip(self.train_tasks, self._sets_now(), self.tables, strict=True):
            options = metric_options(self.options, train_task, derived_seed(self.seed, step))
            view, name, task = train_task.view(model), train_task.name, train_task.task
            for row, values in list(scores(view, name, task, sets, options, self.options.packed_seq_len)):
                table.add({"step": step, "examples_seen": examples_seen, **row, **counts})
                figures |= values
                lines.append(progress_line(name, task, row))
        for table in self.tables:
            table.write()
            table.draw()
        for log in logs:
            log.numbers(step, figures)
            for table in self.tables:
                log.picture(step, table.plot_path)
        return lines

    def _sets_now(self) -> list[list[EvalSet]]:
        """The rows of the next evaluation."""
        number = len({row["step"] for row in self.tables[0].rows})
        return [[one.at(number) for one in sets] if self.fresh else sets for sets in self.sets]

    def count_trained(self, given: Sequence[np.ndarray]) -> list[str]:
        """Count the rows of the next evaluation that have been trained on; what to tell of it.

        Args:
            given: for each dataset of the run which rows have been: see `Stream.rows_given`.
        """
        lines, parts = [], iter(given)
        for train_task, trained, sets in zip(self.train_tasks, self._trained, self._sets_now(), strict=True):
            trained.update(list(islice(parts, len(train_task.parts))))
            self.trained_on["training_rows_compared"][train_task.name] = trained.compared
            for one in sets:
                count = self.trained_on["eval_rows_trained_on"][one.label] = trained.count(one)
                if count:
                    lines.append(f"  {one.label}: {count} of {one.count} rows have been trained on")
        return lines

    def forget_half(self, step: int) -> None:
        """Where Ctrl-C came in the evaluation behind a step: it is done again from its beginning."""
        steps = [{row["step"] for row in table.rows} for table in self.tables]
        if any(step in done for done in steps) and not all(step in done for done in steps):
            for table in self.tables:
                table.rows = [row for row in table.rows if row["step"] != step]

    def state(self) -> dict[str, Any]:
        """The rows of every table, and what was counted, for a checkpoint."""
        tables = [table.rows for table in self.tables]
        return {"tables": tables, "trained_on": self.trained_on}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        for table, rows in zip(self.tables, state["tables"], strict=True):
            table.rows = rows
        self.trained_on = state["trained_on"]


def derived_seed(seed: int, number: int) -> int:
    """A seed of its own for each number: never seed + number, under which neighbouring runs would share streams."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little")
