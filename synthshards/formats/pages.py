"""Parquet data pages by hand: one column of a row group as levels and values, and back.

We know what a general writer must find out element by element: nothing is null, a row's list is one run of levels,
token ids are few. That makes this several times as fast as pyarrow in both directions, and the bytes depend on no
library but the compressor. It uses only what Parquet has had from the start (data pages v1; plain and dictionary
values; RLE levels), so every reader understands it. The list column ``[7, 9, 7], [9, 7, 7]`` is the dictionary
``07 00 00 00  09 00 00 00`` and this page::

    repetition levels  08 00 00 00 | 02 00  04 01  02 00  04 01   byte length; runs (count << 1, level): 0, 11, 0, 11
    definition levels  02 00 00 00 | 0c 01                        six elements that are there (0 is an empty list)
    indices            02 | 03 | 44 00                            bits an index; one bit-packed run: 1 group of eight

Indices take a byte or two where Parquet would let them take the fewest bits: that is faster on both sides, and smaller
after zstd, which then sees tokens. Only alphabets of up to four values take two bits (Lano: 15% smaller).
https://parquet.apache.org/docs/file-format/data-pages/encodings/ is the specification.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError
from ..kernel import kernel
from ..ragged import KINDS, Column, offsets_of
from .convert import check_text
from .levels import read_levels, write_levels
from .memory import copy_bytes
from .thrift import varint

PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8  # Encoding


@kernel
def _number(values: np.ndarray, codes: np.ndarray, out: np.ndarray, distinct: np.ndarray) -> int:
    """Number the values in order of first appearance.

    Args:
        values: uint16 [n].
        codes: uint16 [65536], all zero, and again so on return.
        out: uint8 or uint16 [n], filled with the number of each value.
        distinct: uint16 [limit], filled with the value of each number.

    Returns:
        how many distinct values there are, or -1 if more than `limit`.
    """
    found = 0
    for i in range(len(values)):
        value = values[i]
        code = codes[value]
        if code == 0:
            if found == len(distinct):
                found = -1
                break
            distinct[found] = value
            found += 1
            code = np.uint16(found)
            codes[value] = code
        out[i] = code - 1
    for i in range(len(distinct) if found < 0 else found):
        codes[distinct[i]] = 0
    return found


@kernel
def _pack(indices: np.ndarray) -> int:
    """Pack indices below 4 (uint8 [8 n]) in place, four a byte, the first in the lowest bits; return the bytes used."""
    for i in range(len(indices) // 4):
        a, b, c, d = indices[4 * i], indices[4 * i + 1], indices[4 * i + 2], indices[4 * i + 3]
        indices[i] = a | b << 2 | c << 4 | d << 6
    return len(indices) // 4


@kernel
def _unpack(packed: np.ndarray) -> np.ndarray:
    """The inverse: uint8, four for each byte of `packed`."""
    indices = np.empty(4 * len(packed), np.uint8)
    for i in range(len(packed)):
        for j in range(4):
            indices[4 * i + j] = packed[i] >> (2 * j) & 3
    return indices


@kernel
def _look_up(indices: np.ndarray, dictionary: np.ndarray, out: np.ndarray) -> bool:
    """out[i] = dictionary[indices[i]]; False if an index is out of range."""
    right = True
    for i in range(len(out)):
        index = indices[i]
        if index < len(dictionary):
            out[i] = dictionary[index]
        else:
            right = False
    return right


@kernel
def _write_strings(data: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Each row's bytes with their length (uint32) before them; `data` and `out` are uint8."""
    at = 0
    for row in range(len(offsets) - 1):
        start, length = offsets[row], offsets[row + 1] - offsets[row]
        for i in range(4):
            out[at + i] = length >> (8 * i) & 0xFF
        copy_bytes(out, at + 4, data, start, length)
        at += 4 + length


