"""A task as a torch IterableDataset: rows on the fly, split over ranks and DataLoader workers without repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from synthshards.kernels.buffers import Buffers
from synthshards.ragged import BLOCK_ROWS
from synthshards.tasks.task import Task

from .ranks import rank_and_world_size


class TaskIterable(IterableDataset[dict[str, Any]]):
    """Rows 0, 1, 2 … of (seed, split "train"): those of `Task.iter_examples`, as tensors.

    Each row is a dict: `input_ids` and `labels` int64 [tokens], `loss_mask` bool [tokens], facts as Python values.
    They are dealt, in blocks of 1,024 rows, to the ranks and to the workers of their DataLoaders (equally many on every
    rank). So together these yield every row once, in another order than one process, though not all the same number.

    This is not a `Stream` and shares nothing with one: it yields single rows with all their facts, in the task's own
    order and without a state, where a stream writes padded or packed batches. For one order under any number of workers
    and ranks, and for resuming, use `open_dataset(task).batches(…)`.

    Args:
        task: what to generate.
        seed: 0..2^64−1.
        num_examples: rows in all; None is endless (or the whole of a finite task).
        rank: as for `Dataset.batches`; None: that of torch.distributed where it runs now, else 0.
        world_size: likewise; None: that of torch.distributed, else 1.

    Raises:
        UsageError: an argument out of range, at construction.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        num_examples: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        task.key(seed, "train")
        if num_examples is not None:
            task.check_range(0, num_examples)
        self.task, self.seed = task, seed
        self.rank, self.world_size = rank_and_world_size(rank, world_size)
        self.num_examples = num_examples if num_examples is not None else task.num_examples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first, step = self.rank * workers + own, self.world_size * workers
        # Small sets are dealt in small blocks, so that nobody is left idle.
        block = BLOCK_ROWS
        if self.num_examples is not None:
            block = max(1, min(block, -(-self.num_examples // step)))
        at, buffers = first * block, Buffers()
        while self.num_examples is None or at < self.num_examples:
            count = block if self.num_examples is None else min(block, self.num_examples - at)
            for row in self.task.batch(self.seed, "train", at, count, buffers=buffers).rows():
                yield {name: torch.from_numpy(v) if hasattr(v, "dtype") else v for name, v in row.items()}
            at += step * block
