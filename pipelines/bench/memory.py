"""What is timed within this process, on one core and in memory: generation, formats, digests, plain Python."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from synthshards.catalog import make_task
from synthshards.digest import ContentDigest, sha256_of
from synthshards.errors import DataError
from synthshards.formats import FORMATS
from synthshards.formats.base import Format
from synthshards.kernels.buffers import Buffers
from synthshards.ragged import BLOCK_ROWS, RaggedBatch
from synthshards.tasks.task import Task

from ..shard import batch_counts, batches
from . import pyarrow_parquet
from .plain import PLAIN, units
from .timing import speeds, summary

#: Units of one timed piece: long enough for the clock, short enough to fit between two disturbances.
_PLAIN_PIECE = 100_000
_PIECE = 4_000_000


@dataclass(frozen=True)
class MeasuredPreset:
    """A preset to measure: its name, its task, and what its rows are counted in ("tokens" or "characters")."""

    preset: str
    task: Task

    @classmethod
    def of(cls, preset: str) -> MeasuredPreset:
        return cls(preset, make_task(preset))

    @property
    def unit(self) -> str:
        return "tokens" if "input_ids" in self.task.columns else "characters"

    def count(self, batch: RaggedBatch) -> int:
        """Units in a batch."""
        return batch_counts(batch)[self.unit]


def plain_speed(subject: MeasuredPreset, seconds: float) -> float:
    """Units a second of the plain-Python generator: the best of repeats of equal work."""
    draw = PLAIN[subject.task.name](subject.task.params)

    def piece() -> int:
        rng, done = random.Random(1), 0
        while done < _PLAIN_PIECE:
            done += units(draw(rng))
        return done

    return max(speeds(piece, seconds))


def generation(subject: MeasuredPreset, seconds: float) -> dict[str, Any]:
    """Speed of generation alone: 1,024 rows at a time into buffers used again."""
    task, buffers, key = subject.task, Buffers(), subject.task.key(0, "bench")
    rows = total = 0
    while total < _PIECE:
        total += subject.count(task.batch(0, "bench", rows, BLOCK_ROWS, buffers=buffers))
        rows += BLOCK_ROWS
    pieces = [np.arange(at, at + BLOCK_ROWS, dtype=np.uint64) for at in range(0, rows, BLOCK_ROWS)]

    def piece() -> int:
        for indices in pieces:
            task.generate(key, indices, buffers)
        return total

    best = summary(speeds(piece, seconds))
    rows_per_second = best["per_second"] * rows / total
    return {
        "preset": subject.preset,
        "unit": subject.unit,
        "mean_length": total / rows,
        **best,
        "rows_per_second": rows_per_second,
        "ns_per_row": 1e9 / rows_per_second,
    }


def batches_of(subject: MeasuredPreset, rows: int) -> list[RaggedBatch]:
    """The first rows of a shard, in the batches that a build makes."""
    task, at = subject.task, 0
    made = []
    for batch in batches(task, task.key(0, "bench"), 0, rows, Buffers()):
        made.append(task.batch(0, "bench", at, len(batch)))  # again, into memory of its own
        at += len(batch)
    return made


def digests(subject: MeasuredPreset, made: list[RaggedBatch], seconds: float) -> dict[str, Any]:
    """Speed of the content digest, and of sha256 over a file's bytes."""
    total = sum(subject.count(batch) for batch in made)
    file = bytes(1 << 22)

    def content() -> int:
        _content(subject, made)
        return total

    def hashing() -> int:
        sha256_of(file)
        return len(file)

    return {
        "preset": subject.preset,
        "unit": subject.unit,
        "content_per_second": max(speeds(content, seconds)),
        "sha256_bytes_per_second": max(speeds(hashing, seconds)),
    }


def format_speeds(
    subject: MeasuredPreset, name: str, compression: str, made: list[RaggedBatch], seconds: float
) -> dict[str, Any]:
    """Speed of writing a shard to memory and of reading it back, and its size; for Parquet pyarrow's, too.

    Raises:
        DataError: what was read is not what was written.
    """
    format, columns = FORMATS[name], subject.task.columns
    rows, total = sum(map(len, made)), sum(subject.count(batch) for batch in made)

    def decode() -> list[RaggedBatch]:
        reader = format.reader(file, columns)
        return [reader.read(at, min(at + BLOCK_ROWS, rows)) for at in range(0, rows, BLOCK_ROWS)]

    def speed(work: Callable[[], object]) -> float:
        def piece() -> int:
            work()
            return total

        return max(speeds(piece, seconds))

    file, content = _encoded(format, columns, compression, made), _content(subject, made)
    if _content(subject, decode()) != content:
        raise DataError(f"{subject.preset} as {name} ({compression}): the rows read are not those written")
    written, read = speed(lambda: _encoded(format, columns, compression, made)), speed(decode)
    theirs = {}
    if name == "parquet":
        data = pyarrow_parquet.write(made, columns, compression)
        if _content(subject, pyarrow_parquet.read(data, columns)) != content:
            raise DataError(f"{subject.preset} as {name} ({compression}): pyarrow reads other rows")
        theirs["pyarrow"] = {
            "bytes_per_unit": data.size / total,
            "write_per_second": speed(lambda: pyarrow_parquet.write(made, columns, compression)),
            "read_per_second": speed(lambda: pyarrow_parquet.read(data, columns)),
        }
    return {
        "preset": subject.preset,
        "unit": subject.unit,
        "format": name,
        "compression": compression,
        "rows": rows,
        "units": total,
        "bytes": file.size,
        "bytes_per_unit": file.size / total,
        "content": content,
        "write_per_second": written,
        "write_rows_per_second": written * rows / total,
        "read_per_second": read,
        "read_rows_per_second": read * rows / total,
        **theirs,
    }


def column_cost(subject: MeasuredPreset, column: str, made: list[RaggedBatch], seconds: float) -> dict[str, Any]:
    """What a column adds to a shard of the default format: the time to write it alone, and its bytes."""
    name, format = next(iter(FORMATS.items()))
    compression, columns = format.compressions[0], {column: subject.task.columns[column]}
    alone = [RaggedBatch({column: batch.columns[column]}) for batch in made]
    total = sum(subject.count(batch) for batch in made)

    def write() -> int:
        _encoded(format, columns, compression, alone)
        return total

    return {
        "preset": subject.preset,
        "unit": subject.unit,
        "format": name,
        "compression": compression,
        "column": column,
        "bytes_per_unit": _encoded(format, columns, compression, alone).size / total,
        "write_ns_per_unit": 1e9 / max(speeds(write, seconds)),
    }


def _encoded(format: Format, columns: Mapping[str, str], compression: str, made: list[RaggedBatch]) -> pa.Buffer:
    """The bytes of a shard."""
    writer = format.writer(columns, compression, {}, 0)
    for batch in made:
        writer.write(batch)
    return writer.finish()


def _content(subject: MeasuredPreset, made: list[RaggedBatch]) -> str:
    content = ContentDigest(subject.task.columns)
    for batch in made:
        content.update(batch)
    return content.hexdigest()
