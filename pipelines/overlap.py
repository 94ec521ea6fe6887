"""Count the rows that two datasets share: exactly, in bounded memory, across formats and stores.

Each row is reduced to a 128-bit hash of its tokens (or text); two different rows of two sides of 10^7 rows have one
hash with a probability below 10^-24. The hashes of the smaller side go into a table, those of the larger side are
looked up as they are read. A smaller side of more than `_PASS_ROWS` rows is taken in several passes, each over its own
share of the hash space.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from synthshards.catalog import TASKS
from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.kernels.arrays import I64, U32, U64, Bool, Values
from synthshards.kernels.jit import kernel
from synthshards.ragged import RaggedBatch, is_ragged

from .execution.executor import Executor
from .execution.progress import Progress, Tick
from .execution.threads import run_in_threads

#: Rows of the smaller side that are in the table at a time; it has up to 2^24 places of 29 bytes.
_PASS_ROWS = 12_000_000

_P0, _P1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_Q0, _Q1 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_31, _29, _1 = np.uint64(31), np.uint64(29), np.uint64(1)


@dataclass
class Overlap:
    """The rows that two datasets a and b have in common.

    Attributes:
        rows_a: number of rows of a.
        rows_b: number of rows of b.
        size: name of the task's size (n, ℓ …); None if the two have none in common.
        same_stream: whether both have the same identity, so that equal indices mean equal rows.
        shared: number of distinct rows that occur in both.
        shared_in_a: rows of a that also occur in b, repeats counted.
        shared_in_b: rows of b that also occur in a, repeats counted.
        by_size: size → number of distinct shared rows of that size.
    """

    rows_a: int
    rows_b: int
    size: str | None
    same_stream: bool
    shared: int = 0
    shared_in_a: int = 0
    shared_in_b: int = 0
    by_size: dict[int, int] = field(default_factory=dict)


def overlap(a: str, b: str, *, workers: int = 1, quiet: bool = True, executor: Executor = run_in_threads) -> Overlap:
    """Count the rows that two finished datasets have in common.

    Args:
        a: a folder, URI or manifest.
        b: another one.
        workers: number of shards to read at the same time; each is held in memory.
        quiet: no progress on stderr.
        executor: who reads the shards; by default threads of this process.

    Raises:
        UsageError: one of them is not a dataset.
        DataError: a shard is damaged.
    """
    sides = open_stored(a), open_stored(b)
    rows = [side.manifest.examples for side in sides]
    out = Overlap(rows[0], rows[1], _common_size(*sides), sides[0].manifest.identity == sides[1].manifest.identity)
    swap = rows[0] > rows[1]
    small, large = sides[::-1] if swap else sides
    passes = -(-min(rows) // _PASS_ROWS)
    in_small = in_large = 0
    with Progress("comparing", passes * sum(rows), quiet=quiet) as progress:

        def read(jobs: Iterable[HashJob]) -> closing[Generator[RowHashes, None, None]]:
            return closing(executor(hash_shard, jobs, workers, tick=progress.tick, show=progress.show))

        for part in range(passes):
            table = _HashTable(int(min(rows) / passes * 1.01) + 10_000)
            with read(_jobs(small, part, passes, out.size)) as shards:
                for hashes, sizes in shards:
                    table.add(hashes, sizes)
            with read(_jobs(large, part, passes, None)) as shards:
                for hashes, _ in shards:
                    in_large += table.find(hashes)
            shared = table.found
            out.shared += int(np.count_nonzero(shared))
            in_small += int(table.counts[shared].sum())
            for value, count in zip(*np.unique(table.sizes[shared], return_counts=True), strict=True):
                out.by_size[int(value)] = out.by_size.get(int(value), 0) + int(count)
    out.shared_in_a, out.shared_in_b = (in_large, in_small) if swap else (in_small, in_large)
    out.by_size = dict(sorted(out.by_size.items())) if out.size else {}
    return out


def _common_size(a: StoredDataset, b: StoredDataset) -> str | None:
    """The column that both sides can be counted by."""
    name = TASKS[a.manifest.identity.task][0].size_fact
    kinds = {side.manifest.columns.get(name, "string") for side in (a, b)}
    return None if any(is_ragged(kind) for kind in kinds) else name


@dataclass(frozen=True)
class HashJob:
    """One shard to reduce to hashes: a plain value, for any executor.

    Attributes:
        dataset: of this shard alone.
        part, passes: which share of the hash space this pass is about.
        size: the column to count by, None where sizes do not matter.
    """

    dataset: StoredDataset
    part: int
    passes: int
    size: str | None


def _jobs(side: StoredDataset, part: int, passes: int, size: str | None) -> Iterator[HashJob]:
    return (HashJob(side.only(index), part, passes, size) for index in range(len(side.manifest.shards)))


class RowHashes(NamedTuple):
    """Rows of one shard, 20 bytes each: all that the table needs, so that no row itself travels.

    Attributes:
        hashes: uint64 [rows, 2].
        sizes: uint32 [rows].
    """

    hashes: np.ndarray
    sizes: np.ndarray


def hash_shard(job: HashJob, tick: Tick) -> RowHashes:
    """Do a job.

    Raises:
        DataError: the shard is damaged.
    """
    hashes, sizes = [], []
    for batch in job.dataset.blocks(0):
        every = row_hashes(batch)
        mine = every[:, 0] % np.uint64(job.passes) == np.uint64(job.part)
        hashes.append(every[mine])
        values = batch.columns[job.size].values[mine] if job.size is not None else np.zeros(0)
        sizes.append(values.astype(np.uint32))
        tick({"examples": len(batch), "tokens": int(batch.offsets[-1])})
    return RowHashes(np.concatenate(hashes), np.concatenate(sizes))


def row_hashes(batch: RaggedBatch) -> np.ndarray:
    """128 bits a row, uint64 [rows, 2]: of `input_ids` (whatever their width) or of the bytes of `text`."""
    tokens = "input_ids" in batch.columns
    column = batch.columns["input_ids" if tokens else "text"]
    out = np.empty((len(batch), 2), np.uint64)
    _hash_rows(column.values, batch.offsets, _P0 if tokens else _Q0, out)
    return out


class _HashTable:
    """A hash table of rows: how often each stands on one side, its size, and whether it was found on the other."""

    def __init__(self, rows: int) -> None:
        places = 1 << max(4, (rows + rows // 3).bit_length())
        self._keys = np.zeros((places, 2), np.uint64)
        self.counts = np.zeros(places, np.int64)  # 0: the place is free
        self.sizes = np.zeros(places, np.uint32)
        self.found = np.zeros(places, np.bool_)

    def add(self, hashes: np.ndarray, sizes: np.ndarray) -> None:
        room = _add(self._keys, self.counts, self.sizes, hashes, sizes)
        assert room, "one share of the hash space is larger than the others beyond all probability"

    def find(self, hashes: np.ndarray) -> int:
        """Mark the rows that are in the table; return how many of `hashes` are."""
        return int(_find(self._keys, self.counts, self.found, hashes))


@kernel
def _hash_rows(values: Values, offsets: I64, start: np.uint64, out: U64) -> None:
    """Two independent 64-bit hashes of each row.

    Args:
        values: [values], integers.
        offsets: [rows + 1], into `values`.
        out: [rows, 2].
    """
    for r in range(offsets.size - 1):
        h, g = start, start ^ _P1
        for i in range(offsets[r], offsets[r + 1]):
            x = np.uint64(values[i])
            h = (h ^ x) * _Q0
            h ^= h >> _31
            g = (g + x) * _Q1
            g ^= g >> _29
        h *= _P0
        g *= _P1
        out[r, 0] = h ^ (h >> _31)
        out[r, 1] = g ^ (g >> _29)


@kernel
def _add(keys: U64, counts: I64, sizes: U32, hashes: U64, new_sizes: U32) -> bool:
    """Add rows to the table; False when it is full.

    Args:
        keys: [places, 2]; counts, sizes: [places].
        hashes: [rows, 2]; new_sizes: [rows], or empty.
    """
    last = np.uint64(counts.size - 1)
    for r in range(hashes.shape[0]):
        at = hashes[r, 1] & last
        for _ in range(counts.size):
            if counts[at] == 0:
                keys[at, 0], keys[at, 1] = hashes[r, 0], hashes[r, 1]
                if new_sizes.size > 0:
                    sizes[at] = new_sizes[r]
                break
            if keys[at, 0] == hashes[r, 0] and keys[at, 1] == hashes[r, 1]:
                break
            at = (at + _1) & last
        else:
            return False
        counts[at] += 1
    return True


@kernel
def _find(keys: U64, counts: I64, found: Bool, hashes: U64) -> int:
    """Mark the rows that stand in the table, which is never full; return how many of `hashes` do.

    Args:
        keys: [places, 2]; counts, found: [places].
        hashes: [rows, 2].
    """
    last = np.uint64(counts.size - 1)
    total = 0
    for r in range(hashes.shape[0]):
        at = hashes[r, 1] & last
        while counts[at] != 0:
            if keys[at, 0] == hashes[r, 0] and keys[at, 1] == hashes[r, 1]:
                found[at] = True
                total += 1
                break
            at = (at + _1) & last
    return total
