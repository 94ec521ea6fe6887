"""`synthshards bench` on the loaders, and on the same rows read by other libraries. No test here measures time."""

from __future__ import annotations

import builtins
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Ended
from small_datasets import make

from synthshards import open_dataset
from synthshards.errors import SynthshardsError
from synthshards.loaders import bench as loaders_bench
from synthshards.loaders.bench import rivals, streams
from synthshards.pipelines.bench import command, tables

ROWS = 300
PEERS = Path(loaders_bench.__file__).parent


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the section gives for few rows and short passes."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(streams, "MIN_REPEATS", 1)
        said: list[str] = []
        found = streams.measure("mano-10", ROWS, 0.0, said.append)
    assert list(folder.iterdir()) == [], "nothing is left behind"
    assert said == [f"loaders, mano-10, {name}" for name in ("on the fly", "parquet", "webdataset", "arrow")]
    return {"schema_version": 1, "quick": True, "machine": machine(), "plain": [], "loaders": found}


def machine() -> dict[str, Any]:
    names = ("cpu", "system", "python", "numpy", "numba", "pyarrow", "synthshards")
    return {**dict.fromkeys(names, "x"), "cores": 2, "memory_bytes": 1 << 30, "load": 0.1}


def test_every_source_way_and_number_of_threads_reads_the_same_rows(document: dict[str, Any]) -> None:
    entries = document["loaders"]
    cases = [(e["source"], e["way"], e["workers"]) for e in entries]
    assert len(cases) == len(set(cases)) == 4 * 5 * 3
    tokens = {way: {e["tokens"] for e in entries if e["way"] == way} for way in streams.WAYS}
    whole = sum(
        len(row["input_ids"]) for row in map(open_dataset("mano-10", num_examples=ROWS).__getitem__, range(ROWS))
    )
    assert tokens == {way: {whole} for way in streams.WAYS} | {"paper": tokens["paper"]}
    assert len(tokens["paper"]) == 1  # it cuts the last row of a window
    assert whole * 0.9 < min(tokens["paper"]) < whole


def test_quotients_are_of_what_they_name(document: dict[str, Any]) -> None:
    entries = {(e["source"], e["way"], e["workers"]): e for e in document["loaders"]}
    generation = {e["per_second"] / e["of_generation"] for e in entries.values() if e["of_generation"] is not None}
    assert max(generation) == pytest.approx(min(generation))
    for (source, _, workers), e in entries.items():
        assert e["of_padded"] == e["rows_per_second"] / entries[source, "padded", workers]["rows_per_second"]
        assert (e["of_generation"] is None) == (source != "on the fly")
        assert 0 < e["median_per_second"] <= e["per_second"]
        assert e["rows_per_second"] * e["tokens"] == pytest.approx(e["per_second"] * ROWS)


def test_a_pass_reads_to_the_end_with_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made, dataset = [], open_dataset("mano-10", num_examples=ROWS)

    def stream() -> Any:
        made.append(dataset.batches(64))
        return made[-1]

    for workers in (0, 2):
        made.clear()
        found = streams.case(stream, ROWS, workers, 0.0)
        assert len(made) == 1 + found["repeats"] == 4
        assert [(one.epoch, one.stats()["rows"]) for one in made] == [(1, ROWS)] * 4


def test_epochs_of_one_stream_decode_every_block_again(tmp_path: Path) -> None:
    rows = 12 * 1024  # more blocks than a stream in index order holds
    dataset, made = open_dataset(make(tmp_path / "out", examples=rows, shard_examples=4096)), []

    def new() -> Any:
        made.append(dataset.batches(64))
        return made[-1]

    found = streams.case(new, rows, 0, 0.0, anew=False)
    (stream,) = made
    passes = 1 + found["repeats"]
    assert (stream.epoch, stream.stats()["blocks_opened"]) == (passes, 12 * passes)
    assert stream.stats()["shards_opened"] == 3
    assert found["tokens"] * passes == stream.stats()["tokens"]


def test_torch_has_its_threads_again() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with streams.one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# Tables ----------------------------------------------------------------------------------------------------------


def entry(source: str, way: str, workers: int, speed: float, **more: Any) -> dict[str, Any]:
    named = {"preset": "p", "source": source, "way": way, "workers": workers, "per_second": speed}
    return {**named, "rows_per_second": speed / 10, "of_padded": 1.0, "of_generation": None, **more}


