"""The shards of a stored dataset, opened on demand: fetched, checked, cached, and regenerated where that fails.

A shard is fetched whole and its sha256 taken at its first open in a process. From then on its file is known by size,
modification time and inode: when these change, also while the shard is open, it is checked anew. So damage is noticed
while training goes on.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synthshards.dataset.manifest import ShardEntry
from synthshards.dataset.stored import StoredDataset, reader_of
from synthshards.errors import DataError, StorageError, SynthshardsError
from synthshards.kernels.buffers import Pool
from synthshards.ragged import RaggedBatch

from .checked_files import CheckedFiles, Stamp, stamp_of
from .healing import Healer
from .prefetch import Prefetcher


class RowReader(Protocol):
    """What gives a shard's rows: the reader of its format, or `healing.RegeneratedShard`."""

    rows: int

    def read(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of the shard (0 ≤ start ≤ stop ≤ rows)."""


@dataclass(frozen=True)
class _Opened:
    """A shard that can be read. `stamp` is that of the file at `path` when it was opened (None: it was absent)."""

    reader: RowReader
    path: Path | None = None
    stamp: Stamp | None = None

    def is_current(self) -> bool:
        """Whether the file at `path` is the one that was opened. A deleted one goes on being read: its map stays."""
        now = None if self.path is None else stamp_of(self.path)
        return now is None or now == self.stamp


class _Count:
    """Passes numbers on, one thread at a time."""

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self.lock, self._count = threading.Lock(), count

    def __call__(self, name: str, n: int = 1) -> None:
        with self.lock:
            self._count(name, n)


class _State:
    """What belongs to one process. After a fork the child takes a new one: locks and threads do not come along."""

    def __init__(self, files: CheckedFiles, prefetcher: Prefetcher, count: _Count) -> None:
        self.pid = os.getpid()
        self.files, self.prefetcher, self.count = files, prefetcher, count
        self.lock = threading.Lock()  # of all that follows; never held during input or output
        self.open: OrderedDict[int, _Opened] = OrderedDict()
        self.turns: dict[int, threading.Event] = {}  # shards that a thread is opening


def ignore(name: str, n: int) -> None:
    """Count nothing."""


class Shards:
    """The shards of a stored dataset, read row range by row range; damaged or missing ones are generated.

    May be used by several threads at once, carried over a fork, and pickled (open shards stay behind).

    Args:
        stored: the dataset.
        heal: what to do about a shard whose file is absent, damaged or out of reach (after some retries).
            "regenerate": generate its rows, proved by the manifest's content digest, and warn once a shard with
            `HealWarning`; silently where the manifest says that no file holds the rows, or where a manifest was opened
            by its own path and none of its shards lies beside it. Nothing is written.
            "rewrite": the same, and put the file in its place again.
            "raise": raise `DataError` or `StorageError`.
        count: called with a name and a number to add, by one thread at a time: "bytes_read" (of whole files, when they
            are hashed), "bytes_fetched" (those of them that came over the network), "shards_opened", "cache_hits",
            "shards_healed", "retries". Must be picklable where this object is to be.
        keep: shards held open; the least recently used is closed first.
        columns: those to read, None: all (generated rows have all).
        pool: where the memory of what is read comes from.

    Raises:
        UsageError: heal is none of these, or SYNTHSHARDS_CACHE_BYTES no number.
    """

    def __init__(
        self,
        stored: StoredDataset,
        heal: str = "regenerate",
        count: Callable[[str, int], None] = ignore,
        keep: int = 64,
        columns: Collection[str] | None = None,
        pool: Pool | None = None,
    ) -> None:
        assert keep > 0, keep
        self._stored, self._count, self._keep = stored, count, keep
        self._columns, self._pool = columns, pool
        self._healer = Healer(stored, heal)
        self._alone = None if stored.name is not None and heal == "regenerate" else False  # None: not yet looked
        self._closed = False
        self._own = self._new_state()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self._stored, self._healer.mode, self._count, self._keep, self._columns, self._pool)

    def read(self, shard: int, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of a shard, counted from its own first row (0 ≤ start ≤ stop ≤ rows).

        Arrays may be views of the file's map, and must not be written to.

        Raises:
            DataError, StorageError: naming the file, with heal="raise"; and where the rows that are generated are not
                those of the manifest.
            VersionError: the file cannot be used, and its rows are of a task version that this package does not
                generate.
        """
        state = self._state
        opened = self._opened(state, shard)
        try:
            return opened.reader.read(start, stop)
        except DataError as error:  # bytes that the manifest vouches for, and that are no shard all the same
            healed = self._heal(state, shard, error, (opened.path, opened.stamp))
            with state.lock:
                self._hold(state, shard, healed)
            return healed.reader.read(start, stop)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch these shards in the background, in this order, where that saves waiting: those of an object store that
        are neither open nor cached. What goes wrong is left to `read`. At most `keep` wait at a time; the rest of
        `shards` is ignored.
        """
        state = self._state
        if self._stored.folder.is_local or self._closed or self._alone:
            return
        with state.lock:
            missing = [shard for shard in shards if shard not in state.open and shard not in state.turns]
        state.prefetcher.want(missing)

    def close(self) -> None:
        """Close all shards, and wait for the fetches in progress; none is begun any more, reading goes on to work."""
        state = self._state
        self._closed = True
        with state.lock:
            state.open.clear()
        state.prefetcher.close()

    # Opening ----------------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> _State:
        if self._own.pid != os.getpid():
            self._own = self._new_state()
        return self._own

    def _new_state(self) -> _State:
        count = _Count(self._count)
        files = CheckedFiles(self._stored, count, restful=self._healer.mode != "raise")
        return _State(files, Prefetcher(self._fetch, self._keep), count)

    def _entry(self, shard: int) -> ShardEntry:
        return self._stored.manifest.shards[shard]

    def _opened(self, state: _State, shard: int) -> _Opened:
        """The shard, opened by this thread or another."""
        while True:
            with state.lock:
                opened = state.open.get(shard)
                if opened is not None:
                    state.open.move_to_end(shard)
            if opened is not None:
                if opened.is_current():
                    return opened
                with state.lock:
                    if state.open.get(shard) is opened:
                        del state.open[shard]
            with _turn(state, shard) as mine:
                if mine and shard not in state.open:
                    opened = self._open(state, shard)
                    with state.lock:
                        self._hold(state, shard, opened)
                    return opened

    def _hold(self, state: _State, shard: int, opened: _Opened) -> None:
        state.open[shard] = opened
        state.open.move_to_end(shard)
        while len(state.open) > self._keep:
            state.open.popitem(last=False)

    def _open(self, state: _State, shard: int) -> _Opened:
        entry = self._entry(shard)
        if entry.sha256 is None or self._stands_alone():
            return _Opened(self._healer.regenerated(shard))
        before = state.files.stamp(entry)
        try:
            return self._open_stored(state, shard)
        except (DataError, StorageError) as error:
            return self._heal(state, shard, error, before)

    def _stands_alone(self) -> bool:
        """Whether the manifest was opened by its own path and none of its shards lies beside it."""
        if self._alone is None:
            try:
                names = self._stored.folder.list()
                self._alone = not any(entry.path in names for entry in self._stored.manifest.shards)
            except StorageError:  # a store without listings, or one that fails: each shard will tell
                self._alone = False
        return self._alone

    def _open_stored(self, state: _State, shard: int, patient: bool = True) -> _Opened:
        """The shard from its file; `DataError` or `StorageError` where that cannot be."""
        entry = self._entry(shard)
        checked = state.files.read(entry, patient)
        reader = reader_of(self._stored.manifest, entry, checked.data, self._columns, self._pool)
        state.count("shards_opened")
        return _Opened(reader, checked.path, checked.stamp)

    def _fetch(self, shard: int) -> None:
        """Open a shard whose file is far, before it is asked for."""
        state, entry = self._state, self._entry(shard)
        if entry.sha256 is None or self._stands_alone() or not state.files.is_far(entry):
            return
        with _turn(state, shard) as mine:
            if mine and shard not in state.open:
                try:
                    opened = self._open_stored(state, shard, patient=False)
                except (DataError, StorageError):
                    return  # `read` will meet it, and knows what to do
                with state.lock:
                    if not self._closed:
                        self._hold(state, shard, opened)

    def _heal(
        self, state: _State, shard: int, problem: SynthshardsError, before: tuple[Path | None, Stamp | None]
    ) -> _Opened:
        """What to read in place of a shard that cannot be read; `before` are its path and stamp from before."""
        reader, whole_again = self._healer.heal(shard, problem, state.count)
        if whole_again:
            try:
                return self._open_stored(state, shard, patient=False)
            except (DataError, StorageError):  # whatever it is, the rows are at hand
                pass
        return _Opened(reader, *before)


@contextmanager
def _turn(state: _State, shard: int) -> Iterator[bool]:
    """One thread at a time opens a shard: True for that thread; False for the others, after it has ended."""
    own = threading.Event()
    try:
        with state.lock:
            turn = state.turns.setdefault(shard, own)
        if turn is not own:
            turn.wait()
        yield turn is own
    finally:
        with state.lock:
            if state.turns.get(shard) is own:
                del state.turns[shard]
        own.set()
