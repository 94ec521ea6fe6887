"""Parquet shards: one row group per 1,024 rows, one page a column in each (`pages`), statistics, no page index.

Compression is for lists and strings; one number a row is in few bits as it is. Each column chunk says which it has.

Writer and reader are our own (`pages` says why). The reader takes files of exactly this form only; everybody else's
readers take them too. `fields` has the names of ``parquet.thrift``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...kernels.buffers import Pool
from ...ragged import BLOCK_ROWS, Column, RaggedBatch, block_sizes, is_ragged
from ..base import UNBOUNDED, BlockReader, BlockWriter, Bounds, Format, check_masks, chosen, reading, unreadable
from . import thrift
from .compression import CODECS, codec_of, packed_page
from .fields import (
    ColumnChunk,
    ColumnMetaData,
    ColumnOrder,
    CompressionCodec,
    DataPageHeader,
    DictionaryPageHeader,
    Encoding,
    FileMetaData,
    KeyValue,
    PageHeader,
    PageType,
    RowGroup,
    Statistics,
)
from .pages import Encoded, PageWriter, decode, is_numbered, largest_page
from .schema import check_schema, physical_type, schema_of
from .thrift import BINARY, I32, I64, LIST, STRUCT, TRUE, Struct

_MAGIC = b"PAR1"
_VERSION = 1  # what the format asks of everybody, whatever else is used
# Of this layout, not of the package: releases leave the bytes alone. Readers look for a semantic version and a build.
_CREATED_BY = b"synthshards version 2.0.0 (build 2)"
_PREFIX = "synthshards."  # of the file's own metadata; files of the first layout have none
_LONGEST_BOUND = 4096  # bytes of a string in statistics, where pyarrow, too, has its limit
_TYPE_ORDER: Struct = ((ColumnOrder.TYPE_ORDER, STRUCT, ()),)
_SMALL = 4096  # bytes of a dictionary that are not worth a compressor's start
_MAX_FOOTER = 4 << 20  # beside what grows with the rows: a grammar, say, may be part of the identity


class _Chunk(NamedTuple):
    """A column chunk whose place in the file is still open.

    parts: headers and pages in turn, bytes and buffers; plain_size, size: what they take without and with compression;
    dictionary_size: what the dictionary takes of them; head: see `_chunk_head`; statistics: encoded.
    """

    parts: list[Any]
    plain_size: int
    size: int
    dictionary_size: int
    head: bytes
    statistics: bytes


class ParquetWriter(BlockWriter):
    """Writes one shard in memory; see `MakeWriter` for its arguments (`start` is not stored)."""

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in PARQUET.compressions, compression
        self._columns = dict(columns)
        self._metadata = {_PREFIX + key: value for key, value in metadata.items()}
        self._codec_id = CODECS[compression]
        self._codec = codec_of(self._codec_id)
        self._pages = PageWriter()
        self._parts: list[Any] = [_MAGIC]  # bytes and buffers
        self._size = len(_MAGIC)
        self._groups: list[Struct] = []

    def _append(self, batch: RaggedBatch) -> None:
        made = [
            [
                self._encode_chunk(name, kind, pages)
                for pages in self._pages.encode(batch.columns[name], is_numbered(name, kind))
            ]
            for name, kind in self._columns.items()
        ]
        for rows, chunks in zip(block_sizes(len(batch)), zip(*made, strict=True), strict=True):
            begin = self._size
            described = [self._put(chunk) for chunk in chunks]
            size = sum(chunk.plain_size for chunk in chunks)
            group = (
                (RowGroup.COLUMNS, LIST, (STRUCT, described)),
                (RowGroup.TOTAL_BYTE_SIZE, I64, size),
                (RowGroup.NUM_ROWS, I64, rows),
                (RowGroup.TOTAL_COMPRESSED_SIZE, I64, self._size - begin),
            )
            self._groups.append(thrift.encode(STRUCT, group))

    def _encode_chunk(self, name: str, kind: str, made: Encoded) -> _Chunk:
        # One number a row is in few bits, and too small for what a compressor's start costs.
        codec = self._codec if is_ragged(kind) else None
        codec_id = CompressionCodec.UNCOMPRESSED if codec is None else self._codec_id
        parts: list[Any] = []
        plain_size, dictionary_size = 0, 0
        if made.dictionary is not None:
            packed = packed_page(made.dictionary, codec, worth=len(made.dictionary) >= _SMALL)
            head = _dictionary_page_head(len(made.dictionary), len(packed), made.distinct)
            parts = [head, packed]
            plain_size, dictionary_size = len(head) + len(made.dictionary), len(head) + len(packed)
        # Indices of strings are bits at random.
        packed = packed_page(made.page, codec, worth=kind != "string" or made.dictionary is None)
        head = _data_page_head(len(made.page), len(packed), made.levels, made.encoding)
        parts += [head, packed]
        plain_size += len(head) + len(made.page)
        size = dictionary_size + len(head) + len(packed)
        opening = _chunk_head(name, kind, made.encoding, codec_id, made.levels, plain_size, size)
        statistics = _statistics(made.empty, made.lowest, made.highest)
        return _Chunk(parts, plain_size, size, dictionary_size, opening, statistics)

    def _put(self, chunk: _Chunk) -> bytes:
        """Append the pages of a chunk to the file; return its ColumnChunk."""
        begin = self._size
        self._parts += chunk.parts
        self._size += chunk.size
        tail: list[Any] = [(ColumnMetaData.DICTIONARY_PAGE_OFFSET, I64, begin)] if chunk.dictionary_size else []
        tail.append((ColumnMetaData.STATISTICS, STRUCT, chunk.statistics))
        places = ((ColumnMetaData.DATA_PAGE_OFFSET, I64, begin + chunk.dictionary_size), *tail)
        return chunk.head + thrift.encode_fields(places, ColumnMetaData.TOTAL_COMPRESSED_SIZE) + b"\0\0"

    def finish(self) -> pa.Buffer:
        """The whole file."""
        pairs = [
            ((KeyValue.KEY, BINARY, key.encode()), (KeyValue.VALUE, BINARY, value.encode()))
            for key, value in self._metadata.items()
        ]
        footer = thrift.encode(
            STRUCT,
            (
                (FileMetaData.VERSION, I32, _VERSION),
                (FileMetaData.SCHEMA, LIST, (STRUCT, schema_of(self._columns))),
                (FileMetaData.NUM_ROWS, I64, self._rows),
                (FileMetaData.ROW_GROUPS, LIST, (STRUCT, self._groups)),
                (FileMetaData.KEY_VALUE_METADATA, LIST, (STRUCT, pairs)),
                (FileMetaData.CREATED_BY, BINARY, _CREATED_BY),
                (FileMetaData.COLUMN_ORDERS, LIST, (STRUCT, [_TYPE_ORDER] * len(self._columns))),
            ),
        )
        return pa.py_buffer(b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), _MAGIC]))


# Of a column of facts the same sizes come again and again, so what is encoded here is kept.


@lru_cache(maxsize=4096)
def _dictionary_page_head(size: int, packed: int, distinct: int) -> bytes:
    """The PageHeader of a dictionary: sizes before and after compression, and how many values."""
    fields = (DictionaryPageHeader.NUM_VALUES, I32, distinct), (DictionaryPageHeader.ENCODING, I32, Encoding.PLAIN)
    return _page_head(PageType.DICTIONARY_PAGE, size, packed, (PageHeader.DICTIONARY_PAGE_HEADER, STRUCT, fields))


@lru_cache(maxsize=4096)
def _data_page_head(size: int, packed: int, levels: int, encoding: Encoding) -> bytes:
    """The PageHeader of values: sizes before and after compression, how many, and how they are written."""
    fields = (
        (DataPageHeader.NUM_VALUES, I32, levels),
        (DataPageHeader.ENCODING, I32, encoding),
        (DataPageHeader.DEFINITION_LEVEL_ENCODING, I32, Encoding.RLE),
        (DataPageHeader.REPETITION_LEVEL_ENCODING, I32, Encoding.RLE),
    )
    return _page_head(PageType.DATA_PAGE, size, packed, (PageHeader.DATA_PAGE_HEADER, STRUCT, fields))


def _page_head(kind: PageType, size: int, packed: int, header: tuple[int, int, Any]) -> bytes:
    sizes = (PageHeader.UNCOMPRESSED_PAGE_SIZE, I32, size), (PageHeader.COMPRESSED_PAGE_SIZE, I32, packed)
    return thrift.encode(STRUCT, ((PageHeader.TYPE, I32, kind), *sizes, header))


@lru_cache(maxsize=4096)
def _statistics(nulls: int, lowest: bytes | None, highest: bytes | None) -> bytes:
    """The Statistics of a chunk. Of a list column, they count its empty lists, as everybody's do."""
    fields: list[Any] = [(Statistics.NULL_COUNT, I64, nulls)]
    if lowest is not None and highest is not None and max(len(lowest), len(highest)) <= _LONGEST_BOUND:
        fields += [(Statistics.MAX_VALUE, BINARY, highest), (Statistics.MIN_VALUE, BINARY, lowest)]
        fields += [(Statistics.IS_MAX_VALUE_EXACT, TRUE, None), (Statistics.IS_MIN_VALUE_EXACT, TRUE, None)]
    return thrift.encode(STRUCT, tuple(fields))


