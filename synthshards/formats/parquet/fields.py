"""The numbers of Parquet's metadata by their names in ``parquet.thrift``: ids of fields, and values of enumerations.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift has all of them; here are those that
shards use.
"""

from __future__ import annotations

from enum import IntEnum

# Structs: field name → id -----------------------------------------------------------------------------------------


class FileMetaData(IntEnum):
    """The footer."""

    VERSION = 1
    SCHEMA = 2
    NUM_ROWS = 3
    ROW_GROUPS = 4
    KEY_VALUE_METADATA = 5
    CREATED_BY = 6
    COLUMN_ORDERS = 7


class KeyValue(IntEnum):
    """One entry of the file's own metadata."""

    KEY = 1
    VALUE = 2


class SchemaElement(IntEnum):
    """The root, a column, or one of the groups that make a list."""

    TYPE = 1
    REPETITION_TYPE = 3
    NAME = 4
    NUM_CHILDREN = 5
    CONVERTED_TYPE = 6
    LOGICAL_TYPE = 10


class LogicalType(IntEnum):
    """A union: which field it has says what the type is."""

    STRING = 1
    LIST = 3
    INTEGER = 10


class IntType(IntEnum):
    """What the logical type INTEGER says."""

    BIT_WIDTH = 1
    IS_SIGNED = 2


class RowGroup(IntEnum):
    """1,024 rows."""

    COLUMNS = 1
    TOTAL_BYTE_SIZE = 2
    NUM_ROWS = 3
    TOTAL_COMPRESSED_SIZE = 6


class ColumnChunk(IntEnum):
    """One column of a row group."""

    FILE_OFFSET = 2
    META_DATA = 3


class ColumnMetaData(IntEnum):
    """What a reader must know of a column chunk."""

    TYPE = 1
    ENCODINGS = 2
    PATH_IN_SCHEMA = 3
    CODEC = 4
    NUM_VALUES = 5
    TOTAL_UNCOMPRESSED_SIZE = 6
    TOTAL_COMPRESSED_SIZE = 7
    DATA_PAGE_OFFSET = 9
    DICTIONARY_PAGE_OFFSET = 11
    STATISTICS = 12


class Statistics(IntEnum):
    """What a reader may know of a column chunk without reading it."""

    NULL_COUNT = 3
    MAX_VALUE = 5
    MIN_VALUE = 6
    IS_MAX_VALUE_EXACT = 7
    IS_MIN_VALUE_EXACT = 8


class ColumnOrder(IntEnum):
    """A union: how values of a column compare."""

    TYPE_ORDER = 1


class PageHeader(IntEnum):
    """What stands before every page."""

    TYPE = 1
    UNCOMPRESSED_PAGE_SIZE = 2
    COMPRESSED_PAGE_SIZE = 3
    DATA_PAGE_HEADER = 5
    DICTIONARY_PAGE_HEADER = 7


class DataPageHeader(IntEnum):
    """Of values."""

    NUM_VALUES = 1
    ENCODING = 2
    DEFINITION_LEVEL_ENCODING = 3
    REPETITION_LEVEL_ENCODING = 4


class DictionaryPageHeader(IntEnum):
    """Of the distinct values that a data page counts in."""

    NUM_VALUES = 1
    ENCODING = 2


# Enumerations -------------------------------------------------------------------------------------------------------


class Type(IntEnum):
    """How values lie in the file."""

    BOOLEAN = 0
    INT32 = 1
    INT64 = 2
    BYTE_ARRAY = 6


class ConvertedType(IntEnum):
    """What values mean, as readers of before LogicalType know it."""

    UTF8 = 0
    LIST = 3
    UINT_8 = 11
    UINT_16 = 12
    UINT_32 = 13
    UINT_64 = 14


class FieldRepetitionType(IntEnum):
    """How often a value stands in a row."""

    REQUIRED = 0
    REPEATED = 2


class CompressionCodec(IntEnum):
    """How pages are compressed."""

    UNCOMPRESSED = 0
    SNAPPY = 1
    ZSTD = 6


class PageType(IntEnum):
    """What a page holds."""

    DATA_PAGE = 0
    DICTIONARY_PAGE = 2


class Encoding(IntEnum):
    """How values or levels are written."""

    PLAIN = 0
    RLE = 3
    RLE_DICTIONARY = 8
