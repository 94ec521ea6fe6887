"""The parts of Thrift's compact protocol that Parquet's footer and page headers need: no negative numbers, no maps.

A struct to write is a tuple of (field id, type, value) with ascending ids, or the bytes that it was encoded to before;
a struct read is a dict of field id → value.
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md is the specification.

>>> encode(STRUCT, ((1, I32, 2), (4, BINARY, b"ab"))).hex()
'15043802616200'
>>> decode(bytes.fromhex("15043802616200"), 0)
({1: 2, 4: b'ab'}, 7)
"""

from __future__ import annotations

from typing import Any

Struct = tuple[tuple[int, int, Any], ...] | bytes
TRUE, FALSE, I8, I16, I32, I64, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 8, 9, 12


def varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte, low bits first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(kind: int, value: Any) -> bytes:
    """A value of a type; that of LIST is (element type, items), a boolean is a field of type TRUE or FALSE."""
    if kind == STRUCT:
        return value if isinstance(value, bytes) else encode_fields(value) + b"\0"
    if kind == BINARY:
        return varint(len(value)) + bytes(value)
    if kind in (I32, I64):
        return varint(value << 1)  # zigzag: the lowest bit is the sign
    if kind == I8:
        return bytes((value,))
    assert kind == LIST, kind
    element, items = value
    count = len(items)
    head = bytes((count << 4 | element,)) if count < 15 else bytes((0xF0 | element,)) + varint(count)
    return head + b"".join([encode(element, item) for item in items])


def encode_fields(fields: tuple[tuple[int, int, Any], ...], last: int = 0) -> bytes:
    """Fields of a struct without its end; `last` is the id of the field before them."""
    out = bytearray()
    for field, code, item in fields:
        out.append(field - last << 4 | code)
        last = field
        if code in (I32, I64):  # most fields: worth a short way
            item <<= 1
            while item > 0x7F:
                out.append(item & 0x7F | 0x80)
                item >>= 7
            out.append(item)
        elif code not in (TRUE, FALSE):
            out += encode(code, item)
    return bytes(out)


def decode(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """The struct at data[at], and where it ends.

    Raises:
        ValueError, IndexError, RecursionError: it is none.
    """
    struct: dict[int, Any] = {}
    field = 0
    while (head := data[at]) != 0:
        at += 1
        step, kind = head >> 4, head & 0x0F
        if step == 0:
            raise ValueError(f"unexpected field header {head} in a thrift struct")
        field += step
        struct[field], at = _decode_value(kind, data, at)
    return struct, at + 1


def _decode_value(kind: int, data: bytes, at: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in (I16, I32, I64):
        number, at = _decode_varint(data, at)
        if number & 1:
            raise ValueError("unexpected negative number in a thrift struct")
        return number >> 1, at
    if kind == I8:
        return data[at], at + 1
    if kind == BINARY:
        size, at = _decode_varint(data, at)
        return bytes(data[at : at + size]), at + size  # if it is too long, the end of its struct is missing, too
    if kind == LIST:
        head, at = data[at], at + 1
        count, element = head >> 4, head & 0x0F
        if count == 15:
            count, at = _decode_varint(data, at)
        if element in (TRUE, FALSE):
            raise ValueError("unexpected list of booleans in a thrift struct")
        items = []
        for _ in range(count):
            item, at = _decode_value(element, data, at)
            items.append(item)
        return items, at
    if kind == STRUCT:
        return decode(data, at)
    raise ValueError(f"unexpected type {kind} in a thrift struct")


def _decode_varint(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a thrift number of more than 64 bits")
