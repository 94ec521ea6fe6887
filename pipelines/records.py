"""Records of finished shards: append-only logs in the scratch folder, one a process, gone when the manifest stands.

A shard counts only through its record, so a file that a kill left behind is never taken for finished. Logs rather
than one file a shard: 100,000 small files would take two seconds to read.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import IO, Any

import msgspec

from synthshards.manifest import ShardEntry
from synthshards.storage import SCRATCH, Folder

from .plan import Plan

_PREFIX = "records-"
#: On an object store, where nothing can be appended to, records are flushed as new objects this often (seconds).
_FLUSH_EVERY = 1.0


class RecordLog:
    """Writes this process's records. Close it to flush what is pending."""

    def __init__(self, folder: Folder, plan: Plan) -> None:
        self._folder, self._key = folder, plan.shard_key
        self._id = uuid.uuid4().hex[:12]
        self._pending: list[str] = []
        self._segment = 0
        self._flushed = time.monotonic()
        self._file: IO[bytes] | None = None

    def append(self, entry: ShardEntry) -> None:
        """Record a shard whose file stands under its final name."""
        line = json.dumps({"shard_key": self._key, "shard": entry.as_dict()}) + "\n"
        if self._folder.path is not None:
            if self._file is None:
                scratch = self._folder.path / SCRATCH
                scratch.mkdir(parents=True, exist_ok=True)
                self._file = (scratch / f"{_PREFIX}{self._id}.jsonl").open("ab")
            self._file.write(line.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            return
        self._pending.append(line)
        if time.monotonic() - self._flushed > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        """Write pending records (object stores only; local ones are on disk already)."""
        if self._pending:
            name = f"{SCRATCH}/{_PREFIX}{self._id}-{self._segment:06d}.jsonl"
            self._folder.write(name, "".join(self._pending).encode())
            self._segment += 1
            self._pending.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush, and let go of the file."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None


def read_records(folder: Folder, plan: Plan, files: dict[str, int]) -> dict[int, ShardEntry]:
    """The shards of `plan` that stand: those with a record that agrees with it and a file of the recorded size.

    Args:
        files: name → size of the files in the folder.
    """
    kept: dict[int, ShardEntry] = {}
    for name in sorted(folder.list(SCRATCH)):
        if not name.startswith(_PREFIX):
            continue
        for line in folder.read(f"{SCRATCH}/{name}").to_pybytes().splitlines():
            entry = _entry(line, plan)
            if entry is not None and files.get(entry.path) == entry.bytes:
                kept[entry.start // plan.layout.shard_examples] = entry
    return kept


def standing(entry: ShardEntry, plan: Plan) -> bool:
    """Whether an entry is a shard of `plan`."""
    index = entry.start // plan.layout.shard_examples
    return index < plan.layout.num_shards and (entry.start, entry.stop) == plan.range(index)


def _entry(line: bytes, plan: Plan) -> ShardEntry | None:
    try:
        record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
        if record.get("shard_key") != plan.shard_key:
            return None
        entry = msgspec.convert(record.get("shard"), ShardEntry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # the torn last line of a killed process
    return entry if standing(entry, plan) else None
