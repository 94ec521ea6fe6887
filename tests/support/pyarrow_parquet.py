"""The twin of our Parquet writer: pyarrow writes the same rows, made from Python values and from types named here.

`compare` holds two files against each other as any reader sees them: schema, metadata, row groups, values and nulls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthshards.ragged import RaggedBatch

TYPES = {
    "bool": pa.bool_(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "int32": pa.int32(),
    "uint64": pa.uint64(),
    "int64": pa.int64(),
    "string": pa.string(),
}
ROW_GROUP = 1024
PREFIX = "synthshards."


def type_of(kind: str) -> pa.DataType:
    if kind.startswith("list<"):
        return pa.list_(pa.field("element", TYPES[kind[5:-1]], nullable=False))
    return TYPES[kind]


def table_of(batch: RaggedBatch) -> pa.Table:
    """The rows as a table without nulls."""
    kinds = batch.kinds
    schema = pa.schema([pa.field(name, type_of(kind), nullable=False) for name, kind in kinds.items()])
    arrays = [pa.array(column.tolist(), type_of(column.kind)) for column in batch.columns.values()]
    return pa.Table.from_arrays(arrays, schema=schema)


def write(batch: RaggedBatch, compression: str = "none", metadata: Mapping[str, str] | None = None) -> pa.Buffer:
    """A file by pyarrow; a batch of no rows gives a file without row groups, as a writer does that was given none."""
    table, sink = table_of(batch), pa.BufferOutputStream()
    named = {PREFIX + key: value for key, value in (metadata or {}).items()}
    schema = table.schema.with_metadata(named)
    with pq.ParquetWriter(sink, schema, compression=compression, store_schema=False) as writer:
        if len(batch):
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
        writer.add_key_value_metadata(named)
    return sink.getvalue()


def leaves(file: pq.ParquetFile) -> list[tuple[object, ...]]:
    """What the file's own schema says of each of its columns."""
    columns = [file.schema.column(i) for i in range(len(file.schema.names))]
    return [
        (
            c.path,
            c.physical_type,
            str(c.logical_type),
            c.converted_type,
            c.max_definition_level,
            c.max_repetition_level,
        )
        for c in columns
    ]


def nulls(table: pa.Table) -> int:
    """Nulls among rows and list elements."""
    count = 0
    for column in table.columns:
        count += column.null_count
        if pa.types.is_list(column.type):
            count += sum(chunk.values.null_count for chunk in column.chunks)
    return count


def statistics(chunk: pq.ColumnChunkMetaData) -> tuple[Any, ...]:
    """What a column chunk says of its values; of a list's elements, only how many are missing."""
    found = chunk.statistics
    bounds = None if "." in chunk.path_in_schema else (found.has_min_max, found.min, found.max)
    return chunk.is_stats_set, found.null_count, bounds


def encodings(data: pa.Buffer) -> dict[str, set[tuple[str, ...]]]:
    """Of each column, the encodings (and the compression) that its row groups have."""
    file = pq.read_metadata(pa.BufferReader(data))
    found: dict[str, set[tuple[str, ...]]] = {}
    for i in range(file.num_row_groups):
        for j in range(file.num_columns):
            chunk = file.row_group(i).column(j)
            found.setdefault(chunk.path_in_schema, set()).add((*chunk.encodings, chunk.compression))
    return found


def compare(ours: pa.Buffer, theirs: pa.Buffer) -> None:
    """Assert that two files are one to every reader (their encodings and sizes may differ)."""
    mine, other = (pq.ParquetFile(pa.BufferReader(data)) for data in (ours, theirs))
    assert leaves(mine) == leaves(other)
    assert mine.schema_arrow.equals(other.schema_arrow, check_metadata=True), (mine.schema_arrow, other.schema_arrow)
    assert mine.metadata.metadata == other.metadata.metadata
    assert mine.metadata.num_rows == other.metadata.num_rows
    assert mine.num_row_groups == other.num_row_groups
    for i in range(mine.num_row_groups):
        a, b = mine.metadata.row_group(i), other.metadata.row_group(i)
        assert a.num_rows == b.num_rows
        for j in range(a.num_columns):
            assert a.column(j).path_in_schema == b.column(j).path_in_schema
            assert a.column(j).num_values == b.column(j).num_values
            assert statistics(a.column(j)) == statistics(b.column(j))
        mine_rows, other_rows = mine.read_row_group(i), other.read_row_group(i)
        mine_rows.validate(full=True)
        assert nulls(mine_rows) == 0
        assert mine_rows.equals(other_rows)
