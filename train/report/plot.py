"""Learning curves: one picture of several runs, with the mean and the spread over those that differ in their seed.

A curve is the CSV of a run, as `synthshards curve` writes it: `step`, `examples_seen`, in some `hop`, then figures.
Lines are told apart by colour and by marker or dashes, and the colours by those who are colour-blind, too (Okabe and
Ito's).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synthshards.errors import DataError, UsageError, cut, nearest, printable
from synthshards.storage.local import replacing

#: x → y of one line.
Points = dict[float, float]
Spread = Literal["range", "sd", "none"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
#: What pictures can be, by the suffix of their file, and what makes a picture's bytes the same every time.
FORMATS: dict[str, dict[str, Any]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
#: Beyond it matplotlib's own sums overflow.
_LARGEST = 1e100
NAMES = {"examples_seen": "training examples seen", "step": "training steps", "kl": "KL (nats)"}


@dataclass(frozen=True)
class Curve:
    """The rows of one run's CSV.

    Attributes:
        path: where it was read.
        columns: its names, in order.
        rows: name → number, NaN where there is none.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, float], ...]

    @staticmethod
    def read(path: Path) -> Curve:
        """The curve in a CSV.

        Raises:
            UsageError: there is no such file.
            DataError: it holds no rows, or something else than numbers.
        """
        if not path.is_file():
            raise UsageError(f"{path}: no such file; legal: a CSV that synthshards curve has written")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                lines = list(csv.reader(file, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: not a CSV ({error}); legal: one that synthshards curve has written") from None
        if len(lines) < 2:
            raise DataError(f"{path}: no rows; legal: a line of names, then at least one of numbers")
        columns, rows = tuple(lines[0]), []
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            raise DataError(f"{path}: two columns are called {cut(twice)!r}; legal: names that differ")
        for number, line in enumerate(lines[1:], 2):
            try:
                rows.append({name: float(text or "nan") for name, text in zip(columns, line, strict=True)})
            except ValueError:
                raise DataError(f"{path}:{number}: {','.join(line)[:80]!r}; legal: {len(columns)} numbers") from None
        return Curve(path, columns, tuple(rows))

    def points(self, x: str, y: str, hop: float | None) -> Points:
        """The line of one figure (at one hop), without what is no number, or too large for an axis."""
        rows = (row for row in self.rows if hop is None or row["hop"] == hop)
        return {row[x]: row[y] for row in rows if abs(row[x]) < _LARGEST and abs(row[y]) < _LARGEST}

    def check(self, name: str) -> None:
        """Raise `UsageError` unless there is a column of that name."""
        if name not in self.columns:
            raise UsageError(
                f"{self.path}: no column {name!r}{nearest(name, self.columns)}; legal: {', '.join(self.columns)}"
            )


@dataclass(frozen=True)
class Line:
    """One line of the picture, over the x that all of its runs have: the mean, and how far the spread reaches."""

    group: str
    metric: str
    hop: float | None
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def lines_of(groups: Mapping[str, Sequence[Curve]], x: str, metrics: Sequence[str], spread: Spread) -> list[Line]:
    """Every line of a picture, group by group, metric by metric, hop by hop.

    Args:
        groups: name → the curves of runs that differ in their seed.
        x: the column that lines run over.
        metrics: the columns to show.
        spread: from the least run to the greatest, one standard deviation (of runs, n − 1) each way, or none.

    Raises:
        UsageError: a run lacks a column, or the runs of a group share no x.
    """
    lines = []
    for group, curves in groups.items():
        for metric in metrics:
            for curve in curves:
                curve.check(x)
                curve.check(metric)
            for hop in _hops(curves):
                lines.append(_line(group, metric, hop, [curve.points(x, metric, hop) for curve in curves], spread))
    return lines


def _hops(curves: Sequence[Curve]) -> Sequence[float | None]:
    if not any("hop" in curve.columns for curve in curves):
        return [None]
    for curve in curves:
        curve.check("hop")
    return sorted({row["hop"] for curve in curves for row in curve.rows if isfinite(row["hop"])})


def _line(group: str, metric: str, hop: float | None, runs: Sequence[Points], spread: Spread) -> Line:
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    if not shared:
        where = f"{group or 'the runs'}, {metric}" + (f" at hop {hop:g}" if hop is not None else "")
        raise UsageError(f"{where}: no x that all {len(runs)} runs have; legal: runs evaluated at the same steps")
    mean, low, high = [], [], []
    for at in shared:
        values = [run[at] for run in runs]
        middle = sum(values) / len(values)
        reach = sqrt(sum((v - middle) ** 2 for v in values) / max(1, len(values) - 1)) if spread == "sd" else 0.0
        mean.append(middle)
        low.append(min(values) if spread == "range" else middle - reach)
        high.append(max(values) if spread == "range" else middle + reach)
    return Line(group, metric, hop, shared, mean, low, high)


def panels_of(lines: Sequence[Line]) -> list[list[Line]]:
    """Lines that share an axis: accuracies do where no hops tell them apart, any other metric has its own."""
    panels: dict[str, list[Line]] = {}
    for line in lines:
        shared = line.metric.endswith("accuracy") and line.hop is None
        panels.setdefault("accuracy" if shared else line.metric, []).append(line)
    return list(panels.values())


def name_of_x(x: str, curves: Iterable[Curve]) -> str:
    """What the x axis counts; where runs were packed, `examples_seen` counts windows, and `rows_seen` differs."""
    windows = x == "examples_seen" and any(
        row.get("rows_seen", row[x]) != row[x] for curve in curves for row in curve.rows
    )
    return "training windows seen" if windows else _shown(x)


def picture(lines: Sequence[Line], x: str, *, x_name: str = "", log_x: bool = False, title: str = "") -> Figure:
    """The picture of some lines, a panel below the other; `x_name` stands at the x axis in place of the column's name.

    Raises:
        UsageError: `log_x` with an x of 0 or less.
    """
    if log_x and (wrong := [at for line in lines for at in line.x if at <= 0]):
        raise UsageError(
            f"a logarithmic axis cannot show {x} = {wrong[0]:g}; legal: numbers above 0, or --scale linear"
        )
    panels = panels_of(lines)
    figure = Figure(figsize=(7.0, 0.9 + 3.2 * len(panels)), dpi=150, layout="constrained")
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, place)
        _draw_panel(axes, panel)
        axes.set_xscale("log" if log_x else "linear")
        if place == len(panels):
            axes.set_xlabel(x_name or _shown(x))
    if title:
        figure.suptitle(_plain(title))
    return figure


def _draw_panel(axes: Axes, lines: Sequence[Line]) -> None:
    groups, metrics, hops = (list(dict.fromkeys(values)) for values in zip(*map(_keys, lines), strict=True))
    accuracies = all(metric.endswith("accuracy") for metric in metrics)
    for line in lines:
        group, metric, hop = (
            values.index(value) for values, value in zip((groups, metrics, hops), _keys(line), strict=True)
        )
        # Colour tells hops apart; without any, groups; and where there is but one, metrics. Dashes tell the rest.
        colour, dash = (hop, group) if len(hops) > 1 else (group, metric) if len(groups) > 1 else (metric, 0)
        parts = [_plain(line.group)] if line.group else []
        if line.hop is not None:
            parts.append("1 hop" if line.hop == 1 else f"{line.hop:g} hops")
        if len(metrics) > 1 or not parts:
            parts.append(_shown(line.metric))
        style = COLOURS[colour % len(COLOURS)]
        axes.plot(
            line.x, line.mean, color=style, linestyle=DASHES[dash % len(DASHES)], marker=MARKERS[colour % len(MARKERS)],
            markersize=4, linewidth=1.6, label=", ".join(parts),
        )  # fmt: skip
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=style, alpha=0.2, linewidth=0)
    if accuracies:
        axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("accuracy" if len(metrics) > 1 else _shown(metrics[0]))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _shown(column: str) -> str:
    return NAMES.get(column, _plain(column.replace("_", " ")))


