"""Our Parquet writer against pyarrow's: the same rows give files that no reader can tell apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_rows import OTHER_COLUMNS, column, encode, every_kind, same, strings
from pyarrow_parquet import compare, encodings, write

from synthshards.catalog import TASKS, make_task
from synthshards.formats import FORMATS
from synthshards.formats.base import empty_batch
from synthshards.formats.parquet.compression import stored
from synthshards.ragged import KINDS, Column, RaggedBatch, offsets_of

PARQUET = FORMATS["parquet"]
METADATA = {"start": "0", "näme": "välue"}
FIRST_LAYOUT = Path(__file__).with_name("first_layout.parquet")


def same_as_pyarrow(batch: RaggedBatch, compression: str | None = None) -> None:
    compression = compression or PARQUET.compressions[0]
    compare(encode(PARQUET, batch, compression, METADATA), write(batch, compression, METADATA))


@pytest.mark.parametrize("compression", PARQUET.compressions)
@pytest.mark.parametrize("name", TASKS)
def test_every_task(name: str, compression: str) -> None:
    same_as_pyarrow(make_task(name).batch(0, "train", 0, 2100), compression)


@pytest.mark.parametrize("case", OTHER_COLUMNS)
def test_other_columns_of_the_tasks(case: str) -> None:
    name, params = OTHER_COLUMNS[case]
    same_as_pyarrow(make_task(name, params).batch(3, "eval", 0, 1100))


@pytest.mark.parametrize("rows", [1, 2, 1023, 1024, 1025, 3000])
def test_every_kind(rows: int) -> None:
    same_as_pyarrow(every_kind(rows, seed=rows))


def test_the_schema_is_stored_as_pyarrow_stores_it(tmp_path: Path) -> None:
    """Element by element, as DuckDB shows it: pyarrow would make up what an older reader misses."""
    duckdb = pytest.importorskip("duckdb")
    batch, found = every_kind(5), []
    for name, data in (("ours", encode(PARQUET, batch)), ("theirs", write(batch))):
        (tmp_path / name).write_bytes(data.to_pybytes())
        with duckdb.connect() as connection:
            what = "name, type, repetition_type, num_children, converted_type, logical_type"
            found.append(connection.sql(f"SELECT {what} FROM parquet_schema('{tmp_path / name}')").fetchall())
    assert len(found[0]) == 1 + len(batch.columns) + 2 * sum(kind.startswith("list<") for kind in batch.kinds.values())
    assert found[0][1:] == found[1][1:]


@pytest.mark.parametrize("name", TASKS)
def test_no_rows_and_one(name: str) -> None:
    task = make_task(name)
    same_as_pyarrow(empty_batch(task.columns))
    same_as_pyarrow(task.batch(0, "train", 0, 1))


@pytest.mark.parametrize("distinct", [1, 2, 4, 5, 255, 256, 257, 340, 700, 70_000])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "bool" not in kind and kind != "string"])
def test_numbers_with_a_dictionary_and_without(kind: str, distinct: int) -> None:
    """However many differ in a block: the kind says which it is."""
    rng = np.random.default_rng(distinct)
    wide, few = column(kind, 1024, rng, distinct), column(kind, 600, rng, 3)
    values = np.concatenate([wide.values, few.values])
    lengths = None if wide.offsets is None else np.concatenate([wide.lengths(), few.lengths()])
    batch = RaggedBatch({"x": Column(kind, values, None if lengths is None else offsets_of(lengths))})
    same_as_pyarrow(batch)


@pytest.mark.parametrize("distinct", [1, 2, 768, 769, 1024])
@pytest.mark.parametrize("length", [1, 40, 100])
def test_strings_with_a_dictionary_and_without(distinct: int, length: int) -> None:
    texts = [f"{i % distinct:04d}" + "é" * length for i in range(1024)]
    same_as_pyarrow(RaggedBatch({"x": strings([*texts, "", *texts[:300]])}))


def test_lists_that_are_all_empty() -> None:
    none = Column("list<uint16>", np.empty(0, np.uint16), np.zeros(1101, np.int64))
    same_as_pyarrow(RaggedBatch({"x": none, "n": Column("uint16", np.arange(1100, dtype=np.uint16))}))


@pytest.mark.parametrize("size", [4096, 4097])
def test_long_strings_have_no_bounds(size: int) -> None:
    same_as_pyarrow(
        RaggedBatch({"x": strings(["a", "é" * (size // 2) + "b" * (size % 2)]), "text": strings(["", "z"])})
    )


def test_every_number_of_16_bits_in_one_block() -> None:
    values = np.tile(np.arange(1 << 16).astype(np.uint16)[::-1], 2)
    ids = Column("list<uint16>", values, offsets_of(np.full(1024, 128)))
    positions = Column("list<int32>", values.astype(np.int32), ids.offsets)
    batch = RaggedBatch({"input_ids": ids, "spans": positions})
    same_as_pyarrow(batch)
    data = encode(PARQUET, batch)
    assert {found for _, [(_, _, found, _)] in encodings(data).items()} == {"RLE_DICTIONARY"}
    same(PARQUET.reader(data, batch.kinds).read(0, 1024), batch)


# One encoding a column, whatever the rows: fastparquet gives None for strings where it changes.


@pytest.mark.parametrize("case", [*TASKS, *OTHER_COLUMNS])
def test_a_column_has_one_encoding_in_every_block_and_shard(case: str) -> None:
    name, params = OTHER_COLUMNS.get(case, (case, {}))
    task = make_task(name, params)
    whole, short = (encodings(encode(PARQUET, task.batch(0, "train", 0, rows))) for rows in (1025, 1))
    assert whole == short
    assert {len(found) for found in whole.values()} == {1}


def test_the_footer_says_what_readers_ask_for() -> None:
    file = pq.read_metadata(pa.BufferReader(encode(PARQUET, every_kind(3), None, METADATA)))
    assert file.format_version == "1.0"
    # What parquet-java takes a version from: https://github.com/apache/parquet-java, VersionParser and SemanticVersion.
    assert re.fullmatch(r"synthshards version \d+\.\d+\.\d+ \(build [^)]+\)", file.created_by)
    assert all(key.startswith(b"synthshards.") for key in file.metadata)


@pytest.mark.parametrize("params", [{}, {"form": "qa"}, {"form": "biod"}], ids=str)
def test_capo_is_as_small_as_pyarrow_makes_it(params: dict[str, Any]) -> None:
    batch = make_task("capo", params).batch(0, "train", 0, 4096)
    assert encode(PARQUET, batch).size < 1.1 * write(batch, "zstd").size


@pytest.mark.parametrize("name", ["zstd", "snappy"])
def test_what_is_stored_decompresses(name: str) -> None:
    codec = pa.Codec(name)
    for size in [0, 1, 60, 61, 255, 256, 257, 4095, 65_535]:
        content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        made = stored(content, codec)
        assert codec.decompress(made, size).to_pybytes() == content.tobytes()
        if name == "zstd":
            assert made == codec.compress(content).to_pybytes(), "what the compressor writes where it finds nothing"


def test_files_of_the_first_layout_are_read() -> None:
    """Written before columns had one encoding: strings and facts turn plain in its short last block."""
    data = pa.py_buffer(FIRST_LAYOUT.read_bytes())
    table = pq.read_table(pa.BufferReader(data))
    kinds = {field.name: str(field.type).replace("element: ", "").replace(" not null", "") for field in table.schema}
    reader = PARQUET.reader(data, kinds)
    assert reader.metadata == {"identity": "{}", "start": "0", "stop": "1027"}
    found = reader.read(0, 1027)
    assert {name: column.tolist() for name, column in found.columns.items()} == table.to_pydict()
    assert {name: len(seen) for name, seen in encodings(data).items() if len(seen) > 1} == {
        "n": 2, "edges": 2, "city": 2, "text": 2, "input_ids.list.element": 2, "spans.list.element": 2
    }  # fmt: skip
