"""WebDataset shards: a plain ustar archive whose every byte follows from the rows.

Members of row 7 of a token task, in this order (a text task has ``text.txt`` in place of the two arrays)::

    000000000007.input_ids.npy    000000000007.loss_mask.npy    000000000007.json

The key is the row's global index, the .npy files are those of ``numpy.save``, the json holds all other columns in the
order of the schema, without spaces. Modification time, uid and gid are zero, user and group empty. A global pax header
in front holds the file's own metadata as ``SYNTHSHARDS.<name>``. The reader takes archives of exactly this form only:
it makes each header again and compares. So writer and reader share their kernels, and stand in one file.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..kernels.arrays import I64, U8
from ..kernels.buffers import Pool
from ..kernels.copying import copy_bytes, equal_bytes
from ..kernels.jit import helper, kernel
from ..ragged import BLOCK_ROWS, KINDS, Column, RaggedBatch, offsets_of
from . import json_rows
from .arrow_columns import check_text
from .base import BlockWriter, Bounds, Format, check_masks, chosen, empty_batch, reading, unreadable

_PREFIX = "SYNTHSHARDS."
_MAX_ROWS = 10**12  # keys have 12 digits


class _Layout(NamedTuple):
    """The members of a row, in order: what each has in common over all rows (M members).

    headers: [M, 512], the tar header for key 0 and size 0; checksums: [M], the sum that stands in it.
    npys: [M, 128], the .npy header of an empty array; npy_sizes: [M], its length, 0 where there is none;
    shapes: [M], where in it the array's length stands; itemsizes: [M].
    """

    headers: U8
    checksums: I64
    npys: U8
    npy_sizes: I64
    shapes: I64
    itemsizes: I64


def _stored_apart(columns: Mapping[str, str]) -> dict[str, str]:
    """The columns that have a member of their own → its suffix. All others go into the json."""
    arrays = {n: f"{n}.npy" for n in ("input_ids", "loss_mask") if columns.get(n, "").startswith("list<")}
    return arrays | ({"text": "text.txt"} if columns.get("text") == "string" else {})


def _layout(columns: Mapping[str, str]) -> _Layout:
    rows = []
    for name, suffix in [*_stored_apart(columns).items(), ("", "json")]:
        header = tarfile.TarInfo(f"{0:012}.{suffix}").tobuf(tarfile.USTAR_FORMAT)
        npy, itemsize = b"", 1
        if suffix.endswith(".npy"):
            file = io.BytesIO()
            np.save(file, np.empty(0, KINDS[columns[name]]))
            npy, itemsize = file.getvalue(), KINDS[columns[name]].itemsize
        rows.append((header, int(header[148:154], 8), npy.ljust(128), len(npy), npy.find(b"(0,)") + 1, itemsize))
    headers, checksums, npys, *numbers = zip(*rows, strict=True)
    return _Layout(
        np.frombuffer(b"".join(headers), np.uint8).reshape(-1, 512),
        np.array(checksums),
        np.frombuffer(b"".join(npys), np.uint8).reshape(-1, 128),
        *(np.array(column) for column in numbers),
    )


@helper
def _digits(out: U8, at: int, value: int, base: int, count: int) -> int:
    """Write `count` digits of `value` at out[at]; return their sum."""
    total = 0
    for place in range(at + count - 1, at - 1, -1):
        digit = value % base
        out[place] = 48 + digit
        total += digit
        value //= base
    return total


@helper
def _heads(out: U8, at: int, layout: _Layout, member: int, key: int, size: int) -> None:
    """Write what stands before a member's content at out[at]: its tar header, and its .npy header if it has one."""
    copy_bytes(out, at, layout.headers[member], 0, 512)
    checksum = layout.checksums[member]
    checksum += _digits(out, at, key, 10, 12)
    checksum += _digits(out, at + 124, size, 8, 11)
    _digits(out, at + 148, checksum, 8, 6)
    npy_size = layout.npy_sizes[member]
    if npy_size == 0:
        return
    copy_bytes(out, at + 512, layout.npys[member], 0, npy_size)
    count = (size - npy_size) // layout.itemsizes[member]
    digits, rest = 1, count // 10
    while rest > 0:
        digits += 1
        rest //= 10
    shape = layout.shapes[member]
    at += 512 + shape
    _digits(out, at, count, 10, digits)
    copy_bytes(out, at + digits, layout.npys[member], shape + 1, 5)  # what follows, ",), }", moves right over padding


