"""Damaged, foreign and contradictory shards: always a DataError of one line, never another exception."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_rows import encode, every_kind, token_batch

from synthshards.errors import DataError
from synthshards.formats import FORMATS
from synthshards.formats.base import Format
from synthshards.formats.parquet import pages
from synthshards.formats.parquet.fields import Encoding
from synthshards.ragged import Column, RaggedBatch

PAIRS = [(name, compression) for name, format in FORMATS.items() for compression in format.compressions]
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


@every_format
def test_other_columns_are_refused(format: Format) -> None:
    batch = token_batch(20)
    data = encode(format, batch)
    kinds = batch.kinds
    others = {
        "another type": {**kinds, "n": "uint8" if format.name != "webdataset" else "list<uint16>"},
        "another id type": {**kinds, "input_ids": "list<uint32>"},
        "a name": {("m" if name == "n" else name): kind for name, kind in kinds.items()},
        "one more": {**kinds, "more": "uint16"},
        "one less": {name: kind for name, kind in kinds.items() if name != "ks"},
    }
    for columns in others.values():
        with pytest.raises(DataError):
            format.reader(data, columns)


@every_format
def test_rows_that_contradict_themselves_are_refused(format: Format) -> None:
    good = token_batch(4)
    mask = Column("list<bool>", np.ones(4, bool), np.arange(5))
    data = encode(format, RaggedBatch({**good.columns, "loss_mask": mask}))
    with pytest.raises(DataError, match="loss_mask"):
        format.reader(data, good.kinds).read(0, 4)
    for name in ("text", "employer"):
        bad = RaggedBatch({name: Column("string", np.array([0x61, 0xFF], np.uint8), np.array([0, 1, 2]))})
        data = encode(format, bad)
        with pytest.raises(DataError):
            format.reader(data, bad.kinds).read(0, 2)


def test_a_tar_must_be_ours_to_the_byte() -> None:
    batch = token_batch(3)
    format = FORMATS["webdataset"]
    clean = encode(format, batch, start=41).to_pybytes()
    header = clean.index(b"000000000042.input_ids.npy")
    mask = clean.index(b"000000000042.loss_mask.npy") + 512 + 128
    for at in (
        header + 11,
        header + 14,
        header + 105,
        header + 140,
        header + 150,
        header + 156,
        header + 530,
        mask,
        -1,
    ):
        data = bytearray(clean)
        data[at] = 2 if at == mask else data[at] ^ 1
        with pytest.raises(DataError):
            format.reader(pa.py_buffer(bytes(data)), batch.kinds).read(0, 3)


def test_nulls_and_other_blocks_are_refused() -> None:
    batch = RaggedBatch({"n": Column("uint16", np.arange(4, dtype=np.uint16))})
    table = pa.table({"n": pa.array([1, None, 3, 4], pa.uint16())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    with pytest.raises(DataError, match="rows"):
        FORMATS["arrow"].reader(sink.getvalue(), batch.kinds).read(0, 4)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="null"):
        FORMATS["arrow"].reader(sink.getvalue(), batch.kinds).read(0, 4)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    with pytest.raises(DataError):
        FORMATS["parquet"].reader(sink.getvalue(), batch.kinds)


@every_format
def test_what_is_no_such_file_is_refused(format: Format) -> None:
    batch = token_batch(20)
    files = [b"", b"PAR1", b"x" * 5000, bytes(20_480), b"PAR1" + b"\xff" * 4 + b"PAR1", b"ARROW1\0\0" + bytes(64)]
    files += [encode(other, batch).to_pybytes() for other in FORMATS.values() if other is not format]
    for data in files:
        with pytest.raises(DataError) as caught:
            format.reader(pa.py_buffer(data), batch.kinds)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "compression"), PAIRS)
def test_a_truncated_file_is_refused(name: str, compression: str) -> None:
    batch = token_batch(1100)
    data = encode(FORMATS[name], batch, compression, {"a": "b"}).to_pybytes()
    padding = 10_240 if name == "webdataset" else 1  # a tar may lose some of the zeros at its end
    for size in [*range(0, len(data) - padding, len(data) // 50), len(data) - padding]:
        with pytest.raises(DataError):
            FORMATS[name].reader(pa.py_buffer(data[:size]), batch.kinds).read(0, 1100)


@pytest.mark.parametrize(("name", "compression"), PAIRS)
def test_damage_is_a_data_error_or_other_rows_and_nothing_else(name: str, compression: str) -> None:
    """Flipped bits in content may go unseen here (the file's sha256 sees them); no other exception ever comes out."""
    chance = random.Random(name + compression)
    batch = every_kind(40)
    clean = encode(FORMATS[name], batch, compression, {"a": "b"}).to_pybytes()
    refused = 0
    for _ in range(400):
        data = bytearray(clean)
        low = max(0, chance.choice([0, 0, len(data) - 3000]))
        for _ in range(chance.choice([1, 2, 8])):
            at = chance.randrange(low, len(data))
            data[at] = chance.choice([data[at] ^ 1 << chance.randrange(8), 0, 0x7F, 0x80, 0xFF])
        try:
            reader = FORMATS[name].reader(pa.py_buffer(bytes(data)), batch.kinds)
            found = reader.read(0, reader.rows)
        except DataError:
            refused += 1
        else:
            for _ in found.rows():  # whatever it is, it is rows
                pass
    assert refused > 20


@pytest.mark.parametrize(
    ("page", "dictionary"),
    [
        ("02 03 44 00", "07 00 00 00 09 00 01 00"),  # 65,545 is no uint16
        ("02 03 84 00", "07 00 00 00 09 00 00 00"),  # index 2 of a dictionary of two
        ("03 03 44 00", "07 00 00 00 09 00 00 00"),  # three bits an index, and two bytes
        ("02 05 44 00", "07 00 00 00 09 00 00 00"),  # two groups of eight
        ("02 03 44", "07 00 00 00 09 00 00 00"),
        ("02 03 44 00", "07 00 00 00 09 00 00"),
        ("07 00 00 00 09 00 01 00 07 00 00 00 09 00 00 00 07 00 00 00 07 00 00 00", None),  # the same, plain
        ("07 00 00 00 09 00 00 00 07 00 00 00 09 00 00 00 07 00 00 00", None),  # five numbers
    ],
)
def test_damaged_values_of_a_page_are_refused(page: str, dictionary: str | None) -> None:
    levels = "08 00 00 00 02 00 04 01 02 00 04 01 02 00 00 00 0c 01"
    good = "07 00 00 00 09 00 00 00"

    def decode(levels: str, page: str, dictionary: str | None) -> list[list[int]]:
        content = np.frombuffer(bytes.fromhex(levels + page), np.uint8)
        distinct = np.frombuffer(bytes.fromhex(dictionary), np.uint8) if dictionary else None
        encoding = Encoding.RLE_DICTIONARY if dictionary else Encoding.PLAIN
        return pages.decode("list<uint16>", 2, content, encoding, distinct, 2, most=6).tolist()

    assert decode(levels, "02 03 44 00", good) == [[7, 9, 7], [9, 7, 7]]
    with pytest.raises(DataError):
        decode(levels, page, dictionary)
    for broken in (
        "08 00 00 00 02 00 04 01 02 00 04 01 02 00 00 00 0c 00",  # six empty lists of three levels each
        "08 00 00 00 02 00 04 01 02 00 04 01 02 00 00 00 0a 01",  # one level fewer
        "08 00 00 00 02 00 04 01 02 00 04 01 02 00 00 00 0e 01",  # one more
        "08 00 00 00 02 01 04 01 02 00 04 01 02 00 00 00 0c 01",  # goes on before it begins
        "08 00 00 00 04 00 04 01 02 00 04 01 02 00 00 00 0c 01",  # three rows
        "08 00 00 00 02 00 04 01 02 00 04 02 02 00 00 00 0c 01",  # a level 2
        "08 00 00 00 02 00 04 01 02 00 05 01 02 00 00 00 0c 01",  # a bit-packed run
        "08 00 00 00 02 00 04 01 02 00 04 01 ff 00 00 00 0c 01",
        "ff ff ff ff 02 00 04 01 02 00 04 01 02 00 00 00 0c 01",
        "04 00 00 00 02 00 04 01 02 00 00 00 06 01",  # one row
    ):
        with pytest.raises(DataError):
            decode(broken, "02 03 44 00", good)
        with pytest.raises(DataError):
            decode(broken, "", None)


@pytest.mark.parametrize(
    ("page", "dictionary", "distinct"),
    [
        ("02 03 84 00", "01 00 00 00 61 02 00 00 00 62 63", 2),  # string 2 of two
        ("02 03 44 00", "01 00 00 00 61 03 00 00 00 62 63", 2),  # a string that is longer than what is there
        ("02 03 44 00", "01 00 00 00 61 02 00 00 00 62 63 64", 2),
        ("02 03 44 00", "01 00 00 00 61 02 00 00 00 62 63", 3),
        ("02 03 44 00", "01 00 00 00 61 02 00 00 00 62 63", 1 << 40),
        ("02 03 44 00", "01 00 00 00 61 02 00 00 00 ff 63", 2),  # not UTF-8
        ("00 03", "01 00 00 00 61 02 00 00 00 62 63", 2),
        ("11 03 44 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "01 00 00 00 61 02 00 00 00 62 63", 2),
        ("", "01 00 00 00 61 02 00 00 00 62 63", 2),
    ],
)
def test_damaged_dictionaries_of_strings_are_refused(page: str, dictionary: str, distinct: int) -> None:
    def decode(page: str, dictionary: str, distinct: int, most: int = 10) -> list[str]:
        content, known = (np.frombuffer(bytes.fromhex(part), np.uint8) for part in (page, dictionary))
        return pages.decode("string", 8, content, Encoding.RLE_DICTIONARY, known, distinct, most).tolist()

    good = "01 00 00 00 61 02 00 00 00 62 63"
    assert decode("02 03 44 00", good, 2) == ["a", "bc", "a", "bc", "a", "a", "a", "a"]
    assert decode("03 03 08 02 00", good, 2) == ["a", "bc", "a", "bc", "a", "a", "a", "a"], "any number of bits is read"
    with pytest.raises(DataError):
        decode(page, dictionary, distinct)
    with pytest.raises(DataError, match="lengths"):
        decode("02 03 44 00", good, 2, most=9)
