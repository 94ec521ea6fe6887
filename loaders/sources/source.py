"""Where rows come from: generated on the fly, or read from shards. Both give equal rows at equal indices."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from typing import Any, Protocol, TypeAlias

import numpy as np

from synthshards.dataset.stored import StoredDataset
from synthshards.kernels.arrays import I64
from synthshards.kernels.buffers import Buffers, Pool
from synthshards.kernels.jit import kernel
from synthshards.ragged import BLOCK_ROWS, RaggedBatch, concat
from synthshards.tasks.task import Task

from ..shards.reader import Shards
from .row_refs import Block, RowRefs

#: Rows that are worth a thread of their own, and threads at most.
_SPLIT, _PARTS = 256, 16
#: An odd number, by which neighbouring blocks come to lie apart in a hash table.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
#: What turns text rows into token rows.
Convert: TypeAlias = Callable[[RaggedBatch], RaggedBatch]


@kernel
def _blocks_of(indices: I64, numbers: I64, part: I64, row: I64, places: I64, shift: np.uint64) -> int:
    """In which blocks rows lie: row i is row row[i] of block numbers[part[i]]; returns how many blocks there are.

    Args:
        indices: [rows]; numbers, part, row: out, [rows].
        places: [2^(64 − shift)], more than there are rows, of −1: a hash table of the blocks met.
    """
    count, last = 0, 0
    for i in range(indices.size):
        number = indices[i] // BLOCK_ROWS
        row[i] = indices[i] % BLOCK_ROWS
        if count == 0 or numbers[last] != number:
            last = last + 1 if last + 1 < count else 0  # lanes take turns: mostly it is the next one
            if count == 0 or numbers[last] != number:
                slot = np.int64(np.uint64(number) * _SPREAD >> shift)
                while places[slot] >= 0 and numbers[places[slot]] != number:
                    slot = (slot + 1) & (places.size - 1)
                if places[slot] < 0:
                    places[slot], numbers[count] = count, number
                    count += 1
                last = places[slot]
        part[i] = last
    return count


class Source(Protocol):
    """Rows by index.

    Attributes:
        looks_ahead: whether `ahead` does anything.
    """

    looks_ahead: bool

    def take(self, indices: np.ndarray, threads: Executor | None = None) -> RowRefs:
        """The rows of `indices` (uint64 [n]) in that order.

        Args:
            threads: to share the work among.
        """

    def raw(self, start: int, count: int) -> RaggedBatch:
        """Neighbouring rows as they are stored, without conversion."""

    def ahead(self, indices: np.ndarray) -> None:
        """A hint that rows of `indices` will be wanted."""

    def hold(self, blocks: int) -> None:
        """A hint that rows of so many blocks will be wanted at a time."""

    def close(self) -> None:
        """End what runs in the background."""


class Pooled(Buffers):
    """Buffers of a pool: each batch stays as it is for as long as it is held."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def take(self, name: str, size: int, dtype: Any) -> np.ndarray:
        return self._pool.empty(size, dtype)


