"""What a run writes of its evaluations: a CSV and its picture, whole at every moment."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from synthshards.storage.local import replacing

from .plot import Run, lines_of, picture, save

#: What a picture shows below the accuracy.
_BELOW = {"lano": "kl", "capo": "bits"}
_TITLES = {"depo": "Depo", "brevo": "Brevo", "mano": "Mano", "lano": "Lano", "capo": "Capo"}


class Table:
    """The evaluations of one task.

    Args:
        task: decides the first columns and what the picture shows.
        csv_path, plot_path: where both are written; an SVG stands beside a PNG.
        rows: those of a run that goes on.
    """

    def __init__(self, task: str, csv_path: Path, plot_path: Path, rows: Sequence[dict[str, Any]] = ()) -> None:
        self.task, self.csv_path, self.plot_path, self.rows = task, csv_path, plot_path, list(rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add an evaluation: `step`, `examples_seen`, for Depo `hop`, `accuracy`, then what the metric has."""
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
        run = Run.read(self.csv_path)
        metrics = ["accuracy"]
        below = _BELOW.get(self.task)
        for name in [below] if below is not None else []:
            if any(not isnan(row[name]) for row in run.rows):
                metrics.append(name)
        figure = picture(lines_of({"": [run]}, "examples_seen", metrics, "none"), "examples_seen",
                         title=_TITLES.get(self.task, self.task))  # fmt: skip
        for path in {self.plot_path, self.plot_path.with_suffix(".svg")}:
            save(figure, path)


def _number(value: Any) -> str:
    """A number as the shortest text that reads back as the same one; nothing for NaN."""
    if isinstance(value, float):
        return "" if isnan(value) else repr(value)
    return str(value)
