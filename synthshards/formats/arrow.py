"""Arrow shards: an Arrow IPC file with one record batch per 1,024 rows. Uncompressed, reading copies no number."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..kernels.buffers import Pool
from ..ragged import BLOCK_ROWS, RaggedBatch, concat
from .arrow_columns import arrow_schema, check_schema, chosen, empty_batch, reading, to_arrow, to_batch

NAME = "arrow"
SUFFIX = "arrow"
COMPRESSIONS: tuple[str, ...] = ("none", "lz4", "zstd")

_ZSTD_LEVEL = 1


class Writer:
    """Writes one shard in memory.

    Args:
        columns: name → kind, in the order of the file.
        compression: one of `COMPRESSIONS`.
        metadata: the file's own metadata.
        start: global index of the first row (not used here).
    """

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in COMPRESSIONS, compression
        if compression == "zstd":
            codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
        else:
            codec = None if compression == "none" else compression
        # Threads are the builder's business: one shard a thread.
        options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        self._schema = arrow_schema(columns, metadata)
        self._sink = pa.BufferOutputStream()
        self._writer = pa.ipc.new_file(self._sink, self._schema, options=options)
        self._rows = 0

    def write(self, batch: RaggedBatch) -> None:
        """Add rows; only the last batch may end within a block of 1,024. Its buffers may be reused afterwards."""
        assert len(batch) > 0, "no rows"
        assert self._rows % BLOCK_ROWS == 0, "only the last batch may end within a block"
        for block in batch.blocks():
            self._write_block(block)

    def _write_block(self, batch: RaggedBatch) -> None:
        arrays = [to_arrow(batch.columns[name]) for name in self._schema.names]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows += len(batch)

    def finish(self) -> pa.Buffer:
        """The whole file."""
        self._writer.close()
        return self._sink.getvalue()


class Reader:
    """Reads one shard.

    Args:
        columns: name → kind of all its columns.
        wanted: those that `read` gives, None: all.
        pool: where the memory of what is read comes from (numbers of an uncompressed file need none).

    Raises:
        DataError: the bytes are no such file, or its columns are not `columns`; also from `read`.
    """

    def __init__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
    ) -> None:
        self._columns = chosen(columns, wanted)
        self._empty = np.empty if pool is None else pool.empty
        with reading("Arrow IPC"):
            self._file = pa.ipc.open_file(data, options=pa.ipc.IpcReadOptions(use_threads=False))
            check_schema(self._file.schema, columns)
            blocks = self._file.num_record_batches
            last = self._file.get_batch(blocks - 1).num_rows if blocks else BLOCK_ROWS
            stored = self._file.schema.metadata or {}
            self.metadata = {key.decode(): value.decode() for key, value in stored.items()}
        self.rows = (blocks - 1) * BLOCK_ROWS + last if blocks else 0

    def read(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of the shard (0 ≤ start ≤ stop ≤ rows)."""
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        parts = [self._block(block, start, stop) for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS))]
        return concat(parts) if start < stop else empty_batch(self._columns)

    def _block(self, block: int, start: int, stop: int) -> RaggedBatch:
        """The part of one block that lies within rows start..stop-1."""
        first = block * BLOCK_ROWS
        rows = min(BLOCK_ROWS, self.rows - first)
        with reading("Arrow IPC"):
            found = self._file.get_batch(block).select(list(self._columns))
        if found.num_rows != rows:
            raise DataError(f"record batch {block} of the shard has {found.num_rows} rows; expected {rows}")
        return to_batch(
            found.slice(max(start - first, 0), min(stop - first, rows) - max(start - first, 0)),
            self._columns,
            self._empty,
        )
