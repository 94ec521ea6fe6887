"""What a run has trained on, counted: tokens, rows, and how often the rows have come round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class Seen:
    """Tokens and rows that all ranks have trained on.

    Args:
        sizes: (name, rows of an epoch, None without end) of each part of a mixture, or of the one dataset.
    """

    def __init__(self, sizes: Sequence[tuple[str, int | None]]) -> None:
        self._sizes = sizes
        self.tokens, self._rows = 0, [0] * len(sizes)

    @property
    def rows(self) -> int:
        """Rows whose first token has been trained on; one that is cut over windows counts once, one that comes again
        counts again."""
        return sum(self._rows)

    def add(self, batches: Sequence[Mapping[str, Tensor]], world_size: int) -> list[str]:
        """Count the batches of a step; what to tell of epochs that ended in it: the 1st, 2nd, 4th, 8th …

        Args:
            batches: of this rank, as a loader gives them.
            world_size: ranks, each of which calls this at every step.
        """
        counts = torch.zeros(1 + len(self._rows), dtype=torch.int64)
        for batch in batches:
            mask = batch["attention_mask"] == 1
            counts[0] += mask.sum()
            begun = (mask & (batch["position_ids"] == 0)).sum(1) if "position_ids" in batch else mask.any(1)
            source = batch["source"] if len(self._rows) > 1 else torch.zeros(len(begun), dtype=torch.int64)
            counts[1:].index_add_(0, source, begun.long())
        if world_size > 1:
            dist.all_reduce(counts)
        self.tokens += int(counts[0])
        lines = []
        for part, ((name, size), more) in enumerate(zip(self._sizes, counts[1:].tolist(), strict=True)):
            before, self._rows[part] = self._rows[part], self._rows[part] + more
            if size and (ended := self._rows[part] // size).bit_length() > (before // size).bit_length():
                lines.append(f"epoch {ended} of {name} has ended: its {size:,} rows begin again")
        return lines

    def state(self) -> list[int]:
        """What a checkpoint keeps."""
        return [self.tokens, *self._rows]

    def restore(self, state: Sequence[int]) -> None:
        """Go on from what `state` gave."""
        self.tokens, *rows = state
        self._rows = [*rows]
