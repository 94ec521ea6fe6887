"""Lanes of rows that are packed: the next rows of each are held at hand, and windows planned from them (`packing`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from synthshards.kernels.jit import kernel

from ..sources.row_refs import RowRefs
from .packing import MODES, SHORT, Packing, WindowPlan, plan_windows


@kernel
def _refill(
    drop: Any, held: Any, want: Any, lengths: Any, indices: Any, ids_at: Any, mask_at: Any, turns: Any,
    row_length: Any, row_index: Any, row_ids: Any, row_mask: Any, turn: Any,
) -> Any:  # fmt: skip
    """Let each lane forget its first `drop` rows and hold `want` more, those of `row_…` in order, of take `turn`.

    Returns:
        the oldest take that a row is of.
    """
    i = 0
    oldest = turn
    for lane in range(held.size):
        kept, gone = held[lane] - drop[lane], drop[lane]
        if gone > 0:
            for r in range(kept):
                old = gone + r
                lengths[lane, r], indices[lane, r] = lengths[lane, old], indices[lane, old]
                ids_at[lane, r], mask_at[lane, r] = ids_at[lane, old], mask_at[lane, old]
                turns[lane, r] = turns[lane, old]
        for r in range(kept, kept + want[lane]):
            lengths[lane, r], indices[lane, r], turns[lane, r] = row_length[i], row_index[i], turn
            ids_at[lane, r], mask_at[lane, r] = row_ids[i], row_mask[i]
            i += 1
        held[lane] = kept + want[lane]
        if held[lane] > 0:
            oldest = min(oldest, turns[lane, 0])
    return oldest


class _HeldRows:
    """The rows that lanes hold, [lanes, rows] each: length, index, where ids and mask lie, and of which take."""

    def __init__(self, lanes: int, rows: int) -> None:
        self.lengths, self.indices, self.turns = (np.zeros((lanes, rows), np.int64) for _ in range(3))
        self.ids, self.mask = (np.zeros((lanes, rows), np.uint64) for _ in range(2))

    def wider(self, rows: int) -> _HeldRows:
        """The same with room for more rows."""
        lanes, held = self.lengths.shape
        wider = _HeldRows(lanes, rows)
        for name, array in vars(self).items():
            getattr(wider, name)[:, :held] = array
        return wider


class Packer:
    """Packs the rows of some lanes.

    Args:
        mode: one of `MODES`.
        seq_len: tokens of a window.
        cursors: int64 [lanes, 2]: n and carry of each lane.
        total: int64 [lanes]: rows of each lane in all (`ENDLESS` where there is no end).
        take: called with (lane, n) int64 arrays; gives these rows.
    """

    def __init__(
        self,
        mode: Packing,
        seq_len: int,
        cursors: np.ndarray,
        total: np.ndarray,
        take: Callable[[np.ndarray, np.ndarray], RowRefs],
    ) -> None:
        self.mode, self.seq_len, self.cursors, self.total = MODES.index(mode), seq_len, cursors.copy(), total
        self._take = take
        lanes = len(cursors)
        self._rows = max(64, 2048 // lanes)  # that a lane holds; doubled where a batch needs more
        self._base, self._count = cursors[:, 0].copy(), np.zeros(lanes, np.int64)
        self._held = _HeldRows(lanes, self._rows)
        self._taken: dict[int, RowRefs] = {}  # take → what keeps its rows where they are
        self._turn = 0
        self._like = np.empty(0, np.uint16)

    def plan(self, lanes: np.ndarray) -> WindowPlan:
        """Plan the next windows of `lanes` (int64 [windows]); fewer where a lane is at its end."""
        begin = self.cursors[:, 0].copy()
        pieces, ends, at = self._pieces(lanes), np.zeros(len(lanes) + 1, np.int64), 0
        while True:
            held = self._held
            status, at, lane = plan_windows(
                self.mode, self.seq_len, lanes, at, self.cursors, self._base, self.total, self._count,
                held.lengths, held.indices, held.ids, held.mask, pieces, ends,
            )  # fmt: skip
            if status != SHORT:
                return WindowPlan(self.seq_len, pieces, ends[: at + 1], self._like, tuple(self._taken.values()))
            if self._count[lane] - (begin[lane] - self._base[lane]) >= self._rows:
                self._rows *= 2
                self._held = held.wider(self._rows)
                planned, pieces = pieces, self._pieces(lanes)
                pieces[: len(planned)] = planned
            self._refill(begin)

    def _pieces(self, lanes: np.ndarray) -> np.ndarray:
        """Room for the pieces of a batch: each row that a lane holds ends once, and each window may cut one more."""
        return np.empty((self._held.lengths.size + len(lanes), 6), np.int64)

    def _refill(self, begin: np.ndarray) -> None:
        """Let each lane hold `_rows` rows from `begin` on (the batch that is being planned needs them all)."""
        drop = begin - self._base
        held_still = self._count - drop
        wanted = np.minimum(self._rows, self.total - begin) - held_still
        lane = np.repeat(np.arange(len(wanted)), wanted)
        n = np.arange(len(lane)) + np.repeat(begin + held_still - (np.cumsum(wanted) - wanted), wanted)
        rows = self._take(lane, n)
        if len(rows):
            self._like = rows.like
        self._turn += 1
        self._taken[self._turn] = rows
        held = self._held
        oldest = _refill(
            drop, self._count, wanted, held.lengths, held.indices, held.ids, held.mask, held.turns,
            rows.length, rows.index, rows.ids, rows.mask, self._turn,
        )  # fmt: skip
        self._base = begin
        for turn in [turn for turn in self._taken if turn < oldest]:
            del self._taken[turn]
