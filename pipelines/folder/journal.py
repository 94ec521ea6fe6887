"""The journals of a build: which shards are finished. One a process, append-only, gone when the manifest stands.

A shard counts only through its record in a journal, so a file that a kill left behind is never taken for finished. One
file for many shards: 100,000 small ones would take two seconds to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from synthshards.dataset.manifest import ShardEntry
from synthshards.errors import StorageError
from synthshards.storage.folder import SCRATCH, Folder, reason
from synthshards.storage.local import to_disk

from ..plan import BuildPlan

_PREFIX = "records-"
#: How long a record may wait to be written to an object store, at first.
FLUSH_SECONDS = 1.0


class Journal:
    """This process's journal. A context manager: leaving it flushes what is pending."""

    def __init__(self, folder: Folder, plan: BuildPlan) -> None:
        self._folder, self._key = folder, plan.shard_key
        # Names sort by time: where two journals have a record of one shard, the later one counts.
        self._name = f"{SCRATCH}/{_PREFIX}{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"
        self._pending: list[str] = []
        self._segment = 0
        self._began = self._flushed = time.monotonic()
        self._file: int | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except StorageError:
            if kind is None:  # else the error on its way is the one to report
                raise
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def append(self, entry: ShardEntry) -> None:
        """Record a shard whose file stands under its final name.

        Raises:
            StorageError: the record could not be written.
        """
        line = json.dumps({"shard_key": self._key, "shard": entry.as_dict()}) + "\n"
        if self._folder.path is not None:
            self._append_local(line.encode())
            return
        # Nothing can be appended to an object, so records are gathered into new ones: after a second at first, then
        # after a hundredth of the time so far, so that a build of days leaves a thousand objects and not 100,000.
        self._pending.append(line)
        now = time.monotonic()
        if now - self._flushed >= max(FLUSH_SECONDS, (now - self._began) / 100):
            self.flush()

    def _append_local(self, line: bytes) -> None:
        path = Path(self._folder.where(f"{self._name}.jsonl"))
        try:
            if self._file is None:
                path.parent.mkdir(exist_ok=True)  # gone where there are no locks and another build has just finished
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            while line:  # the system may take less than it was given
                line = line[os.write(self._file, line) :]
            to_disk(self._file)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {reason(error)}") from error

    def flush(self) -> None:
        """Write pending records (object stores only; local ones are on disk already)."""
        if self._pending:
            self._folder.write(f"{self._name}-{self._segment:06d}.jsonl", "".join(self._pending).encode())
            self._segment += 1
            self._pending.clear()
        self._flushed = time.monotonic()


def read_journals(folder: Folder, plan: BuildPlan, files: dict[str, int]) -> dict[int, ShardEntry]:
    """The shards of `plan` that stand: those with a record that agrees with it and a file of the recorded size.

    Args:
        files: name → size of the files in the folder.
    """
    finished: dict[int, ShardEntry] = {}
    for key, entry in _records(folder):
        if key == plan.shard_key and stands(entry, plan, files):
            finished[entry.start // plan.layout.shard_examples] = entry
    return finished


def recorded(folder: Folder) -> set[str]:
    """The file names of all shards that have a record, of whatever plan."""
    return {entry.path for _, entry in _records(folder)}


def is_journal(name: str) -> bool:
    """Whether a file in the scratch folder is a journal, by its name."""
    return name.startswith(_PREFIX) and name.endswith(".jsonl")


def _records(folder: Folder) -> Iterator[tuple[object, ShardEntry]]:
    """Key of the plan and entry of each record; where one shard has several, the latest comes last."""
    for name in folder.list(SCRATCH):  # in order of their names
        if not is_journal(name):
            continue
        with contextlib.suppress(FileNotFoundError):  # in an object store, a build that has just finished deletes them
            for line in folder.read(f"{SCRATCH}/{name}").to_pybytes().splitlines():
                # A line that is none is the torn last one of a killed process.
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
                    record: dict[str, Any] = msgspec.json.decode(line, type=dict[str, Any])
                    yield record["shard_key"], msgspec.convert(record["shard"], ShardEntry)


def stands(entry: ShardEntry, plan: BuildPlan, files: dict[str, int]) -> bool:
    """Whether an entry is a shard of `plan` whose file is there, in its full size."""
    index = entry.start // plan.layout.shard_examples
    return (
        0 <= index < plan.layout.num_shards
        and entry.path == plan.name(index)
        and (entry.start, entry.stop) == plan.range(index)
        and entry.bytes is not None
        and files.get(entry.path) == entry.bytes
    )
