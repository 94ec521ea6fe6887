"""The three shard formats: what goes in comes out, the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_rows import column, digest, encode, every_kind, same, strings, text_batch, token_batch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synthshards.catalog import make_task
from synthshards.errors import UsageError
from synthshards.formats import FORMATS, check_compression, get_format
from synthshards.formats.base import Format
from synthshards.formats.parquet import pages
from synthshards.formats.parquet.fields import Encoding
from synthshards.ragged import BLOCK_ROWS, KINDS, Column, RaggedBatch, concat, offsets_of

PAIRS = [(name, compression) for name, format in FORMATS.items() for compression in format.compressions]
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


@pytest.mark.parametrize("rows", [1, 3, BLOCK_ROWS, 2 * BLOCK_ROWS + 500])
@pytest.mark.parametrize(("name", "compression"), PAIRS)
def test_round_trip_of_every_kind(name: str, compression: str, rows: int) -> None:
    batch = every_kind(rows)
    metadata = {"fingerprint": "sha256:é", "start": "7", "identity": '{"a": "b=c\\n"}'}
    reader = FORMATS[name].reader(encode(FORMATS[name], batch, compression, metadata, 7), batch.kinds)
    assert reader.rows == rows
    assert reader.metadata == metadata
    found = reader.read(0, rows)
    same(found, batch)
    assert digest(found) == digest(batch)
    same(reader.read(rows, rows), batch.slice(rows, rows))


@every_format
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_columns_and_any_slice(format: Format, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 40) | st.integers(BLOCK_ROWS - 2, 2 * BLOCK_ROWS + 2))
    kinds = data.draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    distinct = data.draw(st.sampled_from([1, 2, 4, 5, 256, 257, 2**40]))
    names = [data.draw(st.sampled_from(["input_ids", "loss_mask", "text", "x"])), "b", 'c "é', "d"]
    named = {name: column(kind, rows, rng, distinct) for name, kind in zip(names, kinds, strict=False)}
    batch = RaggedBatch(named)
    reader = format.reader(encode(format, batch), batch.kinds)
    for _ in range(4):
        start = data.draw(st.integers(0, rows))
        stop = data.draw(st.integers(start, rows))
        same(reader.read(start, stop), batch.slice(start, stop))


@pytest.mark.parametrize("batch", [token_batch(2500), text_batch(1500)], ids=["tokens", "text"])
def test_the_content_digest_is_the_same_in_every_format(batch: RaggedBatch) -> None:
    for name, compression in PAIRS:
        reader = FORMATS[name].reader(encode(FORMATS[name], batch, compression), batch.kinds)
        blocks = [reader.read(at, min(at + BLOCK_ROWS, reader.rows)) for at in range(0, reader.rows, BLOCK_ROWS)]
        assert digest(concat(blocks)) == digest(batch)


@every_format
def test_rows_that_hold_nothing(format: Format) -> None:
    nothing = np.zeros(4, np.int64)
    batch = RaggedBatch({kind: Column(kind, np.empty(0, KINDS[kind]), nothing) for kind in KINDS if "<" in kind})
    batch = RaggedBatch({**batch.columns, "text": strings(["", "", ""])})
    same(format.reader(encode(format, batch), batch.kinds).read(0, 3), batch)


@every_format
@pytest.mark.parametrize("text", ["plain é", 'say "x"', "back\\slash", "new\nline", "nul\0", "\x7f\u2028"])
def test_every_text_survives(format: Format, text: str) -> None:
    batch = RaggedBatch({"text": strings([text, ""]), "major": strings(["", text])})
    found = format.reader(encode(format, batch), batch.kinds).read(0, 2)
    assert found.columns["major"].tolist() == ["", text]
    same(found, batch)


@every_format
def test_equal_builds_give_equal_bytes_and_buffers_may_be_reused(format: Format) -> None:
    batch = every_kind(2000)
    for compression in format.compressions:
        first = encode(format, batch, compression, {"a": "1"}, 5)
        writer = format.writer(batch.kinds, compression, {"a": "1"}, 5)
        for at in (0, 1024):
            part = batch.slice(at, min(at + 1024, 2000))
            scratch = RaggedBatch({n: Column(c.kind, c.values.copy(), c.offsets) for n, c in part.columns.items()})
            writer.write(scratch)
            for col in scratch.columns.values():
                col.values.view(np.uint8)[:] = 1
        assert writer.finish().equals(first)


@every_format
def test_rows_may_come_in_any_number_of_blocks(format: Format) -> None:
    rows = 5 * BLOCK_ROWS + 100
    batch = every_kind(rows, seed=3)
    # Blocks that take other ways than their neighbours: values too large to number, or too many; long strings; nothing.
    block = np.arange(rows) // BLOCK_ROWS
    large = np.where(block == 1, 70_000, block).astype(np.uint32)
    many = np.where(block == 2, np.arange(rows), 5).astype(np.uint16)
    texts = strings([("é" * 50 if b == 3 else "ab") + str(i % 7 if b < 4 else i) for i, b in enumerate(block.tolist())])
    offsets = offsets_of(np.where(block == 4, 0, 3))
    lists = Column("list<int32>", np.arange(offsets[-1], dtype=np.int32) % 4000, offsets)
    more = {"large": Column("uint32", large), "many": Column("uint16", many), "texts": texts, "lists": lists}
    batch = RaggedBatch({**batch.columns, **more})
    expected = encode(format, batch)
    same(format.reader(expected, batch.kinds).read(0, rows), batch)
    for cuts in ([0, rows], [0, 2 * BLOCK_ROWS, rows], [0, BLOCK_ROWS, 5 * BLOCK_ROWS, rows]):
        writer = format.writer(batch.kinds, format.compressions[0], {}, 0)
        for start, stop in pairwise(cuts):
            writer.write(batch.slice(start, stop))
        assert writer.finish().equals(expected), cuts


@every_format
def test_blocks_are_the_unit(format: Format) -> None:
    batch = token_batch(1045)
    writer = format.writer(batch.kinds, format.compressions[0], {}, 0)
    writer.write(batch.slice(0, 10))
    with pytest.raises(AssertionError):
        writer.write(batch.slice(10, 20))
    writer = format.writer(batch.kinds, format.compressions[0], {}, 0)
    writer.write(batch.slice(0, 1030))
    with pytest.raises(AssertionError):
        writer.write(batch.slice(1030, 1045))
    data = encode(format, token_batch(2500))
    if format.name == "parquet":
        footer = pq.ParquetFile(pa.BufferReader(data)).metadata
        sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    elif format.name == "arrow":
        file = pa.ipc.open_file(data)
        sizes = [file.get_batch(i).num_rows for i in range(file.num_record_batches)]
    else:
        return
    assert sizes == [1024, 1024, 452]


def test_uncompressed_arrow_is_read_without_a_copy() -> None:
    data = encode(FORMATS["arrow"], token_batch(2000))
    found = FORMATS["arrow"].reader(data, token_batch(1).kinds).read(1024, 2000)
    at = found.input_ids.__array_interface__["data"][0]
    assert data.address <= at < data.address + data.size


# Parquet: pages by hand, judged by pyarrow.


@pytest.mark.parametrize("distinct", [1, 4, 5, 256, 257, 300, 70_000])
@pytest.mark.parametrize("kind", ["list<uint16>", "list<uint32>", "list<int64>", "uint16"])
@pytest.mark.parametrize("compression", FORMATS["parquet"].compressions)
def test_pyarrow_reads_every_encoding_of_our_parquet(compression: str, kind: str, distinct: int) -> None:
    rng = np.random.default_rng(distinct)
    lengths = np.maximum(rng.integers(-20, 90, 1500), 0)
    size = int(lengths.sum()) if "<" in kind else 1500
    values = rng.integers(0, min(distinct, np.iinfo(KINDS[kind]).max), size).astype(KINDS[kind])
    batch = RaggedBatch({"x": Column(kind, values, offsets_of(lengths) if "<" in kind else None)})
    data = encode(FORMATS["parquet"], batch, compression)
    same(FORMATS["parquet"].reader(data, batch.kinds).read(0, 1500), batch)
    file = pq.ParquetFile(pa.BufferReader(data))
    assert file.read().column("x").to_pylist() == batch.columns["x"].tolist()
    encodings = {file.metadata.row_group(i).column(0).encodings for i in range(2)}
    assert encodings == {
        ("PLAIN", "RLE", "RLE_DICTIONARY") if kind.endswith(("uint16", "uint16>")) else ("PLAIN", "RLE")
    }


@pytest.mark.parametrize("rows", [1, 2, 1500])
def test_pyarrow_reads_every_kind_of_our_parquet(rows: int) -> None:
    batch = every_kind(rows)
    table = pq.ParquetFile(pa.BufferReader(encode(FORMATS["parquet"], batch, metadata={"a": "b"}))).read()
    table.validate(full=True)
    for name, col in batch.columns.items():
        assert table.column(name).to_pylist() == col.tolist(), name
        found = str(table.schema.field(name).type).replace("element: ", "").replace(" not null", "")
        assert found == col.kind, name
    assert table.schema.metadata == {b"synthshards.a": b"b"}


def test_a_page_is_the_one_that_the_docstring_shows() -> None:
    example = Column("list<uint16>", np.array([7, 9, 7, 9, 7, 7], np.uint16), np.array([0, 3, 6]))
    [made] = pages.PageWriter().encode(example, True)
    assert made.page.tobytes().hex(" ") == "08 00 00 00 02 00 04 01 02 00 04 01 02 00 00 00 0c 01 02 03 44 00"
    assert made.dictionary is not None
    assert (made.levels, made.encoding, made.distinct) == (6, Encoding.RLE_DICTIONARY, 2)
    assert made.dictionary.tobytes().hex(" ") == "07 00 00 00 09 00 00 00"


def short_strings(rows: int, distinct: int, longest: int, seed: int = 0) -> Column:
    """Rows of some different short strings of 0..longest bytes, many of them alike at both ends."""
    rng = np.random.default_rng(seed)
    known = [""] + [f"{'ab' * 9}{i:04d}{'é' * (i % 3)}{'ba' * 9}"[: i % (longest + 1)] for i in range(1, distinct)]
    known = [f"{text}{i}" if text in known[:i] else text for i, text in enumerate(known)]
    return strings([known[i] for i in rng.integers(0, distinct, rows)])


@pytest.mark.parametrize("longest", [3, 7, 8, 17, 45])
@pytest.mark.parametrize("distinct", [1, 2, 5, 255, 257, 600, 3000])
@pytest.mark.parametrize("compression", FORMATS["parquet"].compressions)
def test_pyarrow_reads_strings_that_repeat(compression: str, distinct: int, longest: int) -> None:
    batch = RaggedBatch({"x": short_strings(1500, distinct, longest)})
    data = encode(FORMATS["parquet"], batch, compression)
    same(FORMATS["parquet"].reader(data, batch.kinds).read(0, 1500), batch)
    file = pq.ParquetFile(pa.BufferReader(data))
    assert file.read().column("x").to_pylist() == batch.columns["x"].tolist()
    found = file.metadata.row_group(0).column(0)
    assert "RLE_DICTIONARY" in found.encodings
    assert found.compression == ("UNCOMPRESSED" if compression == "none" else compression.upper())


@settings(max_examples=100, deadline=None)
@example(texts=["a" * (i % 40) for i in range(90)])
@given(texts=st.lists(st.text("ab", max_size=20), min_size=1, max_size=60))
def test_strings_are_told_apart(texts: list[str]) -> None:
    [made] = pages.PageWriter().encode(strings(texts), True)
    distinct = list(dict.fromkeys(texts))
    assert made.dictionary is not None
    assert (made.lowest, made.highest) == (min(texts).encode(), max(texts).encode())
    assert made.dictionary.tobytes() == b"".join(len(t).to_bytes(4, "little") + t.encode() for t in distinct)
    found = pages.decode("string", len(texts), made.page, made.encoding, made.dictionary, made.distinct, 4000)
    assert found.tolist() == texts


def test_facts_take_the_fewest_bits_and_tokens_a_byte() -> None:
    def page(column: Column) -> np.ndarray:
        [made] = pages.PageWriter().encode(column, True)
        return made.page

    values = np.arange(4096) % 100
    facts = page(Column("uint16", values[:1024].astype(np.uint16)))
    assert (facts[0], len(facts)) == (7, 3 + 1024 * 7 // 8)
    offsets = np.arange(1025) * 4
    tokens = page(Column("list<uint16>", values.astype(np.uint16), offsets))
    assert tokens[-4096:].tolist() == values.tolist()
    positions = page(Column("list<int32>", values.astype(np.int32), offsets))
    assert len(tokens) - len(positions) == 4096 // 8


def test_one_number_a_row_is_not_compressed() -> None:
    batch = text_batch(1024)
    file = pq.ParquetFile(pa.BufferReader(encode(FORMATS["parquet"], batch, "zstd")))
    chunks = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
    compressed = {chunk.path_in_schema.split(".")[0] for chunk in chunks if chunk.compression == "ZSTD"}
    assert compressed == {"text", "first_name", "spans"}


@pytest.mark.parametrize(
    ("preset", "name", "expected"),
    [
        ("depo1-225", "parquet", "0a41f297b2063fefb6cacbfef075b45b"),
        ("lano-cfg3f", "parquet", "463a7fe5b273d36b01b90bc514dfe4ea"),
        ("capo-50k", "parquet", "56f94ec4f29ffbab10a6b52994b3de15"),
        ("depo1-225", "webdataset", "9a16620e6498baa93041507c05ef4924"),
        ("capo-50k", "webdataset", "d2a6e6b55971fa7f85680b8462181331"),
    ],
)
def test_the_bytes_of_a_file_are_for_ever(preset: str, name: str, expected: str) -> None:
    """A shard built again by a later release, or healed by it, is the file that the manifest names."""
    made = encode(FORMATS[name], make_task(preset).batch(0, "train", 0, 1500), "none", {"a": "b"})
    assert hashlib.sha256(memoryview(made)).hexdigest()[:32] == expected


# WebDataset: the whole archive, judged by Python's tarfile and NumPy.


@pytest.mark.parametrize("batch", [token_batch(1100), text_batch(300)], ids=["tokens", "text"])
def test_the_tar_is_what_tarfile_numpy_and_json_write(batch: RaggedBatch) -> None:
    start = 123_456_789_012
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"SYNTHSHARDS.a": "b"}) as tar:
        for i, row in enumerate(batch.rows()):
            members: dict[str, bytes] = {}
            for name in ("input_ids", "loss_mask"):
                if name in batch.columns:
                    file = io.BytesIO()
                    np.save(file, row.pop(name).astype(KINDS[batch.kinds[name]]))
                    members[f"{name}.npy"] = file.getvalue()
            row.pop("labels", None)
            if "text" in row:
                members["text.txt"] = row.pop("text").encode()
            members["json"] = json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()
            for name, content in members.items():
                info = tarfile.TarInfo(f"{start + i:012}.{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    found = encode(FORMATS["webdataset"], batch, metadata={"a": "b"}, start=start).to_pybytes()
    assert found == out.getvalue()


def test_names_of_formats_and_compressions() -> None:
    assert list(FORMATS) == ["parquet", "webdataset", "arrow"]
    assert get_format("arrow").suffix == "arrow"
    with pytest.raises(UsageError, match=r"one of parquet, webdataset, arrow; did you mean 'parquet'\?"):
        get_format("parqet")
    assert check_compression("parquet", None) == "zstd"
    assert check_compression("parquet", "none") == "none"
    with pytest.raises(UsageError, match=r"one of zstd, snappy, none; did you mean 'snappy'\?"):
        check_compression("parquet", "snapy")


@every_format
@pytest.mark.parametrize("batch", [token_batch(1500), text_batch(1500)], ids=["tokens", "text"])
def test_wanted_columns_are_those_of_all_and_no_other(format: Format, batch: RaggedBatch) -> None:
    names = list(batch.columns)
    for wanted in (names[:1], names[-1:], [names[-1], names[0]], ["input_ids", "loss_mask", "text"]):
        part = format.reader(encode(format, batch), batch.kinds, wanted).read(3, 1400)
        assert list(part.columns) == [name for name in names if name in wanted]
        same(part, RaggedBatch({name: batch.slice(3, 1400).columns[name] for name in part.columns}))
