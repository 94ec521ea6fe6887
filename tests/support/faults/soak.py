"""Long streams: memory, descriptors and threads after 100,000 batches are those after the first tenth.

`python -m faults.soak PACKING BATCHES FOLDER` is one try, in a process of its own; it prints what grew.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import get_args

from helpers import SUPPORT
from small_datasets import make

from synthshards import open_dataset
from synthshards.loaders.batching.packing import Packing

from .fault import Campaign, Fault

#: What the allocator may keep beside what is in use (bytes).
SLACK = 16 << 20


def held() -> tuple[int, int, int]:
    """Resident memory (bytes), open descriptors, threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def soak(packing: str, batches: int, out: str) -> None:
    options = {} if packing == "pad" else {"seq_len": 64}
    stream = open_dataset(out).batches(8, packing=packing, shuffle=True, repeat=True, **options)  # type: ignore[arg-type]
    iterator = iter(stream.loader(num_workers=2))
    first = last = (0, 0, 0)
    for number in range(1, batches + 1):
        next(iterator)
        if number % max(1, batches // 100) == 0:
            last = held()
            if number <= batches // 10:
                first = tuple(map(max, first, last))  # type: ignore[assignment]
            elif last[0] > first[0] + SLACK or last[1] > first[1] or last[2] > first[2]:
                print(f"after {number} batches (bytes, descriptors, threads) {last}; after {batches // 10}: {first}")
                return
    iterator.close()  # type: ignore[attr-defined]


def soaked(packing: str, tries: int, chance: Random, place: Path) -> Iterator[str]:
    """Each batch is a try."""
    make(place / "out", examples=3000, shard_examples=1000)
    args = [sys.executable, "-m", "faults.soak", packing, str(tries), str(place / "out")]
    ended = subprocess.run(args, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SUPPORT)})
    yield from [(ended.stdout or ended.stderr).strip(), *[""] * (tries - 1)]


def _campaign(packing: str) -> Campaign:
    return partial(soaked, packing)


FAULTS = [
    Fault(
        f'a long stream, packing="{packing}" (batches)', "memory, descriptors and threads stay as they are",
        100_000, 2000, _campaign(packing),
    )
    for packing in get_args(Packing)
]  # fmt: skip


if __name__ == "__main__":
    soak(sys.argv[1], int(sys.argv[2]), sys.argv[3])
