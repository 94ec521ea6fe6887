"""Packing: windows of `seq_len` tokens, each a pure function of its lane's cursor.

A *lane* is a sequence of rows; P lanes share an order, the n-th row of lane κ being list position n·P + κ. Window u
belongs to lane u mod P. Where a lane stands is two numbers: n, its next row, and a *carry*:

- ``concat``: rows end to end, cut at the window. Carry: tokens of row n that are already given.
- ``paper`` (Part 4.1): a window starts with a fresh row, and what does not fit of its last row is cut. No carry.
- ``best-fit``: row n, then again and again the longest untaken one that fits (the first among equals) of the 32 rows
  from the first untaken one on, until none fits. Carry: which of the rows n .. n+31 are taken, a bit each.

A mode more is a name in `Packing`, a line in `PACKINGS` and a branch of `_choose`: nothing else knows the modes.

A row longer than a window is cut by ``paper`` and ``best-fit``, and goes on in the next window with ``concat``.

A batch is first *planned* (only lengths are looked at; each rank does this for every lane it may meet): which *pieces*
of rows make up each window. Then a rank's own windows are *filled*, whenever and by whichever thread. No token is
copied in between: a plan says where its pieces lie, and holds what keeps them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from synthshards.kernels.arrays import I64, U64, Ids
from synthshards.kernels.jit import helper, kernel

from ..sources.row_refs import RowRefs, RowTable, array_at, fetch_row

#: How rows become a batch: padded, or packed into windows.
Packing: TypeAlias = Literal["pad", "concat", "paper", "best-fit"]
#: What each comes to.
PACKINGS: dict[Packing, str] = {
    "pad": "a row of the tensor each",
    "concat": "end to end, rows run on",
    "paper": "fresh start, the last cut",
    "best-fit": "no row is cut",
}
#: Those that make windows; kernels know a mode by its place here.
MODES: tuple[Packing, ...] = get_args(Packing)[1:]
_CONCAT, _PAPER, _BEST_FIT = MODES.index("concat"), MODES.index("paper"), MODES.index("best-fit")
#: The tensors that `WindowPlan.fill` writes, as `Memory.batch` takes them.
FIELDS = ("input_ids", "labels", "attention_mask", "loss_mask", "index", "segment_ids", "position_ids")
#: Rows that best-fit looks at: one bit each of the carry.
LOOK = 32
#: "Without end", as a number of rows.
ENDLESS = 1 << 62

#: What planning comes to: windows planned, more rows must be held to tell, a lane is at its end, a lane stands where no
#: window ends.
_DONE, SHORT, _OVER, DAMAGED = 0, 1, 2, 3
#: Columns of a piece: where its row's ids and mask lie, the row's index, first token taken, tokens taken, tokens cut.
_IDS, _MASK, _INDEX, _SKIP, _TAKE, _CUT = range(6)
_IGNORED, _SHIFT = np.int64(-100), np.int64(100)
_1, _LAST, _8 = np.int64(1), np.int64(63), np.uint64(8)
#: Python's own integers and int64 are one inside kernels.
_Int: TypeAlias = int | np.int64


class Lanes(NamedTuple):
    """Lanes as `plan_windows` takes them.

    Attributes:
        cursor: int64 [lanes, 2]: where each stands, n and carry; moved on.
        base: int64 [lanes]: n of the first row held.
        held: int64 [lanes]: rows held.
        total: int64 [lanes]: rows in all.
        rows: [lanes, room]: the rows held.
    """

    cursor: I64
    base: I64
    held: I64
    total: I64
    rows: RowTable


@helper
def _best(lengths: I64, taken: _Int, room: _Int) -> _Int:
    """The longest of up to 32 rows that is not taken and fits, the first among equals; −1: none, or empty.

    One number says both, length and place, and it is found without a branch: four times as fast (measured).
    """
    best = _LAST
    for i in range(lengths.size):
        fits = np.int64(lengths[i] <= room) & ~(taken >> np.int64(i)) & _1
        best = max(best, fits * (lengths[i] << np.int64(6) | (_LAST - np.int64(i))))
    return _LAST - (best & _LAST) if best > _LAST else np.int64(-1)


@helper
def _put(pieces: I64, at: int, row: tuple[np.uint64, np.uint64, np.int64], skip: _Int, take: _Int, cut: _Int) -> int:
    """Write a piece of a row (its ids, mask, index); return the place behind it."""
    pieces[at, _IDS], pieces[at, _MASK], pieces[at, _INDEX] = np.int64(row[0]), np.int64(row[1]), row[2]
    pieces[at, _SKIP], pieces[at, _TAKE], pieces[at, _CUT] = skip, take, cut
    return at + 1


@helper
def _choose(
    mode: int, seq_len: int, n: _Int, carry: _Int, total: _Int, held: _Int, rows: RowTable, pieces: I64, at: int
) -> tuple[int, int, _Int, _Int]:
    """Which pieces make up a lane's next window.

    Args:
        n, carry: where the lane stands, n counted from the first row held.
        total, held: how many rows the lane has left and holds, counted alike.
        rows: those held.
        pieces: out, from `at` on.

    Returns:
        (status, end of the pieces, n, carry) after the window; SHORT where more rows must be held to tell, DAMAGED
        where the carry is none that row n can have.
    """
    lengths, indices, ids_at, mask_at = rows.length, rows.indices, rows.ids, rows.mask
    if n >= total:
        return _OVER, at, n, carry
    if n >= held:
        return SHORT, at, n, carry
    if n < 0:
        return DAMAGED, at, n, carry
    room = seq_len
    if mode == _BEST_FIT:
        if carry & _1 or carry >> min(total - n, LOOK):
            return DAMAGED, at, n, carry
        best = n  # the first row, which stands to be taken
        while True:
            take = min(lengths[best], room)
            row = ids_at[best], mask_at[best], indices[best]
            at = _put(pieces, at, row, 0, take, lengths[best] - take)
            room -= take
            carry |= _1 << (best - n)
            while carry & _1:
                n, carry = n + 1, carry >> _1
            if room == 0:
                return _DONE, at, n, carry
            if held < min(total, n + LOOK):
                return SHORT, at, n, carry
            found = _best(lengths[n : min(n + LOOK, total)], carry, room)
            if found < 0:
                return _DONE, at, n, carry
            best = n + found
    if carry and (mode == _PAPER or carry < 0 or carry >= lengths[n]):
        return DAMAGED, at, n, carry
    while room > 0 and n < total:
        if n >= held:
            return SHORT, at, n, carry
        left = lengths[n] - carry
        take = min(left, room)
        row = ids_at[n], mask_at[n], indices[n]
        at = _put(pieces, at, row, carry, take, left - take if mode == _PAPER else 0)
        room -= take
        if take < left and mode == _CONCAT:
            carry += take
        else:
            n, carry = n + 1, 0
    return _DONE, at, n, carry


@kernel
def plan_windows(
    mode: int, seq_len: int, lanes: Lanes, turns: I64, at: int, pieces: I64, ends: I64
) -> tuple[int, int, int]:
    """Plan windows at, at+1 … of a batch: window w is the next of lane turns[w].

    Args:
        turns: [windows].
        pieces: out, [pieces, 6], with room for each row held and each window.
        ends: out, [windows + 1]: window w has the pieces ends[w] .. ends[w+1]−1.

    Returns:
        (status, windows planned, the lane that was short, over or damaged).
    """
    cursor, held = lanes.cursor, lanes.rows
    while at < turns.size:
        lane = turns[at]
        first = lanes.base[lane]
        rows = RowTable(held.length[lane], held.indices[lane], held.ids[lane], held.mask[lane])
        status, end, n, carry = _choose(
            mode, seq_len, cursor[lane, 0] - first, cursor[lane, 1], lanes.total[lane] - first, lanes.held[lane],
            rows, pieces, ends[at],
        )  # fmt: skip
        if status != _DONE:
            return status, at, lane
        cursor[lane, 0], cursor[lane, 1] = n + first, carry
        at += 1
        ends[at] = end
    return _DONE, at, 0


@kernel
def _fill(
    seq_len: int, pieces: I64, ends: I64, first_window: int, places: I64, like: Ids, pad_id: int, tensors: U64
) -> tuple[int, int]:
    """Write planned windows first_window, first_window + 1 … to the tensors; returns (padding, tokens cut).

    Args:
        pieces, ends: [pieces, 6] and [windows + 1], as `plan_windows` fills them.
        places: [windows to write], the tensors' row for each.
        like: [0], of the ids' dtype.
        tensors: [7], addresses of the `FIELDS`, each [rows, seq_len].
    """
    size = np.uint64(like.itemsize)
    padding, cut = 0, 0
    last = ends[ends.size - 1]
    for k in range(places.size):
        w = first_window + k
        begin = np.uint64(places[k] * seq_len)
        ids = array_at(tensors[0] + begin * _8, seq_len, np.int64)
        labels = array_at(tensors[1] + begin * _8, seq_len, np.int64)
        attention = array_at(tensors[2] + begin * _8, seq_len, np.int64)
        mask = array_at(tensors[3] + begin, seq_len, np.uint8)
        index = array_at(tensors[4] + begin * _8, seq_len, np.int64)
        segments = array_at(tensors[5] + begin * _8, seq_len, np.int64)
        positions = array_at(tensors[6] + begin * _8, seq_len, np.int64)
        used = 0
        for p in range(ends[w], ends[w + 1]):
            if p + 1 < last:
                fetch_row(pieces[p + 1, _IDS], pieces[p + 1, _MASK], pieces[p + 1, _SKIP], pieces[p + 1, _TAKE], size)
            skip, n = pieces[p, _SKIP], pieces[p, _TAKE]
            tokens = array_at(np.uint64(pieces[p, _IDS]) + np.uint64(skip) * size, n, like.dtype)
            on = array_at(np.uint64(pieces[p, _MASK]) + np.uint64(skip), n, np.uint8)
            stop = used + n
            piece_ids, piece_labels, piece_mask = ids[used:stop], labels[used:stop], mask[used:stop]
            piece_positions = positions[used:stop]
            for j in range(n):
                token, keep = np.int64(tokens[j]), np.int64(on[j])
                piece_ids[j] = token
                piece_labels[j] = (token + _SHIFT) * keep - _SHIFT
                piece_mask[j] = on[j]
                piece_positions[j] = skip + j
            index[used:stop] = pieces[p, _INDEX]
            segments[used:stop] = p - ends[w] + 1
            used = stop
            cut += pieces[p, _CUT]
        attention[:used] = 1
        attention[used:] = 0
        ids[used:] = pad_id
        labels[used:] = _IGNORED
        mask[used:] = 0
        index[used:] = -1
        segments[used:] = 0
        positions[used:] = 0
        padding += seq_len - used
    return padding, cut


@dataclass(frozen=True)
class WindowPlan:
    """The windows of one batch.

    Attributes:
        seq_len: tokens of a window.
        pieces: int64 [pieces, 6]: see `_put`.
        ends: int64 [windows + 1]: window w has the pieces ends[w] .. ends[w+1]−1.
        like: an empty array of the ids' dtype.
        rows: what holds the rows.
    """

    seq_len: int
    pieces: np.ndarray
    ends: np.ndarray
    like: np.ndarray
    rows: tuple[RowRefs, ...]

    def __len__(self) -> int:
        return len(self.ends) - 1

    def fill(self, first: int, places: np.ndarray, pad_id: int, tensors: np.ndarray) -> tuple[int, int]:
        """Write windows first, first+1 … to rows `places` (int64) of a batch.

        Args:
            tensors: uint64 [7]: addresses of the `FIELDS`, each [windows, seq_len].

        Returns:
            padding and tokens cut off.
        """
        padding, cut = _fill(self.seq_len, self.pieces, self.ends, first, places, self.like, pad_id, tensors)
        return int(padding), int(cut)
