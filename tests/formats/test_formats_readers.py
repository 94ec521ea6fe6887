"""Other people's Parquet readers: each reads every value of every task, filters, and aggregates by statistics.

Those that the test extra does not install are in `make test-readers`, and are skipped elsewhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from format_rows import OTHER_COLUMNS, encode, every_kind

from synthshards.catalog import TASKS, make_task
from synthshards.dataset.manifest import NAME as MANIFEST
from synthshards.formats import FORMATS
from synthshards.ragged import KINDS, RaggedBatch

pytestmark = pytest.mark.filterwarnings("default")  # other people's libraries may warn

PARQUET = FORMATS["parquet"]
ROWS, SPLIT_AT = 1030, 1027  # a short last block, and then a shard of three rows
SUPPORT = Path(__file__).parent.parent / "support" / "readers"
#: Where `make test-readers` puts what this Python cannot import.
OLD_PYARROW = Path(sys.prefix) / "pyarrow10" / "bin" / "python"
NODE_MODULES = Path(sys.prefix) / "node" / "node_modules"


class Asked(NamedTuple):
    """A finished folder, and a question: the rows whose `column` has the value, and what it has at most and at least.

    `paths` are its shards: hyparquet reads files alone.
    """

    folder: str
    paths: list[str]
    column: str
    value: int


class Found(NamedTuple):
    """What a reader made of that: all columns, the column of the rows that it was filtered for, and the aggregate."""

    columns: dict[str, list[Any]]
    filtered: list[Any]
    lowest: Any
    highest: Any
    count: int


def by_pyarrow(asked: Asked) -> Found:
    data = ds.dataset(asked.folder)
    filtered = data.to_table(filter=pc.field(asked.column) == asked.value)[asked.column].to_pylist()
    bounds = [
        chunk.statistics[asked.column]
        for fragment in data.get_fragments()
        for chunk in fragment.row_groups
    ]  # fmt: skip
    lowest, highest = min(bound["min"] for bound in bounds), max(bound["max"] for bound in bounds)
    return Found(data.to_table().to_pydict(), filtered, lowest, highest, data.count_rows())


def by_pandas(asked: Asked) -> Found:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(asked.folder)
    filtered = pandas.read_parquet(asked.folder, filters=[(asked.column, "==", asked.value)])[asked.column].tolist()
    column = frame[asked.column]
    columns = {name: [plain(value) for value in frame[name]] for name in frame.columns}
    return Found(columns, filtered, column.min(), column.max(), len(frame))


def by_duckdb(asked: Asked) -> Found:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        rows = connection.read_parquet(f"{asked.folder}/*.parquet")
        columns = dict(zip(rows.columns, map(list, zip(*rows.fetchall(), strict=True)), strict=True))
        filtered = rows.filter(f'"{asked.column}" = {asked.value}').project(f'"{asked.column}"').fetchall()
        what = f'min("{asked.column}"), max("{asked.column}"), count("{asked.column}")'
        return Found(columns, [row[0] for row in filtered], *rows.aggregate(what).fetchall()[0])


def by_polars(asked: Asked) -> Found:
    polars = pytest.importorskip("polars")
    frame, column = polars.scan_parquet(f"{asked.folder}/*.parquet"), polars.col(asked.column)
    filtered = frame.filter(column == asked.value).collect()[asked.column].to_list()
    bounds = frame.select(column.min().alias("a"), column.max().alias("b"), column.count().alias("c")).collect()
    return Found(frame.collect().to_dict(as_series=False), filtered, *bounds.row(0))


def by_fastparquet(asked: Asked) -> Found:
    fastparquet = pytest.importorskip("fastparquet")
    file = fastparquet.ParquetFile(asked.folder)
    frame = file.to_pandas()
    columns = {name: [plain(value) for value in frame[name]] for name in frame.columns}
    wanted = [(asked.column, "==", asked.value)]
    filtered = file.to_pandas(columns=[asked.column], filters=wanted, row_filter=True)[asked.column].tolist()
    bounds = file.statistics
    assert set(bounds["null_count"][asked.column]) == {0}
    return Found(columns, filtered, min(bounds["min"][asked.column]), max(bounds["max"][asked.column]), file.count())


def by_datafusion(asked: Asked) -> Found:
    datafusion = pytest.importorskip("datafusion")
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))  # or rows change places
    context.register_parquet("shards", asked.folder, file_extension=".parquet")
    columns = context.sql("SELECT * FROM shards").to_pydict()
    name = f'"{asked.column}"'
    filtered = context.sql(f"SELECT {name} AS x FROM shards WHERE {name} = {asked.value}").to_pydict()["x"]
    bounds = context.sql(f"SELECT min({name}) AS a, max({name}) AS b, count({name}) AS c FROM shards")
    # Answered from statistics: no file is opened.
    assert "DataSourceExec" not in str(bounds.execution_plan()), bounds.execution_plan()
    return Found(columns, filtered, *(value[0] for value in bounds.to_pydict().values()))


def by_clickhouse(asked: Asked) -> Found:
    chdb = pytest.importorskip("chdb")
    glob = f"{asked.folder}/*.parquet"

    def query(what: str) -> dict[str, list[Any]]:
        settings = "SETTINGS output_format_arrow_string_as_string = 1"
        found = chdb.query(f"SELECT {what.format(f'file({glob!r}, Parquet)')} {settings}", "ArrowTable")
        return dict(found.to_pydict())

    columns, name = query("* FROM {} ORDER BY _file"), f"`{asked.column}`"
    filtered = query(f"{name} AS x FROM {{}} WHERE {name} = {asked.value}")["x"]
    bounds = query(f"min({name}), max({name}), count({name}) FROM {{}}")
    return Found(columns, filtered, *(value[0] for value in bounds.values()))


def by_daft(asked: Asked) -> Found:
    daft = pytest.importorskip("daft")
    frame, column = daft.read_parquet(f"{asked.folder}/*.parquet"), daft.col(asked.column)
    filtered = frame.where(column == asked.value).to_pydict()[asked.column]
    bounds = frame.agg(column.min().alias("a"), column.max().alias("b"), column.count().alias("c")).to_pydict()
    return Found(frame.to_pydict(), filtered, *(value[0] for value in bounds.values()))


def by_spark(asked: Asked) -> Found:
    pyspark = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("no Java here")
    # Aggregates are pushed down to files where the second version of sources reads them.
    options = {
        "spark.ui.enabled": False,
        "spark.sql.sources.useV1SourceList": "",
        "spark.sql.parquet.aggregatePushdown": True,
        "spark.sql.files.openCostInBytes": 0,
    }
    session = pyspark.SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    frame = session.read.parquet(asked.folder)
    frame.createOrReplaceTempView("shards")
    name = f"`{asked.column}`"
    rows = [row for path in asked.paths for row in session.read.parquet(path).collect()]
    columns = {name: [row[name] for row in rows] for name in frame.columns}
    filtered = session.sql(f"SELECT {name} FROM shards WHERE {name} = {asked.value}").collect()
    bounds = session.sql(f"SELECT min({name}), max({name}), count({name}) FROM shards")
    assert "PushedAggregation: [MIN(" in bounds._jdf.queryExecution().toString()
    return Found(columns, [row[0] for row in filtered], *bounds.collect()[0])


def by_old_pyarrow(asked: Asked) -> Found:
    if not OLD_PYARROW.exists():
        pytest.skip("no second environment with pyarrow 10 here: make test-readers")
    return answer([str(OLD_PYARROW), str(SUPPORT / "old_pyarrow.py")], asked)


def by_hyparquet(asked: Asked) -> Found:
    node = shutil.which("node")
    if node is None or not NODE_MODULES.exists():
        pytest.skip("no Node.js with hyparquet here: make test-readers")
    return answer([node, str(SUPPORT / "hyparquet.mjs"), str(NODE_MODULES)], asked)


def answer(command: list[str], asked: Asked) -> Found:
    """What a program answers in JSON, in which numbers of 64 bits are strings."""
    done = subprocess.run(
        command, input=json.dumps(asked._asdict()), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return Found(**json.loads(done.stdout))


READERS: dict[str, Callable[[Asked], Found]] = {
    name.removeprefix("by_"): read for name, read in list(globals().items()) if name.startswith("by_")
}


def signed(kind: str) -> np.dtype[Any]:
    """The dtype of a list's unsigned elements with a sign."""
    return np.dtype(KINDS[kind].name.removeprefix("u"))


