"""Small files that ask for much: refused before the memory is taken, whatever the file says of itself."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from format_rows import encode, token_batch

from synthshards.errors import DataError
from synthshards.formats import FORMATS, json_rows
from synthshards.formats.base import Bounds, reading
from synthshards.pipelines.shard import batch_counts
from synthshards.ragged import MAX_BLOCK_BYTES, Column, RaggedBatch, offsets_of


@contextmanager
def at_most(limit: int) -> Iterator[None]:
    """NumPy's memory and Arrow's stay below a limit within."""
    pool = pa.default_memory_pool()
    tracemalloc.start()
    arrow = pool.max_memory()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
        assert pool.max_memory() < max(arrow, pool.bytes_allocated()) + limit
    finally:
        tracemalloc.stop()


def read(name: str, data: pa.Buffer, sound: RaggedBatch) -> RaggedBatch:
    bounds = Bounds.of(len(sound), batch_counts(sound))
    return FORMATS[name].reader(data, sound.kinds, None, None, bounds).read(0, len(sound))


def long_lists(rows: int, length: int) -> RaggedBatch:
    """Rows like those of `token_batch`, of equal tokens, which compress to nothing."""
    columns = dict(token_batch(rows).columns)
    offsets = np.arange(rows + 1) * length
    for name, dtype in (("input_ids", np.uint16), ("loss_mask", np.bool_), ("ks", np.uint16)):
        columns[name] = Column(columns[name].kind, np.zeros(rows * length, dtype), offsets)
    return RaggedBatch(columns)


@pytest.mark.parametrize(
    ("name", "codec"), [("parquet", "zstd"), ("parquet", "snappy"), ("arrow", "zstd"), ("arrow", "lz4")]
)
def test_lists_that_are_longer_than_the_manifest_says(name: str, codec: str) -> None:
    data = encode(FORMATS[name], long_lists(1024, 40_000), codec)
    assert len(data) < 4 << 20
    with at_most(24 << 20), pytest.raises(DataError, match=r"more than its rows can have|unexpected lengths"):
        read(name, data, token_batch(1024))


def test_bounds_go_by_what_the_manifest_counts() -> None:
    """`test_formats_damage` has the long string of a dictionary that every row names."""
    assert Bounds(1024, 300_000).values("first_name", "string") == 300_000 + 1024 * 1024
    assert Bounds(1024, 1 << 62).values("first_name", "string") == MAX_BLOCK_BYTES
    assert Bounds(1 << 40, 10).values("input_ids", "list<uint16>") == 10
    assert Bounds(7, 10).values("n", "uint16") == 1024
    assert Bounds.of(3, {"characters": 5}) == Bounds(3, 20)


def test_a_record_batch_that_states_too_much_of_a_buffer() -> None:
    sound = token_batch(1024)
    data = bytearray(encode(FORMATS["arrow"], sound, "zstd").to_pybytes())
    sizes = [c.values.nbytes for c in sound.columns.values()]
    at = data.index(struct.pack("<q", sizes[0]))
    data[at : at + 8] = struct.pack("<q", 1 << 33)
    with pytest.raises(DataError, match="more than its rows can have"):
        read("arrow", pa.py_buffer(bytes(data)), sound)


def test_memory_that_is_short_is_no_damage() -> None:
    with pytest.raises(MemoryError), reading("Parquet"):
        raise MemoryError
    for error in (TypeError("int"), KeyError(3), IndexError(), struct.error("x"), RecursionError()):
        with pytest.raises(DataError, match="do not fit together"), reading("Parquet"):
            raise error


def _loaded(text: str, kinds: dict[str, str]) -> dict[str, list[object]]:
    lines = np.frombuffer(text.encode(), np.uint8)
    sizes = np.array([len(line) + 1 for line in text.encode().split(b"\n")[:-1]])
    return {name: c.tolist() for name, c in json_rows.load(lines, offsets_of(sizes), kinds).items()}


KINDS = {"n": "int32", "ks": "list<uint16>", "s": "string", "b": "list<bool>", "u": "uint64"}


def test_json_members_are_read_as_they_are_written() -> None:
    text = (
        '{"n":-2147483648,"ks":[],"s":"","b":[true,false],"u":18446744073709551615}\n'
        '{"n":0,"ks":[65535,0],"s":"a\\"é\\u0000","b":[],"u":0}\n'
    )
    assert _loaded(text, KINDS) == {
        "n": [-(2**31), 0], "ks": [[], [65535, 0]], "s": ["", 'a"é\0'], "b": [[True, False], []],
        "u": [2**64 - 1, 0],
    }  # fmt: skip
    assert _loaded("{}\n{}\n", {}) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "null",
        lambda text: "[]",
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "}",
        lambda text: text + " ",
        lambda text: text.replace('"n":7', '"n":2147483648'),
        lambda text: text.replace('"n":7', '"n":-2147483649'),
        lambda text: text.replace('"n":7', '"n":07'),
        lambda text: text.replace('"n":7', '"n":-0'),
        lambda text: text.replace('"n":7', '"n":-'),
        lambda text: text.replace('"n":7', '"n":7.0'),
        lambda text: text.replace('"n":7', '"n":null'),
        lambda text: text.replace('"n":7', '"n":"7"'),
        lambda text: text.replace('"n":7', '"n":7,"n":7'),
        lambda text: text.replace("[1,2]", "[1,]"),
        lambda text: text.replace("[1,2]", "[,1]"),
        lambda text: text.replace("[1,2]", "[1,2"),
        lambda text: text.replace("[1,2]", "[-1]"),
        lambda text: text.replace("[1,2]", "[[1]]"),
        lambda text: text.replace("[1,2]", "[65536]"),
        lambda text: text.replace("[1,2]", "1"),
        lambda text: text.replace('"a"', '"a'),
        lambda text: text.replace('"a"', '"\\'),
        lambda text: text.replace('"a"', '"\\x"'),
        lambda text: text.replace('"a"', '"\\ud800"'),
        lambda text: text.replace('"a"', '"\t"'),
        lambda text: text.replace("[true]", "true"),
        lambda text: text.replace("[true]", "[1]"),
        lambda text: text.replace('"u":5', '"u":18446744073709551616'),
        lambda text: text.replace('"u":5', '"u":99999999999999999999999999'),
        lambda text: text.replace('"u":5', '"u":-1'),
    ],
)
def test_json_members_of_another_form_are_refused(change: Callable[[str], str]) -> None:
    sound = '{"n":7,"ks":[1,2],"s":"a","b":[true],"u":5}'
    assert _loaded(f"{sound}\n{sound}\n", KINDS)["n"] == [7, 7]
    for text in (f"{sound}\n{change(sound)}\n", f"{change(sound)}\n{sound}\n"):
        with pytest.raises(DataError):
            _loaded(text, KINDS)
