"""The columns of a shard as Parquet's SchemaElements, and whether a file has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import DataError, cut
from ...ragged import KINDS
from . import thrift
from .fields import ConvertedType, FieldRepetitionType, IntType, LogicalType, SchemaElement, Type
from .thrift import BINARY, FALSE, I8, I32, STRUCT, Struct


def schema_of(columns: Mapping[str, str]) -> list[Struct]:
    """The SchemaElements of a file."""
    root: Struct = ((SchemaElement.NAME, BINARY, b"schema"), (SchemaElement.NUM_CHILDREN, I32, len(columns)))
    return [root, *(element for name, kind in columns.items() for element in _elements(name.encode(), kind))]


def _elements(name: bytes, kind: str) -> list[Struct]:
    """The SchemaElements of a column: itself; or of a list the group, the repeated group and the element."""
    if kind.startswith("list<"):
        group: Struct = (
            (SchemaElement.REPETITION_TYPE, I32, FieldRepetitionType.REQUIRED),
            (SchemaElement.NAME, BINARY, name),
            (SchemaElement.NUM_CHILDREN, I32, 1),
            (SchemaElement.CONVERTED_TYPE, I32, ConvertedType.LIST),
            (SchemaElement.LOGICAL_TYPE, STRUCT, ((LogicalType.LIST, STRUCT, ()),)),
        )
        repeated: Struct = (
            (SchemaElement.REPETITION_TYPE, I32, FieldRepetitionType.REPEATED),
            (SchemaElement.NAME, BINARY, b"list"),
            (SchemaElement.NUM_CHILDREN, I32, 1),
        )
        return [group, repeated, *_elements(b"element", kind[5:-1])]
    leaf = (
        (SchemaElement.TYPE, I32, physical_type(kind)),
        (SchemaElement.REPETITION_TYPE, I32, FieldRepetitionType.REQUIRED),
        (SchemaElement.NAME, BINARY, name),
    )
    return [(*leaf, *_meaning(kind))]


def _meaning(kind: str) -> tuple[tuple[int, int, Any], ...]:
    """The fields of a SchemaElement that say what its values mean, where their physical type does not."""
    if kind == "string":
        converted = ConvertedType.UTF8
        logical: tuple[int, int, Any] = (LogicalType.STRING, STRUCT, ())
    elif KINDS[kind].kind == "u":
        bits = 8 * KINDS[kind].itemsize
        converted = ConvertedType[f"UINT_{bits}"]
        logical = (LogicalType.INTEGER, STRUCT, ((IntType.BIT_WIDTH, I8, bits), (IntType.IS_SIGNED, FALSE, None)))
    else:
        return ()
    return (SchemaElement.CONVERTED_TYPE, I32, converted), (SchemaElement.LOGICAL_TYPE, STRUCT, (logical,))


def physical_type(kind: str) -> Type:
    """How the numbers or texts of a kind (not of a list) lie in the file."""
    if kind == "string":
        return Type.BYTE_ARRAY
    dtype = KINDS[kind]
    return Type.BOOLEAN if dtype == np.bool_ else Type.INT64 if dtype.itemsize == 8 else Type.INT32


def check_schema(elements: list[dict[int, Any]], columns: Mapping[str, str]) -> None:
    """Raise DataError unless the SchemaElements are those of `columns`."""
    expected = [thrift.decode(thrift.encode(STRUCT, element), 0)[0] for element in schema_of(columns)]
    if elements == expected:
        return
    names, at = [], 1
    while at < len(elements):
        names.append(elements[at][SchemaElement.NAME].decode())
        at += 3 if SchemaElement.NUM_CHILDREN in elements[at] else 1
    if names != list(columns):
        raise DataError(f"the shard has the columns {cut(', '.join(names), 400)}; expected {', '.join(columns)}")
    raise DataError(f"the shard's columns are not of the types {', '.join(f'{n} {k}' for n, k in columns.items())}")
