"""The evaluations of a run: on which rows, when, and what is written and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .config.options import EvalOptions
from .data.eval_sets import eval_sets, metric_options, stored_sets, write_manifests
from .data.train_tasks import TrainTask
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
        number = len({row["step"] for row in self.tables[0].rows})
        for train_task, sets, table in zip(self.train_tasks, self.sets, self.tables, strict=True):
            if self.fresh:
                sets = [one.at(number) for one in sets]
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

    def forget_half(self, step: int) -> None:
        """Where Ctrl-C came in the evaluation behind a step: it is done again from its beginning."""
        steps = [{row["step"] for row in table.rows} for table in self.tables]
        if any(step in done for done in steps) and not all(step in done for done in steps):
            for table in self.tables:
                table.rows = [row for row in table.rows if row["step"] != step]

    def state(self) -> list[list[dict[str, Any]]]:
        """The rows of every table, for a checkpoint."""
        return [table.rows for table in self.tables]

    def restore(self, state: Sequence[list[dict[str, Any]]]) -> None:
        """Go on from the rows that `state` gave."""
        for table, rows in zip(self.tables, state, strict=True):
            table.rows = rows


def derived_seed(seed: int, number: int) -> int:
    """A seed of its own for each number: never seed + number, under which neighbouring runs would share streams."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "little")
