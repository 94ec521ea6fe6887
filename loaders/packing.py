"""Packing: windows of `seq_len` tokens, each a pure function of where its lane stands.

A *lane* is a sequence of rows; P lanes share an order, the n-th row of lane κ being list position n·P + κ. Window u
belongs to lane u mod P. Where a lane stands is two numbers: n, its next row, and a *carry*:

- ``concat``: rows end to end, cut at the window. Carry: tokens of row n that are already given.
- ``paper`` (Part 4.1): a window starts with a fresh row, and what does not fit of its last row is cut. No carry.
- ``best-fit``: row n, then again and again the longest untaken one that fits (the first among equals) of the 32 rows
  from the first untaken one on, until none fits. Carry: which of the rows n .. n+31 are taken, a bit each.

A row longer than a window is cut by ``paper`` and ``best-fit``, and goes on in the next window with ``concat``.

A batch is first *planned* (only lengths are looked at; each rank does this for every lane it may meet) and then a
rank's own windows are *filled*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthshards.kernel import helper, kernel

from .rows import Rows, array_at

MODES = ("concat", "paper", "best-fit")
_CONCAT, _PAPER, _BEST_FIT = range(3)
#: Rows that best-fit looks at: one bit each of the carry.
LOOK = 32
#: "Without end", as a number of rows.
ENDLESS = 1 << 62

_DONE, _SHORT, _OVER = 0, 1, 2
_IGNORED, _SHIFT = np.int64(-100), np.int64(100)
_1 = np.int64(1)


@helper
def _choose(mode: Any, seq_len: Any, n: Any, carry: Any, rows: Any, held: Any, lengths: Any, pieces: Any) -> Any:
    """Which rows make up a lane's next window.

    Args:
        n, carry: where the lane stands, n counted from the first row held.
        rows, held: how many rows the lane has left and holds, counted alike.
        lengths: tokens of each row held.
        pieces: out: [seq_len, 3]: row, its first token taken, tokens taken.

    Returns:
        (status, number of pieces, n, carry) after the window; _SHORT where more rows must be held to tell.
    """
    if n >= rows:
        return _OVER, 0, n, carry
    if n >= held:
        return _SHORT, 0, n, carry
    room, count = seq_len, 0
    if mode == _BEST_FIT:
        best = n  # the first row, which stands to be taken
        while best >= 0:
            take = min(lengths[best], room)
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = best, 0, take
            room, count = room - take, count + 1
            carry |= _1 << (best - n)
            while carry & _1:
                n, carry = n + 1, carry >> _1
            if room > 0 and held < min(rows, n + LOOK):
                return _SHORT, 0, n, carry
            best, longest = -1, 0
            for i in range(n, min(n + LOOK, rows) if room > 0 else n):
                if not (carry >> (i - n)) & _1 and longest < lengths[i] <= room:
                    best, longest = i, lengths[i]
        return _DONE, count, n, carry
    while room > 0 and n < rows:
        if n >= held:
            return _SHORT, 0, n, carry
        left = lengths[n] - carry
        take = min(left, room)
        pieces[count, 0], pieces[count, 1], pieces[count, 2] = n, carry, take
        room, count = room - take, count + 1
        if take < left and mode == _CONCAT:
            carry += take
        else:
            n, carry = n + 1, 0
    return _DONE, count, n, carry


@kernel
def _plan(
    mode: Any, seq_len: Any, lanes: Any, at: Any, stand: Any, base: Any, total: Any, held: Any, lengths: Any,
    pieces: Any, plan: Any,
) -> Any:  # fmt: skip
    """Plan windows at, at+1 … of a batch: window w is the next of lane lanes[w].

    Args:
        stand: [lanes, 2]: n and carry; moved on.
        base: first row held of each lane; total: its number of rows; held: rows held.
        lengths: [lanes, rows].
        plan: out: [windows, 2]: where the lane stood.

    Returns:
        (status, windows planned, the lane that was short or over).
    """
    while at < lanes.size:
        lane = lanes[at]
        first = base[lane]
        plan[at, 0], plan[at, 1] = stand[lane, 0], stand[lane, 1]
        status, _, n, carry = _choose(
            mode,
            seq_len,
            stand[lane, 0] - first,
            stand[lane, 1],
            total[lane] - first,
            held[lane],
            lengths[lane],
            pieces,
        )
        if status != _DONE:
            return status, at, lane
        stand[lane, 0], stand[lane, 1] = n + first, carry
        at += 1
    return _DONE, at, 0


@kernel
def _fill(
    mode: Any, seq_len: Any, lanes: Any, plan: Any, first_window: Any, places: Any, base: Any, total: Any, held: Any,
    lengths: Any, starts: Any, indices: Any, data: Any, trained: Any, pad_id: Any, pieces: Any,
    ids: Any, labels: Any, attention: Any, loss_mask: Any, index: Any, segments: Any, positions: Any,
) -> Any:  # fmt: skip
    """Write planned windows to rows `places` of the tensors; returns (padding, tokens cut off)."""
    padding, cut = 0, 0
    for k in range(places.size):
        w, to = first_window + k, places[k]
        lane = lanes[w]
        first = base[lane]
        _, count, _, _ = _choose(
            mode, seq_len, plan[w, 0] - first, plan[w, 1], total[lane] - first, held[lane], lengths[lane], pieces
        )
        used = 0
        for p in range(count):
            row, skip, n = pieces[p, 0], pieces[p, 1], pieces[p, 2]
            begin = starts[lane, row] + skip
            tokens, on = data[begin : begin + n], trained[begin : begin + n]
            stop = used + n
            piece_ids, piece_labels, piece_mask = ids[to, used:stop], labels[to, used:stop], loss_mask[to, used:stop]
            piece_positions = positions[to, used:stop]
            for j in range(n):
                token, keep = np.int64(tokens[j]), np.int64(on[j])
                piece_ids[j] = token
                piece_labels[j] = (token + _SHIFT) * keep - _SHIFT
                piece_mask[j] = on[j]
                piece_positions[j] = skip + j
            index[to, used:stop] = indices[lane, row]
            segments[to, used:stop] = p + 1
            used = stop
            if mode != _CONCAT:
                cut += lengths[lane, row] - n
        attention[to, :used] = 1
        attention[to, used:] = 0
        ids[to, used:] = pad_id
        labels[to, used:] = _IGNORED
        loss_mask[to, used:] = 0
        index[to, used:] = -1
        segments[to, used:] = 0
        positions[to, used:] = 0
        padding += seq_len - used
    return padding, cut


@kernel
def _keep(
    drop: Any, held: Any, lengths: Any, starts: Any, indices: Any, data: Any, trained: Any,
    new_lengths: Any, new_starts: Any, new_indices: Any, new_data: Any, new_trained: Any, at: Any,
    want: Any, addresses: Any, part: Any, row_start: Any, row_length: Any, row_index: Any, like: Any,
) -> Any:  # fmt: skip
    """Lay out each lane's rows anew: those held after the first drop[lane], then want[lane] new ones."""
    size = np.uint64(like.itemsize)
    i = 0
    for lane in range(held.size):
        kept = held[lane] - drop[lane]
        for r in range(kept + want[lane]):
            if r < kept:
                old = drop[lane] + r
                n, begin = lengths[lane, old], starts[lane, old]
                tokens, on = data[begin : begin + n], trained[begin : begin + n]
                new_indices[lane, r] = indices[lane, old]
            else:
                n, block = row_length[i], addresses[part[i]]
                tokens = array_at(block[0] + np.uint64(row_start[i]) * size, n, like.dtype)
                on = array_at(block[1] + np.uint64(row_start[i]), n, np.uint8)
                new_indices[lane, r] = row_index[i]
                i += 1
            to, on_to = new_data[at : at + n], new_trained[at : at + n]
            for j in range(n):
                to[j] = tokens[j]
            for j in range(n):
                on_to[j] = on[j]
            new_lengths[lane, r], new_starts[lane, r] = n, at
            at += n
    return at


