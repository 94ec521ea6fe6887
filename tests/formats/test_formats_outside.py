"""Other people's readers read our folders: pyarrow, pandas, Hugging Face, DuckDB, Polars, webdataset, tar."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_rows import encode, text_batch, token_batch
from pyarrow.dataset import dataset

from synthshards.dataset.manifest import NAME as MANIFEST
from synthshards.formats import FORMATS
from synthshards.formats.base import Format
from synthshards.ragged import RaggedBatch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TOKENS, TEXTS = token_batch(2300), text_batch(1300)
both = pytest.mark.parametrize("batch", [TOKENS, TEXTS], ids=["tokens", "text"])
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def rows_of(batch: RaggedBatch) -> list[dict[str, Any]]:
    """The rows with lists of Python values, without labels."""
    columns = {name: column.tolist() for name, column in batch.columns.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def folder_of(
    folder: Path, format: Format, batch: RaggedBatch, shards: int, split: str = "train", compression: str | None = None
) -> Path:
    """A finished dataset folder, as far as other readers are concerned: shards of the rows, and a manifest."""
    folder.mkdir(parents=True)
    size = -(-len(batch) // shards)
    for shard in range(shards):
        part = batch.slice(shard * size, min((shard + 1) * size, len(batch)))
        metadata = {"fingerprint": "sha256:00", "start": str(shard * size)}
        data = encode(format, part, compression, metadata, shard * size)
        (folder / f"{split}-{shard:05}.{format.suffix}").write_bytes(data.to_pybytes())
    (folder / MANIFEST).write_text('{"schema_version": 1, "dataset": {"task": "depo"}}\n')
    return folder


def load_dataset(tmp_path: Path, *args: Any, **options: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.load_dataset(*args, cache_dir=str(tmp_path / "cache"), **options)


def unpack(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a tar as Hugging Face gives it → the row."""
    arrays = {
        name.removesuffix(".npy").removesuffix(".txt"): row[name] for name in row if name.endswith((".npy", ".txt"))
    }
    return {**arrays, **row["json"]}


@every_format
@pytest.mark.parametrize(
    ("split", "hf_split", "shards", "batch"),
    [
        ("train", "train", 1, TOKENS),
        ("train", "train", 3, TOKENS),
        ("train", "train", 1, TEXTS),
        ("eval", "test", 1, TOKENS),
        ("test", "test", 1, TOKENS),
        ("validation", "validation", 1, TOKENS),
    ],
)
def test_hugging_face_loads_a_folder(
    format: Format, split: str, hf_split: str, shards: int, batch: RaggedBatch, tmp_path: Path
) -> None:
    found = load_dataset(tmp_path, str(folder_of(tmp_path / "data", format, batch, shards, split)))
    assert list(found) == [hf_split]
    rows = found[hf_split].to_list()
    if format.name == "webdataset":
        assert [row["__key__"] for row in rows] == [f"{i:012}" for i in range(len(batch))]
        rows = [unpack(row) for row in rows]
    else:
        features = {name: str(feature) for name, feature in found[hf_split].features.items()}
        kinds = {"list<uint16>": "List(Value('uint16'))", "list<bool>": "List(Value('bool'))"}
        kinds |= {"list<int32>": "List(Value('int32'))"}
        assert features == {name: kinds.get(kind, f"Value('{kind}')") for name, kind in batch.kinds.items()}
    assert rows == rows_of(batch)


@every_format
@pytest.mark.parametrize("shards", [1, 2])
def test_hugging_face_loads_the_folder_above_several_splits(format: Format, shards: int, tmp_path: Path) -> None:
    folder_of(tmp_path / "depo" / "train", format, TOKENS, shards)
    folder_of(tmp_path / "depo" / "eval", format, TOKENS.slice(0, 5), 1, "eval")
    found = load_dataset(tmp_path, str(tmp_path / "depo"))
    rows = {split: found[split].to_list() for split in found}
    if format.name == "webdataset":
        rows = {split: [unpack(row) for row in those] for split, those in rows.items()}
    assert rows == {"train": rows_of(TOKENS), "test": rows_of(TOKENS)[:5]}


@both
@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_pyarrow_and_pandas_read_a_folder_and_the_one_above(batch: RaggedBatch, name: str, tmp_path: Path) -> None:
    folder_of(tmp_path / "data" / "train", FORMATS[name], batch, 2)
    folder_of(tmp_path / "data" / "eval", FORMATS[name], batch, 1, "eval")
    for folder, rows in (("train", rows_of(batch)), (".", 2 * rows_of(batch))):  # eval comes before train
        path = tmp_path / "data" / folder
        assert dataset(path, format=name if name == "parquet" else "ipc").to_table().to_pylist() == rows
        if name == "parquet":
            assert pq.read_table(path).to_pylist() == rows
            frame = pytest.importorskip("pandas").read_parquet(path)
            assert pa.Table.from_pandas(frame, preserve_index=False).to_pylist() == rows


