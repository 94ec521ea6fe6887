"""Progress of a long run: a bar on a terminal, plain lines in a log, always on stderr."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

import click

#: Seconds between plain lines.
_EVERY = 10.0


class Progress:
    """Counts rows and tokens; safe to tick from several threads.

    Args:
        label: what is being done, e.g. ``"building"``.
        rows: rows in all.
        quiet: show nothing (for --json and for library use).
    """

    def __init__(self, label: str, rows: int, *, quiet: bool = False) -> None:
        self._label, self._rows = label, rows
        self._done = self._tokens = 0
        self._unit = "tokens"
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        self._quiet = quiet
        self._shown = 0

    def __enter__(self) -> Progress:
        if not self._quiet and self._rows and sys.stderr.isatty():
            self._bar = click.progressbar(
                length=self._rows,
                label=self._label,
                item_show_func=lambda _: self._rates(),
                file=sys.stderr,
                update_min_steps=max(1, self._rows // 500),
            )
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def tick(self, counts: dict[str, int]) -> None:
        """Add what was done: `examples`, and `tokens` or `characters`."""
        with self._lock:
            self._done += counts["examples"]
            self._unit = "characters" if "characters" in counts else "tokens"
            self._tokens += counts.get(self._unit, 0)

    def show(self) -> None:
        """Draw the bar, or print a line when one is due. Call from one thread, often."""
        if self._quiet:
            return
        if self._bar is not None:
            if self._done > self._shown:
                self._bar.update(self._done - self._shown)
                self._shown = self._done
        elif time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            left = (self._rows - self._done) / max(1e-9, self._done / (self._last - self._start))
            share = 100 * self._done / max(1, self._rows)
            click.echo(f"{self._label}: {share:.0f}%, {self._rates()}, {left:.0f} s left", err=True)

    def summary(self) -> str:
        """``1,048,576 rows, 297.7 M tokens in 4.1 s (256 k rows/s, 72.6 M tokens/s)``."""
        seconds = time.monotonic() - self._start
        return f"{self._done:,} rows, {_si(self._tokens)} {self._unit} in {seconds:.1f} s ({self._rates()})"

    def _rates(self) -> str:
        seconds = max(1e-9, time.monotonic() - self._start)
        return f"{_si(self._done / seconds)} rows/s, {_si(self._tokens / seconds)} {self._unit}/s"


def _si(value: float) -> str:
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.1f}{letter}"
    return f"{value:.0f}"
