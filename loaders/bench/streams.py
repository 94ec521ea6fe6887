"""The section `loaders` of `synthshards bench`: batches per second in one process, from shards and on the fly.

Each pass reads a dataset once from its start with a stream of its own, so that shards are opened, hashed and decoded in
it, and nothing comes from an earlier pass but what the system holds of the files. Counted are real tokens: padding is
none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from synthshards.formats import FORMATS
from synthshards.pipelines.bench.memory import MeasuredPreset, generation
from synthshards.pipelines.bench.process import run, scratch_folder
from synthshards.pipelines.bench.timing import MIN_REPEATS

from ..batching.packing import MODES
from ..dataset import Dataset
from ..open_dataset import open_dataset
from ..stream import Stream

#: Rows (padded) or windows (packed) of a batch, and tokens of a window.
BATCH, WINDOW = 64, 2048
#: Name of a way to batch → its options; each is compared with the first.
WAYS: dict[str, dict[str, Any]] = {
    "padded": {},
    "padded, shuffled": {"shuffle": True},
    **{mode: {"packing": mode, "seq_len": WINDOW} for mode in MODES},
}
FLY = "on the fly"
#: Threads of the loader; 0: the stream itself, without any.
WORKERS = (0, 1, 2)
#: Times that all ways take turns, the best round of each counting: what they are compared by drifts with the machine.
_ROUNDS = 3


def measure(preset: str, rows: int, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every way to batch `rows` rows of a preset, from each format and on the fly.

    Args:
        seconds: how long each case is repeated, at least three times.
        say: told what comes next.

    Returns:
        one entry a case: `preset`, `source`, `way`, `workers` (threads of the loader; 0: the stream itself), `rows`,
        `tokens`, `per_second` (tokens, the best pass), `median_per_second`, `rows_per_second`, `repeats`, and
        quotients: `of_padded` (rows a second, by those of "padded" of the same source and workers), `of_generation`
        (on the fly: tokens a second, by those of raw generation on one core in the same run; else None).
    """
    subject = MeasuredPreset.of(preset)
    found = []
    with one_thread(), scratch_folder() as folder:
        sources = {FLY: open_dataset(preset, num_examples=rows), **build(preset, rows, folder)}
        generated = [generation(subject, seconds)["per_second"]]
        for name, dataset in sources.items():
            say(f"loaders, {preset}, {name}")
            best: dict[tuple[str, int], dict[str, Any]] = {}
            for _ in range(_ROUNDS):
                for way, options in WAYS.items():
                    for count in WORKERS:
                        new = case(partial(dataset.batches, BATCH, **options), rows, count, seconds / _ROUNDS)
                        old = best.setdefault((way, count), new)
                        if new["per_second"] > old["per_second"]:
                            best[way, count] = new
            for (way, count), entry in best.items():
                padded = best[next(iter(WAYS)), count]
                entry["of_padded"] = entry["rows_per_second"] / padded["rows_per_second"]
                found.append({"preset": preset, "source": name, "way": way, "workers": count, **entry})
            if name == FLY:
                generated.append(generation(subject, seconds)["per_second"])
    for entry in found:
        entry["of_generation"] = entry["per_second"] / max(generated) if entry["source"] == FLY else None
    return found


def build(preset: str, rows: int, folder: Path) -> dict[str, Dataset]:
    """The rows in every format in its default compression, in shards of 16,384 rows; split "train" of seed 0."""
    found = {}
    for name in FORMATS:
        out = folder / name
        run("build", preset, "--examples", str(rows), "--shard-examples", "16384", "--format", name, "--out", out)
        opened = open_dataset(out)
        assert isinstance(opened, Dataset), "one folder is no mixture"
        found[name] = opened
    return found


def case(stream_of: Callable[[], Stream], rows: int, workers: int, seconds: float, anew: bool = True) -> dict[str, Any]:
    """Time whole passes over `rows` rows for `seconds` and three times at least. A first pass is not counted.

    Args:
        anew: each pass is of a new stream; otherwise all are epochs of one, whose shards stay open.
    """
    stream = stream_of()
    _pass(stream, workers)
    found: list[tuple[float, int]] = []
    end = time.perf_counter() + seconds
    while len(found) < MIN_REPEATS or time.perf_counter() < end:
        if anew:
            stream = stream_of()
        before, start = stream.stats()["tokens"], time.perf_counter()
        _pass(stream, workers)
        found.append((time.perf_counter() - start, stream.stats()["tokens"] - before))
    best, tokens = min(found)
    middle = median(taken for taken, _ in found)
    return {
        "rows": rows,
        "tokens": tokens,
        "per_second": tokens / best,
        "median_per_second": tokens / middle,
        "rows_per_second": rows / best,
        "repeats": len(found),
    }


def _pass(stream: Stream, workers: int) -> None:
    """Read to the end."""
    for _ in stream.loader(num_workers=workers) if workers else stream:
        pass


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread meanwhile, as in the workers of a DataLoader."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
