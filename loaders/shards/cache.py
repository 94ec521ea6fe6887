"""Copies of remote shards on the local disk: only checked files, bounded, shared by all processes of a machine.

They lie under `cache_root()`/shards (there are none where that is None), in a folder for each fingerprint, and are
named by the sha256 of their bytes. So a copy can never be stale, two datasets of one identity share theirs, and any
copy may be deleted at any time. There are no locks: a copy appears by rename, and who has opened one keeps it though
its name is gone.

The least recently used copies go first. "Used" is the file's access time, which `touch` sets; its modification time
stays, since readers tell by it that a file is the one they have checked.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from synthshards.dataset.manifest import ShardEntry
from synthshards.errors import UsageError
from synthshards.identity import Identity
from synthshards.kernels.jit import cache_root
from synthshards.storage.local import replacing

#: The environment variable that bounds the cache, and its default: 10 GB.
VARIABLE = "SYNTHSHARDS_CACHE_BYTES"
DEFAULT_BYTES = 10_000_000_000

_FOLDER = re.compile(r"(?P<name>.+)-(?P<digest>[0-9a-f]{64})")
_FILE = re.compile(r"[0-9a-f]{64}\.[a-z]+(?P<temporary>\.[0-9a-f-]+\.tmp)?")
#: Older temporary files are those of killed processes (seconds).
_ABANDONED = 3600


@dataclass(frozen=True)
class Cached:
    """One file of the cache.

    Attributes:
        path: where it lies.
        size: bytes.
        used: when it was last used, in nanoseconds since 1970.
        temporary: whether it is unfinished.
    """

    path: Path
    size: int
    used: int
    temporary: bool


class Cache:
    """The copies below a folder.

    Args:
        root: created when the first copy is written.
        limit: bytes of all copies together; 0 keeps none and looks for none.
    """

    def __init__(self, root: Path, limit: int = DEFAULT_BYTES) -> None:
        self.root, self.limit = root, limit
        self._total: int | None = None  # bytes found at the last look
        self._since = 0  # bytes that this process has added since

    @staticmethod
    def of_environment() -> Cache:
        """The cache of this user, as SYNTHSHARDS_CACHE and SYNTHSHARDS_CACHE_BYTES say.

        Raises:
            UsageError: SYNTHSHARDS_CACHE_BYTES is no number of bytes, or SYNTHSHARDS_CACHE no local folder.
        """
        text = os.environ.get(VARIABLE, "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise UsageError(f"{VARIABLE}={text!r}; legal: a number of bytes, 0 for no cache")
        root = cache_root()
        if root is None:
            return Cache(Path(os.devnull), 0)  # a place where nothing is found
        return Cache(root / "shards", int(text) if text else DEFAULT_BYTES)

    def path(self, identity: Identity, entry: ShardEntry) -> Path:
        """Where the copy of a shard lies if there is one."""
        assert entry.sha256 is not None
        folder = f"{identity.task}-{identity.split[:40]}-{identity.digest.hex()}"
        return self.root / folder / f"{entry.sha256.removeprefix('sha256:')}{Path(entry.path).suffix}"

    def put(self, path: Path, data: pa.Buffer) -> bool:
        """Write a copy, whose bytes have been checked, and make room for it.

        Returns:
            Whether it is there now. A full disk, a read-only folder or a copy larger than the cache is no error.
        """
        if data.size > self.limit:
            return False
        self._make_room(data.size)
        unique = f"{os.getpid():x}-{threading.get_native_id():x}-{secrets.token_hex(4)}"
        temporary = path.with_name(f"{path.name}.{unique}.tmp")
        try:
            for _ in range(3):  # whoever evicts removes empty folders
                with suppress(FileNotFoundError):
                    with replacing(path, temporary, sync=False) as file:  # a lost copy is fetched again
                        file.write(memoryview(data))
                    self._since += data.size
                    return True
        except OSError:
            pass
        return False

    def touch(self, path: Path, modified: int) -> None:
        """Call a copy used now; `modified` is its modification time (nanoseconds), which stays."""
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), modified))

    def drop(self, path: Path) -> None:
        """Delete a copy; it may be gone already."""
        with suppress(OSError):
            path.unlink()

    def files(self) -> list[Cached]:
        """Everything that the cache has written and not deleted. Other people's files are not listed, nor touched."""
        return [file for folder in self._folders() for file in _files(folder)]

    def folders(self) -> dict[str, list[Cached]]:
        """Name of each dataset's folder ("depo-train-" and the hex digits of its fingerprint) → its files."""
        folders = {folder.name: list(_files(folder)) for folder in self._folders()}
        return {name: files for name, files in sorted(folders.items()) if files}

    def clear(self, digest: str = "") -> tuple[int, int]:
        """Delete all copies, or those of the fingerprints that begin with `digest` (hex); return files and bytes.

        Raises:
            OSError: one cannot be deleted.
        """
        files = size = 0
        for folder in self._folders():
            if fingerprint_of(folder.name).startswith(digest):
                for file in _files(folder):
                    file.path.unlink(missing_ok=True)
                    files, size = files + 1, size + file.size
                _remove(folder)
        _remove(self.root)
        return files, size

    def _folders(self) -> Iterator[Path]:
        with suppress(OSError), os.scandir(self.root) as entries:
            for entry in entries:
                if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)

    def _make_room(self, size: int) -> None:
        """Evict until `size` more bytes fit."""
        # To look at every file before every copy would take its time in a large cache. Processes that look after each
        # 1/128 of the limit may together go past it by that much each: the eighth that is freed leaves room for them.
        if self._total is not None and self._since < self.limit // 128 and self._total + self._since <= self.limit:
            return
        files = self.files()
        total = sum(file.size for file in files)
        for file in files:
            if file.temporary and file.used < time.time_ns() - _ABANDONED * 10**9:
                self.drop(file.path)
                total -= file.size
        if total + size > self.limit:
            goal = self.limit if size > self.limit // 64 else self.limit - self.limit // 8
            for file in sorted(files, key=lambda file: file.used):
                if total + size <= goal:
                    break
                if not file.temporary:
                    self.drop(file.path)
                    total -= file.size
            for folder in {file.path.parent for file in files}:
                _remove(folder)
        self._total, self._since = total, 0


def fingerprint_of(folder: str) -> str:
    """The hex digits of the fingerprint that a folder of the cache is named by."""
    match = _FOLDER.fullmatch(folder)
    assert match is not None, folder
    return match["digest"]


def _files(folder: Path) -> Iterator[Cached]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _FILE.fullmatch(entry.name)
            with suppress(OSError):  # evicted by another process
                if match and entry.is_file(follow_symlinks=False):
                    stat = entry.stat()
                    temporary = match["temporary"] is not None
                    used = stat.st_mtime_ns if temporary else stat.st_atime_ns
                    yield Cached(Path(entry.path), stat.st_size, used, temporary)


def _remove(folder: Path) -> None:
    """Remove a folder that is empty."""
    with suppress(OSError):
        folder.rmdir()