@dataclass
class Plan:
    """The windows of one batch.

    Attributes:
        lanes: int64 [windows]: each window's lane (a place in the packer's list of lanes).
        stood: int64 [windows, 2]: where the lane stood before it.
    """

    lanes: np.ndarray
    stood: np.ndarray

    def __len__(self) -> int:
        return len(self.lanes)


class _Held:
    """The rows that lanes hold: [lanes, rows] arrays, and their tokens end to end."""

    def __init__(self, lanes: int, rows: int, tokens: int, dtype: Any) -> None:
        self.lengths, self.starts, self.indices = (np.zeros((lanes, rows), np.int64) for _ in range(3))
        self.data, self.trained = np.empty(tokens, dtype), np.empty(tokens, np.uint8)


class Packer:
    """Packs the rows of some lanes.

    Args:
        mode: one of `MODES`.
        seq_len: tokens of a window.
        stand: int64 [lanes, 2]: n and carry of each lane.
        total: int64 [lanes]: rows of each lane in all (`ENDLESS` where there is no end).
        take: called with (lane, n) int64 arrays; gives these rows, valid until the next call.
    """

    def __init__(
        self,
        mode: str,
        seq_len: int,
        stand: np.ndarray,
        total: np.ndarray,
        take: Callable[[np.ndarray, np.ndarray], Rows],
    ) -> None:
        self.mode, self.seq_len, self.stand, self.total = MODES.index(mode), seq_len, stand.copy(), total
        self._take = take
        lanes = len(stand)
        self._rows = max(64, 1024 // lanes)  # that a lane holds; doubled where a batch needs more
        self._base, self._count = stand[:, 0].copy(), np.zeros(lanes, np.int64)
        self._held = _Held(lanes, self._rows, 0, np.uint16)
        self._pieces = np.empty((seq_len + 1, 3), np.int64)

    def plan(self, lanes: np.ndarray) -> Plan:
        """Plan the next windows of `lanes` (int64 [windows]); fewer where a lane is at its end."""
        begin = self.stand[:, 0].copy()
        plan = Plan(lanes, np.empty((len(lanes), 2), np.int64))
        at = 0
        while True:
            status, at, lane = _plan(
                self.mode, self.seq_len, lanes, at, self.stand, self._base, self.total, self._count,
                self._held.lengths, self._pieces, plan.stood,
            )  # fmt: skip
            if status == _DONE:
                return plan
            if status == _OVER:
                return Plan(lanes[:at], plan.stood[:at])
            if self._count[lane] - (begin[lane] - self._base[lane]) >= self._rows:
                self._rows *= 2
            self._refill(begin)

    def fill(
        self, plan: Plan, first: int, places: np.ndarray, pad_id: int, arrays: dict[str, np.ndarray]
    ) -> tuple[int, int]:
        """Write windows first, first+1 … of the last plan to rows `places` (int64) of a batch.

        Args:
            arrays: all [windows, seq_len]: `input_ids`, `labels`, `attention_mask`, `index`, `segment_ids`,
                `position_ids` int64, `loss_mask` bool.

        Returns:
            padding and tokens cut off.
        """
        held = self._held
        padding, cut = _fill(
            self.mode, self.seq_len, plan.lanes, plan.stood, first, places, self._base, self.total, self._count,
            held.lengths, held.starts, held.indices, held.data, held.trained, pad_id, self._pieces,
            arrays["input_ids"], arrays["labels"], arrays["attention_mask"], arrays["loss_mask"].view(np.uint8),
            arrays["index"], arrays["segment_ids"], arrays["position_ids"],
        )  # fmt: skip
        return int(padding), int(cut)

    def _refill(self, begin: np.ndarray) -> None:
        """Let each lane hold `_rows` rows from `begin` on (the batch that is being planned needs them all)."""
        drop = begin - self._base
        kept = self._count - drop
        want = np.minimum(self._rows, self.total - begin) - kept
        lane = np.repeat(np.arange(len(want)), want)
        first = np.repeat(np.cumsum(want) - want, want)
        n = np.repeat(begin + kept, want) + (np.arange(len(lane)) - first)
        rows = self._take(lane, n)
        old, lanes = self._held, len(want)
        dtype = rows.dtype if len(rows) else old.data.dtype
        if old.data.size == 0:
            old.data = old.data.astype(dtype)
        tokens = sum(int(old.lengths[v, d:c].sum()) for v, (d, c) in enumerate(zip(drop, self._count, strict=True)))
        new = _Held(lanes, self._rows, tokens + int(rows.length.sum()), dtype)
        _keep(
            drop, self._count, old.lengths, old.starts, old.indices, old.data, old.trained,
            new.lengths, new.starts, new.indices, new.data, new.trained, 0,
            want, rows.addresses, rows.part, rows.start, rows.length, rows.index, np.empty(0, dtype),
        )  # fmt: skip
        self._held, self._base, self._count = new, begin, kept + want