@every_format
def test_hugging_face_loads_files_and_streams(format: Format, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", format, TOKENS, 2, "my_split")
    files = [str(path) for path in sorted(folder.glob("my_split-*"))]
    found = load_dataset(tmp_path, format.name, data_files={"mine": files})["mine"]
    streamed = load_dataset(tmp_path, format.name, data_files={"mine": files}, streaming=True)["mine"]
    if format.name == "webdataset":
        assert found.column_names[:3] == ["input_ids.npy", "loss_mask.npy", "json"]
        assert str(found.features["input_ids.npy"]) == "List(Value('uint16'))"
        assert [unpack(row) for row in found.to_list()] == rows_of(TOKENS)
        first = next(iter(streamed))
        assert np.asarray(first["input_ids.npy"]).tolist() == rows_of(TOKENS)[0]["input_ids"]
    else:
        assert found.to_list() == rows_of(TOKENS)
        assert list(streamed) == rows_of(TOKENS)


@both
@pytest.mark.parametrize("compression", FORMATS["parquet"].compressions)
def test_duckdb_reads_parquet(batch: RaggedBatch, compression: str, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = folder_of(tmp_path / "data", FORMATS["parquet"], batch, 2, compression=compression) / "*.parquet"
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM read_parquet('{path}')")
        names = {
            "uint16": "USMALLINT",
            "uint32": "UINTEGER",
            "int32": "INTEGER",
            "bool": "BOOLEAN",
            "string": "VARCHAR",
        }
        types = [names[kind] if "<" not in kind else names[kind[5:-1]] + "[]" for kind in batch.kinds.values()]
        assert dict(zip(found.columns, map(str, found.types), strict=True)) == dict(
            zip(batch.kinds, types, strict=True)
        )
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
        assert rows == rows_of(batch)
        if batch is TOKENS:
            wanted = sum(row["n"] for row in rows if row["queries"] == 9)
            assert connection.sql(f"SELECT sum(n) FROM '{path}' WHERE queries = 9").fetchall() == [(wanted,)]


@both
@pytest.mark.parametrize(
    ("name", "compression"), [(n, c) for n in ("parquet", "arrow") for c in FORMATS[n].compressions]
)
def test_polars_reads_parquet_and_arrow(batch: RaggedBatch, name: str, compression: str, tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    format = FORMATS[name]
    path = folder_of(tmp_path / "data", format, batch, 2, compression=compression) / f"*.{format.suffix}"
    frame = polars.read_parquet(path) if name == "parquet" else polars.read_ipc(path)
    names = {"uint16": "UInt16", "uint32": "UInt32", "int32": "Int32", "bool": "Boolean", "string": "String"}
    types = {n: names[k] if "<" not in k else f"List({names[k[5:-1]]})" for n, k in batch.kinds.items()}
    assert {n: str(t) for n, t in frame.schema.items()} == types
    assert frame.to_dicts() == rows_of(batch)


@both
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves files open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_tar(batch: RaggedBatch, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder = folder_of(tmp_path / "data", FORMATS["webdataset"], batch, 2)
    rows = list(webdataset.WebDataset(f"{folder}/train-{{00000..00001}}.tar", shardshuffle=False).decode())
    assert [row["__key__"] for row in rows] == [f"{i:012}" for i in range(len(batch))]
    if batch is TOKENS:
        assert {row["input_ids.npy"].dtype for row in rows} == {np.dtype("uint16")}
        assert {row["loss_mask.npy"].dtype for row in rows} == {np.dtype("bool")}
    plain = [
        {name: value.tolist() if hasattr(value, "tolist") else value for name, value in row.items()} for row in rows
    ]
    assert [unpack(row) for row in plain] == rows_of(batch)


def test_tar_lists_and_extracts(tmp_path: Path) -> None:
    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("no tar here")
    folder = folder_of(tmp_path / "data", FORMATS["webdataset"], TEXTS, 1)
    command = [tar, "-xf", str(folder / "train-00000.tar"), "-C", str(tmp_path), "000000000007.text.txt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "000000000007.text.txt").read_text() == rows_of(TEXTS)[7]["text"]
    assert (tmp_path / "000000000007.text.txt").stat().st_mtime == 0
