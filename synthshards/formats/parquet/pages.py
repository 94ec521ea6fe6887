"""Parquet data pages by hand: one column of a row group as levels and values, and back.

We know what a general writer must find out element by element: nothing is null, a row's list is one run of levels,
token ids are few. That makes this several times as fast as pyarrow in both directions, and the bytes depend on no
library but the compressor. It uses only what Parquet has had from the start (data pages v1; plain and dictionary
values; RLE levels), so every reader understands it. The list column ``[7, 9, 7], [9, 7, 7]`` is the dictionary
``07 00 00 00  09 00 00 00`` and this page::

    repetition levels  08 00 00 00 | 02 00  04 01  02 00  04 01   byte length; runs (count << 1, level): 0, 11, 0, 11
    definition levels  02 00 00 00 | 0c 01                        six elements that are there (0 is an empty list)
    indices            02 | 03 | 44 00                            bits an index; one bit-packed run: 1 group of eight

A column's kind and name say whether it has dictionaries (`is_numbered`), never its values: a reader may take the first
row group's encoding for that of all, and fastparquet then gives None for strings of another one.

Indices of tokens take a byte or two where Parquet would let them take the fewest bits: that is faster on both sides,
and smaller after zstd, which then sees tokens. Only alphabets of up to four values take two bits (Lano: 15% smaller).
Facts of a row, positions and short strings (200 birth cities, say) take the fewest bits.
https://parquet.apache.org/docs/file-format/data-pages/encodings/ is the specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...ragged import BLOCK_ROWS, KINDS, Column, block_sizes, offsets_of
from ..arrow_columns import check_text
from ..base import Empty
from ..bits import pack, pack_bits, unpack_bits
from .dictionary import damaged, index_head, look_up, number, unpacked
from .fields import Encoding
from .levels import read_levels, write_levels
from .numbers import write_facts
from .strings import look_up_strings, read_strings, string_lengths, write_strings


class Encoded(NamedTuple):
    """The pages of one column of a row group, before compression.

    Attributes:
        page: uint8, the data page, valid until the next is taken.
        levels: number of levels, that of the values and empty lists.
        encoding: of the values, PLAIN or RLE_DICTIONARY.
        dictionary: uint8, the dictionary page's plain values, where the encoding is RLE_DICTIONARY.
        distinct: the number of these.
        empty: how many of the levels are empty lists.
        lowest, highest: of a column without lists, as statistics have them: plain, strings without their lengths.
    """

    page: np.ndarray
    levels: int
    encoding: Encoding
    dictionary: np.ndarray | None = None
    distinct: int = 0
    empty: int = 0
    lowest: bytes | None = None
    highest: bytes | None = None


class PageWriter:
    """Encodes columns, one at a time, into memory that the next one overwrites."""

    def __init__(self) -> None:
        self._page = np.empty(0, np.uint8)
        self._slots = np.zeros(1 << 16, np.uint32)  # of numbers, zero between calls
        self._string_slots = np.empty(2 * BLOCK_ROWS, np.uint16)
        self._codes = np.empty(BLOCK_ROWS, np.uint16)
        self._firsts = np.empty(BLOCK_ROWS, np.int64)

    def encode(self, column: Column, numbered: bool) -> Iterator[Encoded]:
        """The pages of a column, for each 1,024 rows of it (and the rest) in turn; `numbered` is from `is_numbered`.

        Facts take one kernel call for all rows: threads that call small kernels wait for Python's lock in between.
        """
        capacity = 24 * len(column) + 8 * len(column.values) + 64 * -(-len(column) // BLOCK_ROWS)
        if len(self._page) < capacity:
            self._page = np.empty(capacity, np.uint8)
        if column.kind == "string":
            yield from self._strings(column, numbered)
        elif numbered and not _holds_tokens(column.kind) and _fits_16_bits(column.values):
            yield from self._facts(column)
        elif len(column) > BLOCK_ROWS:
            for at in range(0, len(column), BLOCK_ROWS):
                yield from self.encode(column.slice(at, min(at + BLOCK_ROWS, len(column))), numbered)
        else:
            yield self._block(column, numbered)

    def _strings(self, column: Column, numbered: bool) -> Iterator[Encoded]:
        ends, data, offsets = np.empty((-(-len(column) // BLOCK_ROWS), 7), np.int64), column.values, column.offsets
        assert offsets is not None
        write_strings(data, offsets, numbered, self._string_slots, self._codes, self._firsts, self._page, ends)
        begin, encoding = 0, Encoding.RLE_DICTIONARY if numbered else Encoding.PLAIN
        for levels, (distinct, middle, end, *at) in zip(block_sizes(len(column)), ends.tolist(), strict=True):
            known = self._page[begin:middle] if numbered else None
            lowest, highest = data[at[0] : at[1]].tobytes(), data[at[2] : at[3]].tobytes()
            yield Encoded(self._page[middle:end], levels, encoding, known, distinct, 0, lowest, highest)
            begin = end

    def _facts(self, column: Column) -> Iterator[Encoded]:
        values, offsets = column.values.astype(np.uint16, copy=False), column.offsets
        most = BLOCK_ROWS
        if offsets is None:
            offsets = np.empty(0, np.int64)
        else:
            most = int(np.diff(offsets[::BLOCK_ROWS], append=offsets[-1]).max())
        codes, distinct = np.empty(most + 8, np.uint16), np.empty(min(most, 1 << 16), np.uint16)
        ends = np.empty((-(-len(column) // BLOCK_ROWS), 6), np.int64)
        width = _stored(column.values.dtype).itemsize
        write_facts(values, offsets, width, self._slots, codes, distinct, self._page, ends)
        begin = 0
        for block, (count, middle, end, levels, *bounds) in enumerate(ends.tolist()):
            page, known = self._page[middle:end], self._page[begin:middle]
            begin = end
            if column.offsets is None:
                lowest, highest = (bound.to_bytes(width, "little") for bound in bounds)
                yield Encoded(page, levels, Encoding.RLE_DICTIONARY, known, count, 0, lowest, highest)
            else:
                first, last = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(column))
                empty = levels - int(offsets[last] - offsets[first])
                yield Encoded(page, levels, Encoding.RLE_DICTIONARY, known, count, empty)

    def _block(self, column: Column, numbered: bool) -> Encoded:
        """The pages of a block of tokens, or of numbers without a dictionary."""
        page, values = self._page, column.values
        at, levels = 0, len(column)
        bounds: tuple[bytes, ...] = ()
        if column.offsets is None:
            width = 1 if values.dtype == np.bool_ else _stored(values.dtype).itemsize
            bounds = tuple(
                int(bound).to_bytes(width, "little", signed=bound < 0) for bound in (values.min(), values.max())
            )
        else:
            at, levels = write_levels(column.offsets, page)
        empty = levels - len(values)
        if numbered and _fits_16_bits(values):
            end, distinct = self._number_tokens(values.astype(np.uint16, copy=False), at)
            known = distinct.astype(_stored(values.dtype)).view(np.uint8)
            return Encoded(page[:end], levels, Encoding.RLE_DICTIONARY, known, len(distinct), empty, *bounds)
        plain = _plain(values)
        page[at : at + len(plain)] = plain
        return Encoded(page[: at + len(plain)], levels, Encoding.PLAIN, None, 0, empty, *bounds)

    def _number_tokens(self, values: np.ndarray, at: int) -> tuple[int, np.ndarray]:
        """Write indices of a byte or two at byte `at` of the page; their end, and the dictionary."""
        count = len(values)
        begin = at + len(index_head(count, 0))
        for bits in (8, 16):
            distinct = np.empty(min(1 << bits, count), np.uint16)
            indices = np.ndarray(-(-count // 8) * 8, f"<u{bits // 8}", self._page.data, begin)
            found = number(values, self._slots, indices[:count], distinct)
            if found >= 0:
                break
        indices[count:] = 0
        if found <= 4:
            bits = 2
            indices = indices[: pack(indices, np.uint64(bits), indices)]
        self._page[at:begin] = index_head(count, bits)
        return begin + indices.nbytes, distinct[:found]


def is_numbered(name: str, kind: str) -> bool:
    """Whether a column has dictionaries: numbers of up to 16 bits, positions, and strings that are not a row's text.

    Wider numbers are plain: few of them are alike (people), or there are few (one a row). Positions beyond 65,535 are
    plain too, but no task has them.
    """
    return kind.endswith(("uint8", "uint16", "uint8>", "uint16>", "list<int32>")) or (
        kind == "string" and name != "text"
    )


def _holds_tokens(kind: str) -> bool:
    """Whether a column's numbers follow one another as tokens do, so that a compressor finds more in whole bytes."""
    return kind.startswith("list<uint")


