"""Arrow shards: an Arrow IPC file with one record batch per 1,024 rows. Uncompressed, reading copies no number."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..kernels.buffers import Pool
from ..ragged import BLOCK_ROWS, RaggedBatch
from .arrow_columns import arrow_schema, check_schema, to_arrow, to_batch
from .arrow_sizes import check_sizes
from .base import UNBOUNDED, BlockReader, BlockWriter, Bounds, Format, chosen, reading

_ZSTD_LEVEL = 1


class ArrowWriter(BlockWriter):
    """Writes one shard in memory; see `MakeWriter` for its arguments (`start` is not stored)."""

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in ARROW.compressions, compression
        if compression == "zstd":
            codec = pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
        else:
            codec = None if compression == "none" else compression
        # Threads are the builder's business: one shard a thread.
        options = pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
        self._schema = arrow_schema(columns, metadata)
        self._sink = pa.BufferOutputStream()
        self._writer = pa.ipc.new_file(self._sink, self._schema, options=options)

    def _append(self, batch: RaggedBatch) -> None:
        for block in batch.blocks():
            arrays = [to_arrow(block.columns[name]) for name in self._schema.names]
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def finish(self) -> pa.Buffer:
        """The whole file."""
        self._writer.close()
        return self._sink.getvalue()


class ArrowReader(BlockReader):
    """Reads one shard; see `MakeReader` for its arguments. Numbers of an uncompressed file need no memory."""

    def __init__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self._columns = chosen(columns, wanted)
        self._empty = np.empty if pool is None else pool.empty
        with reading("Arrow IPC"):
            check_sizes(memoryview(data), columns, UNBOUNDED if bounds is None else bounds)
            self._file = pa.ipc.open_file(data, options=pa.ipc.IpcReadOptions(use_threads=False))
            check_schema(self._file.schema, columns)
            blocks = self._file.num_record_batches
            last = self._file.get_batch(blocks - 1).num_rows if blocks else BLOCK_ROWS
            stored = self._file.schema.metadata or {}
            self.metadata = {key.decode(): value.decode() for key, value in stored.items()}
        self.rows = (blocks - 1) * BLOCK_ROWS + last if blocks else 0

    def _block(self, block: int, rows: int, start: int, stop: int) -> RaggedBatch:
        with reading("Arrow IPC"):
            batch = self._file.get_batch(block).select(list(self._columns))
        if batch.num_rows != rows:
            raise DataError(f"record batch {block} of the shard has {batch.num_rows} rows; expected {rows}")
        return to_batch(batch.slice(start, stop - start), self._columns, self._empty)


ARROW = Format("arrow", "arrow", ("none", "lz4", "zstd"), ArrowWriter, ArrowReader)
