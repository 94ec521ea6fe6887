"""Columns as one compact JSON object per row, ``{"n":9,"ks":[4,1]}``, and back: the facts in a WebDataset shard.

The reader takes exactly what the writer writes. A general JSON reader is for text of which one knows nothing: pyarrow's
ends the process where a row is ``null`` in place of an object. The file is long because the reader
stands beside the writer, whose inverse it is, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from ..errors import DataError
from ..kernels.arrays import I64, U8, U64
from ..kernels.copying import copy_bytes, equal_bytes
from ..kernels.jit import kernel
from ..ragged import KINDS, Column, is_ragged, offsets_of
from .arrow_columns import check_text
from .base import reading

_10 = np.uint64(10)
_BOOLEANS = re.compile(rb"true|false|\[(?:(?:true|false)(?:,(?:true|false))*)?\]")
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


@kernel
def gather(data: U8, starts: I64, sizes: I64, separator: int, out: U8) -> None:
    """Copy sizes[r] bytes from data[starts[r]] for every row to `out`, end to end, `separator` after each unless -1.

    Args:
        data, out: [bytes]; starts, sizes: [rows].
    """
    at = 0
    for row in range(len(starts)):
        copy_bytes(out, at, data, starts[row], sizes[row])
        at += sizes[row]
        if separator >= 0:
            out[at] = separator
            at += 1


@kernel
def _skip(data: U8, at: I64, key: U8) -> bool:
    """Move each row's place in its text past `key`; False where a row has something else.

    Args:
        data: [bytes]; at: [rows], moved on; key: [bytes].
    """
    for row in range(len(at)):
        if at[row] + len(key) > len(data) or not equal_bytes(key, data, at[row], len(key)):
            return False
        at[row] += len(key)
    return True


@kernel
def _read_integers(data: U8, at: I64, most: np.uint64, least: np.uint64, out: U64, lengths: I64) -> int:
    """Read an integer of each row, or with lengths a list of them.

    Args:
        data: [bytes], each row's text followed by a line break.
        at: [rows], where in it each row's value begins, moved past its end.
        most: the largest number; least: the largest of those below zero without its sign.
        out: [values], filled with numbers in two's complement.
        lengths: [rows], filled, or empty for scalars.

    Returns:
        how many numbers there are, -1 where a row has something else.
    """
    lists = len(lengths) > 0
    count = 0
    for row in range(len(at)):
        begin, place = count, at[row]
        if lists:
            if data[place] != 91:  # [
                return -1
            place += 1
        while not (lists and count == begin and data[place] == 93):
            negative = data[place] == 45  # -
            place += int(negative)
            limit = least if negative else most
            first, value = place, np.uint64(0)
            while 48 <= data[place] <= 57:
                digit = np.uint64(data[place] - 48)
                if digit > limit or value > (limit - digit) // _10:
                    return -1
                value = value * _10 + digit
                place += 1
            # As the writer writes them: at least one digit, no zeros in front.
            if place == first or (data[first] == 48 and (place > first + 1 or negative)) or count == len(out):
                return -1
            out[count] = ~value + np.uint64(1) if negative else value
            count += 1
            if not lists or data[place] == 93:  # ]
                break
            if data[place] != 44:  # ,
                return -1
            place += 1
        if lists:
            lengths[row] = count - begin
            place += 1
        at[row] = place
    return count


@kernel
def _find_strings(data: U8, at: I64, starts: I64, sizes: I64) -> int:
    """Find a string of each row.

    Args:
        data: [bytes], each row's text followed by a line break.
        at: [rows], where in it each row's string begins, moved past its end.
        starts, sizes: [rows], filled: where its bytes begin, and how many there are, quotes left out.

    Returns:
        1 where some have escapes, 0 where none has, -1 where a row has something else.
    """
    escapes = 0
    for row in range(len(at)):
        place = at[row]
        if data[place] != 34:  # "
            return -1
        place += 1
        starts[row] = place
        while data[place] != 34:
            if data[place] < 32:  # the line break that ends the row among them
                return -1
            if data[place] == 92:  # \\
                escapes = 1
                place += 1
                if data[place] < 32:
                    return -1
            place += 1
        sizes[row] = place - starts[row]
        at[row] = place + 1
    return escapes


def load(lines: np.ndarray, bounds: np.ndarray, columns: Mapping[str, str]) -> Mapping[str, Column]:
    """The columns of JSON objects of the very form in which `dump` writes them.

    Args:
        lines: uint8 [bytes], the objects, each followed by a line break.
        bounds: int64 [rows + 1], where each begins.
        columns: name → kind.

    Raises:
        DataError: another form, other keys, a value outside its kind.
    """
    # The line breaks keep the kernels within their row: nothing that they take has one.
    at, ends = bounds[:-1].copy(), bounds[1:] - 1
    found: dict[str, Column] = {}
    with reading("json"):
        for name, kind in columns.items():
            _expect(lines, at, ("," if found else "{") + json.dumps(name, ensure_ascii=False) + ":")
            if kind == "string":
                found[name] = _load_strings(lines, at)
            elif KINDS[kind] == np.bool_:
                found[name] = _load_booleans(lines, at, kind)
            else:
                found[name] = _load_integers(lines, at, kind)
        _expect(lines, at, "}" if found else "{}")
    if not np.array_equal(at, ends):
        raise DataError("the shard's json members hold unexpected columns")
    return found


def _expect(lines: np.ndarray, at: np.ndarray, text: str) -> None:
    if not _skip(lines, at, np.frombuffer(text.encode(), np.uint8)):
        raise DataError(f"the shard's json members hold unexpected columns: no {text}")


def _load_integers(lines: np.ndarray, at: np.ndarray, kind: str) -> Column:
    lists, dtype = is_ragged(kind), KINDS[kind]
    legal = np.iinfo(dtype)
    lengths = np.empty(len(at) if lists else 0, np.int64)
    values = np.empty(len(at) + len(lines) // 2 if lists else len(at), np.uint64)  # a number and a comma take two bytes
    count = _read_integers(lines, at, np.uint64(legal.max), np.uint64(-int(legal.min)), values, lengths)
    if count < 0:
        raise DataError(f"the shard's json members hold a value that is no {kind}")
    return Column(kind, values[:count].astype(dtype), offsets_of(lengths) if lists else None)


def _load_booleans(lines: np.ndarray, at: np.ndarray, kind: str) -> Column:
    """Row by row: no task has them."""
    text, rows = lines.tobytes(), []
    for row, place in enumerate(at.tolist()):
        match = _BOOLEANS.match(text, place)
        if match is None or text[place : place + 1].startswith(b"[") != is_ragged(kind):
            raise DataError(f"the shard's json members hold a value that is no {kind}")
        at[row] = match.end()
        rows.append(json.loads(match[0]))
    if not is_ragged(kind):
        return Column(kind, np.array(rows, np.bool_))
    offsets = offsets_of(np.array([len(row) for row in rows], np.int64))
    return Column(kind, np.array([value for row in rows for value in row], np.bool_), offsets)


def _load_strings(lines: np.ndarray, at: np.ndarray) -> Column:
    starts, sizes = np.empty_like(at), np.empty_like(at)
    escapes = _find_strings(lines, at, starts, sizes)
    if escapes < 0:
        raise DataError("the shard's json members hold a value that is no string")
    if escapes:
        text = lines.tobytes()
        spans = zip(starts.tolist(), sizes.tolist(), strict=True)
        made = [json.loads(text[start - 1 : start + size + 1]).encode() for start, size in spans]
        values, sizes = np.frombuffer(b"".join(made), np.uint8), np.array([len(part) for part in made], np.int64)
    else:
        values = np.empty(int(sizes.sum()), np.uint8)
        gather(lines, starts, sizes, -1, values)
    column = Column("string", values, offsets_of(sizes))
    check_text(column)
    return column
