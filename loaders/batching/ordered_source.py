"""One dataset as a stream reads it: its rows in order, and the cursors of a packed stream's lanes."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from synthshards.errors import UsageError
from synthshards.ragged import BLOCK_ROWS

from ..order.shuffle import SUPERBLOCK, Order
from ..order.state import LIMIT, LaneCursors
from ..sources.row_refs import RowRefs
from ..sources.source import Source
from .lanes import Packer
from .packing import ENDLESS, Packing


@dataclass(frozen=True)
class OrderedSource:
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

    def take(self, epoch: int, positions: np.ndarray, threads: Executor | None = None) -> RowRefs:
        """The rows at list positions counted from the start of `epoch` (they run on into later ones).

        Args:
            positions: int64 [n].
            threads: to share the work among.
        """
        if self.source.looks_ahead:
            self.source.ahead(self._indices(epoch, positions + self._stride, clip=True))
        return self.source.take(self._indices(epoch, positions), threads)

    def _indices(self, epoch: int, positions: np.ndarray, clip: bool = False) -> np.ndarray:
        if self.rows is None or len(positions) == 0:
            return positions.astype(np.uint64)
        if clip and not self.endless:
            positions = np.minimum(positions, self.rows - 1)
        passes, within = np.divmod(positions, self.rows)
        first, last = int(passes.min()), int(passes.max())
        if first == last:
            return self.order.indices(epoch + first, within)
        out = np.empty(len(positions), np.uint64)
        for later in range(first, last + 1):
            of_epoch = passes == later
            out[of_epoch] = self.order.indices(epoch + later, within[of_epoch])
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

    def check_cursors(self, cursors: LaneCursors, windows: int, one_pass: bool) -> None:
        """Raise `UsageError` unless lanes that have given `windows` windows together can have these cursors (as far as
        that can be told without their rows).
        """
        count = self.packing_lanes(one_pass)
        if cursors.count != count:
            raise UsageError(f"the state has {cursors.count} packing lanes, this stream {count}")
        (n, carry), most = cursors.at.T, np.full(len(cursors.lanes), LIMIT // count - 1)
        if self.rows is not None and not self.endless:
            most = self._rows_of(cursors)
        begun = windows > cursors.lanes
        if (n > most).any() or ((n > 0) | (carry > 0))[~begun].any():
            raise UsageError("the state is damaged: a packing lane stands where it cannot")

    def _rows_of(self, cursors: LaneCursors) -> np.ndarray:
        """int64 [lanes]: the rows of each lane in an epoch."""
        assert self.rows is not None
        return (self.rows - cursors.lanes + cursors.count - 1) // cursors.count

    def packer(
        self,
        mode: Packing,
        seq_len: int,
        epoch: int,
        cursors: LaneCursors,
        threads: Executor | None,
    ) -> Packer:
        """A packer of the lanes that have these cursors."""
        lanes, count = cursors.lanes, cursors.count
        rows_of_lane = None if self.rows is None else self._rows_of(cursors)
        total = np.full(len(lanes), ENDLESS, np.int64)
        if rows_of_lane is not None and not self.endless:
            total = rows_of_lane

        def take(lane: np.ndarray, n: np.ndarray) -> RowRefs:
            if rows_of_lane is None:
                return self.take(epoch, n * count + lanes[lane], threads)
            passes, turn = np.divmod(n, rows_of_lane[lane])
            assert self.rows is not None
            return self.take(epoch, passes * self.rows + turn * count + lanes[lane], threads)

        return Packer(mode, seq_len, cursors.at, total, take)
