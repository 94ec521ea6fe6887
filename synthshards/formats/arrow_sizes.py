"""What the compressed record batches of an Arrow IPC file say of their own sizes, read before Arrow believes it.

Each compressed buffer begins with its size in memory, and Arrow allocates that before it looks at what is compressed.
The descriptions are FlatBuffers: tables whose fields stand in slots, vectors of structs.
https://arrow.apache.org/docs/format/Columnar.html and the files ``File.fbs`` and ``Message.fbs`` are the specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

import numpy as np

from ..ragged import BLOCK_ROWS, KINDS
from .base import Bounds, unreadable

_MAGIC = b"ARROW1"
_V5, _RECORD_BATCH = 4, 3  # the version of the format, and what a message tells of, as they are numbered


def check_sizes(data: memoryview, columns: Mapping[str, str], bounds: Bounds) -> None:
    """Raise `DataError` where a record batch states more memory than its rows can have.

    Args:
        data: uint8 [bytes], the file.

    Raises:
        DataError, struct.error, ValueError: it is no such file.
    """
    # Validity bits and offsets, beside the values themselves.
    room = sum(16 * BLOCK_ROWS + bounds.values(name, kind) * KINDS[kind].itemsize for name, kind in columns.items())
    for at, head_size in _batches(data, -(-bounds.rows // BLOCK_ROWS)):
        stated = _stated(data, at, head_size, 4 * len(columns))
        if stated > room:
            raise unreadable("Arrow IPC", f"a record batch of {stated} bytes, more than its rows can have")


def _batches(data: memoryview, most: int) -> Iterator[tuple[int, int]]:
    """Where each of at most `most` record batches begins, and the size of its description."""
    (size,) = struct.unpack_from("<i", data, len(data) - 10)
    if bytes(data[-6:]) != _MAGIC or not 0 < size <= len(data) - 10:
        raise unreadable("Arrow IPC", "no footer")
    footer = _Table.root(data[len(data) - 10 - size : len(data) - 10])
    if footer.vector(2)[1]:
        raise unreadable("Arrow IPC", "unexpected dictionaries")
    at, count = footer.vector(3)
    if count > most:
        raise unreadable("Arrow IPC", f"{count} record batches, more than its rows can have")
    for place in range(at, at + 24 * count, 24):
        yield struct.unpack_from("<qi", footer.data, place)


def _stated(data: memoryview, at: int, head_size: int, most: int) -> int:
    """The bytes that the buffers of a record batch (at most `most`) take in memory if they are compressed; else 0."""
    if not 0 <= at <= at + head_size <= len(data):
        raise unreadable("Arrow IPC", "a record batch beyond the end")
    skip = 8 if bytes(data[at : at + 4]) == b"\xff\xff\xff\xff" else 4
    message = _Table.root(data[at + skip : at + head_size])
    version, kind = message.field(0), message.field(1)
    if version is None or kind is None or (message.data[version], message.data[kind]) != (_V5, _RECORD_BATCH):
        raise unreadable("Arrow IPC", "unexpected message")
    batch = message.table(2)
    if batch.field(3) is None:
        return 0
    begin, count = batch.vector(2)
    if count > most:
        raise unreadable("Arrow IPC", "unexpected buffers")
    buffers = np.frombuffer(batch.data, "<i8", 2 * count, begin).reshape(count, 2).tolist()
    stated = 0
    for offset, size in buffers:
        if size:
            if offset < 0 or size < 8:
                raise unreadable("Arrow IPC", "unexpected buffer")
            (plain,) = struct.unpack_from("<q", data, at + head_size + offset)
            stated += max(plain, 0)  # -1: not compressed after all
    return stated


class _Table:
    """A FlatBuffers table: fields by their number."""

    def __init__(self, data: memoryview, at: int) -> None:
        self.data, self._at = data, at
        (back,) = struct.unpack_from("<i", data, at)
        self._slots = at - back
        (self._size,) = struct.unpack_from("<H", data, self._slots)

    @staticmethod
    def root(data: memoryview) -> _Table:
        """The table that a buffer holds."""
        return _Table(data, *struct.unpack_from("<I", data))

    def field(self, number: int) -> int | None:
        """Where a field stands, None where the table has none of it."""
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return None
        (step,) = struct.unpack_from("<H", self.data, self._slots + slot)
        return self._at + step if step else None

    def table(self, number: int) -> _Table:
        """The table that a field names."""
        return _Table(self.data, self._target(number))

    def vector(self, number: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are; none where the table has no such field."""
        if self.field(number) is None:
            return 0, 0
        at = self._target(number)
        return at + 4, *struct.unpack_from("<I", self.data, at)

    def _target(self, number: int) -> int:
        at = self.field(number)
        if at is None:
            raise unreadable("Arrow IPC", f"no field {number} in a description")
        step: int = struct.unpack_from("<I", self.data, at)[0]
        return at + step
