"""Columns as one compact JSON object per row, ``{"n":9,"ks":[4,1]}``, and back: the facts in a WebDataset shard."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.json

from ..errors import DataError
from ..kernels.arrays import I64, U8
from ..kernels.copying import copy_bytes
from ..kernels.jit import kernel
from ..ragged import Column, offsets_of
from .arrow_columns import arrow_schema, to_batch
from .base import reading

_WIDEST = 21  # bytes of the longest int64 and a comma


@kernel
def _integers(out: U8, ends: I64, key: U8, values: I64, offsets: I64) -> None:
    """Append `key` and an integer, or with offsets a list of them, to each row's text.

    Args:
        out: [bytes]; row r's text so far ends before out[ends[r]].
        ends: [rows], moved on.
        key: [bytes], what stands before the value.
        values: [values].
        offsets: [rows + 1], or empty for scalars.
    """
    lists = len(offsets) > 0
    for row in range(len(ends)):
        at = ends[row]
        copy_bytes(out, at, key, 0, len(key))
        at += len(key)
        first, last = row, row + 1
        if lists:
            first, last = offsets[row], offsets[row + 1]
            out[at] = 91  # [
            at += 1
        for i in range(first, last):
            value = values[i]
            rest = np.uint64(value)
            if value < 0:
                out[at] = 45  # -
                at += 1
                rest = ~rest + np.uint64(1)
            digits, power = 1, rest // np.uint64(10)
            while power > np.uint64(0):
                digits += 1
                power //= np.uint64(10)
            for place in range(digits - 1, -1, -1):
                out[at + place] = np.uint64(48) + rest % np.uint64(10)
                rest //= np.uint64(10)
            at += digits
            if i + 1 < last:
                out[at] = 44  # ,
                at += 1
        if lists:
            out[at] = 93  # ]
            at += 1
        ends[row] = at


@kernel
def _texts(out: U8, ends: I64, key: U8, data: U8, offsets: I64, after: U8) -> None:
    """Append `key`, the row's bytes of `data` and `after` to each row's text, as `_integers` does.

    Args:
        out, data, key, after: [bytes].
        ends: [rows], moved on.
        offsets: [rows + 1], of `data`.
    """
    for row in range(len(ends)):
        at = ends[row]
        copy_bytes(out, at, key, 0, len(key))
        at += len(key)
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        copy_bytes(out, at, data, start, length)
        at += length
        copy_bytes(out, at, after, 0, len(after))
        ends[row] = at + len(after)


def dump(columns: Mapping[str, Column], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every row as a JSON object with keys in the order of `columns`.

    Returns:
        uint8, the texts with gaps between them; int64 [rows], where each starts; int64 [rows], its length.
    """
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    room = np.full(rows, 2, np.int64)
    for name, column in columns.items():
        key = ("," if steps else "{") + json.dumps(name, ensure_ascii=False) + ":"
        after = ""
        offsets = column.offsets
        if column.kind == "string" and not _needs_escapes(column.values):
            data, key, after = column.values, key + '"', '"'
        elif column.kind == "string" or column.values.dtype in (np.bool_, np.uint64):  # no task has these: be short
            made = [json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() for value in column.tolist()]
            data, offsets = np.frombuffer(b"".join(made), np.uint8), offsets_of(np.array([len(text) for text in made]))
        else:
            data = column.values.astype(np.int64)
        head, tail = (np.frombuffer(part.encode(), np.uint8) for part in (key, after))
        width = _WIDEST if data.dtype == np.int64 else 1
        room += len(head) + len(tail) + 2 + (width if offsets is None else width * np.diff(offsets))
        steps.append((head, data, np.empty(0, np.int64) if offsets is None else offsets, tail))
    bounds = offsets_of(room)
    out, starts = np.empty(bounds[-1], np.uint8), bounds[:-1]
    ends = starts.copy()
    for head, data, offsets, tail in steps:
        if data.dtype == np.int64:
            _integers(out, ends, head, data, offsets)
        else:
            _texts(out, ends, head, data, offsets, tail)
    if not steps:
        out[ends] = ord("{")
        ends += 1
    out[ends] = ord("}")
    return out, starts, ends + 1 - starts


def _needs_escapes(text: np.ndarray) -> bool:
    """Whether any byte of UTF-8 text must be escaped in a JSON string."""
    return bool(((text < 0x20) | (text == ord('"')) | (text == ord("\\"))).any())


def load(lines: np.ndarray, columns: Mapping[str, str], rows: int) -> Mapping[str, Column]:
    """The columns of `rows` JSON objects, one a line.

    Raises:
        DataError: not JSON, other keys, a value outside its kind.
    """
    if not columns:
        if lines.tobytes() != b"{}\n" * rows:
            raise DataError("the shard's json members hold unexpected columns")
        return {}
    with reading("json"):
        table = pa.json.read_json(
            pa.BufferReader(lines),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=arrow_schema(columns), unexpected_field_behavior="error"
            ),
        )
        batches = table.combine_chunks().to_batches()
    if len(batches) != 1 or batches[0].num_rows != rows:
        raise DataError("the shard's json members are not one object a row")
    return to_batch(batches[0], columns).columns
