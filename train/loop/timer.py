"""Where the time of a run goes: training, waiting for data, evaluating; and how much is left."""

from __future__ import annotations

import time
from typing import Any


class Timer:
    """Where the time of a run goes.

    Args:
        step: where it begins. steps: where it ends.
    """

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._step, self._steps = step, step, steps
        self._began, self._waited, self._evaluated, self._tokens = time.perf_counter(), 0.0, 0.0, 0

    def waiting(self) -> Stretch:
        """A stretch in which training waits for data."""
        return Stretch(self, "_waited")

    def evaluating(self) -> Stretch:
        """A stretch of evaluation."""
        return Stretch(self, "_evaluated")

    def step(self, tokens: int) -> None:
        """A step is done."""
        self._step += 1
        self._tokens += tokens

    @property
    def _trained(self) -> float:
        return max(1e-9, time.perf_counter() - self._began - self._evaluated)

    def line(self) -> str:
        """Speed, waiting, and time left."""
        total = time.perf_counter() - self._began
        left = int(total / max(1, self._step - self._first) * (self._steps - self._step))
        share = self._waited / self._trained
        return f"{self._tokens / self._trained:,.0f} tokens/s, {share:.1%} waiting, {left // 60}:{left % 60:02} left"

    def record(self) -> dict[str, Any]:
        """What the run record says."""
        return {
            "wall_seconds": round(time.perf_counter() - self._began, 3),
            "evaluation_seconds": round(self._evaluated, 3),
            "waiting_for_data_seconds": round(self._waited, 3),
            "train_tokens_per_second": round(self._tokens / self._trained),
        }


class Stretch:
    """A block whose time is counted."""

    def __init__(self, timer: Timer, name: str) -> None:
        self._timer, self._name, self._began = timer, name, 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        spent = getattr(self._timer, self._name) + time.perf_counter() - self._began
        setattr(self._timer, self._name, spent)
