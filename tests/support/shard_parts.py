"""What the tests of `Shards` share: one small dataset in three shards, what must be read of it, and a tally."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from small_datasets import SMALL, make

from synthshards.catalog import make_task
from synthshards.dataset.stored import open_stored
from synthshards.loaders.shards.reader import Shards
from synthshards.ragged import RaggedBatch

#: Rows of the shards that `build` makes: more than two blocks, and a short last one.
ROWS = (2500, 2500, 300)


class Tally:
    """Adds up what `Shards` counts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, name: str, n: int) -> None:
        self.counts[name] += n

    def __getitem__(self, name: str) -> int:
        return self.counts[name]


def build(out: Path | str, **options: Any) -> str:
    return make(out, **{"examples": sum(ROWS), "shard_examples": ROWS[0], **options})


def opened(out: str, **options: Any) -> tuple[Shards, Tally]:
    tally = Tally()
    return Shards(open_stored(out), count=tally, **options), tally


def wanted(shard: int, start: int, stop: int) -> RaggedBatch:
    """The rows by the law."""
    return make_task("depo", SMALL).batch(0, "train", ROWS[0] * shard + start, stop - start)


def same(found: RaggedBatch, right: RaggedBatch) -> bool:
    return found.kinds == right.kinds and all(
        np.array_equal(a.values, b.values)
        and (np.array_equal(a.offsets, b.offsets) if a.offsets is not None and b.offsets is not None else True)
        for a, b in zip(found.columns.values(), right.columns.values(), strict=True)
    )


def right(shards: Shards, *which: int) -> bool:
    """Whether whole shards (all of them by default), read block by block, are what they must be."""
    return all(
        same(shards.read(shard, at, min(at + 1024, ROWS[shard])), wanted(shard, at, min(at + 1024, ROWS[shard])))
        for shard in which or range(len(ROWS))
        for at in range(0, ROWS[shard], 1024)
    )


def spoil(path: Path, how: str) -> None:
    """Damage a file in one of `DAMAGES`."""
    data = bytearray(path.read_bytes())
    if how == "absent":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "longer":
        path.write_bytes(data + b"x")
    else:
        assert how == "flipped"
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


DAMAGES = ("absent", "folder", "truncated", "empty", "longer", "flipped")
