"""Make one shard: rows of one seed range, as the bytes of one file, with the digests of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from synthshards.dataset.manifest import Counts, ShardEntry
from synthshards.digest import ContentDigest, canonical_json, sha256_of
from synthshards.formats import get_format
from synthshards.identity import Identity
from synthshards.ragged import BLOCK_ROWS, RaggedBatch
from synthshards.tasks.task import Buffers, Task

from .plan import Plan

#: Rows are made in batches of about this size. Larger ones leave the processor's cache; after each step of a smaller
#: one, a thread may have to wait for Python's lock.
_BATCH_BYTES = 4 << 20

_local = threading.local()


class Stopped(Exception):  # noqa: N818 (a signal, not an error)
    """The build is being stopped; the shard in hand was dropped."""


@dataclass(frozen=True)
class Shard:
    """A finished shard in memory."""

    entry: ShardEntry
    data: pa.Buffer


def make_shard(plan: Plan, index: int, tick: Callable[[Counts], None] | None = None) -> Shard:
    """Generate, encode and hash shard `index` of a plan.

    Args:
        tick: called after each few thousand rows with what they count (`examples`, `tokens` …); it may raise `Stopped`.

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
    for batch in batches(plan.task, key, start, stop, buffers):
        content.update(batch)
        writer.write(batch)
        counts = batch_counts(batch)
        for name, value in counts.items():
            totals[name] = totals.get(name, 0) + value
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


def batches(task: Task, key: np.ndarray, start: int, stop: int, buffers: Buffers) -> Iterator[RaggedBatch]:
    """Rows start..stop-1 in batches of whole blocks, the last perhaps short. Each is valid until the next is made."""
    rows = BLOCK_ROWS
    while start < stop:
        batch = task.generate(key, np.arange(start, min(start + rows, stop), dtype=np.uint64), buffers)
        yield batch
        start += len(batch)
        rows = BLOCK_ROWS * max(1, _BATCH_BYTES * len(batch) // (BLOCK_ROWS * batch.nbytes))


def warm_up(plan: Plan) -> None:
    """Compile every kernel that the plan needs, where the cache has none yet."""
    make_shard(replace(plan, layout=replace(plan.layout, shard_examples=1, num_shards=1), examples=1), 0)


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


def thread_buffers() -> Buffers:
    """This thread's generation buffers, used again shard after shard."""
    if not hasattr(_local, "buffers"):
        _local.buffers = Buffers()
    buffers: Buffers = _local.buffers
    return buffers
