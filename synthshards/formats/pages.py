"""Parquet data pages by hand: one column of a row group as levels and values, and back.

We know what a general writer must find out element by element: nothing is null, a row's list is one run of levels,
token ids are few. That makes this several times as fast as pyarrow in both directions, and the bytes depend on no
library but the compressor. It uses only what Parquet has had from the start (data pages v1; plain and dictionary
values; RLE levels), so every reader understands it. The list column ``[7, 9, 7], [9, 7, 7]`` is the dictionary
``07 00 00 00  09 00 00 00`` and this page::

    repetition levels  08 00 00 00 | 02 00  04 01  02 00  04 01   byte length; runs (count << 1, level): 0, 11, 0, 11
    definition levels  02 00 00 00 | 0c 01                        six elements that are there (0 is an empty list)
    indices            02 | 03 | 44 00                            bits an index; one bit-packed run: 1 group of eight

Indices of tokens take a byte or two where Parquet would let them take the fewest bits: that is faster on both sides,
and smaller after zstd, which then sees tokens. Only alphabets of up to four values take two bits (Lano: 15% smaller).
Facts of a row, positions and short strings (200 birth cities, say) follow one another at random: they take the fewest
bits, and a compressor would find little more in them.
https://parquet.apache.org/docs/file-format/data-pages/encodings/ is the specification.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..ragged import BLOCK_ROWS, KINDS, Column, offsets_of
from .convert import Empty, check_text
from .indices import damaged, index_head, look_up, number, pack, room, unpack_bits, unpacked
from .levels import read_levels, write_levels
from .strings import look_up_strings, number_strings, read_strings, string_lengths, write_strings

PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8  # Encoding
#: Bytes of a string in the mean, above which no dictionary is tried.
_SHORT = 64


class Encoded(NamedTuple):
    """The pages of one column of a row group, before compression.

    Attributes:
        page: uint8, the data page, valid until the next call.
        levels: number of levels, that of the values and empty lists.
        encoding: of the values, PLAIN or RLE_DICTIONARY.
        dictionary: uint8, the dictionary page's plain values, where the encoding is RLE_DICTIONARY.
        distinct: the number of these.
    """

    page: np.ndarray
    levels: int
    encoding: int
    dictionary: np.ndarray | None = None
    distinct: int = 0


class PageWriter:
    """Encodes columns, one at a time, into memory that the next one overwrites."""

    def __init__(self) -> None:
        self._page = np.empty(0, np.uint8)
        self._codes = np.zeros(1 << 16, np.uint16)
        self._slots = np.empty(2 * BLOCK_ROWS, np.uint16)
        self._rows = np.arange(BLOCK_ROWS)

    def encode(self, column: Column) -> Encoded:
        """The pages of a column of at most 1,024 rows."""
        capacity = 24 * len(column) + 8 * len(column.values) + 64
        if len(self._page) < capacity:
            self._page = np.empty(capacity, np.uint8)
        if column.kind == "string":
            return self._encode_strings(column)
        page, at, levels, values = self._page, 0, len(column), column.values
        if column.kind.startswith("list<"):
            at, levels = write_levels(column.offsets, page)
        if _may_be_numbered(values):
            short = values.astype(np.uint16, copy=False)
            write = self._number_tokens if holds_tokens(column.kind) else self._number_facts
            end, distinct = write(short, at)
            if len(distinct):
                known = distinct.astype(_stored(values.dtype)).view(np.uint8)
                return Encoded(page[:end], levels, RLE_DICTIONARY, known, len(distinct))
        plain = _plain(values)
        page[at : at + len(plain)] = plain
        return Encoded(page[: at + len(plain)], levels, PLAIN)

    def _number_tokens(self, values: np.ndarray, at: int) -> tuple[int, np.ndarray]:
        """Write indices of a byte or two at byte `at` of the page; their end, and the dictionary (empty: too large)."""
        count = len(values)
        begin = at + len(index_head(count, 0))
        for bits, limit in ((8, 256), (16, 0xFFFF)):
            distinct = np.empty(min(limit, count // 3), np.uint16)  # beyond a third, plain values are about as small
            indices = np.ndarray(-(-count // 8) * 8, f"<u{bits // 8}", self._page.data, begin)
            found = number(values, self._codes, indices[:count], distinct)
            if found <= 0:
                continue
            indices[count:] = 0
            if found <= 4:
                bits = 2
                indices = indices[: pack(indices, np.uint64(bits), indices)]
            self._page[at:begin] = index_head(count, bits)
            return begin + indices.nbytes, distinct[:found]
        return at, values[:0]

    def _number_facts(self, values: np.ndarray, at: int) -> tuple[int, np.ndarray]:
        """The same in the fewest bits."""
        distinct, codes = np.empty(min(0xFFFF, len(values) // 3), np.uint16), room(len(values))
        found = number(values, self._codes, codes[: len(values)], distinct)
        return (self._put(codes, len(values), found, at) if found > 0 else at), distinct[: max(found, 0)]

    def _encode_strings(self, column: Column) -> Encoded:
        count, data, offsets = len(column), column.values, column.offsets
        # Where strings are short and a quarter of them are repeats, a dictionary is smaller. Long ones are texts.
        firsts = np.empty(count * 3 // 4 if len(data) < _SHORT * count else 0, np.int64)
        codes = room(count)
        found = number_strings(data, offsets, self._slots, codes, firsts)
        if found <= 0:
            size = write_strings(data, offsets, self._rows[:count], self._page)
            return Encoded(self._page[:size], count, PLAIN)
        size = write_strings(data, offsets, firsts[:found], self._page)
        end = self._put(codes, count, found, size)
        return Encoded(self._page[size:end], count, RLE_DICTIONARY, self._page[:size], found)

    def _put(self, codes: np.ndarray, count: int, distinct: int, at: int) -> int:
        """Write `codes` in the fewest bits at byte `at` of the page; their end."""
        bits = max(1, (distinct - 1).bit_length())
        head = index_head(count, bits)
        begin = at + len(head)
        self._page[at:begin] = head
        codes[count:] = 0
        return begin + int(pack(codes, np.uint64(bits), self._page[begin:]))


def holds_tokens(kind: str) -> bool:
    """Whether a compressor finds something in a column's numbers, because they follow one another as tokens do."""
    return kind.startswith(("list<uint", "list<bool"))