def test_the_table_of_loaders() -> None:
    fly = [entry("on the fly", "padded", n, 1e6 * (n + 1), of_generation=0.2 * (n + 1)) for n in (0, 1, 2)]
    stored = [entry("arrow", "concat", n, 5e6, of_padded=1.25) for n in (0, 1, 2)]
    table = tables.TABLES["loaders"]({"loaders": fly + stored})
    assert [dict(zip(table.head, row, strict=True)) for row in table.rows] == [
        {
            "source": "p, on the fly", "batches": "padded", "stream": "1.00 M tokens/s", "rows/s": "100 k",
            "loader, 1 thread": "2.00 M", "loader, 2 threads": "3.00 M", "of padded": "100%", "of generation": "20%",
            "with threads": "60%",
        },
        {
            "source": "p, arrow", "batches": "concat", "stream": "5.00 M tokens/s", "rows/s": "500 k",
            "loader, 1 thread": "5.00 M", "loader, 2 threads": "5.00 M", "of padded": "125%", "of generation": "–",
            "with threads": "–",
        },
    ]  # fmt: skip


def peers_document() -> dict[str, Any]:
    ours = {"library": "synthshards", "version": "1", "per_second": 8e6, "rows_per_second": 8e4, "bytes": 1e6}
    other = {"library": "other", "version": "2", "reader": "x: y", "per_second": 1e6, "rows_per_second": 1e4}
    run = {
        "ours": [{**ours, "reader": "parquet"}, {**ours, "reader": "arrow"}],
        "peers": [{**other, "write_rows_per_second": 5e3, "bytes": 2e6, "of_ours": {"parquet": 8.0, "arrow": 16.0}}],
        "left_out": [{"library": "absent", "reason": "no such package"}],
    }
    return {"schema_version": 1, "quick": False, "machine": machine(), "plain": [], "peers": [run]}


def test_the_table_of_peers() -> None:
    table = tables.TABLES["peers"](peers_document())
    assert table.head[-2:] == ("ours, parquet", "ours, arrow")
    assert [row[0] for row in table.rows] == ["synthshards 1", "synthshards 1", "other 2", "absent"]
    assert table.rows[0][-4:] == ("–", "1 MB", "–", "–")
    assert table.rows[2] == ("other 2", "x: y", "1.00 M tokens/s", "10.0 k", "5.00 k", "2 MB", "8.00 ×", "16.0 ×")
    assert table.rows[3][1] == "left out: no such package"


def test_what_was_not_measured_stays_on_the_page(tmp_path: Path, cli: Callable[..., Ended]) -> None:
    page, stored = tmp_path / "page.md", tmp_path / "bench.json"
    kept = "<!-- bench:machine -->\nours\n<!-- /bench -->\n<!-- bench:generation -->\nold\n<!-- /bench -->\n"
    page.write_text(kept + "<!-- bench:peers -->\nold\n<!-- /bench -->\n")
    stored.write_text(json.dumps(peers_document()))
    ended = cli("bench", "--from", stored, "--markdown", page)
    assert (ended.code, ended.err) == (0, "")
    assert "The same rows by other libraries" in ended.out
    text = page.read_text()
    assert text.startswith(kept)
    assert "| other 2 | x: y | 1.00 M tokens/s |" in text


# The command -----------------------------------------------------------------------------------------------------


def settings(**changed: Any) -> command.BenchSettings:
    given = {"presets": ("capo-50k", "mano-10"), "built": ("capo-50k", "mano-10"), "formats": None, "workers": (1,)}
    return command.BenchSettings(**{**given, "sections": ("loaders",), "quick": True, **changed})


def test_the_command_asks_for_rows_of_tokens_and_needs_no_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(preset: str, rows: int, seconds: float, say: Callable[[str], None]) -> list[Any]:
        asked.append((preset, rows, seconds))
        return [preset]

    monkeypatch.setattr(streams, "measure", measure)
    monkeypatch.setattr(command.memory, "plain_speed", lambda *given: pytest.fail("measured plain Python"))
    found = command.BenchRun(settings(loaded_rows=7, seconds=0.5), lambda line: None).measure()
    assert (asked, found["loaders"], found["plain"]) == ([("mano-10", 7, 0.5)], ["mano-10"], [])


def test_peers_come_only_when_they_are_named(monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Ended]) -> None:
    chosen = []

    def stop(self: command.BenchRun) -> dict[str, Any]:
        chosen.append(self.settings.sections)
        raise SynthshardsError("enough")

    monkeypatch.setattr(command.BenchRun, "measure", stop)
    cli("bench")
    cli("bench", "--only", "loaders,peers")
    assert "loaders" in chosen[0]
    assert "peers" not in chosen[0]
    assert chosen[1] == ("loaders", "peers")
    assert "did you mean 'loaders'" in cli("bench", "--only", "loader").err


def test_without_torch_the_section_is_left_out_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import synthshards.loaders

    # The import below makes the package anew, and hangs it into its parent: put the old one back afterwards.
    monkeypatch.setattr(synthshards, "loaders", synthshards.loaders)
    for name in [name for name in sys.modules if name == "torch" or name.startswith("synthshards.loaders")]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *rest: Any, **given: Any) -> ModuleType:
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **given)

    monkeypatch.setattr(builtins, "__import__", without)
    found = command.BenchRun(settings(), lambda line: None).measure()
    assert "loaders" not in found
    line = "bench: loaders left out: needs torch; install it with: pip install 'synthshards[torch]'\n"
    assert capsys.readouterr().err == line


