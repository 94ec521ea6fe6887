"""Which rows a run has been trained on, to count the rows of its eval sets that it has met: small spaces have few rows.

Rows are functions of indices, so those of a stream's past are made again and kept as hashes of their tokens or text.
That takes 1 to 16 microseconds a row, far less than training on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synthshards.kernels.buffers import Buffers
from synthshards.pipelines.overlap import row_hashes
from synthshards.ragged import BLOCK_ROWS

from .eval_sets import EvalSet
from .train_tasks import TrainTask

#: Rows of a dataset that are looked at, its first ones: 16 seconds of a run at most, and 8 MB.
COMPARED = 1 << 20


class TrainedRows:
    """The rows that one task of a run has been trained on.

    Attributes:
        compared: how many there are by now, at most `COMPARED` of each dataset.
    """

    def __init__(self, train_task: TrainTask) -> None:
        self._parts, self.compared = train_task.parts, 0
        self._met = [np.zeros(0, np.bool_) for _ in self._parts]
        self._hashes = np.zeros(0, np.uint64)  # ascending

    def update(self, given: Sequence[np.ndarray]) -> None:
        """Take in what has been trained on since.

        Args:
            given: bool [rows] for each dataset of the task: see `Stream.rows_given`.
        """
        hashes = [self._hashes]
        for part, met, now in zip(self._parts, self._met, given, strict=True):
            new = now.copy()
            new[: len(met)] &= ~met
            key, buffers = part.task.key(part.identity.seed, part.identity.split), Buffers()
            indices = np.flatnonzero(new).astype(np.uint64)
            for at in range(0, len(indices), BLOCK_ROWS):
                batch = part.task.generate(key, indices[at : at + BLOCK_ROWS], buffers)
                hashes.append(row_hashes(batch)[:, 0])
        self._hashes, self._met = np.unique(np.concatenate(hashes)), list(given)
        self.compared = sum(int(met.sum()) for met in given)

    def count(self, one: EvalSet) -> int:
        """How many rows of an eval set equal one of them, in tokens or text."""
        return int(np.isin(row_hashes(one.batch())[:, 0], self._hashes).sum())
