"""`synthshards bench --only train`: does the loader keep up with the model, and what does that bring?

GPT-2 of two layers, 128 wide (`model=tiny_gpt2`), on the CPU, batches of eight padded rows. Ours: this package's rows,
batches and loss. Plain: the loop as one writes it on a first afternoon, with rows drawn by `random.Random`, padded in
lists, and the model's own loss over every position. Both are timed in turns, in one process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synthshards import make_task
from synthshards.loaders.dataset import Dataset
from synthshards.pipelines.bench.plain import PLAIN
from synthshards.tasks.task import Task

from .config.options import TrainOptions
from .data.batches import training_tensors
from .loop.step import make_optimizer, mean_loss
from .models import build_model

BATCH = 8
#: Steps before the clock starts: kernels are loaded, memory is had.
_WARM_UP = 2
_TURNS = 3

Batch = dict[str, Tensor]


def measure(preset: str, rows: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One entry for each loop.

    Args:
        preset: of a task of token rows.
        rows: until the next epoch begins.
        seconds: each loop is timed about ten times as long, and at least six steps.
        say: is told what comes next.

    Returns:
        `preset`, `loop`, `steps`, `tokens` (padding does not count), `per_second` (tokens), `waiting` (the share of
        time that goes by until a batch is there) and `of_plain` (speed as a multiple of the plain loop's).
    """
    task = make_task(preset)
    ours = Dataset(task, 0, "train", rows)

    def loaded(threads: int) -> Iterator[Batch]:
        for batch in ours.batches(BATCH, repeat=True).loader(num_workers=threads):
            yield training_tensors(batch)

    our_loss = partial(mean_loss, plain_logits=True)
    loops = [
        _Loop("ours", loaded(0), our_loss),
        _Loop("ours, 1 thread ahead", loaded(1), our_loss),
        _Loop("plain Python", plain_batches(task), own_loss),
    ]
    for turn in range(_TURNS):
        for loop in loops:
            say(f"training, {preset}, {loop.name}, turn {turn + 1} of {_TURNS}")
            loop.go_on(10 * seconds / _TURNS)
    plain = loops[-1].entry(preset)["per_second"]
    entries = [loop.entry(preset) for loop in loops]
    return [{**entry, "of_plain": entry["per_second"] / plain} for entry in entries]


def plain_batches(task: Task) -> Iterator[Batch]:
    """Rows drawn in plain Python, padded in lists: int64 [8, longest of them]."""
    draw, rng = PLAIN[task.name](task.params), random.Random(0)
    while True:
        rows = [draw(rng) for _ in range(BATCH)]
        longest = max(len(row["input_ids"]) for row in rows)
        ids, labels, mask = [], [], []
        for row in rows:
            own, extra = row["input_ids"], longest - len(row["input_ids"])
            ids.append(own + [0] * extra)
            masked = zip(own, row["loss_mask"], strict=True)
            labels.append([token if on else -100 for token, on in masked] + [-100] * extra)
            mask.append([1] * len(own) + [0] * extra)
        yield {
            "input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "attention_mask": torch.tensor(mask),
        }  # fmt: skip


def own_loss(model: Any, batch: Batch) -> Tensor:
    """The model's own loss, over the whole vocabulary at every position."""
    loss: Tensor = model(**batch).loss
    return loss


class _Loop:
    """A model in training, stopped and gone on with."""

    def __init__(self, name: str, batches: Iterator[Batch], loss: Callable[[Any, Batch], Tensor]) -> None:
        self.name, self._batches, self._loss = name, batches, loss
        self._model = build_model("tiny_gpt2", {"n_positions": 4096}, seed=0).model
        self._optimizer = make_optimizer(self._model, TrainOptions())
        self._steps, self._tokens, self._seconds, self._waited = 0, 0, 0.0, 0.0
        for _ in range(_WARM_UP):
            self._step()

    def _step(self) -> tuple[int, float]:
        """(tokens, seconds of waiting)."""
        began = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - began
        loss = self._loss(self._model, batch)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        return int(batch["attention_mask"].sum()), waited

    def go_on(self, seconds: float) -> None:
        """Train at least so long, and two steps."""
        began, steps = time.perf_counter(), 0
        while steps < 2 or time.perf_counter() - began < seconds:
            tokens, waited = self._step()
            steps += 1
            self._tokens += tokens
            self._waited += waited
        self._steps += steps
        self._seconds += time.perf_counter() - began

    def entry(self, preset: str) -> dict[str, Any]:
        return {
            "preset": preset, "loop": self.name, "steps": self._steps, "tokens": self._tokens,
            "per_second": self._tokens / self._seconds, "waiting": self._waited / self._seconds,
        }  # fmt: skip