@kernel
def _read_strings(data: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> bool:
    """The inverse: fills offsets (int64 [rows + 1]) and out (uint8); False unless `data` is exactly so many strings."""
    at = 0
    offsets[0] = 0
    for row in range(len(offsets) - 1):
        if at + 4 > len(data):
            return False
        length = 0
        for i in range(4):
            length |= int(data[at + i]) << (8 * i)
        at += 4
        if at + length > len(data) or offsets[row] + length > len(out):
            return False
        copy_bytes(out, offsets[row], data, at, length)
        offsets[row + 1] = offsets[row] + length
        at += length
    return at == len(data)


class PageWriter:
    """Encodes columns, one at a time, into memory that the next one overwrites."""

    def __init__(self) -> None:
        self._page = np.empty(0, np.uint8)
        self._codes = np.zeros(1 << 16, np.uint16)

    def encode(self, column: Column) -> tuple[np.ndarray, int, int, np.ndarray | None]:
        """The page of a column.

        Returns:
            its bytes (uint8, valid until the next call), its number of levels, the encoding of its values, and the
            dictionary (int32 or int64) if that is RLE_DICTIONARY.
        """
        capacity = 24 * len(column) + 8 * len(column.values) + 64
        if len(self._page) < capacity:
            self._page = np.empty(capacity, np.uint8)
        page, at, levels = self._page, 0, len(column)
        if column.kind.startswith("list<"):
            at, levels = write_levels(column.offsets, page)
        if column.kind == "string":
            _write_strings(column.values, column.offsets, page)
            return page[: len(column.values) + 4 * len(column)], levels, PLAIN, None
        size, dictionary = self._encode_dictionary(column.values, at)
        if dictionary is not None:
            return page[: at + size], levels, RLE_DICTIONARY, dictionary
        plain = _plain(column.values)
        page[at : at + len(plain)] = plain
        return page[: at + len(plain)], levels, PLAIN, None

    def _encode_dictionary(self, values: np.ndarray, at: int) -> tuple[int, np.ndarray | None]:
        """Write indices at byte `at` of the page; return their size and the dictionary, None if there are too many."""
        count = len(values)
        if values.dtype == np.bool_ or count == 0:
            return 0, None
        if values.dtype != np.uint16 and (values.min() < 0 or values.max() > 0xFFFF):
            return 0, None
        short = values.astype(np.uint16, copy=False)
        run = varint(-(-count // 8) << 1 | 1)  # groups of eight, bit-packed
        for bits, limit in ((8, 256), (16, 0xFFFF)):
            distinct = np.empty(min(limit, count // 3), np.uint16)  # beyond a third, plain values are about as small
            indices = np.ndarray(-(-count // 8) * 8, f"<u{bits // 8}", self._page.data, at + 1 + len(run))
            found = _number(short, self._codes, indices[:count], distinct)
            if found <= 0:
                continue
            indices[count:] = 0
            if found <= 4:
                bits = 2
                indices = indices[: _pack(indices)]
            self._page[at : at + 1 + len(run)] = np.frombuffer(bytes((bits,)) + run, np.uint8)
            return 1 + len(run) + indices.nbytes, distinct[:found].astype(_stored(values.dtype))
        return 0, None


def _stored(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The physical type of integers of a dtype: INT32 or INT64, unsigned numbers as the same bits."""
    sign = "i" if dtype.kind == "i" else "u"
    return np.dtype(f"<{sign}{max(dtype.itemsize, 4)}")


def _plain(values: np.ndarray) -> np.ndarray:
    """PLAIN: one bit a boolean, four or eight bytes an integer."""
    if values.dtype == np.bool_:
        return np.packbits(values, bitorder="little")
    return values.astype(_stored(values.dtype)).view(np.uint8)


def decode(kind: str, rows: int, page: np.ndarray, encoding: int, dictionary: np.ndarray | None) -> Column:
    """The column of `rows` rows that a page holds.

    Args:
        page: uint8, what `PageWriter.encode` returned; dictionary: uint8, likewise.

    Raises:
        DataError: the page is not one that `PageWriter` writes.
    """
    offsets = None
    count, at = rows, 0
    if kind == "string":
        return _decode_strings(rows, page)
    if kind.startswith("list<"):
        lengths = np.empty(rows, np.int64)
        at = read_levels(page, lengths)
        if at < 0:
            raise _damaged("levels")
        offsets = offsets_of(lengths)
        count = int(offsets[-1])
    dtype = KINDS[kind]
    values = page[at:]
    if encoding == RLE_DICTIONARY and dictionary is not None:
        return Column(kind, _decode_dictionary(values, count, _narrow(dictionary, dtype)), offsets)
    if encoding != PLAIN:
        raise _damaged("encoding")
    if dtype == np.bool_:
        if len(values) != -(-count // 8):
            raise _damaged("values")
        return Column(kind, np.unpackbits(values, count=count, bitorder="little").view(np.bool_), offsets)
    if len(values) != count * _stored(dtype).itemsize:
        raise _damaged("values")
    return Column(kind, _narrow(values, dtype), offsets)


def _decode_strings(rows: int, page: np.ndarray) -> Column:
    values = np.empty(max(len(page) - 4 * rows, 0), np.uint8)
    offsets = np.empty(rows + 1, np.int64)
    if not _read_strings(page, offsets, values):
        raise _damaged("strings")
    column = Column("string", values, offsets)
    check_text(column)
    return column


def _decode_dictionary(values: np.ndarray, count: int, dictionary: np.ndarray) -> np.ndarray:
    head = varint(-(-count // 8) << 1 | 1)
    bits = int(values[0]) if len(values) else 0
    packed = values[1 + len(head) :]
    if bits not in (2, 8, 16) or values[1 : 1 + len(head)].tobytes() != head or len(packed) != -(-count // 8) * bits:
        raise _damaged("indices")
    out = np.empty(count, dictionary.dtype)
    if not _look_up(_unpack(packed) if bits == 2 else packed.view(f"<u{bits // 8}"), dictionary, out):
        raise _damaged("indices")
    return out


def _narrow(stored: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Numbers of their physical type (as uint8) in the column's dtype."""
    if len(stored) % _stored(dtype).itemsize:
        raise _damaged("values")
    wide = stored.view(_stored(dtype))
    narrow = wide.astype(dtype)
    if dtype.itemsize < 4 and not np.array_equal(narrow, wide):
        raise _damaged("values")
    return narrow


def _damaged(what: str) -> DataError:
    return DataError(f"not a readable Parquet file: unexpected {what} in a page")