def _plain(text: str) -> str:
    """A text of a file or a user for matplotlib, to which a dollar begins a formula, and a leading _ hides a line."""
    plain = printable(text).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def _keys(line: Line) -> tuple[str, str, float | None]:
    return line.group, line.metric, line.hop


def save(figure: Figure, path: Path) -> None:
    """Write a picture, under another name first; the same picture gives the same bytes.

    Raises:
        UsageError: the suffix is none of .png, .svg and .pdf, or the folder is absent.
    """
    check_path(path)
    with matplotlib.rc_context({"svg.hashsalt": "synthshards", "svg.fonttype": "none"}), replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata=FORMATS[path.suffix])


def check_path(path: Path) -> None:
    """Raise `UsageError` unless a picture can be written there."""
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: not a picture{nearest(path.suffix, FORMATS)}; legal: {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: no such folder; legal: one that exists")


def plot_curves(
    csvs: Sequence[str],
    outs: Sequence[str],
    metrics: Sequence[str],
    x: str,
    scale: str,
    spread: Spread,
    hops: Sequence[int],
    title: str,
) -> None:
    """Draw the curves of some CSVs, each ``[NAME=]CSV``, into every file of `outs`.

    Raises:
        UsageError: a file, column, hop or folder that is not there, or a picture of an unknown kind.
        DataError: a CSV holds something else than numbers.
    """
    for out in outs:
        check_path(Path(out))
    groups: dict[str, list[Curve]] = {}
    for argument in csvs:
        name, path = named(argument)
        groups.setdefault(name, []).append(Curve.read(path))
    lines = lines_of(groups, x, metrics, spread)
    legal = sorted({line.hop for line in lines if line.hop is not None})
    for hop in hops:
        if hop not in legal:
            raise UsageError(f"no hop {hop} in these runs; legal: {', '.join(f'{k:g}' for k in legal) or 'no --hop'}")
    lines = [line for line in lines if not hops or line.hop in hops]
    x_name = name_of_x(x, (curve for curves in groups.values() for curve in curves))
    figure = picture(lines, x, x_name=x_name, log_x=scale == "log", title=title)
    for out in outs:
        save(figure, Path(out))


def named(argument: str) -> tuple[str, Path]:
    """The name and the path of ``NAME=CSV``; a path that exists is no name, whatever it holds."""
    name, sign, path = argument.partition("=")
    return ("", Path(argument)) if not sign or Path(argument).is_file() else (name, Path(path))
