"""The bytes of a shard's file, checked: a local file, or a fetched one by way of the cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import pyarrow as pa

from synthshards.dataset.manifest import ShardEntry
from synthshards.dataset.stored import StoredDataset, check_bytes
from synthshards.errors import DataError
from synthshards.storage.local import read_file

from .cache import Cache
from .download import Fetcher

#: Files up to this size are read into memory, larger ones are mapped (bytes).
COPIED = 24 << 20


class Stamp(NamedTuple):
    """What changes when a file does."""

    size: int
    modified: int  # nanoseconds
    inode: int
    device: int


class CheckedBytes(NamedTuple):
    """Checked bytes; the local file that they are a map of, if any; and its stamp from before it was read."""

    data: pa.Buffer
    path: Path | None
    stamp: Stamp | None


class CheckedFiles:
    """Reads the files of a dataset, in one process. May be used by several threads.

    A file is hashed once; as long as its stamp stays, it is mapped again without that.

    Args:
        stored: the dataset.
        count: takes a name and a number: "bytes_read", "bytes_fetched", "cache_hits", "retries".
        restful: see `Fetcher`.

    Raises:
        UsageError: SYNTHSHARDS_CACHE_BYTES is no number.
    """

    def __init__(self, stored: StoredDataset, count: Callable[[str, int], None], restful: bool) -> None:
        self._folder, self._identity, self._count = stored.folder, stored.manifest.identity, count
        self._cache = Cache.of_environment() if stored.folder.path is None else None
        self._fetcher = Fetcher(stored.folder, count, restful)
        self._checked: dict[Path, Stamp | None] = {}

    def read(self, entry: ShardEntry, patient: bool = True) -> CheckedBytes:
        """The bytes of a shard's file. Without `patient` a store is asked once.

        Raises:
            DataError: no such file, or not the bytes of the manifest (the message does not name the file).
            StorageError: it cannot be read.
        """
        if self._cache is None:
            return self._map(entry)
        path = self._cache.path(self._identity, entry)
        if copy := self._copy(self._cache, entry, path):
            self._count("cache_hits", 1)
            return copy
        data = self._fetcher.fetch(entry, patient)
        if self._cache.put(path, data):
            self._checked[path] = stamp_of(path)
            return self._copy(self._cache, entry, path) or CheckedBytes(data, None, None)  # a map is no memory of ours
        return CheckedBytes(data, None, None)

    def is_far(self, entry: ShardEntry) -> bool:
        """Whether reading it would ask the store, and now is the time to ask."""
        if self._cache is None or self._fetcher.rests:
            return False
        return not self._cache.limit or not self._cache.path(self._identity, entry).exists()

    def stamp(self, entry: ShardEntry) -> tuple[Path | None, Stamp | None]:
        """Path and stamp of a local file; None in an object store."""
        path = None if self._folder.path is None else self._folder.path / entry.path
        return path, None if path is None else stamp_of(path)

    def _map(self, entry: ShardEntry) -> CheckedBytes:
        path, stamp = self.stamp(entry)  # before the map: a file that is replaced in between is checked again
        assert path is not None
        data = None
        if stamp is not None and stamp.size <= COPIED:
            # A map of a file that somebody cuts short kills the process that reads it (SIGBUS).
            with suppress(OSError):
                data = read_file(path, mapped=False)
        try:
            data = self._folder.read(entry.path) if data is None else data  # or say in a line what is wrong
        except FileNotFoundError:
            raise DataError("the file is absent") from None
        self._check(entry, data, path, stamp)
        return CheckedBytes(data, path, stamp)

    def _copy(self, cache: Cache, entry: ShardEntry, path: Path) -> CheckedBytes | None:
        """The map of a copy in the cache. A damaged one is deleted."""
        stamp = stamp_of(path) if cache.limit else None
        if stamp is None:
            return None
        try:
            data = read_file(path)
            self._check(entry, data, path, stamp)
        except DataError:
            cache.drop(path)
            return None
        except OSError:  # evicted by another process, or out of reach
            return None
        cache.touch(path, stamp.modified)
        return CheckedBytes(data, path, stamp)

    def _check(self, entry: ShardEntry, data: pa.Buffer, path: Path, stamp: Stamp | None) -> None:
        if stamp is None or self._checked.get(path) != stamp:
            self._count("bytes_read", data.size)
            check_bytes(data, entry)
            self._checked[path] = stamp


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file, None where there is none (but a pipe, say)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev) if S_ISREG(found.st_mode) else None
