"""Count the rows that two datasets share: exactly, in bounded memory, across formats and stores.

Each row is reduced to a 128-bit hash of its tokens (or text). Different rows of two sides of 10^7 rows fall on one hash
with probability below 10^-24. Where the sides are larger than `_PASS_ROWS`, the hashes are compared in several passes,
each over its own share of the hash space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synthshards.catalog import TASKS
from synthshards.dataset import StoredDataset, open_stored
from synthshards.kernel import kernel
from synthshards.ragged import RaggedBatch

from .progress import Progress

#: Rows of a side that are held at a time: 20 bytes each, sorted.
_PASS_ROWS = 1 << 24

_P0, _P1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_Q0, _Q1 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_31, _29 = np.uint64(31), np.uint64(29)


@dataclass
class Overlap:
    """Shared rows of two sides.

    Attributes:
        shared: different rows that stand on both sides.
        rows_a, rows_b: rows of each side.
        shared_in_a, shared_in_b: rows of each side that stand on the other too (repeats counted).
        by_size: the task's size (n, ℓ …) → number of different shared rows of that size.
        size: name of that size.
        same_stream: both sides have one identity, so that equal indices are equal rows.
    """

    rows_a: int
    rows_b: int
    size: str | None
    same_stream: bool
    shared: int = 0
    shared_in_a: int = 0
    shared_in_b: int = 0
    by_size: dict[int, int] = field(default_factory=dict)


def overlap(a: str, b: str, *, quiet: bool = True) -> Overlap:
    """Compare two folders, URIs or manifests whose files stand.

    Raises:
        UsageError: one of them is no dataset.
        DataError: a shard is damaged.
    """
    sides = open_stored(a), open_stored(b)
    rows = [side.manifest.examples for side in sides]
    task = TASKS[sides[0].manifest.identity.task][0]
    size = task.size_fact if all(task.size_fact in side.manifest.columns for side in sides) else None
    same = sides[0].manifest.identity == sides[1].manifest.identity
    out = Overlap(rows[0], rows[1], size, same)
    passes = max(1, -(-max(rows) // _PASS_ROWS))
    with Progress("comparing", passes * sum(rows), quiet=quiet) as progress:
        for part in range(passes):
            left = _hashes(sides[0], part, passes, size, progress)
            right = _hashes(sides[1], part, passes, size, progress)
            in_a, first_in_a = _match(left[0], left[1], right[0], right[1])
            in_b, _ = _match(right[0], right[1], left[0], left[1])
            out.shared += int(first_in_a.sum())
            out.shared_in_a += int(in_a.sum())
            out.shared_in_b += int(in_b.sum())
            for value, count in zip(*np.unique(left[2][first_in_a], return_counts=True), strict=True):
                out.by_size[int(value)] = out.by_size.get(int(value), 0) + int(count)
    out.by_size = dict(sorted(out.by_size.items())) if size else {}
    return out


def _hashes(
    side: StoredDataset, part: int, passes: int, size: str | None, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted hashes (two uint64 [rows]) and sizes (uint32 [rows]) of the rows that fall into this pass."""
    rows = side.manifest.examples
    room = rows if passes == 1 else int(rows / passes * 1.1) + 100_000
    high, low = np.empty(room, np.uint64), np.empty(room, np.uint64)
    sizes = np.zeros(room, np.uint32)
    at = 0
    for index in range(len(side.manifest.shards)):
        for batch in side.blocks(index):
            h, g = row_hashes(batch)
            mine = h % np.uint64(passes) == np.uint64(part)
            count = int(mine.sum())
            assert at + count <= room, "a share of the hash space is uneven beyond all probability"
            high[at : at + count], low[at : at + count] = h[mine], g[mine]
            if size is not None:
                sizes[at : at + count] = batch.columns[size].values[mine]
            at += count
            progress.tick({"examples": len(batch), "tokens": int(batch.offsets[-1])})
        progress.show()
    order = np.lexsort((low[:at], high[:at]))
    return high[:at][order], low[:at][order], sizes[:at][order]


def row_hashes(batch: RaggedBatch) -> tuple[np.ndarray, np.ndarray]:
    """128 bits a row, as two uint64 [rows]: of `input_ids` (whatever their width) or of the bytes of `text`."""
    column = batch.columns.get("input_ids") or batch.columns["text"]
    out = np.empty((2, len(batch)), np.uint64)
    _hash_rows(column.values, column.offsets, out)
    return out[0], out[1]


@kernel
def _hash_rows(values: Any, offsets: Any, out: Any) -> None:
    for r in range(offsets.size - 1):
        h = np.uint64(offsets[r + 1] - offsets[r]) * _P0
        g = h ^ _P1
        for i in range(offsets[r], offsets[r + 1]):
            x = np.uint64(values[i])
            h = (h ^ x) * _Q0
            h ^= h >> _31
            g = (g + x) * _Q1
            g ^= g >> _29
        h *= _P0
        g *= _P1
        out[0, r] = h ^ (h >> _31)
        out[1, r] = g ^ (g >> _29)


@kernel
def _match(high: Any, low: Any, other_high: Any, other_low: Any) -> Any:
    """For sorted hashes: bool [rows] in the other side too, and bool [rows] the first of its kind among those."""
    found = np.zeros(high.size, np.bool_)
    first = np.zeros(high.size, np.bool_)
    j = 0
    for i in range(high.size):
        while j < other_high.size and (other_high[j] < high[i] or (other_high[j] == high[i] and other_low[j] < low[i])):
            j += 1
        if j < other_high.size and other_high[j] == high[i] and other_low[j] == low[i]:
            found[i] = True
            first[i] = i == 0 or high[i] != high[i - 1] or low[i] != low[i - 1]
    return found, first
