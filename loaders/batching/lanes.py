"""Packing lanes: the next rows of each lane are kept in memory, and windows are planned from them (`packing`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from synthshards.errors import UsageError
from synthshards.kernels.arrays import I64
from synthshards.kernels.jit import kernel

from ..sources.row_refs import RowRefs, RowTable
from .packing import DAMAGED, MODES, SHORT, Lanes, Packing, WindowPlan, plan_windows

#: What the rows held by all lanes take in memory, about, where so many are enough for a batch.
_HELD_BYTES = 64 << 20


class _HeldRows(NamedTuple):
    """The rows that lanes hold, [lanes, rows]; turns [lanes, rows] say of which take each is."""

    rows: RowTable
    turns: I64

    @classmethod
    def empty(cls, lanes: int, rows: int) -> _HeldRows:
        """Room for so many rows a lane."""
        length, indices, turns = (np.zeros((lanes, rows), np.int64) for _ in range(3))
        ids, mask = (np.zeros((lanes, rows), np.uint64) for _ in range(2))
        return cls(RowTable(length, indices, ids, mask), turns)

    def wider(self, rows: int) -> _HeldRows:
        """The same with room for more rows."""
        lanes, held = self.turns.shape
        wider = _HeldRows.empty(lanes, rows)
        for target, source in zip((*wider.rows, wider.turns), (*self.rows, self.turns), strict=True):
            target[:, :held] = source
        return wider


@kernel
def _refill(drop: I64, count: I64, want: I64, held: _HeldRows, new: RowTable, turn: int) -> int:
    """Let each lane forget its first `drop` rows and hold `want` more, those of `new` in order, of take `turn`.

    Args:
        drop, want: [lanes]; count: [lanes], the rows held; set anew.

    Returns:
        the oldest take that a row is of.
    """
    lengths, indices, ids_at, mask_at = held.rows.length, held.rows.indices, held.rows.ids, held.rows.mask
    turns = held.turns
    new_length, new_index, new_ids, new_mask = new.length, new.indices, new.ids, new.mask
    i = 0
    oldest = turn
    for lane in range(count.size):
        kept, gone = count[lane] - drop[lane], drop[lane]
        if gone > 0:
            for r in range(kept):
                old = gone + r
                lengths[lane, r], indices[lane, r] = lengths[lane, old], indices[lane, old]
                ids_at[lane, r], mask_at[lane, r] = ids_at[lane, old], mask_at[lane, old]
                turns[lane, r] = turns[lane, old]
        for r in range(kept, kept + want[lane]):
            lengths[lane, r], indices[lane, r], turns[lane, r] = new_length[i], new_index[i], turn
            ids_at[lane, r], mask_at[lane, r] = new_ids[i], new_mask[i]
            i += 1
        count[lane] = kept + want[lane]
        if count[lane] > 0:
            oldest = min(oldest, turns[lane, 0])
    return oldest


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
        self._rows = max(64, 2048 // lanes)  # that there is room for in a lane
        self._hold = 64  # that a lane holds: as many as there is room for, unless rows are long
        self._base, self._count = cursors[:, 0].copy(), np.zeros(lanes, np.int64)
        self._held = _HeldRows.empty(lanes, self._rows)
        self._taken: dict[int, RowRefs] = {}  # take → what keeps its rows where they are
        self._turn = 0
        self._like = np.empty(0, np.uint16)

    def plan(self, lanes: np.ndarray) -> WindowPlan:
        """Plan the next windows of `lanes` (int64 [windows]); fewer where a lane is at its end.

        Raises:
            UsageError: a lane stands where no window ends, which only a damaged state can say.
        """
        begin = self.cursors[:, 0].copy()
        pieces, ends, at = self._pieces(lanes), np.zeros(len(lanes) + 1, np.int64), 0
        while True:
            state = Lanes(self.cursors, self._base, self._count, self.total, self._held.rows)
            status, at, lane = plan_windows(self.mode, self.seq_len, state, lanes, at, pieces, ends)
            if status == DAMAGED:
                n, carry = self.cursors[lane].tolist()
                raise UsageError(f"the state is damaged: its carry {carry} is none that row {n} of a packing lane has")
            if status != SHORT:
                return WindowPlan(self.seq_len, pieces, ends[: at + 1], self._like, tuple(self._taken.values()))
            if self._count[lane] - (begin[lane] - self._base[lane]) >= self._hold:  # the batch needs more
                self._hold *= 2
                if self._hold > self._rows:
                    self._rows = self._hold
                    self._held = self._held.wider(self._rows)
                    planned, pieces = pieces, self._pieces(lanes)
                    pieces[: len(planned)] = planned
            self._refill(begin)

    def _pieces(self, lanes: np.ndarray) -> np.ndarray:
        """Room for the pieces of a batch: each row that a lane holds ends once, and each window may cut one more."""
        return np.empty((self._held.turns.size + len(lanes), 6), np.int64)

    def _refill(self, begin: np.ndarray) -> None:
        """Let each lane hold `_hold` rows from `begin` on (the batch that is being planned needs them all)."""
        drop = begin - self._base
        held_still = self._count - drop
        wanted = np.minimum(self._hold, self.total - begin) - held_still
        lane = np.repeat(np.arange(len(wanted)), wanted)
        n = np.arange(len(lane)) + np.repeat(begin + held_still - (np.cumsum(wanted) - wanted), wanted)
        rows = self._take(lane, n)
        if len(rows):
            self._like = rows.like
            size = int(rows.table.length.sum()) * (rows.like.itemsize + 1) // len(rows)
            self._hold = max(self._hold, min(self._rows, _HELD_BYTES // (max(size, 1) * len(wanted))))
        self._turn += 1
        self._taken[self._turn] = rows
        oldest = _refill(drop, self._count, wanted, self._held, rows.table, self._turn)
        self._base = begin
        for turn in [turn for turn in self._taken if turn < oldest]:
            del self._taken[turn]