class GeneratedSource:
    """Rows of (task, seed, split), made when they are asked for.

    Args:
        pool: what rows lie in.
        convert: what turns text rows into token rows.
    """

    looks_ahead = False

    def __init__(self, task: Task, seed: int, split: str, pool: Pool, convert: Convert | None = None) -> None:
        self.task, self.key, self.convert = task, task.key(seed, split), convert
        self.identity, self._buffers = task.identity(seed, split), Pooled(pool)

    def take(self, indices: np.ndarray, threads: Executor | None = None) -> RowRefs:
        parts = max(1, min(_PARTS, len(indices) // _SPLIT)) if threads is not None else 1
        if threads is None or parts == 1:
            return RowRefs.of(indices, self._make(indices))
        cuts = np.array_split(indices, parts)
        blocks = [Block(batch) for batch in threads.map(self._make, cuts)]
        part = np.repeat(np.arange(parts), [len(cut) for cut in cuts])
        return RowRefs(indices, blocks, part, np.concatenate([np.arange(len(cut)) for cut in cuts]))

    def _make(self, indices: np.ndarray) -> RaggedBatch:
        batch = self.task.generate(self.key, np.ascontiguousarray(indices, dtype=np.uint64), self._buffers)
        return batch if self.convert is None else self.convert(batch)

    def raw(self, start: int, count: int) -> RaggedBatch:
        return self.task.generate(self.key, np.arange(start, start + count, dtype=np.uint64), Buffers())

    def ahead(self, indices: np.ndarray) -> None:
        """Nothing to fetch."""

    def hold(self, blocks: int) -> None:
        """Nothing to hold."""

    def close(self) -> None:
        """Nothing runs."""


class StoredSource:
    """Rows of a stored dataset, read by blocks of 1,024 and kept while they are in use.

    Args:
        stored: the dataset.
        heal: "regenerate", "raise" or "rewrite" (see `Shards`).
        count: called with what is to be counted, and how many.
        pool: what rows lie in.
        convert: what turns text rows into token rows.
        columns: those to read, None: all.
    """

    def __init__(
        self,
        stored: StoredDataset,
        heal: str,
        count: Callable[[str, int], None],
        pool: Pool,
        convert: Convert | None = None,
        columns: Collection[str] | None = None,
    ) -> None:
        self.stored, self.convert, self._count, self._columns = stored, convert, count, columns
        self.shards = Shards(stored, heal=heal, count=count, columns=columns, pool=pool)
        self.looks_ahead = not stored.folder.is_local
        self._starts = np.array([entry.start for entry in stored.manifest.shards], np.int64)
        self._rows = stored.manifest.examples
        self._blocks: OrderedDict[int, _Slot] = OrderedDict()
        self._room = 8
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_blocks", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _blocks=OrderedDict(), _lock=threading.Lock())

    def take(self, indices: np.ndarray, threads: Executor | None = None) -> RowRefs:
        index = indices.astype(np.int64)
        numbers, part, row = (np.empty(len(index), np.int64) for _ in range(3))
        bits = len(index).bit_length() + 1
        places = np.full(1 << bits, -1, np.int64)
        numbers = numbers[: _blocks_of(index, numbers, part, row, places, np.uint64(64 - bits))]
        self._room = max(self._room, len(numbers) + 2)
        blocks = list((threads.map if threads is not None else map)(self._block, numbers.tolist()))
        return RowRefs(index, blocks, part, row)

    def raw(self, start: int, count: int) -> RaggedBatch:
        parts, at, stop = [], start, start + count
        while at < stop:
            shard = self._shard_of(at)
            entry = self.stored.manifest.shards[shard]
            end = min(stop, entry.stop)
            batch = self.shards.read(shard, at - entry.start, end - entry.start)
            if self._columns is not None:  # a healed shard's rows have all of them
                batch = RaggedBatch({name: column for name, column in batch.columns.items() if name in self._columns})
            parts.append(batch)
            at = end
        return concat(parts)

    def ahead(self, indices: np.ndarray) -> None:
        shards = np.searchsorted(self._starts, np.asarray(indices, np.int64), side="right") - 1
        self.shards.prefetch(np.unique(shards).tolist())

    def hold(self, blocks: int) -> None:
        self._room = max(self._room, blocks + 2)

    def close(self) -> None:
        self.shards.close()
        with self._lock:
            self._blocks.clear()

    def _shard_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _block(self, number: int) -> Block:
        with self._lock:
            slot = self._blocks.get(number)
            if slot is None:
                slot = self._blocks[number] = _Slot()
                while len(self._blocks) > self._room:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(number)
        with slot.lock:  # two threads that want one block decode it once
            if slot.block is None:
                start = number * BLOCK_ROWS
                batch = self.raw(start, min(BLOCK_ROWS, self._rows - start))
                slot.block = Block(batch if self.convert is None else self.convert(batch))
                self._count("blocks_opened", 1)
        return slot.block


class _Slot:
    """A block that is being read, or was."""

    __slots__ = ("block", "lock")

    def __init__(self) -> None:
        self.block: Block | None = None
        self.lock = threading.Lock()
