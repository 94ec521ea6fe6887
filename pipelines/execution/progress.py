"""Progress of a long run: a bar on a terminal, plain lines in a log, always on stderr."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

import click

#: Is told what was done: `examples`, and `tokens` or `characters`. With nothing in it, merely that work goes on.
Tick: TypeAlias = Callable[[dict[str, int]], None]

#: Seconds between plain lines.
_EVERY = 10.0
_BAR = 32


class Progress:
    """Counts rows and tokens from its `with` on; safe to tick from several threads.

    Args:
        label: what is being done, e.g. ``"building"``.
        rows: rows in all.
        quiet: show nothing (for --json and for library use).
    """

    def __init__(self, label: str, rows: int, *, quiet: bool = False) -> None:
        self._label, self._rows = label, rows
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._start = self._shown = time.monotonic()
        self._quiet = quiet or not rows
        self._terminal = on_terminal()

    def __enter__(self) -> Progress:
        self._start = self._shown = time.monotonic()
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw(last=True)

    def tick(self, counts: dict[str, int]) -> None:
        """Add what was done: a `Tick`."""
        with self._lock:
            self._counts.update(counts)

    def show(self) -> None:
        """Draw the bar, or print a line when one is due. Call from one thread, often."""
        now = time.monotonic()
        if self._terminal and now - self._shown >= 0.1:
            self._shown = now
            self._draw()
        elif not self._terminal and not self._quiet and now - self._shown >= _EVERY:
            self._shown = now
            click.echo(f"{self._label}: {self._share():.0%}, {self._rates()}, {self._left()} left", err=True)

    def summary(self) -> str:
        """``1,048,576 rows, 297.7 M tokens in 4.1 s (256 k rows/s, 72.6 M tokens/s)``."""
        seconds = time.monotonic() - self._start
        return f"{self._done:,} rows, {_si(self._tokens)} {self._unit} in {seconds:.1f} s ({self._rates()})"

    def _draw(self, last: bool = False) -> None:
        """One line, ``building [#####-----]  50%  256.0 k rows/s, 72.6 M tokens/s, 0:04 left``, over the one before."""
        if self._quiet or not self._terminal:
            return
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except (OSError, ValueError):
            columns = 80
        text = f"{self._share():4.0%}  {self._rates()}, {self._left()} left"
        # The last column stays free: a terminal that wraps there would scroll at every step.
        width = min(_BAR, columns - 1 - len(f"{self._label} [] {text}"))
        filled = int(width * self._share())
        bar = f"[{'#' * filled}{'-' * (width - filled)}] " if width >= 5 else ""
        line = f"{self._label} {bar}{text}"[: columns - 1].ljust(columns - 1)
        click.echo(f"\r{line}", nl=last, err=True)

    @property
    def _done(self) -> int:
        return self._counts["examples"]

    @property
    def _tokens(self) -> int:
        return self._counts[self._unit]

    @property
    def _unit(self) -> str:
        return "characters" if "characters" in self._counts else "tokens"

    def _share(self) -> float:
        return min(1.0, self._done / max(1, self._rows))

    def _left(self) -> str:
        if not self._done:
            return "?"
        seconds = round((self._rows - self._done) * (time.monotonic() - self._start) / self._done)
        minutes, seconds = divmod(max(0, seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def _rates(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._start)
        return f"{_si(self._done / seconds)} rows/s, {_si(self._tokens / seconds)} {self._unit}/s"


def waiting(label: str, *, quiet: bool = False) -> Callable[[], None]:
    """A function to call often while something of unknown length goes on: after a second it says so on a terminal."""
    began = time.monotonic()

    def show() -> None:
        if not quiet and on_terminal() and time.monotonic() - began > 1:
            click.echo(f"\r{label}: {time.monotonic() - began:.0f} s ", nl=False, err=True)

    return show


def on_terminal() -> bool:
    """Whether stderr is a terminal. (It is None where the caller has closed it.)"""
    return getattr(sys.stderr, "isatty", bool)()


def _si(value: float) -> str:
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.1f}{letter}"
    return f"{value:.0f}"
