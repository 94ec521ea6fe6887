"""Parquet shards: one row group per 1,024 rows, one page a column in each (`pages`), no statistics, no page index.

Compression is for tokens and texts; a row's other facts are in few bits as it is. Each column chunk says which it has.

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
from ...ragged import BLOCK_ROWS, Column, RaggedBatch, block_sizes
from ..base import UNBOUNDED, BlockReader, BlockWriter, Bounds, Format, check_masks, chosen, reading, unreadable
from . import thrift
from .fields import (
    ColumnChunk,
    ColumnMetaData,
    CompressionCodec,
    DataPageHeader,
    DictionaryPageHeader,
    Encoding,
    FileMetaData,
    KeyValue,
    PageHeader,
    PageType,
    RowGroup,
)
from .pages import Encoded, PageWriter, decode, holds_tokens, largest_page
from .schema import check_schema, physical_type, schema_of
from .thrift import BINARY, I32, I64, LIST, STRUCT, Struct

_MAGIC = b"PAR1"
_VERSION = 2
_CREATED_BY = b"synthshards version 1"  # of this layout, not of the package: releases leave the bytes alone
_ZSTD_LEVEL = 1
_MAX_FOOTER = 4 << 20  # beside what grows with the rows: a grammar, say, may be part of the identity
_CODECS = {
    "none": CompressionCodec.UNCOMPRESSED, "snappy": CompressionCodec.SNAPPY, "zstd": CompressionCodec.ZSTD
}  # fmt: skip


class _Chunk(NamedTuple):
    """A column chunk whose place in the file is still open.

    parts: headers and pages in turn, bytes and buffers; plain_size, size: what they take without and with compression;
    dictionary_size: what the dictionary takes of them; head: see `_chunk_head`.
    """

    parts: list[Any]
    plain_size: int
    size: int
    dictionary_size: int
    head: bytes


class ParquetWriter(BlockWriter):
    """Writes one shard in memory; see `MakeWriter` for its arguments (`start` is not stored)."""

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in PARQUET.compressions, compression
        self._columns = dict(columns)
        self._metadata = dict(metadata)
        self._codec_id = _CODECS[compression]
        self._codec = _codec(self._codec_id)
        self._pages = PageWriter()
        self._parts: list[Any] = [_MAGIC]  # bytes and buffers
        self._size = len(_MAGIC)
        self._groups: list[Struct] = []

    def _append(self, batch: RaggedBatch) -> None:
        named = [(name, batch.columns[name]) for name in self._columns]
        made = [[self._encode_chunk(name, c.kind, pages) for pages in self._pages.encode(c)] for name, c in named]
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
        # Facts are in few bits, and too small for what a compressor's start costs.
        texts = kind == "string" and made.dictionary is None
        codec = self._codec if texts or holds_tokens(kind) else None
        codec_id = CompressionCodec.UNCOMPRESSED if codec is None else self._codec_id
        plain_size, dictionary_size = 0, 0
        parts: list[Any] = []
        if made.dictionary is not None:
            header = _dictionary_header(made.distinct)
            plain_size = _add_page(parts, PageType.DICTIONARY_PAGE, made.dictionary, codec, header)
            dictionary_size = len(parts[0]) + len(parts[1])
        header = _data_header(made.levels, made.encoding)
        plain_size += _add_page(parts, PageType.DATA_PAGE, made.page, codec, header)
        size = sum(map(len, parts))
        head = _chunk_head(name, kind, made.encoding, codec_id, made.levels, plain_size, size)
        return _Chunk(parts, plain_size, size, dictionary_size, head)

    def _put(self, chunk: _Chunk) -> bytes:
        """Append the pages of a chunk to the file; return its ColumnChunk."""
        begin = self._size
        self._parts += chunk.parts
        self._size += chunk.size
        tail = [(ColumnMetaData.DICTIONARY_PAGE_OFFSET, I64, begin)] if chunk.dictionary_size else []
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
            ),
        )
        return pa.py_buffer(b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), _MAGIC]))


def _add_page(
    parts: list[Any], kind: PageType, content: np.ndarray, codec: pa.Codec | None, header: tuple[int, int, bytes]
) -> int:
    """Add a PageHeader and the content, compressed, to `parts`; return the size before compression."""
    packed = content.tobytes() if codec is None else codec.compress(content)
    head = _page_head(kind, len(content), len(packed), header)
    parts += [head, packed]
    return len(head) + len(content)


# Of a column of facts the same sizes come again and again, so what is encoded here is kept.


@lru_cache(maxsize=256)
def _dictionary_header(distinct: int) -> tuple[int, int, bytes]:
    """The field of a PageHeader that tells of a dictionary of so many values."""
    fields = (DictionaryPageHeader.NUM_VALUES, I32, distinct), (DictionaryPageHeader.ENCODING, I32, Encoding.PLAIN)
    return PageHeader.DICTIONARY_PAGE_HEADER, STRUCT, thrift.encode(STRUCT, fields)


@lru_cache(maxsize=256)
def _data_header(levels: int, encoding: Encoding) -> tuple[int, int, bytes]:
    """The field of a PageHeader that tells of values."""
    fields = (
        (DataPageHeader.NUM_VALUES, I32, levels),
        (DataPageHeader.ENCODING, I32, encoding),
        (DataPageHeader.DEFINITION_LEVEL_ENCODING, I32, Encoding.RLE),
        (DataPageHeader.REPETITION_LEVEL_ENCODING, I32, Encoding.RLE),
    )
    return PageHeader.DATA_PAGE_HEADER, STRUCT, thrift.encode(STRUCT, fields)


@lru_cache(maxsize=4096)
def _page_head(kind: PageType, size: int, packed: int, header: tuple[int, int, bytes]) -> bytes:
    """A PageHeader: sizes before and after compression, and the field for its kind."""
    sizes = (PageHeader.UNCOMPRESSED_PAGE_SIZE, I32, size), (PageHeader.COMPRESSED_PAGE_SIZE, I32, packed)
    return thrift.encode(STRUCT, ((PageHeader.TYPE, I32, kind), *sizes, header))


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


def _codec(codec_id: int) -> pa.Codec | None:
    """The compressor of a CompressionCodec, None for uncompressed pages."""
    name = next((name for name, known in _CODECS.items() if known == codec_id), None)
    if name is None:
        raise unreadable("Parquet", f"unexpected compression {codec_id}")
    if name == "none":
        return None
    return pa.Codec(name, compression_level=_ZSTD_LEVEL) if name == "zstd" else pa.Codec(name)


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
            self.metadata = {pair[KeyValue.KEY].decode(): pair[KeyValue.VALUE].decode() for pair in pairs}
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
        codec, room = _codec(chunk[ColumnMetaData.CODEC]), largest_page(kind, rows, most)
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
