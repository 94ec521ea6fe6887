"""What a shard format is, and what the three have in common: writers, readers, blocks, and reports of damage.

A format is a module with a writer and a reader side by side, and one `Format` that names them.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..kernels.buffers import Pool
from ..ragged import BLOCK_ROWS, KINDS, MAX_BLOCK_BYTES, Column, RaggedBatch, concat, is_ragged

#: Values (bytes) of a row's fact that a short row may have, too.
_FACTS = 1024
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


class Bounds(NamedTuple):
    """What a shard may hold. A file's own sizes are not believed beyond it, however small the file.

    Attributes:
        rows: number of rows.
        length: tokens of all rows, or bytes of their texts.
    """

    rows: int
    length: int

    @staticmethod
    def of(rows: int, counts: Mapping[str, int]) -> Bounds:
        """Those of a shard of which a manifest says `counts`."""
        return Bounds(rows, counts["tokens"] if "tokens" in counts else 4 * counts["characters"])

    def values(self, name: str, kind: str) -> int:
        """The most values (bytes of strings) that a block of the shard may hold in a column."""
        if not is_ragged(kind):
            return BLOCK_ROWS
        # No manifest counts the facts beside tokens and text. They tell of these, so they are about as long at most.
        least = 0 if name in ("input_ids", "loss_mask", "text") else _FACTS * min(self.rows, BLOCK_ROWS)
        return min(self.length + least, MAX_BLOCK_BYTES // KINDS[kind].itemsize)


#: Where nothing is known of a shard.
UNBOUNDED = Bounds(1 << 63, 1 << 63)


class MakeReader(Protocol):
    """How a reader is made."""

    def __call__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
        bounds: Bounds | None = None,
    ) -> Reader:
        """A reader.

        Args:
            columns: name → kind of all columns of the file.
            wanted: those that `read` gives, None: all.
            pool: where the memory of what is read comes from.
            bounds: the most that the shard may hold, None where nothing is known of it.

        Raises:
            DataError: the bytes are no such file, its columns are not `columns`, or it claims to hold more than
                `bounds`.
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
    except (DataError, MemoryError):  # files cannot ask for memory: where it is short, they are not to blame
        raise
    except (TypeError, LookupError, AttributeError, struct.error, RecursionError) as error:  # of our own parsers
        raise unreadable(what, "its parts do not fit together") from error
    except Exception as error:  # pyarrow has OSError, ValueError, KeyError … for the same kind of damage
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
