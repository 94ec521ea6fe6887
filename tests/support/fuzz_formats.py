"""Crafted shards for `fuzz`: files of each format whose parts were changed and put together again."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from format_rows import encode, text_batch, token_batch

from synthshards.formats import FORMATS
from synthshards.formats.arrow_sizes import _batches
from synthshards.formats.base import Bounds
from synthshards.pipelines.shard import batch_counts
from synthshards.ragged import KINDS, RaggedBatch

#: Numbers that something is likely to be wrong about.
NUMBERS = [0, 1, 2, 7, 127, 128, 1023, 1024, 1025, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62,
           2**63 - 1, -1, -2, -(2**31), -(2**63)]  # fmt: skip
#: What is small in a file and large in memory.
_LARGE = (1 << 16, 1 << 20, 1 << 24)


def _sound() -> list[RaggedBatch]:
    return [token_batch(1500), text_batch(1100), token_batch(7)]


def _read(format_name: str, data: bytes, sound: RaggedBatch) -> None:
    """Read every row of a shard that should be `sound`, and check that they are rows."""
    rows = len(sound)
    reader = FORMATS[format_name].reader(
        pa.py_buffer(data), sound.kinds, None, None, Bounds.of(rows, batch_counts(sound))
    )
    if reader.rows != rows:
        return  # who opens it compares
    for at in range(0, rows, 1024):
        batch = reader.read(at, min(at + 1024, rows))
        assert batch.kinds == sound.kinds
        for name, column in batch.columns.items():
            assert len(column) == min(1024, rows - at), name
            assert column.values.dtype == KINDS[column.kind], name
            if column.offsets is not None:
                assert column.offsets[0] == 0, name
                assert column.offsets[-1] == len(column.values), name
                assert (np.diff(column.offsets) >= 0).all(), name
            column.tolist()
        assert batch.nbytes < 64 << 20, batch.nbytes


def _flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 3, 20])):
        at = chance.randrange(len(changed)) if chance.random() < 0.5 else -chance.randrange(1, min(len(changed), 2000))
        changed[at] = chance.choice([changed[at] ^ 1 << chance.randrange(8), 0, 0x7F, 0x80, 0xFF])
    return bytes(changed)


# Parquet ------------------------------------------------------------------------------------------------------------

_TRUE, _FALSE, _BYTE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 8, 9, 12


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class _Thrift:
    """A reader that keeps types: a struct is a list of [field, type, value], a list [type, values]."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return None
        if kind == _BYTE:
            self.at += 1
            return self.data[self.at - 1]
        if kind == _BINARY:
            size = self.number()
            self.at += size
            return self.data[self.at - size : self.at]
        if kind == _LIST:
            head = self.data[self.at]
            self.at += 1
            count = head >> 4 if head >> 4 < 15 else self.number()
            return [head & 15, [self.value(head & 15) for _ in range(count)]]
        if kind == _STRUCT:
            return self.struct()
        half = self.number()
        return half >> 1 ^ -(half & 1)

    def struct(self) -> list[list[Any]]:
        fields, last = [], 0
        while head := self.data[self.at]:
            self.at += 1
            last += head >> 4
            fields.append([last, head & 15, self.value(head & 15)])
        self.at += 1
        return fields


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (_TRUE, _FALSE):
        return b""
    if kind == _BYTE:
        return bytes([value & 255])
    if kind == _BINARY:
        return _varint(len(value)) + value
    if kind == _LIST:
        element, items = value
        return bytes([0xF0 | element]) + _varint(len(items)) + b"".join(_encoded(element, item) for item in items)
    if kind == _STRUCT:
        out, last = b"", 0
        for field, inner, item in value:
            step = field - last if 0 < field - last < 16 else 1
            out += bytes([step << 4 | inner]) + _encoded(inner, item)
            last += step
        return out + b"\0"
    return _varint((value << 1 ^ value >> 63) & (1 << 64) - 1)


def _structs(value: Any, kind: int = _STRUCT) -> list[list[list[Any]]]:
    """All structs within a value, itself included."""
    if kind == _LIST:
        return [found for item in value[1] for found in _structs(item, value[0])]
    if kind != _STRUCT:
        return []
    return [value, *(found for _, inner, item in value for found in _structs(item, inner))]