def _may_be_numbered(values: np.ndarray) -> bool:
    if values.dtype == np.bool_ or len(values) == 0:
        return False
    if values.dtype in (np.uint8, np.uint16):
        return True
    return int(values.max()) <= 0xFFFF and int(values.min()) >= 0


def _stored(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The physical type of integers of a dtype: INT32 or INT64, unsigned numbers as the same bits."""
    sign = "i" if dtype.kind == "i" else "u"
    return np.dtype(f"<{sign}{max(dtype.itemsize, 4)}")


def _plain(values: np.ndarray) -> np.ndarray:
    """PLAIN: one bit a boolean, four or eight bytes an integer."""
    if values.dtype == np.bool_:
        return np.packbits(values, bitorder="little")
    return values.astype(_stored(values.dtype)).view(np.uint8)


def decode(
    kind: str,
    rows: int,
    page: np.ndarray,
    encoding: int,
    dictionary: np.ndarray | None,
    distinct: int,
    empty: Empty = np.empty,
) -> Column:
    """The column of `rows` rows that pages hold.

    Args:
        page, encoding, dictionary, distinct: as `PageWriter.encode` gave them.
        empty: called with a size and a dtype, gives the memory of lists.

    Raises:
        DataError: the pages are none that `PageWriter` writes.
    """
    if encoding != (PLAIN if dictionary is None else RLE_DICTIONARY):
        raise damaged("encoding")
    if kind == "string":
        if dictionary is None:
            return _decode_strings(rows, page)
        return _look_up_strings(unpacked(page, rows), _decode_strings(distinct, dictionary))
    offsets = None
    count, at = rows, 0
    if kind.startswith("list<"):
        lengths = np.empty(rows, np.int64)
        at = read_levels(page, lengths)
        if at < 0:
            raise damaged("levels")
        offsets = offsets_of(lengths)
        count = int(offsets[-1])
    dtype = KINDS[kind]
    values = page[at:]
    if dictionary is not None:
        known = _narrow(dictionary, dtype)
        if len(known) != distinct:
            raise damaged("dictionary")
        out = empty(count, dtype)
        if not look_up(unpacked(values, count), known, out):
            raise damaged("indices")
        return Column(kind, out, offsets)
    if dtype == np.bool_:
        if len(values) != -(-count // 8):
            raise damaged("values")
        bits = empty(count, np.bool_)
        unpack_bits(values, 0, bits.view(np.uint8))
        return Column(kind, bits, offsets)
    if len(values) != count * _stored(dtype).itemsize:
        raise damaged("values")
    return Column(kind, _narrow(values, dtype), offsets)


def _decode_strings(rows: int, page: np.ndarray) -> Column:
    if 4 * rows > len(page):
        raise damaged("strings")
    values = np.empty(len(page) - 4 * rows, np.uint8)
    offsets = np.empty(rows + 1, np.int64)
    if not read_strings(page, offsets, values):
        raise damaged("strings")
    column = Column("string", values, offsets)
    check_text(column)
    return column


def _look_up_strings(codes: np.ndarray, dictionary: Column) -> Column:
    offsets = np.empty(len(codes) + 1, np.int64)
    if not string_lengths(codes, dictionary.offsets, offsets):
        raise damaged("indices")
    values = np.empty(offsets[-1], np.uint8)
    look_up_strings(codes, dictionary.values, dictionary.offsets, offsets, values)
    return Column("string", values, offsets)


def _narrow(stored: np.ndarray, dtype: np.dtype[np.generic]) -> np.ndarray:
    """Numbers of their physical type (as uint8) in the column's dtype."""
    if len(stored) % _stored(dtype).itemsize:
        raise damaged("values")
    wide = stored.view(_stored(dtype))
    narrow = wide.astype(dtype)
    if dtype.itemsize < 4 and not np.array_equal(narrow, wide):
        raise damaged("values")
    return narrow
