"""pyarrow's own Parquet writer and reader, which this package's are measured against: the same rows in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from synthshards.formats.arrow_columns import arrow_schema, to_arrow, to_batch
from synthshards.ragged import BLOCK_ROWS, RaggedBatch

#: The level that shards have.
_ZSTD_LEVEL = 1


def write(made: Sequence[RaggedBatch], columns: Mapping[str, str], compression: str) -> pa.Buffer:
    """A file of the rows in row groups of 1,024."""
    schema, sink = arrow_schema(columns), pa.BufferOutputStream()
    level = _ZSTD_LEVEL if compression == "zstd" else None
    with pq.ParquetWriter(sink, schema, compression=compression, compression_level=level) as writer:
        for batch in made:
            arrays = [to_arrow(batch.columns[name]) for name in schema.names]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=BLOCK_ROWS)
    return sink.getvalue()


def read(data: pa.Buffer, columns: Mapping[str, str]) -> list[RaggedBatch]:
    """The rows, one row group after another on one thread, as the same flat arrays that a shard's reader gives."""
    file = pq.ParquetFile(pa.BufferReader(data))
    groups = (file.read_row_group(i, use_threads=False) for i in range(file.num_row_groups))
    return [to_batch(group.combine_chunks().to_batches()[0], columns) for group in groups]
