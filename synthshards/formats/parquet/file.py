"""Parquet shards: one row group per 1,024 rows, one page a column in each (`pages`), no statistics, no page index.

Compression is for tokens and texts; a row's other facts are in few bits as it is. Each column chunk says which it has.

Writer and reader are our own (`pages` says why). The reader takes files of exactly this form only; everybody else's
readers take them too. Names below are those of https://github.com/apache/parquet-format, ``parquet.thrift``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...kernels.buffers import Pool
from ...ragged import BLOCK_ROWS, KINDS, Column, RaggedBatch, block_sizes, concat
from ..arrow_columns import check_rows, chosen, empty_batch, reading
from . import thrift
from .pages import PLAIN, RLE, Encoded, PageWriter, decode, holds_tokens
from .thrift import BINARY, FALSE, I8, I32, I64, LIST, STRUCT, Struct

NAME = "parquet"
SUFFIX = "parquet"
COMPRESSIONS: tuple[str, ...] = ("zstd", "snappy", "none")

_MAGIC = b"PAR1"
_CREATED_BY = b"synthshards version 1"  # of this layout, not of the package: releases leave the bytes alone
_ZSTD_LEVEL = 1
_CODECS = {"none": 0, "snappy": 1, "zstd": 6}  # CompressionCodec
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2  # PageType
_BOOLEAN, _INT32, _INT64, _BYTE_ARRAY = 0, 1, 2, 6  # Type
_REQUIRED, _REPEATED = 0, 2  # FieldRepetitionType
_UTF8, _LIST, _UINT = 0, 3, {1: 11, 2: 12, 4: 13, 8: 14}  # ConvertedType, of unsigned numbers by width
_STRING_TYPE, _LIST_TYPE, _INTEGER_TYPE = 1, 3, 10  # fields of the union LogicalType


def _schema(columns: Mapping[str, str]) -> list[Struct]:
    """The SchemaElements of a file."""
    root: Struct = ((4, BINARY, b"schema"), (5, I32, len(columns)))
    return [root, *(element for name, kind in columns.items() for element in _elements(name.encode(), kind))]


def _elements(name: bytes, kind: str) -> list[Struct]:
    """The SchemaElements of a column: itself; or of a list the group, the repeated group and the element."""
    if kind.startswith("list<"):
        logical = ((_LIST_TYPE, STRUCT, ()),)
        group: Struct = ((3, I32, _REQUIRED), (4, BINARY, name), (5, I32, 1), (6, I32, _LIST), (10, STRUCT, logical))
        return [group, ((3, I32, _REPEATED), (4, BINARY, b"list"), (5, I32, 1)), *_elements(b"element", kind[5:-1])]
    leaf: Struct = ((1, I32, _physical(kind)), (3, I32, _REQUIRED), (4, BINARY, name))
    if kind == "string":
        return [(*leaf, (6, I32, _UTF8), (10, STRUCT, ((_STRING_TYPE, STRUCT, ()),)))]
    dtype = KINDS[kind]
    if dtype.kind == "u":
        integer = ((1, I8, 8 * dtype.itemsize), (2, FALSE, None))  # bits, signed
        return [(*leaf, (6, I32, _UINT[dtype.itemsize]), (10, STRUCT, ((_INTEGER_TYPE, STRUCT, integer),)))]
    return [leaf]


def _physical(kind: str) -> int:
    if kind == "string":
        return _BYTE_ARRAY
    dtype = KINDS[kind]
    return _BOOLEAN if dtype == np.bool_ else _INT64 if dtype.itemsize == 8 else _INT32


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


class Writer:
    """Writes one shard in memory.

    Args:
        columns: name → kind, in the order of the file.
        compression: one of `COMPRESSIONS`.
        metadata: the file's own metadata.
        start: global index of the first row (not used here).
    """

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in COMPRESSIONS, compression
        self._columns = dict(columns)
        self._metadata = dict(metadata)
        self._codec_id = _CODECS[compression]
        self._codec = _codec(self._codec_id)
        self._pages = PageWriter()
        self._parts: list[Any] = [_MAGIC]  # bytes and buffers
        self._size = len(_MAGIC)
        self._groups: list[Struct] = []
        self._rows = 0

    def write(self, batch: RaggedBatch) -> None:
        """Add rows; only the last batch may end within a block of 1,024. Its buffers may be reused afterwards."""
        assert len(batch) > 0, "no rows"
        assert self._rows % BLOCK_ROWS == 0, "only the last batch may end within a block"
        named = [(name, batch.columns[name]) for name in self._columns]
        made = [[self._encode_chunk(name, c.kind, pages) for pages in self._pages.encode(c)] for name, c in named]
        for rows, chunks in zip(block_sizes(len(batch)), zip(*made, strict=True), strict=True):
            begin = self._size
            described = [self._put(chunk) for chunk in chunks]
            size = sum(chunk.plain_size for chunk in chunks)
            group = (1, LIST, (STRUCT, described)), (2, I64, size), (3, I64, rows), (6, I64, self._size - begin)
            self._groups.append(thrift.encode(STRUCT, group))
            self._rows += rows

    def _encode_chunk(self, name: str, kind: str, made: Encoded) -> _Chunk:
        # Facts are in few bits, and too small for what a compressor's start costs.
        texts = kind == "string" and made.dictionary is None
        codec = self._codec if texts or holds_tokens(kind) else None
        codec_id = _CODECS["none"] if codec is None else self._codec_id
        plain_size, dictionary_size = 0, 0
        parts: list[Any] = []
        if made.dictionary is not None:
            header = _header(7, ((1, I32, made.distinct), (2, I32, PLAIN)))
            plain_size = _add_page(parts, _DICTIONARY_PAGE, made.dictionary, codec, header)
            dictionary_size = len(parts[0]) + len(parts[1])
        header = _header(5, ((1, I32, made.levels), (2, I32, made.encoding), (3, I32, RLE), (4, I32, RLE)))
        plain_size += _add_page(parts, _DATA_PAGE, made.page, codec, header)
        size = sum(map(len, parts))
        head = _chunk_head(name, kind, made.encoding, codec_id, made.levels, plain_size, size)
        return _Chunk(parts, plain_size, size, dictionary_size, head)

    def _put(self, chunk: _Chunk) -> bytes:
        """Append the pages of a chunk to the file; return its ColumnChunk."""
        begin = self._size
        self._parts += chunk.parts
        self._size += chunk.size
        tail = [(11, I64, begin)] if chunk.dictionary_size else []
        places = ((9, I64, begin + chunk.dictionary_size), *tail)
        return chunk.head + thrift.encode_fields(places, 7) + b"\0\0"

    def finish(self) -> pa.Buffer:
        """The whole file."""
        pairs = [((1, BINARY, key.encode()), (2, BINARY, value.encode())) for key, value in self._metadata.items()]
        footer = thrift.encode(
            STRUCT,
            (
                (1, I32, 2),  # version
                (2, LIST, (STRUCT, _schema(self._columns))),
                (3, I64, self._rows),
                (4, LIST, (STRUCT, self._groups)),
                (5, LIST, (STRUCT, pairs)),
                (6, BINARY, _CREATED_BY),
            ),
        )
        return pa.py_buffer(b"".join([*self._parts, footer, len(footer).to_bytes(4, "little"), _MAGIC]))


def _add_page(
    parts: list[Any], kind: int, content: np.ndarray, codec: pa.Codec | None, header: tuple[int, int, bytes]
) -> int:
    """Add a PageHeader and the content, compressed, to `parts`; return the size before compression."""
    packed = content.tobytes() if codec is None else codec.compress(content)
    head = _page_head(kind, len(content), len(packed), header)
    parts += [head, packed]
    return len(head) + len(content)


# Of a column of facts the same sizes come again and again, so what is encoded here is kept.


@lru_cache(maxsize=256)
def _header(field: int, struct: Struct) -> tuple[int, int, bytes]:
    """The field of a PageHeader for its kind of page."""
    return field, STRUCT, thrift.encode(STRUCT, struct)


@lru_cache(maxsize=4096)
def _page_head(kind: int, size: int, packed: int, header: tuple[int, int, bytes]) -> bytes:
    """A PageHeader: sizes before and after compression, and the field for its kind."""
    return thrift.encode(STRUCT, ((1, I32, kind), (2, I32, size), (3, I32, packed), header))


@lru_cache(maxsize=4096)
def _chunk_head(name: str, kind: str, encoding: int, codec_id: int, levels: int, plain_size: int, size: int) -> bytes:
    """A ColumnChunk as far as its place does not matter: up to the ColumnMetaData's sizes."""
    path = [name.encode()] + ([b"list", b"element"] if kind.startswith("list<") else [])
    description = (
        (1, I32, _physical(kind if len(path) == 1 else kind[5:-1])),
        (2, LIST, (I32, sorted({PLAIN, RLE, encoding}))),
        (3, LIST, (BINARY, path)),
        (4, I32, codec_id),
        (5, I64, levels),
        (6, I64, plain_size),
        (7, I64, size),
    )
    opened = thrift.encode_fields(((2, I64, 0), (3, STRUCT, b"")))
    return opened + thrift.encode_fields(description)


