"""What a shard format is, and what the three have in common: writers, readers, blocks, and reports of damage.

A format is a module with a writer and a reader side by side, and one `Format` that names them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..kernels.buffers import Pool
from ..ragged import BLOCK_ROWS, KINDS, Column, RaggedBatch, concat, is_ragged

#: Called with a size and a dtype, gives an uninitialised array.
Empty: TypeAlias = Callable[[int, Any], np.ndarray]


class Writer(Protocol):
    """Writes one shard in memory."""

    def write(self, batch: RaggedBatch) -> None:
        """Add rows; only the last batch may end within a block of 1,024. Its buffers may be reused afterwards."""

    def finish(self) -> pa.Buffer:
        """The whole file."""


class Reader(Protocol):
    """Reads one shard.

    Attributes:
        rows: how many it holds.
        metadata: the file's own.
    """

    rows: int
    metadata: dict[str, str]

    def read(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of the shard (0 ≤ start ≤ stop ≤ rows).

        Raises:
            DataError: the file is damaged.
        """


class MakeWriter(Protocol):
    """How a writer is made."""

    def __call__(
        self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int, /
    ) -> Writer:
        """A writer.

        Args:
            columns: name → kind, in the order of the file.
            compression: one of the format's.
            metadata: the file's own metadata.
            start: global index of the first row, where the format stores it.
        """


class MakeReader(Protocol):
    """How a reader is made."""

    def __call__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
    ) -> Reader:
        """A reader.

        Args:
            columns: name → kind of all columns of the file.
            wanted: those that `read` gives, None: all.
            pool: where the memory of what is read comes from.

        Raises:
            DataError: the bytes are no such file, or its columns are not `columns`.
        """


class Format(NamedTuple):
    """A shard format: its name, the suffix of its files, its compressions (the default first), and who does it."""

    name: str
    suffix: str
    compressions: tuple[str, ...]
    writer: MakeWriter
    reader: MakeReader


class BlockWriter(ABC):
    """A `Writer` that holds its callers to whole blocks."""

    _rows = 0

    def write(self, batch: RaggedBatch) -> None:
        """See `Writer`."""
        assert len(batch) > 0, "no rows"
        assert self._rows % BLOCK_ROWS == 0, "only the last batch may end within a block"
        self._append(batch)
        self._rows += len(batch)

    @abstractmethod
    def _append(self, batch: RaggedBatch) -> None:
        """Add rows, of which `_rows` stand already."""


class BlockReader(ABC):
    """A `Reader` of files whose blocks stand apart."""

    rows: int
    metadata: dict[str, str]
    _columns: Mapping[str, str]

    def read(self, start: int, stop: int) -> RaggedBatch:
        """See `Reader`."""
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        if start == stop:
            return empty_batch(self._columns)
        parts = []
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = block * BLOCK_ROWS
            rows = min(BLOCK_ROWS, self.rows - first)
            parts.append(self._block(block, rows, max(start - first, 0), min(stop - first, rows)))
        return concat(parts)

    @abstractmethod
    def _block(self, block: int, rows: int, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of a block that should hold `rows`."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a parser raises over damaged bytes into a `DataError` of one line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # pyarrow has OSError, ValueError, KeyError, MemoryError … for the same kind of damage
        raise unreadable(what, " ".join(str(error).split())[:200] or type(error).__name__) from error


def unreadable(what: str, why: str) -> DataError:
    """The error over a file that is not what its suffix says."""
    return DataError(f"not a readable {what} file: {why}")


def check_masks(batch: RaggedBatch) -> RaggedBatch:
    """Raise `DataError` unless ids and mask have the same lengths; return the batch."""
    if "input_ids" in batch.columns and "loss_mask" in batch.columns:
        ids, mask = batch.columns["input_ids"].offsets, batch.columns["loss_mask"].offsets
        if ids is not None and mask is not None and not np.array_equal(ids, mask):
            raise DataError("the shard has a row whose loss_mask is not as long as its input_ids")
    return batch


def chosen(columns: Mapping[str, str], wanted: Collection[str] | None) -> dict[str, str]:
    """Those of `columns` that are wanted (None: all), in their order."""
    return {name: kind for name, kind in columns.items() if wanted is None or name in wanted}


def empty_column(kind: str) -> Column:
    """No rows of a kind."""
    return Column(kind, np.empty(0, KINDS[kind]), np.zeros(1, np.int64) if is_ragged(kind) else None)


def empty_batch(columns: Mapping[str, str]) -> RaggedBatch:
    """No rows of these columns."""
    return RaggedBatch({name: empty_column(kind) for name, kind in columns.items()})