def _change_struct(tree: list[list[Any]], chance: random.Random) -> None:
    fields = chance.choice([found for found in _structs(tree) if found])
    place = chance.randrange(len(fields))
    field, kind, value = fields[place]
    how = chance.randrange(6)
    if how == 0:
        del fields[place]
    elif how == 1:
        fields.insert(place, [field + chance.randrange(3), 6, chance.choice(NUMBERS)])
    elif how == 2:
        other = [[_BINARY, chance.choice([b"", b"1500", b"\x1b[2J"])], [6, 1500], [_TRUE, None], [_BYTE, 4],
                 [_STRUCT, [[1, 6, 1500]]], [_LIST, [6, [1, 2]]], [_LIST, [_STRUCT, []]]]  # fmt: skip
        fields[place] = [field, *chance.choice([one for one in other if one[0] != kind])]
    elif kind in (4, 5, 6):
        near = [value - 1, value + 1, value * 2, value * 2**20]
        fields[place][2] = max(-(2**63), min(2**63 - 1, chance.choice([*NUMBERS, *near])))
    elif kind == _LIST and value[1]:
        items = value[1]
        chance.choice([items.pop, items.reverse, lambda: items.append(items[0]), lambda: items.extend(items * 50)])()
    elif kind == _BINARY:
        fields[place][2] = chance.choice([b"", value * 2, b"\xff\xfe", b"\x1b[31mred", value[:-1]])


def _number_of(fields: list[list[Any]], field: int) -> Any:
    return next((value for number, _, value in fields if number == field), None)


def _set(fields: list[list[Any]], field: int, value: Any) -> None:
    for entry in fields:
        if entry[0] == field:
            entry[1:] = [6, value]


def _crafted_parquet(data: bytes, codec: str, chance: random.Random) -> bytes:
    footer = _Thrift(data[-8 - int.from_bytes(data[-8:-4], "little") : -8]).struct()
    chunks = [_number_of(chunk, 3) for group in _number_of(footer, 4)[1] for chunk in _number_of(group, 1)[1]]
    pages = []  # [the chunk, the field with its place, header, content]
    for chunk in chunks:
        for field in (11, 9):
            if (at := _number_of(chunk, field)) is not None:
                thrift = _Thrift(data[at : at + 200])
                header = thrift.struct()
                size = _number_of(header, 3)
                pages.append([chunk, field, header, data[at + thrift.at : at + thrift.at + size]])
    pages.sort(key=lambda page: _number_of(page[0], page[1]))
    for _ in range(chance.choice([1, 1, 2, 4])):
        page = chance.choice(pages)
        how = chance.randrange(6)
        if how == 0:
            page[3] = _flipped(page[3], chance) if page[3] else b"\0"
        elif how == 1 and codec != "none":
            plain = bytes(chance.choice(_LARGE))
            page[3] = pa.Codec(codec).compress(plain).to_pybytes()
            _set(page[2], 2, chance.choice([len(plain), len(plain) - 1, 100, 2**31 - 1]))
            _set(page[2], 3, len(page[3]))
        elif how == 2:
            _change_struct(page[2], chance)
        elif how == 3:
            page[3] = chance.choice(pages)[3]
        elif how == 4:  # runs of levels, of any number of rows and of values
            runs = [_varint(chance.choice([1, 7, 1500, 1 << 20, 1 << 33]) << 1) + bytes([chance.randrange(2)])
                    for _ in range(chance.randrange(1, 4))]  # fmt: skip
            blocks = [b"".join(runs), _varint(chance.choice([1500, 1 << 21, 1 << 33]) << 1) + b"\1"]
            levels = b"".join(len(block).to_bytes(4, "little") + block for block in blocks)
            plain = levels + bytes([1]) + _varint(chance.choice([1, 188, 1 << 18]) << 1 | 1) + bytes(1 << 18)
            page[3] = plain if codec == "none" else pa.Codec(codec).compress(plain).to_pybytes()
            _set(page[2], 2, len(plain))
            _set(page[2], 3, len(page[3]))
        else:  # a dictionary of one long string, or one that ends early
            size = chance.choice(_LARGE[:2])
            page[3] = chance.choice([size, 4, 2**32 - 1]).to_bytes(4, "little") + bytes(size)
            _set(page[2], 2, len(page[3]))
            _set(page[2], 3, len(page[3]))
    out = bytearray(b"PAR1")
    for chunk, field, header, content in pages:
        _set(chunk, field, len(out))
        out += _encoded(_STRUCT, header) + content
    for _ in range(chance.choice([0, 0, 1, 2])):
        _change_struct(footer, chance)
    end = _encoded(_STRUCT, footer)
    size = len(end) if chance.random() < 0.95 else chance.choice(NUMBERS) & 0xFFFFFFFF
    return bytes(out + end + size.to_bytes(4, "little") + b"PAR1")