def plain(value: Any) -> Any:
    """NumPy's scalars and arrays as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def rows_of(case: str) -> RaggedBatch:
    if case == "every kind":
        batch = every_kind(ROWS)
        names = {name: name.replace("<", "_").removesuffix(">") for name in batch.columns}
        return RaggedBatch({names[name].replace(" ", "_"): column for name, column in batch.columns.items()})
    name, params = OTHER_COLUMNS.get(case, (case, {}))
    return make_task(name, params).batch(0, "train", 0, ROWS)


@pytest.fixture(scope="module", params=[*TASKS, *OTHER_COLUMNS, "every kind"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RaggedBatch, Path]:
    """The rows of a case, and a folder with two shards of them and what is no shard."""
    batch, folder = rows_of(request.param), tmp_path_factory.mktemp("shards")
    compression = "snappy" if request.param == "every kind" else "zstd"
    for i, part in enumerate((batch.slice(0, SPLIT_AT), batch.slice(SPLIT_AT, ROWS))):
        data = encode(PARQUET, part, compression, {"start": str(i * SPLIT_AT)})
        (folder / f"train-{i:05}.parquet").write_bytes(data.to_pybytes())
    (folder / MANIFEST).write_text("{}\n")
    return batch, folder


@pytest.mark.parametrize("reader", READERS)
def test_every_value_a_filter_and_an_aggregate(reader: str, dataset: tuple[RaggedBatch, Path]) -> None:
    batch, folder = dataset
    column = next(name for name, kind in batch.kinds.items() if kind in ("uint16", "uint8"))
    expected = {name: col.tolist() for name, col in batch.columns.items()}
    values = expected[column]
    found = READERS[reader](Asked(str(folder), sorted(map(str, folder.glob("*.parquet"))), column, values[-1]))
    assert list(found.columns) == list(expected)
    for name, col in found.columns.items():
        wanted = expected[name]
        if reader == "hyparquet" and "64" in batch.kinds[name]:
            wanted = json.loads(json.dumps(wanted), parse_int=str)
        elif reader == "fastparquet" and batch.kinds[name] in ("list<uint32>", "list<uint64>"):  # its lists are signed
            wanted = [
                np.array(value, KINDS[batch.kinds[name]]).view(signed(batch.kinds[name])).tolist() for value in wanted
            ]
        assert [plain(value) for value in col] == wanted, name
    assert found.filtered == [values[-1]] * values.count(values[-1])
    assert (found.lowest, found.highest, found.count) == (min(values), max(values), ROWS)