@kernel
def _put(out: U8, places: I64, sizes: I64, first: int, layout: _Layout, member: int, data: U8, starts: I64) -> None:
    """Write one member of every row.

    Args:
        out, data: [bytes].
        places: [rows], where in `out` each begins.
        sizes: [rows], bytes of each one's content, the .npy header included.
        first: key of the first row.
        starts: [rows], where in `data` each content begins, the .npy header left out.
    """
    npy_size = layout.npy_sizes[member]
    for row in range(len(places)):
        _heads(out, places[row], layout, member, first + row, sizes[row])
        at = places[row] + 512
        copy_bytes(out, at + npy_size, data, starts[row], sizes[row] - npy_size)
        at += sizes[row]
        out[at : at + -sizes[row] % 512] = 0


class TarWriter(BlockWriter):
    """Writes one shard in memory; see `MakeWriter` for its arguments (`start` is the first key)."""

    def __init__(self, columns: Mapping[str, str], compression: str, metadata: Mapping[str, str], start: int) -> None:
        assert compression in WEBDATASET.compressions, compression
        self._columns = dict(columns)
        self._layout = _layout(columns)
        self._start = start
        self._block = np.empty(0, np.uint8)  # scratch: fresh memory for each block costs more than filling it
        self._sink = pa.BufferOutputStream()
        self._sink.write(_global_header(metadata))

    def _append(self, batch: RaggedBatch) -> None:
        first = self._start + self._rows
        assert first + len(batch) <= _MAX_ROWS, "keys have 12 digits"
        for at, block in zip(range(first, first + len(batch), BLOCK_ROWS), batch.blocks(), strict=True):
            self._append_block(at, block)

    def _append_block(self, first: int, batch: RaggedBatch) -> None:
        apart = _stored_apart(self._columns)
        contents = []  # bytes, where each row starts, how many bytes it has
        for name in apart:
            column = batch.columns[name]
            assert column.offsets is not None
            width = column.values.itemsize
            bounds = column.offsets * width
            contents.append((np.ascontiguousarray(column.values).view(np.uint8), bounds[:-1], np.diff(bounds)))
        facts = {name: batch.columns[name] for name in self._columns if name not in apart}
        contents.append(json_rows.dump(facts, len(batch)))
        sizes = np.stack([size for _, _, size in contents]) + self._layout.npy_sizes[:, None]  # [members, rows]
        blocks = 512 + -(-sizes // 512) * 512
        places = np.ascontiguousarray(np.cumsum(blocks.T).reshape(blocks.T.shape).T) - blocks
        total = int(blocks.sum())
        if len(self._block) < total:
            self._block = np.empty(total, np.uint8)
        for member, (data, starts, _) in enumerate(contents):
            _put(self._block, places[member], sizes[member], first, self._layout, member, data, starts)
        self._sink.write(self._block[:total])

    def finish(self) -> pa.Buffer:
        """The whole file, which ends in zeros up to a multiple of 10,240 bytes, as tar writes it."""
        self._sink.write(bytes(1024 + -(self._sink.tell() + 1024) % tarfile.RECORDSIZE))
        return self._sink.getvalue()


def _global_header(metadata: Mapping[str, str]) -> bytes:
    """The pax header of the whole archive."""
    return tarfile.TarInfo.create_pax_global_header({_PREFIX + key: value for key, value in metadata.items()})


@kernel
def _walk(data: U8, at: int, layout: _Layout, places: I64, sizes: I64, scratch: U8) -> tuple[int, int]:
    """Find all members, and compare each one's headers with what the writer writes.

    Args:
        data: [bytes], the archive; at: where the first member begins.
        places, sizes: [rows or more, M], filled: where each member begins and how large its content is.
        scratch: [640].

    Returns:
        the number of rows, and the byte at which something is wrong, or -1.
    """
    members = len(layout.checksums)
    key = 0
    if at + 512 <= len(data) and data[at] != 0:
        for i in range(12):
            key = key * 10 + int(data[at + i]) - 48
    row = 0
    while at + 512 <= len(data) and data[at] != 0:
        for member in range(members):
            if at + 512 > len(data):
                return row, at
            size = 0
            for i in range(11):
                digit = int(data[at + 124 + i]) - 48
                if digit < 0 or digit > 7:
                    return row, at
                size = size * 8 + digit
            npy_size = layout.npy_sizes[member]
            end = at + 512 + (size + 511) // 512 * 512
            if size < npy_size or end > len(data) or (size - npy_size) % layout.itemsizes[member] != 0:
                return row, at
            _heads(scratch, 0, layout, member, key + row, size)
            if not equal_bytes(scratch, data, at, 512 + npy_size):
                return row, at
            places[row, member], sizes[row, member] = at, size
            at = end
        row += 1
    if at + 1024 > len(data):
        return row, at
    for i in range(at, len(data)):
        if data[i] != 0:
            return row, i
    return row, -1


class TarReader:
    """Reads one shard; see `MakeReader` for its arguments."""

    def __init__(
        self,
        data: pa.Buffer,
        columns: Mapping[str, str],
        wanted: Collection[str] | None = None,
        pool: Pool | None = None,
        bounds: Bounds | None = None,  # nothing in an archive is larger in memory than in the file
    ) -> None:
        self._empty = np.empty if pool is None else pool.empty
        self._columns = self._stored = dict(columns)
        self._layout = _layout(columns)
        self._data = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
        with reading("WebDataset tar"):
            self.metadata, at = _read_global_header(self._data)
        shape = (len(self._data) // 512 // len(self._layout.checksums) + 1, len(self._layout.checksums))
        places, sizes = np.empty(shape, np.int64), np.empty(shape, np.int64)
        self.rows, problem = _walk(self._data, at, self._layout, places, sizes, np.empty(640, np.uint8))
        if problem >= 0:
            expected = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            raise DataError(f"not a readable WebDataset tar file of the columns {expected}: unexpected byte {problem}")
        self._starts, self._sizes = places[: self.rows].T + 512, sizes[: self.rows].T
        if self.rows:
            self.read(0, 1)  # the json has its schema in every row
        self._columns = chosen(columns, wanted)

    def read(self, start: int, stop: int) -> RaggedBatch:
        """See `Reader`."""
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        if start == stop:
            return empty_batch(self._columns)
        found: dict[str, Column] = {}
        apart = _stored_apart(self._stored)
        for member, name in enumerate(apart):
            if name not in self._columns:
                continue
            kind = self._columns[name]
            content, bounds = self._content(member, start, stop)
            values = content.view(KINDS[kind])
            if values.dtype == np.bool_ and content.size and content.max() > 1:
                raise DataError(f"the shard's column {name} holds bytes that are not booleans")
            found[name] = Column(kind, values, bounds // values.itemsize)
            if kind == "string":
                check_text(found[name])
        if self._columns == self._stored or not apart.keys() >= self._columns.keys():
            facts = {name: kind for name, kind in self._stored.items() if name not in apart}
            lines, bounds = self._content(len(apart), start, stop, separator=ord("\n"))
            found.update(json_rows.load(lines, bounds, facts))
        return check_masks(RaggedBatch({name: found[name] for name in self._columns}))

    def _content(self, member: int, start: int, stop: int, separator: int = -1) -> tuple[np.ndarray, np.ndarray]:
        """The contents of a member over rows start..stop-1, without .npy headers: uint8, and int64 bounds."""
        npy_size = self._layout.npy_sizes[member]
        starts = self._starts[member, start:stop] + npy_size
        sizes = self._sizes[member, start:stop] - npy_size
        bounds = offsets_of(sizes + (separator >= 0))
        out = self._empty(int(bounds[-1]), np.uint8)
        json_rows.gather(self._data, starts, sizes, separator, out)
        return out, bounds


def _read_global_header(data: np.ndarray) -> tuple[dict[str, str], int]:
    """The metadata in front of the archive, and where its first member begins."""
    size = int(data[124:135].tobytes(), 8)
    records, metadata = data[512 : 512 + size].tobytes(), {}
    at = 0
    while at < len(records):  # "<length> <key>=<value>\n", the length that of the whole record
        space = records.index(b" ", at)
        length = int(records[at:space])
        if length <= space - at:
            raise ValueError("a record that ends before it begins")
        key, _, value = records[at : at + length - 1].decode().partition(" ")[2].partition("=")
        metadata[key.removeprefix(_PREFIX)] = value
        at += length
    header = _global_header(metadata)
    if data[: len(header)].tobytes() != header:
        raise unreadable("WebDataset tar", "it does not begin with this package's header")
    return metadata, len(header)


WEBDATASET = Format("webdataset", "tar", ("none",), TarWriter, TarReader)
