"""The evaluations of a run as a CSV and a picture, both always complete."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from synthshards.errors import UsageError
from synthshards.storage.local import replacing

from ..data.train_tasks import TrainTask
from ..evaluation.metrics import TaskEvaluation
from .plot import Curve, lines_of, name_of_x, picture, save


class ScoreTable:
    """The evaluations of one task.

    Args:
        evaluation: decides what the picture shows.
        csv_path, plot_path: where both are written; an SVG stands beside a PNG.
    """

    def __init__(self, evaluation: TaskEvaluation, csv_path: Path, plot_path: Path) -> None:
        self.evaluation, self.csv_path, self.plot_path = evaluation, csv_path, plot_path
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Add an evaluation: `step`, `examples_seen`, in some `hop`, `accuracy`, what the metric has, then counts."""
        self.rows.append(row)

    def write(self) -> None:
        """Write the CSV, under another name first. Before the first evaluation there is none: an older one goes."""
        if not self.rows:
            self.csv_path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: _number(value) for name, value in row.items()})
        with replacing(self.csv_path) as file:
            file.write(text.getvalue().encode())

    def draw(self) -> None:
        """Draw the picture of the CSV, as PNG (or what `plot_path` says) and SVG."""
        curve = Curve.read(self.csv_path)
        names = ("accuracy", self.evaluation.second_panel)
        metrics = [name for name in names if name and any(isfinite(row[name]) for row in curve.rows)]
        if not metrics:  # the model has diverged, or is asked nothing
            return
        lines = lines_of({"": [curve]}, "examples_seen", metrics, "none")
        x_name = name_of_x("examples_seen", [curve])
        figure = picture(lines, "examples_seen", x_name=x_name, title=self.evaluation.title)
        for path in dict.fromkeys((self.plot_path, self.plot_path.with_suffix(".svg"))):
            save(figure, path)


def _number(value: Any) -> str:
    """A number as the shortest text that reads back as the same one; nothing for NaN."""
    if isinstance(value, float):
        return "" if isnan(value) else repr(value)
    return str(value)


def score_tables(
    train_tasks: Sequence[TrainTask], folder: Path, metrics_file: str | None, plot_file: str | None
) -> list[ScoreTable]:
    """A CSV and a picture for each train task: ``<task>_metrics.csv`` and ``<task>_curve.png``.

    Raises:
        UsageError: names of one file for several train tasks, or of a kind that is not written.
    """
    for key, value, kinds in (
        ("metrics_file", metrics_file, (".csv",)),
        ("plot_file", plot_file, (".png", ".svg", ".pdf")),
    ):
        if value is not None and len(train_tasks) > 1:
            raise UsageError(f"{key}={value}: a mixture has one for each task; legal: null")
        if value is not None and Path(value).suffix not in kinds:
            raise UsageError(f"{key}={value}; legal: a name that ends in {' or '.join(kinds)}")
    tables = []
    for one in train_tasks:
        stem = one.name if one.mixed else one.name + one.evaluation.file_suffix
        csv_path = folder / (metrics_file or f"{stem}_metrics.csv")
        tables.append(ScoreTable(one.evaluation, csv_path, folder / (plot_file or f"{stem}_curve.png")))
    return tables
