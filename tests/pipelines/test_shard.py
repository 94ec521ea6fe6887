"""The batches of rows that a build makes: the rows in order, in whole blocks, a few megabytes at a time."""

from __future__ import annotations

import numpy as np
import pytest
from format_rows import same

from synthshards.catalog import make_task
from synthshards.kernels.buffers import Buffers
from synthshards.pipelines.shard import batches
from synthshards.ragged import BLOCK_ROWS, Column, RaggedBatch


@pytest.mark.parametrize(("preset", "stop"), [("depo1-225", 20_100), ("mano-10", 70_000), ("capo-50k", 9_000)])
def test_batches_are_the_rows_in_whole_blocks_of_a_few_megabytes(preset: str, stop: int) -> None:
    task, buffers, start = make_task(preset), Buffers(), 500
    whole = task.batch(0, "train", start, stop - start)
    at, sizes = 0, []
    for batch in batches(task, task.key(0, "train"), start, stop, buffers):
        same(batch, whole.slice(at, at + len(batch)))
        sizes.append(len(batch))
        at += len(batch)
        assert batch.nbytes < 5 << 20
    assert at == stop - start
    assert sizes[0] == BLOCK_ROWS
    assert all(size % BLOCK_ROWS == 0 for size in sizes[:-1])
    assert max(sizes) > BLOCK_ROWS


def test_the_size_of_a_batch_counts_values_and_offsets() -> None:
    offsets = np.zeros(11, np.int64)  # ten empty lists
    batch = RaggedBatch(
        {"a": Column("list<uint16>", np.empty(0, np.uint16), offsets), "b": Column("uint32", np.zeros(10, np.uint32))}
    )
    assert batch.nbytes == 11 * 8 + 10 * 4
