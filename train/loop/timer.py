"""Where the time of a run goes: training, waiting for data, evaluating; and how much is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class Timer:
    """Where the time of a run goes, of all its processes that a checkpoint remembers.

    Args:
        steps: where it ends.
    """

    def __init__(self, steps: int) -> None:
        self._step, self._steps = 0, steps
        self._began, self._waited, self._evaluated, self._tokens = time.perf_counter(), 0.0, 0.0, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps: seconds, steps and tokens so far."""
        spent = time.perf_counter() - self._began
        return {"spent": spent, "waited": self._waited, "evaluated": self._evaluated, "tokens": self._tokens,
                "step": self._step}  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave: this run began as long ago as that one had taken."""
        self._began -= state["spent"]
        self._waited, self._evaluated = state["waited"], state["evaluated"]
        self._tokens, self._step = state["tokens"], state["step"]

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
        left = int(total / max(1, self._step) * (self._steps - self._step))
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