def _codec(codec_id: int) -> pa.Codec | None:
    """The compressor of a CompressionCodec, None for uncompressed pages."""
    name = next((name for name, known in _CODECS.items() if known == codec_id), None)
    if name is None:
        raise DataError(f"not a readable Parquet file: unexpected compression {codec_id}")
    if name == "none":
        return None
    return pa.Codec(name, compression_level=_ZSTD_LEVEL) if name == "zstd" else pa.Codec(name)


class Reader:
    """Reads one shard.

    Args:
        columns: name → kind of all its columns.
        wanted: those that `read` gives, None: all.
        pool: where the memory of what is read comes from.

    Raises:
        DataError: the bytes are no such file, or its columns are not `columns`; also from `read`.
    """

    def __init__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
    ) -> None:
        self._columns = chosen(columns, wanted)
        self._empty = np.empty if pool is None else pool.empty
        self._places = [at for at, name in enumerate(columns) if name in self._columns]
        self._data = memoryview(data)
        with reading("Parquet"):
            size = int.from_bytes(self._data[-8:-4], "little")
            if len(self._data) < size + 12 or self._data[-4:] != _MAGIC or self._data[:4] != _MAGIC:
                raise DataError("not a Parquet file, or a truncated one")
            footer, _ = thrift.decode(bytes(self._data[-8 - size : -8]), 0)
            _check_schema(footer[2], columns)
            self.rows: int = footer[3]
            self.metadata: dict[str, str] = {pair[1].decode(): pair[2].decode() for pair in footer[5]}
            self._groups = [[chunk[3] for chunk in group[1]] for group in footer[4]]
            sizes = [group[3] for group in footer[4]]
        if len(sizes) != -(-self.rows // BLOCK_ROWS) or sizes != block_sizes(self.rows):
            raise DataError(f"not a readable Parquet file: its row groups do not hold {BLOCK_ROWS} rows each")

    def read(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1 of the shard (0 ≤ start ≤ stop ≤ rows)."""
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        parts = []
        for block in range(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)):
            first = block * BLOCK_ROWS
            rows = min(BLOCK_ROWS, self.rows - first)
            with reading("Parquet"):
                chunks = [self._groups[block][at] for at in self._places]
                found = {
                    name: self._read_chunk(kind, rows, chunk)
                    for (name, kind), chunk in zip(self._columns.items(), chunks, strict=True)
                }
            batch = check_rows(RaggedBatch(found))
            low, high = max(start - first, 0), min(stop - first, rows)
            parts.append(batch if high - low == rows else batch.slice(low, high))
        return concat(parts) if parts else empty_batch(self._columns)

    def _read_chunk(self, kind: str, rows: int, chunk: dict[int, Any]) -> Column:
        codec = _codec(chunk[4])
        dictionary, distinct = None, 0
        if 11 in chunk:
            header, dictionary = self._read_page(_DICTIONARY_PAGE, chunk[11], codec)
            distinct = header[7][1]
        header, page = self._read_page(_DATA_PAGE, chunk[9], codec)
        return decode(kind, rows, page, header[5][2], dictionary, distinct, self._empty)

    def _read_page(self, kind: int, at: int, codec: pa.Codec | None) -> tuple[dict[int, Any], np.ndarray]:
        """The PageHeader at byte `at`, and the page's content: uint8."""
        header, size = thrift.decode(bytes(self._data[at : at + 128]), 0)  # ours are 30 bytes long
        packed = self._data[at + size : at + size + header[3]]
        if header[1] != kind or len(packed) != header[3]:
            raise DataError("not a readable Parquet file: unexpected page")
        if codec is None:
            return header, np.frombuffer(packed, np.uint8)
        return header, np.frombuffer(codec.decompress(packed, header[2]), np.uint8)


def _check_schema(found: list[dict[int, Any]], columns: Mapping[str, str]) -> None:
    """Raise DataError unless the SchemaElements are those of `columns`."""
    expected = [thrift.decode(thrift.encode(STRUCT, element), 0)[0] for element in _schema(columns)]
    if found == expected:
        return
    names, at = [], 1
    while at < len(found):
        names.append(found[at][4].decode())
        at += 3 if 5 in found[at] else 1
    if names != list(columns):
        raise DataError(f"the shard has the columns {', '.join(names)}; expected {', '.join(columns)}")
    raise DataError(f"the shard's columns are not of the types {', '.join(f'{n} {k}' for n, k in columns.items())}")
