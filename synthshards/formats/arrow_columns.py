"""Columns to Arrow arrays and back without a copy, and the schema of a shard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from ..errors import DataError, cut
from ..ragged import KINDS, Column, RaggedBatch
from .base import Empty, check_masks, empty_column, reading
from .bits import pack_bits, unpack_bits

_SCALARS = {
    "bool": pa.bool_(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "int32": pa.int32(),
    "uint64": pa.uint64(),
    "int64": pa.int64(),
}


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a kind; list elements are never null and are named as Parquet names them."""
    if kind == "string":
        return pa.string()
    if kind.startswith("list<"):
        return pa.list_(pa.field("element", _SCALARS[kind[5:-1]], nullable=False))
    return _SCALARS[kind]


def arrow_schema(columns: Mapping[str, str], metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The schema of a shard: non-null fields in the order of `columns`, and the file's own metadata."""
    fields = [pa.field(name, arrow_type(kind), nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, metadata=dict(metadata) if metadata else None)


def check_schema(schema: pa.Schema, columns: Mapping[str, str]) -> None:
    """Raise DataError unless `schema` has exactly these columns, in this order, of these kinds (nullable or not)."""
    if schema.names != list(columns):
        raise DataError(f"the shard has the columns {cut(', '.join(schema.names), 400)}; expected {', '.join(columns)}")
    for field in schema:
        kind = columns[field.name]
        stored = _kind_of(field.type)
        if stored != kind:
            raise DataError(f"the shard's column {field.name} is {stored or cut(str(field.type))}; expected {kind}")


def _kind_of(data_type: pa.DataType) -> str | None:
    if pa.types.is_list(data_type):
        inner = _kind_of(data_type.value_type)
        return f"list<{inner}>" if inner in _SCALARS else None
    return next((kind for kind in ("string", *_SCALARS) if arrow_type(kind).equals(data_type)), None)


def to_arrow(column: Column) -> pa.Array:
    """The column as an Arrow array over the same memory (booleans are packed to bits, offsets narrowed to int32)."""
    data_type = arrow_type(column.kind)
    if column.offsets is None:
        return _flat_to_arrow(column.values, data_type)
    assert column.offsets[-1] < 2**31, "a block's values are counted in int32"
    offsets = pa.py_buffer(column.offsets.astype(np.int32))
    if column.kind == "string":
        buffers = [None, offsets, pa.py_buffer(np.ascontiguousarray(column.values))]
        return pa.Array.from_buffers(data_type, len(column), buffers, null_count=0)
    child = _flat_to_arrow(column.values, data_type.value_type)
    return pa.Array.from_buffers(data_type, len(column), [None, offsets], null_count=0, children=[child])


def _flat_to_arrow(values: np.ndarray, data_type: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(data_type):
        packed = pack_bits(values)
    else:
        packed = np.ascontiguousarray(values)
    return pa.Array.from_buffers(data_type, len(values), [None, pa.py_buffer(packed)], null_count=0)


def to_batch(batch: pa.RecordBatch, columns: Mapping[str, str], empty: Empty = np.empty) -> RaggedBatch:
    """The rows of a record batch whose schema was checked; numbers are views of its memory.

    Args:
        empty: gives the memory of booleans.

    Raises:
        DataError: a null, offsets out of order or out of range, text that is not UTF-8.
    """
    with reading("shard"):
        batch.validate(full=True)  # looks at offsets and text, not at numbers: cheap
        return check_masks(RaggedBatch({n: _to_column(batch.column(n), kind, empty) for n, kind in columns.items()}))


def check_text(column: Column) -> None:
    """Raise DataError unless every row of a string column is UTF-8."""
    with reading("text"):
        to_arrow(column).validate(full=True)


def _to_column(array: pa.Array, kind: str, empty: Empty) -> Column:
    if array.null_count:
        raise DataError("the shard holds a null")
    if kind in _SCALARS:
        return Column(kind, _flat_to_numpy(array, kind, 0, len(array), empty))
    if len(array) == 0:
        return empty_column(kind)
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    if kind == "string":
        data = array.buffers()[2]
        values = np.frombuffer(data, np.uint8, last - first, first) if last > first else np.empty(0, np.uint8)
    else:
        child = array.values
        if child.null_count:
            raise DataError("the shard holds a null")
        values = _flat_to_numpy(child, kind[5:-1], first, last, empty)
    if first:
        offsets -= first
    return Column(kind, values, offsets)


def _flat_to_numpy(array: pa.Array, kind: str, start: int, stop: int, empty: Empty) -> np.ndarray:
    """Elements start..stop-1 of an array without nulls."""
    dtype = KINDS[kind]
    if start == stop:
        return np.empty(0, dtype)
    data, start, stop = array.buffers()[1], start + array.offset, stop + array.offset
    if kind == "bool":
        skip = start % 8
        packed = np.frombuffer(data, np.uint8, (stop + 7) // 8 - start // 8, start // 8)
        bits = empty(stop - start, np.bool_)
        unpack_bits(packed, skip, bits.view(np.uint8))
        return bits
    return np.frombuffer(data, dtype, stop - start, start * dtype.itemsize)
