"""Make one shard: rows of one seed range, as the bytes of one file, with the digests of both; and store it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from synthshards.dataset.manifest import Counts, ShardEntry
from synthshards.digest import ContentDigest, canonical_json, sha256_of
from synthshards.errors import DataError, StorageError, UsageError
from synthshards.formats import get_format
from synthshards.identity import Identity
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import BLOCK_ROWS, MAX_BLOCK_BYTES, RaggedBatch, concat
from synthshards.storage.folder import Folder
from synthshards.tasks.task import Task

from .execution.progress import Tick
from .plan import BuildPlan

#: Rows are made in batches of about this size. Larger ones leave the processor's cache; after each step of a smaller
#: one, a thread may have to wait for Python's lock.
_BATCH_BYTES = 4 << 20

_local = threading.local()


@dataclass(frozen=True)
class Shard:
    """A finished shard in memory."""

    entry: ShardEntry
    data: pa.Buffer


@dataclass(frozen=True)
class ShardJob:
    """One shard to make and to store: a plain value, for any executor.

    Attributes:
        plan, index: which shard.
        folder: where to; pickled, it is its URL.
        promised: what a manifest says of its rows, None where nothing is promised.
    """

    plan: BuildPlan
    folder: Folder
    index: int
    promised: ShardEntry | None = None


def make_and_store(job: ShardJob, tick: Tick) -> ShardEntry:
    """Do a job; the shard then stands under its final name.

    Raises:
        DataError: its rows are not what was promised; nothing is stored.
        StorageError: it could not be stored.
    """
    promised = job.promised
    try:
        shard = make_shard(job.plan, job.index, tick, promised)
    except DataError as error:
        raise DataError(f"{job.plan.name(job.index)}: rows generated now: {error}") from None
    if promised is not None and promised.content != shard.entry.content:
        raise DataError(
            f"{shard.entry.path}: rows generated now have content {shard.entry.content}, "
            f"the manifest says {promised.content}"
        )
    tick({})  # the last moment to stop
    if job.folder.path is not None and not job.folder.path.is_dir():  # to write would make it again
        raise StorageError(f"{job.folder.url}: was deleted or moved during the build; run the same command again")
    job.folder.write(shard.entry.path, shard.data)
    return shard.entry


def make_shard(plan: BuildPlan, index: int, tick: Tick | None = None, promised: ShardEntry | None = None) -> Shard:
    """Generate, encode and hash shard `index` of a plan.

    Args:
        tick: called after each few thousand rows with what they count (`examples`, `tokens` …); what it raises goes on.
        promised: what a manifest says of the shard, where one does.

    Raises:
        DataError: the rows count more than was promised.
        UsageError: a block of them takes too much memory.

    Memory: a few megabytes of rows, and the encoded shard as its writer grows it (two to three times the file's size).
    """
    start, stop = plan.range(index)
    columns, layout = plan.task.columns, plan.layout
    metadata = file_metadata(plan.identity, start, stop)
    writer = get_format(layout.format).writer(columns, layout.compression, metadata, start)
    content = ContentDigest(columns)
    key = plan.task.key(plan.identity.seed, plan.identity.split)
    buffers = thread_buffers()
    totals: Counts = {}
    for batch in batches(plan.task, key, start, stop, buffers, promised):
        content.update(batch)
        writer.write(batch)
        counts = batch_counts(batch)
        for name, value in counts.items():
            totals[name] = totals.get(name, 0) + value
        if promised is not None:
            check_counts(totals, promised)
        if tick is not None:
            tick({"examples": len(batch), **counts})
    data = writer.finish()
    entry = ShardEntry(
        path=plan.name(index),
        start=start,
        stop=stop,
        **totals,
        bytes=data.size,
        sha256=sha256_of(memoryview(data)),
        content=content.hexdigest(),
    )
    return Shard(entry, data)


def batches(
    task: Task, key: np.ndarray, start: int, stop: int, buffers: Buffers, promised: ShardEntry | None = None
) -> Iterator[RaggedBatch]:
    """Rows start..stop-1 in batches of whole blocks, the last perhaps short. Each is valid until the next is made.

    Raises:
        DataError: long rows that count more than is promised of all.
        UsageError: a block of them takes too much memory.
    """
    rows, step = BLOCK_ROWS, task.step_rows(key)
    while start < stop:
        end = min(start + rows, stop)
        if end - start <= step:
            batch = task.generate(key, np.arange(start, end, dtype=np.uint64), buffers)
        else:
            batch = _long_rows(task, key, start, end, step, promised)
        yield batch
        start += len(batch)
        rows = BLOCK_ROWS * max(1, _BATCH_BYTES * len(batch) // (BLOCK_ROWS * batch.nbytes))


def _long_rows(
    task: Task, key: np.ndarray, start: int, stop: int, step: int, promised: ShardEntry | None
) -> RaggedBatch:
    """Rows start..stop-1, `step` at a time."""
    parts: list[RaggedBatch] = []
    size, totals = 0, Counter[str]()
    for at in range(start, stop, step):
        parts.append(task.generate(key, np.arange(at, min(at + step, stop), dtype=np.uint64), Buffers()))
        size += parts[-1].nbytes
        totals.update(batch_counts(parts[-1]))
        if promised is not None:
            check_counts(totals, promised)
        if size > MAX_BLOCK_BYTES:
            rows = at + step - start
            raise UsageError(
                f"rows of {size // rows:,} bytes: a block of {stop - start:,} takes more than {MAX_BLOCK_BYTES:,}; "
                f"legal: --shard-examples at most {max(1, rows // 2)}"
            )
    return concat(parts)


def warm_up(plan: BuildPlan, tick: Tick | None = None) -> None:
    """Compile every kernel that the plan needs, where the cache has none yet."""
    make_shard(replace(plan, layout=replace(plan.layout, shard_examples=1, num_shards=1), examples=1), 0, tick)


def file_metadata(identity: Identity, start: int, stop: int) -> dict[str, str]:
    """What each file says of itself: its identity, fingerprint and seed range."""
    return {
        "identity": canonical_json(identity.as_dict()).decode(),
        "fingerprint": identity.fingerprint,
        "start": str(start),
        "stop": str(stop),
    }


def batch_counts(batch: RaggedBatch) -> Counts:
    """`tokens` and `loss_tokens` of token rows, `characters` of text rows."""
    if "input_ids" in batch.columns:
        return {"tokens": len(batch.input_ids), "loss_tokens": int(np.count_nonzero(batch.loss_mask))}
    # A UTF-8 character has one byte that is not a continuation byte (10xxxxxx, at most -65 as a signed number).
    return {"characters": int(np.count_nonzero(batch.text.view(np.int8) > -65))}


def check_counts(totals: Mapping[str, int], promised: ShardEntry) -> None:
    """Raise `DataError` where the rows of a shard, or the first of them, count more than a manifest says."""
    for name, most in promised.counts().items():
        if totals[name] > most:
            raise DataError(f"{totals[name]} {name} or more; the manifest says {most}")


def thread_buffers() -> Buffers:
    """This thread's generation buffers, used again shard after shard."""
    if not hasattr(_local, "buffers"):
        _local.buffers = Buffers()
    buffers: Buffers = _local.buffers
    return buffers
