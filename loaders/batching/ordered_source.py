"""One dataset as a stream sees it: its rows in order, and where a packed stream's lanes stand in it."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from math import gcd

import numpy as np

from synthshards.ragged import BLOCK_ROWS

from ..order.shuffle import SUPERBLOCK, Order
from ..sources.row_refs import Rows
from ..sources.source import Source
from .lanes import Packer
from .packing import ENDLESS


@dataclass(frozen=True)
class Component:
    """A source and an order on it.

    Attributes:
        source: where rows come from.
        order: in which order.
        endless: whether epochs follow one another without end (an endless source: whether it is alone).
    """

    source: Source
    order: Order
    endless: bool

    @property
    def rows(self) -> int | None:
        """Rows of an epoch, None: endless."""
        return self.order.rows

    def take(self, epoch: int, positions: np.ndarray, pool: Executor | None = None) -> Rows:
        """The rows at list positions counted from the start of `epoch` (they run on into later ones).

        Args:
            positions: int64 [n].
            pool: threads to share the work among.
        """
        if self.source.looks_ahead:
            self.source.ahead(self._indices(epoch, positions + self._stride, clip=True))
        return self.source.take(self._indices(epoch, positions), pool)

    def _indices(self, epoch: int, positions: np.ndarray, clip: bool = False) -> np.ndarray:
        if self.rows is None or len(positions) == 0:
            return positions.astype(np.uint64)
        if clip and not self.endless:
            positions = np.minimum(positions, self.rows - 1)
        passed, within = np.divmod(positions, self.rows)
        first, last = int(passed.min()), int(passed.max())
        if first == last:
            return self.order.indices(epoch + first, within)
        out = np.empty(len(positions), np.uint64)
        for e in range(first, last + 1):
            chosen = passed == e
            out[chosen] = self.order.indices(epoch + e, within[chosen])
        return out

    @property
    def _stride(self) -> int:
        """List positions until every lane is in its next block; without shuffling, in the next shards."""
        return (self.order.lanes if self.order.shuffle else 2 * SUPERBLOCK) * BLOCK_ROWS

    def packing_lanes(self, one_pass: bool) -> int:
        """P: 1 for a single pass (all ranks then know where it ends) and for few rows, else that of the order."""
        if one_pass or (self.rows is not None and self.rows < BLOCK_ROWS * self.order.lanes):
            return 1
        return self.order.lanes

    def packer(
        self,
        mode: str,
        seq_len: int,
        epoch: int,
        lanes: np.ndarray,
        count: int,
        stand: np.ndarray,
        pool: Executor | None,
    ) -> Packer:
        """A packer of some of `count` packing lanes.

        Args:
            lanes: int64: which.
            stand: int64 [lanes, 2]: where they stand.
        """
        total = np.full(len(lanes), ENDLESS, np.int64)
        each = None if self.rows is None else (self.rows - lanes + count - 1) // count
        if each is not None and not self.endless:
            total = each

        def take(lane: np.ndarray, n: np.ndarray) -> Rows:
            if each is None:
                return self.take(epoch, n * count + lanes[lane], pool)
            passed, turn = np.divmod(n, each[lane])
            assert self.rows is not None
            return self.take(epoch, passed * self.rows + turn * count + lanes[lane], pool)

        return Packer(mode, seq_len, stand, total, take)


def lanes_met(unit: int, lanes: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """Packing lanes that windows start..stop−1 of any batch belong to, for batches from window `unit` on.

    Returns:
        int64, ascending.
    """
    step = gcd(batch_size, lanes)
    met = (unit + np.arange(start, stop)[:, None] + np.arange(0, lanes, step)[None, :]) % lanes
    return np.unique(met)
