"""Every index of every kernel on the way from a shard to a batch, checked by Numba itself (NUMBA_BOUNDSCHECK)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import python
from small_datasets import FORMATS, make

from synthshards.errors import DataError
from synthshards.loaders.sources.row_refs import Block, RowRefs
from synthshards.ragged import Column, RaggedBatch

SCRIPT = """
import sys
from synthshards import open_dataset
for folder in sys.argv[1:]:
    ds = open_dataset(folder)
    mixed = open_dataset([(ds, 2), (open_dataset(folder), 1)])
    for one, shuffle in ((ds, True), (ds, False), (mixed, True)):
        for packing in ("pad", "concat", "paper", "best-fit"):
            options = {} if packing == "pad" else {"packing": packing, "seq_len": 50}
            stream = one.batches(12, shuffle=shuffle, heal="raise", **options)
            rows = sum(len(batch["input_ids"]) for batch in stream)
            again = one.batches(12, shuffle=shuffle, repeat=True, lanes=2, heal="raise", **options)
            for _, batch in zip(range(20), again):
                again.load_state_dict(again.state_dict())
print("done")
"""


@pytest.mark.slow
def test_no_kernel_looks_past_its_arrays(tmp_path: Path) -> None:
    """Kernels are compiled anew, with a check of each index, which raises IndexError."""
    folders = [make(tmp_path / name, examples=2100, shard_examples=1500, format=name) for name in FORMATS]
    done = python("-c", SCRIPT, *folders, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path / "kernels"))
    assert done.stdout == "done\n"


def test_rows_that_lie_past_their_block_are_refused() -> None:
    offsets, mask = np.array([0, 3, 5]), np.ones(5, np.bool_)

    def refs(ids: int, masked: int, ends: list[int], row: int) -> RowRefs:
        places = np.array(ends)
        columns = {
            "input_ids": Column("list<uint16>", np.arange(ids, dtype=np.uint16), places),
            "loss_mask": Column("list<bool>", mask[:masked], places),
        }
        index, part = np.array([7], np.uint64), np.zeros(1, np.int64)
        return RowRefs(index, [Block(RaggedBatch(columns))], part, np.array([row]))

    assert refs(5, 5, offsets.tolist(), 1).length.tolist() == [2]
    for ids, masked, ends, row in (
        (4, 5, [0, 3, 5], 1), (5, 4, [0, 3, 5], 1), (5, 5, [0, 3, 1 << 40], 1), (5, 5, [0, 4, 3], 1),
        (5, 5, [-4, 3, 5], 0), (5, 5, [0, 3, 5], 2), (5, 5, [0, 3, 5], -1),
    ):  # fmt: skip
        with pytest.raises(DataError, match="row 7 is not within the tokens of its block"):
            refs(ids, masked, ends, row)