def parquet(folder: Path) -> Callable[[random.Random], None]:
    batches = _sound()
    files = [(batch, codec, encode(FORMATS["parquet"], batch, codec, {"a": "b"}).to_pybytes())
             for batch in batches for codec in FORMATS["parquet"].compressions]  # fmt: skip
    for batch, _, data in files:
        _read("parquet", data, batch)

    def case(chance: random.Random) -> None:
        batch, codec, data = chance.choice(files)
        crafted = _flipped(data, chance) if chance.random() < 0.1 else _crafted_parquet(data, codec, chance)
        _read("parquet", crafted, batch)

    return case


# Arrow --------------------------------------------------------------------------------------------------------------


def _crafted_arrow(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    end = len(data) - 10
    spans = [(end - int.from_bytes(data[end : end + 4], "little"), end + 10)]
    for at, size in _batches(memoryview(data), 1 << 20):
        spans += [(at, at + size), (at + size, at + size + 64)]
    for _ in range(chance.choice([1, 1, 2, 5])):
        first, last = chance.choice(spans)
        width = chance.choice([1, 2, 4, 4, 8, 8, 8])
        at = chance.randrange(first, last) // width * width
        was = int.from_bytes(out[at : at + width], "little")
        value = chance.choice([*NUMBERS, was + 1, was - 1, was + 8, was << 8, chance.randrange(len(data))])
        out[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(out)


def _foreign_arrow(batch: RaggedBatch, chance: random.Random) -> bytes:
    """A file that Arrow itself wrote, of other batches or columns."""
    sound = pa.ipc.open_file(encode(FORMATS["arrow"], batch)).read_all()
    how = chance.randrange(5)
    if how == 0:
        place = sound.schema.names.index(chance.choice([n for n, k in batch.kinds.items() if not k.startswith("list")]))
        sound = sound.set_column(place, sound.schema.names[place], sound.column(place).dictionary_encode())
    elif how == 1:
        ids = pa.array(np.zeros(chance.choice(_LARGE), np.uint16))
        lists = pa.ListArray.from_arrays(pa.array([0, len(ids)], pa.int32()), ids)
        columns = [lists if name == "input_ids" else sound.column(name).slice(0, 1) for name in sound.schema.names]
        sound = pa.table(dict(zip(sound.schema.names, columns, strict=True)))
    elif how == 2:
        sound = pa.concat_tables([sound] * 30)
    elif how == 3:
        sound = sound.take(pa.array([0, None] + [1] * (len(sound) - 2)))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(
        compression=chance.choice([None, "zstd", "lz4"]),
        metadata_version=chance.choice([pa.ipc.MetadataVersion.V4, pa.ipc.MetadataVersion.V5]),
    )
    with pa.ipc.new_file(sink, sound.schema, options=options) as writer:
        writer.write_table(sound, max_chunksize=chance.choice([1, 1024, 1 << 30]))
    return bytes(sink.getvalue().to_pybytes())


def arrow(folder: Path) -> Callable[[random.Random], None]:
    files = [(batch, encode(FORMATS["arrow"], batch, codec, {"a": "b"}).to_pybytes())
             for batch in _sound() for codec in FORMATS["arrow"].compressions]  # fmt: skip
    for batch, data in files:
        _read("arrow", data, batch)

    def case(chance: random.Random) -> None:
        batch, data = chance.choice(files)
        how = chance.random()
        if how < 0.1:
            data = _flipped(data, chance)
        elif how < 0.2:
            data = _foreign_arrow(batch, chance)
        else:
            data = _crafted_arrow(data, chance)
        _read("arrow", data, batch)

    return case


# WebDataset ---------------------------------------------------------------------------------------------------------

_JSONS = ["null", "[]", "1", '""', "{}", "true", "{", '{"n":}', '{"n":null}', '{"n":1e3}', '{"n":-1}', '{"n":65536}',
          '{"n":1,"n":2}', '{"n":"1"}', '{"n":' + "9" * 5000 + "}", "[" * 3000, '{"n":' + "[" * 3000, "\x00", "\n",
          '{"n":1}\n{"n":2}', "\ufeff{}", '{"n":1,"queries":2,"ks":[1,null]}', '{"n":1,"queries":2,"ks":[[1]]}',
          '{"n":1,"queries":2,"ks":[]}', '{"n":1,"queries":02,"ks":[]}', '{"n":1,"queries":2,"ks":[,]}', '{"n":1,"que',
          '{"n":1,"queries":2,"ks":[18446744073709551616]}', '{"n":1,"queries":-0,"ks":[1]}', '{"person_id":"\\ud800"}',
          '{"person_id":1,"first_name":"\\', '{"person_id":1,"first_name":"\\u00', '{"person_id":1,"first_name":"',
          '{"person_id":1,"first_name":"\\ud800","birth_year":1,"spans":[1]}']  # fmt: skip


def _change_text(text: bytes, chance: random.Random) -> bytes:
    how = chance.randrange(4)
    if how == 0:
        return chance.choice(_JSONS).encode()
    out, at = bytearray(text), chance.randrange(len(text))
    if how == 1:
        out[at] = chance.choice(b'{}[]",:-0123456789\\ntu\n\x00\xff')
    elif how == 2:
        del out[at : at + chance.choice([1, 2, 10])]
    else:
        out[at:at] = chance.choice([b"9" * 30, b",", b"null", b'"', b"\\", b"\\u0000", b"[", b"]", b" ", b"\n"])
    return bytes(out)


def _crafted_tar(data: bytes, chance: random.Random) -> bytes:
    front = 512 + -(-int(data[124:135], 8) // 512) * 512  # the global header
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [[m.name, archive.extractfile(m).read()] for m in archive.getmembers()]  # type: ignore[union-attr]
    for _ in range(chance.choice([1, 1, 2])):
        place = chance.randrange(len(members))
        name, content = members[place]
        how = chance.randrange(8)
        if how < 4:
            if name.endswith("json"):
                content = _change_text(content, chance)
            elif name.endswith("npy"):
                shape = content.find(b"(") + 1
                other = str(chance.choice(NUMBERS)).encode()
                changes = [content[:shape] + other + content[shape + len(other) :], content[:-1], content + b"\1\0" * 8,
                           content.replace(b"<u2", b"|O "), content[:9] + bytes([chance.randrange(256)]) + content[10:],
                           content[: chance.randrange(len(content))]]  # fmt: skip
                content = chance.choice(changes)
            else:
                content = _flipped(content, chance) if content else b"x"
            members[place][1] = content
        elif how == 4:
            members[place][0] = chance.choice([name + "x", "../" + name, name.upper(), "\x1b[2J", name[1:], "0" * 90])
        elif how == 5:
            del members[place]
        elif how == 6:
            members.insert(place, members[chance.randrange(len(members))])
        else:
            members[place][1] = bytes(chance.choice([0, 1, 511, 513, 1 << 20]))
    out = bytearray(data[:front])
    for name, content in members:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        if chance.random() < 0.02:
            info.type = chance.choice(
                [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
            )
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        if chance.random() < 0.01:
            header[124:135] = f"{chance.choice([0, 7, 8**11 - 1, 8**10, len(content) + 1]):011o}".encode()
            header[148:156] = b" " * 8
            header[148:155] = f"{sum(header):06o}\0".encode()
        out += header + content + bytes(-len(content) % 512)
    return bytes(out + bytes(10_240))


def _crafted_front(data: bytes, chance: random.Random) -> bytes:
    """Another global header."""
    records = chance.choice(
        [b"1 " * 200, b"0" * 400 + b"1 ", b"9 a=b\n", b"-3 x=y\n", b"999 a=b\n", b"6 a=\xff\n", b""]
    )
    front = 512 + -(-int(data[124:135], 8) // 512) * 512
    header = bytearray(data[:512])
    header[124:135] = chance.choice([f"{len(records):011o}".encode(), b"-0000000007", b" 1_0       ", b"77777777777"])
    return bytes(header) + records + bytes(-len(records) % 512) + data[front:]


def webdataset(folder: Path) -> Callable[[random.Random], None]:
    sound = [token_batch(40), text_batch(30), token_batch(3)]
    files = [(batch, encode(FORMATS["webdataset"], batch, None, {"a": "b"}, start=7).to_pybytes()) for batch in sound]
    for batch, data in files:
        _read("webdataset", data, batch)

    def case(chance: random.Random) -> None:
        batch, data = chance.choice(files)
        how = chance.random()
        if how < 0.1:
            data = _flipped(data, chance)
        elif how < 0.15:
            data = _crafted_front(data, chance)
        else:
            data = _crafted_tar(data, chance)
        _read("webdataset", data, batch)

    return case
