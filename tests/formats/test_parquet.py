"""Our Parquet writer against pyarrow's: the same rows give files that no reader can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from format_rows import column, encode, every_kind, strings
from pyarrow_parquet import compare, write

from synthshards.catalog import TASKS, make_task
from synthshards.formats import FORMATS
from synthshards.formats.base import empty_batch
from synthshards.ragged import KINDS, Column, RaggedBatch, offsets_of

PARQUET = FORMATS["parquet"]
METADATA = {"synthshards.start": "0", "näme": "välue"}
#: Options that change which columns a task has, or their kinds.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "brevo2": ("brevo2-30", {}),
    "depo, qa": ("depo", {"qa": True}),
    "brevo, qa": ("brevo", {"qa": True}),
    "mano, qa": ("mano", {"qa": True, "L": 8}),
    "lano, 81 symbols": ("lano-cfg3e1", {}),
    "capo, questions": ("capo", {"form": "qa"}),
    "capo, bioD": ("capo", {"form": "biod"}),
}


def same_as_pyarrow(batch: RaggedBatch, compression: str | None = None) -> None:
    compression = compression or PARQUET.compressions[0]
    compare(encode(PARQUET, batch, compression, METADATA), write(batch, compression, METADATA))


@pytest.mark.parametrize("compression", PARQUET.compressions)
@pytest.mark.parametrize("name", TASKS)
def test_every_task(name: str, compression: str) -> None:
    same_as_pyarrow(make_task(name).batch(0, "train", 0, 2100), compression)


@pytest.mark.parametrize("case", OTHERS)
def test_other_columns_of_the_tasks(case: str) -> None:
    name, params = OTHERS[case]
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
    """A block goes over to plain values where too many differ; the next block decides anew."""
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
