"""The clock: the same piece of work again and again, its best and its median speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

#: Fewest repeats of a piece of work.
MIN_REPEATS = 3


def speeds(work: Callable[[], int], seconds: float) -> list[float]:
    """Units a second of each repeat of `work`, which returns the units that it did.

    Repeats for `seconds`, at least `MIN_REPEATS` times. A first run is not counted: it compiles, and touches memory.
    """
    work()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < MIN_REPEATS or time.perf_counter() < end:
        start = time.perf_counter()
        units = work()
        rates.append(units / (time.perf_counter() - start))
    return rates


def summary(rates: list[float]) -> dict[str, Any]:
    """The best of some speeds, which a busy machine disturbs least, and their median, which says how busy it was."""
    return {"per_second": max(rates), "median_per_second": statistics.median(rates), "repeats": len(rates)}
