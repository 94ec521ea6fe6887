"""Healing: a shard whose file is unusable is regenerated from the manifest, after proof that the rows are the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from synthshards.dataset.manifest import ShardEntry
from synthshards.dataset.stored import StoredDataset
from synthshards.digest import ContentDigest
from synthshards.errors import DataError, HealWarning, SynthshardsError, UsageError, VersionError, nearest
from synthshards.formats.base import empty_batch
from synthshards.kernels.buffers import Buffers
from synthshards.pipelines.plan import plan_of
from synthshards.pipelines.shard import batch_counts, check_counts, make_shard, thread_buffers
from synthshards.ragged import BLOCK_ROWS, RaggedBatch
from synthshards.tasks.task import Task

#: What to do about a shard whose file is absent, damaged or out of reach.
HEAL = ("regenerate", "raise", "rewrite")


def check_heal(heal: str) -> str:
    """`heal` itself, when it is legal; `UsageError` otherwise."""
    if heal not in HEAL:
        hint = nearest(heal, HEAL) if isinstance(heal, str) else ""
        raise UsageError(f"heal={heal!r}; legal: {', '.join(HEAL)}{hint}")
    return heal


class RegeneratedShard:
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
        content, totals = ContentDigest(self._task.columns), dict.fromkeys(self._entry.counts(), 0)
        step = min(BLOCK_ROWS, self._task.step_rows(self._key))
        for at in range(0, self.rows, step):
            batch = self._rows(at, min(at + step, self.rows), thread_buffers())
            content.update(batch)
            counts = batch_counts(batch)
            totals = {name: total + counts[name] for name, total in totals.items()}
            check_counts(totals, self._entry)
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


class Healer:
    """What is read in place of shards whose files cannot be used; it warns once a shard, and proves its rows once.

    Args:
        stored: the dataset.
        mode: one of `HEAL`.

    Raises:
        UsageError: mode is none of them.
    """

    def __init__(self, stored: StoredDataset, mode: str) -> None:
        self.mode, self._stored = check_heal(mode), stored
        self._warned: set[int] = set()
        self._proved: set[int] = set()

    def regenerated(self, shard: int) -> RegeneratedShard:
        """The rows of a shard, generated.

        Raises:
            DataError: they are not those of the manifest.
            VersionError: they are of a task version that this package does not generate.
        """
        reader = self._unproved(shard)
        self._prove(shard, reader)
        return reader

    def heal(
        self, shard: int, problem: SynthshardsError, count: Callable[[str, int], None]
    ) -> tuple[RegeneratedShard, bool]:
        """The rows of a shard whose file has a problem, and whether the file was written again.

        Args:
            count: told of "shards_healed".

        Raises:
            SynthshardsError: the problem, naming the file, where the mode is "raise".
            DataError, VersionError: see `regenerated`.
        """
        folder, entry = self._stored.folder, self._stored.manifest.shards[shard]
        where, line = folder.where(entry.path), str(problem)
        if where not in line:
            line = f"{where}: {line}"
        if self.mode == "raise":
            raise type(problem)(line) from None
        # In a store that fails, the file may be as it should be.
        repair = self.mode == "rewrite" and (isinstance(problem, DataError) or folder.is_local)
        try:
            reader = self._unproved(shard)
            obstacle = rewrite(self._stored, shard) if repair else "nothing was written"
            if repair:
                self._proved.add(shard)
            self._prove(shard, reader)
        except DataError as error:
            raise type(error)(f"{line}; {error}") from None
        if shard not in self._warned:
            self._warned.add(shard)
            count("shards_healed", 1)
            done = f"the same rows are generated; {obstacle}" if obstacle else "the file was written again"
            warnings.warn(f"{line}; {done}", HealWarning, stacklevel=2)
        return reader, obstacle is None

    def _unproved(self, shard: int) -> RegeneratedShard:
        manifest = self._stored.manifest
        try:
            task = manifest.task()
        except VersionError as error:
            raise VersionError(f"{error}, or restore the file") from None
        return RegeneratedShard(task, manifest.identity.seed, manifest.identity.split, manifest.shards[shard])

    def _prove(self, shard: int, reader: RegeneratedShard) -> None:
        if shard not in self._proved:
            reader.prove()
            self._proved.add(shard)


def rewrite(stored: StoredDataset, shard: int) -> str | None:
    """Put a shard's file in its place again, atomically, when its bytes come out as the manifest says.

    Returns:
        None when that is done; else why the file was left as it is, in a few words. Its rows are proved either way.

    Raises:
        DataError: the rows are not those that the manifest promises.
    """
    entry = stored.manifest.shards[shard]
    fresh = make_shard(plan_of(stored.manifest), shard, promised=entry)
    check_content(fresh.entry.content, entry)
    if fresh.entry.sha256 != entry.sha256:
        # The manifest says which bytes belong there, and it is not the loader's to change while others read by it.
        where = stored.folder.url
        return (
            "the file was left as it is, since what is installed here writes the same rows in other bytes "
            f"(the dataset is renewed by: synthshards reproduce {where} --out {where})"
        )
    try:
        stored.folder.write(entry.path, fresh.data)
    except SynthshardsError as error:
        return f"the file was left as it is ({error})"
    return None
