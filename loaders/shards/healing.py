"""Healing: a shard whose file cannot be used is generated from the manifest, after proof that the rows are the same."""

from __future__ import annotations

import numpy as np

from synthshards.dataset.manifest import ShardEntry
from synthshards.dataset.stored import StoredDataset
from synthshards.digest import ContentDigest
from synthshards.errors import DataError, SynthshardsError, UsageError, VersionError, nearest
from synthshards.formats.base import empty_batch
from synthshards.pipelines.plan import plan_of
from synthshards.pipelines.shard import make_shard, thread_buffers
from synthshards.ragged import BLOCK_ROWS, RaggedBatch
from synthshards.tasks.task import Buffers, Task

#: What to do about a shard whose file is absent, damaged or out of reach.
HEAL = ("regenerate", "raise", "rewrite")


def check_heal(heal: str) -> str:
    """`heal` itself, when it is legal; `UsageError` otherwise."""
    if heal not in HEAL:
        hint = nearest(heal, HEAL) if isinstance(heal, str) else ""
        raise UsageError(f"heal={heal!r}; legal: {', '.join(HEAL)}{hint}")
    return heal


class Generated:
    """The rows of one shard, generated when they are asked for. It has the face of a format's Reader.

    Generating is about as fast as decoding, so nothing is kept: memory is that of the rows asked for.

    Args:
        task, seed, split: what the rows are a pure function of.
        entry: the shard.
    """

    def __init__(self, task: Task, seed: int, split: str, entry: ShardEntry) -> None:
        self.rows = entry.stop - entry.start
        self._task, self._key, self._entry = task, task.key(seed, split), entry

    def read(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of the shard (0 ≤ start ≤ stop ≤ rows), in memory of their own."""
        return self._rows(start, stop, Buffers())

    def prove(self) -> None:
        """Generate all rows once; `DataError` unless their content digest is the manifest's."""
        content = ContentDigest(self._task.columns)
        for at in range(0, self.rows, BLOCK_ROWS):
            content.update(self._rows(at, min(at + BLOCK_ROWS, self.rows), thread_buffers()))
        check_content(content.hexdigest(), self._entry)

    def _rows(self, start: int, stop: int, buffers: Buffers) -> RaggedBatch:
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        if start == stop:
            return empty_batch(self._task.columns)
        first = self._entry.start
        return self._task.generate(self._key, np.arange(first + start, first + stop, dtype=np.uint64), buffers)


def check_content(content: str, entry: ShardEntry) -> None:
    """Raise `DataError` unless generated rows have the digest that the manifest promises."""
    if content != entry.content:
        raise DataError(
            f"generated again, its rows are not those that the manifest promises (content {content}, not "
            f"{entry.content}); the manifest or this installation is wrong: restore the file"
        )


def generated(stored: StoredDataset, shard: int) -> Generated:
    """The rows of a shard, generated; not yet proved.

    Raises:
        VersionError: they are of a task version that this package does not generate.
    """
    manifest = stored.manifest
    try:
        task = manifest.task()
    except VersionError as error:
        raise VersionError(f"{error}, or restore the file") from None
    return Generated(task, manifest.identity.seed, manifest.identity.split, manifest.shards[shard])


def rewrite(stored: StoredDataset, shard: int) -> str | None:
    """Put a shard's file in its place again, atomically, when its bytes come out as the manifest says.

    Returns:
        None when that is done; else why the file was left as it is, in a few words. Its rows are proved either way.

    Raises:
        DataError: the rows are not those that the manifest promises.
    """
    entry = stored.manifest.shards[shard]
    made = make_shard(plan_of(stored.manifest), shard)
    check_content(made.entry.content, entry)
    if made.entry.sha256 != entry.sha256:
        # The manifest says which bytes belong there, and it is not the loader's to change while others read by it.
        where = stored.folder.url
        return (
            "the file was left as it is, since the libraries installed here write the same rows in other bytes "
            f"(the dataset is renewed by: synthshards reproduce {where} --out {where})"
        )
    try:
        stored.folder.write(entry.path, made.data)
    except SynthshardsError as error:
        return f"the file was left as it is ({error})"
    return None