@lru_cache(maxsize=4096)
def _chunk_head(
    name: str, kind: str, encoding: Encoding, codec_id: CompressionCodec, levels: int, plain_size: int, size: int
) -> bytes:
    """A ColumnChunk as far as its place does not matter: up to the ColumnMetaData's sizes."""
    path = [name.encode()] + ([b"list", b"element"] if kind.startswith("list<") else [])
    description = (
        (ColumnMetaData.TYPE, I32, physical_type(kind if len(path) == 1 else kind[5:-1])),
        (ColumnMetaData.ENCODINGS, LIST, (I32, sorted({Encoding.PLAIN, Encoding.RLE, encoding}))),
        (ColumnMetaData.PATH_IN_SCHEMA, LIST, (BINARY, path)),
        (ColumnMetaData.CODEC, I32, codec_id),
        (ColumnMetaData.NUM_VALUES, I64, levels),
        (ColumnMetaData.TOTAL_UNCOMPRESSED_SIZE, I64, plain_size),
        (ColumnMetaData.TOTAL_COMPRESSED_SIZE, I64, size),
    )
    opened = thrift.encode_fields(((ColumnChunk.FILE_OFFSET, I64, 0), (ColumnChunk.META_DATA, STRUCT, b"")))
    return opened + thrift.encode_fields(description)