# Peers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of what runs in the peers' environments, as that does."""
    monkeypatch.syspath_prepend(PEERS)
    yield lambda name: importlib.import_module(f"peers.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "peers"]:
        del sys.modules[name]


def some_rows(common: ModuleType) -> Any:
    offsets = np.array([0, 3, 3 + 5, 8 + 1])
    return common.FlatRows(np.arange(1, 10, dtype=np.uint16), np.arange(9) % 2 == 0, offsets)


def test_a_peer_s_batch_is_padded(peers: Callable[[str], ModuleType]) -> None:
    common = peers("common")
    ids, mask = common.collate(list(some_rows(common)))
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert ids.tolist() == [[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 0, 0, 0, 0]]
    trained = [[True, False, True, False, False], [False, True, False, True, False], [True] + [False] * 4]
    assert mask.tolist() == trained


@pytest.mark.parametrize(
    "wrong", [lambda rows: rows[:-1], lambda rows: [rows[0]] * 3, lambda rows: [(i, ~m) for i, m in rows]]
)
def test_a_peer_that_reads_other_rows_is_an_error(peers: Callable[[str], ModuleType], wrong: Any) -> None:
    common = peers("common")
    rows = some_rows(common)
    assert common.passes(lambda: common.batched(iter(rows)), rows, 0.0)["seconds"] > 0
    with pytest.raises(ValueError, match="expected"):
        common.passes(lambda: common.batched(wrong(list(rows))), rows, 0.0)


@pytest.mark.parametrize(
    ("name", "package", "readers"), [("datasets_rows", "datasets", 6), ("webdataset_rows", "webdataset", 1)]
)
@pytest.mark.filterwarnings("default")
def test_peers_that_are_installed_here_read_what_they_wrote(
    name: str,
    package: str,
    readers: int,
    peers: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", str(PEERS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rivals, "environment", lambda wanted: Path(sys.executable))
    tokens = rivals._leave("mano-10", 200, tmp_path / "rows")
    found = rivals._run(package, name, tmp_path, 0.0)
    assert len(found["readers"]) == readers
    assert all(len(reader["measured"]) == 2 and reader["bytes"] > tokens for reader in found["readers"])
    assert found["version"]


def test_peers_are_compared_with_ours_and_the_broken_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(streams, "MIN_REPEATS", 1)
    reader = {"reader": "x", "write_seconds": 2.0, "bytes": 5, "seconds": 0.5}

    def run(package: str, module: str, folder: Path, seconds: float) -> Any:
        assert (np.load(folder / "rows" / "offsets.npy").size, module) == (ROWS + 1, rivals.PEERS[package])
        if package == "litdata":
            raise SynthshardsError("no such package")
        return {"version": "3", "readers": [reader]}

    monkeypatch.setattr(rivals, "_run", run)
    (found,) = rivals.measure("mano-10", ROWS, 0.0, lambda line: None)
    assert list(tmp_path.iterdir()) == []
    assert found["left_out"] == [{"library": "litdata", "reason": "no such package"}]
    assert [e["library"] for e in found["peers"]] == ["datasets", "webdataset", "mosaicml-streaming"]
    assert [e["reader"] for e in found["ours"]] == ["parquet", "webdataset", "arrow"]
    for e in found["peers"]:
        assert (e["per_second"], e["rows_per_second"]) == (found["tokens"] / 0.5, ROWS / 0.5)
        assert e["write_rows_per_second"] == ROWS / 2.0
        assert e["of_ours"] == {mine["reader"]: mine["per_second"] / e["per_second"] for mine in found["ours"]}


def test_a_peer_that_cannot_be_installed_or_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    python = rivals.FOLDER / "litdata" / "bin" / "python"
    monkeypatch.setattr(rivals.venv, "create", lambda home, with_pip: python.parent.mkdir(parents=True, exist_ok=True))
    fails = [sys.executable, "-c", "import sys; sys.exit('first\\nERROR: no matching distribution')"]
    lines = rivals._lines
    monkeypatch.setattr(rivals, "_lines", lambda command, seconds, env: lines(fails, seconds, env))
    with pytest.raises(SynthshardsError, match=r"^ERROR: no matching distribution$"):
        rivals.environment("litdata")
    assert not (rivals.FOLDER / "litdata" / ".ready").exists()
    monkeypatch.setattr(rivals, "_lines", lambda command, seconds, env: [])
    assert rivals.environment("litdata") == python
    assert (rivals.FOLDER / "litdata" / ".ready").exists()
    with pytest.raises(SynthshardsError, match="printed no result"):
        rivals._run("litdata", "litdata_rows", tmp_path, 1.0)
    with pytest.raises(SynthshardsError, match="not done after 0 s"):
        lines([sys.executable, "-c", "import time; time.sleep(60)"], 0.2, {})