def _fits_16_bits(values: np.ndarray) -> bool:
    if len(values) == 0 or values.dtype.itemsize < 4:
        return True
    return int(values.max()) <= 0xFFFF and int(values.min()) >= 0


def _stored(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """The physical type of integers of a dtype: INT32 or INT64, unsigned numbers as the same bits."""
    sign = "i" if dtype.kind == "i" else "u"
    return np.dtype(f"<{sign}{max(dtype.itemsize, 4)}")


def _plain(values: np.ndarray) -> np.ndarray:
    """PLAIN: one bit a boolean, four or eight bytes an integer."""
    if values.dtype == np.bool_:
        return pack_bits(values)
    return values.astype(_stored(values.dtype)).view(np.uint8)


def largest_page(kind: str, rows: int, most: int) -> int:
    """The most bytes that a page of `rows` rows with `most` values can have: levels (or lengths), and plain values."""
    width = 1 if kind == "string" else _stored(KINDS[kind]).itemsize
    return 24 * rows + 64 + width * most


def decode(
    kind: str,
    rows: int,
    page: np.ndarray,
    encoding: int,
    dictionary: np.ndarray | None,
    distinct: int,
    most: int,
    empty: Empty = np.empty,
) -> Column:
    """The column of `rows` rows that pages hold.

    Args:
        page, encoding, dictionary, distinct: as `PageWriter.encode` gave them.
        most: values (bytes of strings) that the column may have: a page of a few bytes can stand for any number.
        empty: called with a size and a dtype, gives the memory of lists.

    Raises:
        DataError: the pages are none that `PageWriter` writes.
    """
    if encoding != (Encoding.PLAIN if dictionary is None else Encoding.RLE_DICTIONARY):
        raise damaged("encoding")
    if kind == "string":
        if dictionary is None:
            return _decode_strings(rows, page)
        return _look_up_strings(unpacked(page, rows), _decode_strings(distinct, dictionary), most)
    offsets = None
    count, at = rows, 0
    if kind.startswith("list<"):
        lengths = np.empty(rows, np.int64)
        at = read_levels(page, lengths)
        if at < 0:
            raise damaged("levels")
        offsets = offsets_of(lengths)
        count = int(offsets[-1])
        if count > most:
            raise damaged("lengths")
    dtype = KINDS[kind]
    values = page[at:]
    if dictionary is not None:
        known = _narrow(dictionary, dtype)
        if len(known) != distinct:
            raise damaged("dictionary")
        codes, out = unpacked(values, count), empty(count, dtype)
        if not look_up(codes, known, out):
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


def _look_up_strings(codes: np.ndarray, dictionary: Column, most: int) -> Column:
    assert dictionary.offsets is not None
    offsets = np.empty(len(codes) + 1, np.int64)
    if not string_lengths(codes, dictionary.offsets, offsets):
        raise damaged("indices")
    if offsets[-1] > most:
        raise damaged("lengths")
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