class ParquetReader(BlockReader):
    """Reads one shard; see `MakeReader` for its arguments."""

    def __init__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        bounds = UNBOUNDED if bounds is None else bounds
        self._columns = chosen(columns, wanted)
        self._most = {name: bounds.values(name, kind) for name, kind in self._columns.items()}
        self._empty = np.empty if pool is None else pool.empty
        self._places = [at for at, name in enumerate(columns) if name in self._columns]
        self._data = memoryview(data)
        with reading("Parquet"):
            size = int.from_bytes(self._data[-8:-4], "little")
            if len(self._data) < size + 12 or self._data[-4:] != _MAGIC or self._data[:4] != _MAGIC:
                raise DataError("not a Parquet file, or a truncated one")
            # Decoded, a footer takes up to a hundred times its size. Ours have some 150 bytes a column and block.
            if size > _MAX_FOOTER + 512 * len(columns) * -(-bounds.rows // BLOCK_ROWS):
                raise unreadable("Parquet", f"a footer of {size} bytes")
            footer, _ = thrift.decode(bytes(self._data[-8 - size : -8]), 0)
            check_schema(footer[FileMetaData.SCHEMA], columns)
            self.rows = footer[FileMetaData.NUM_ROWS]
            pairs, groups = footer[FileMetaData.KEY_VALUE_METADATA], footer[FileMetaData.ROW_GROUPS]
            self.metadata = {
                pair[KeyValue.KEY].decode().removeprefix(_PREFIX): pair[KeyValue.VALUE].decode() for pair in pairs
            }
            self._groups = [[chunk[ColumnChunk.META_DATA] for chunk in group[RowGroup.COLUMNS]] for group in groups]
            sizes = [group[RowGroup.NUM_ROWS] for group in groups]
            if len(sizes) != -(-self.rows // BLOCK_ROWS) or sizes != block_sizes(self.rows):
                raise unreadable("Parquet", f"its row groups do not hold {BLOCK_ROWS} rows each")

    def _block(self, block: int, rows: int, start: int, stop: int) -> RaggedBatch:
        with reading("Parquet"):
            chunks = [self._groups[block][at] for at in self._places]
            columns = {
                name: self._read_chunk(kind, rows, self._most[name], chunk)
                for (name, kind), chunk in zip(self._columns.items(), chunks, strict=True)
            }
        batch = check_masks(RaggedBatch(columns))
        return batch if stop - start == rows else batch.slice(start, stop)

    def _read_chunk(self, kind: str, rows: int, most: int, chunk: dict[int, Any]) -> Column:
        codec, room = codec_of(chunk[ColumnMetaData.CODEC]), largest_page(kind, rows, most)
        dictionary, distinct = None, 0
        if ColumnMetaData.DICTIONARY_PAGE_OFFSET in chunk:
            at = chunk[ColumnMetaData.DICTIONARY_PAGE_OFFSET]
            header, dictionary = self._read_page(PageType.DICTIONARY_PAGE, at, codec, room)
            distinct = header[PageHeader.DICTIONARY_PAGE_HEADER][DictionaryPageHeader.NUM_VALUES]
        header, page = self._read_page(PageType.DATA_PAGE, chunk[ColumnMetaData.DATA_PAGE_OFFSET], codec, room)
        encoding = header[PageHeader.DATA_PAGE_HEADER][DataPageHeader.ENCODING]
        return decode(kind, rows, page, encoding, dictionary, distinct, most, self._empty)

    def _read_page(
        self, kind: PageType, at: int, codec: pa.Codec | None, room: int
    ) -> tuple[dict[int, Any], np.ndarray]:
        """The PageHeader at byte `at`, and the page's content, of at most `room` bytes: uint8."""
        header, size = thrift.decode(bytes(self._data[at : at + 128]), 0)  # ours are 30 bytes long
        packed_size = header[PageHeader.COMPRESSED_PAGE_SIZE]
        packed = self._data[at + size : at + size + packed_size]
        if header[PageHeader.TYPE] != kind or len(packed) != packed_size:
            raise unreadable("Parquet", "unexpected page")
        if codec is None:
            return header, np.frombuffer(packed, np.uint8)
        plain_size = header[PageHeader.UNCOMPRESSED_PAGE_SIZE]
        if plain_size > room:
            raise unreadable("Parquet", f"a page of {plain_size} bytes, more than its rows can have")
        return header, np.frombuffer(codec.decompress(packed, plain_size), np.uint8)


PARQUET = Format("parquet", "parquet", ("zstd", "snappy", "none"), ParquetWriter, ParquetReader)
