"""`bench`: its document, its ratios, the tables made of it, what it leaves behind; never how fast anything is."""

from __future__ import annotations

import ast
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Ended, python

from synthshards.catalog import TASKS, make_task
from synthshards.errors import DataError, SynthshardsError
from synthshards.formats import FORMATS
from synthshards.pipelines.bench import command, figures, memory, process, report, tables, timing
from synthshards.pipelines.bench.plain import PLAIN, units
from synthshards.pipelines.commands import cores

ROOT = Path(__file__).parents[2]
PRESETS = [preset for name in PLAIN for preset in TASKS[name][0].presets]
BENCH = [sys.executable, "-m", "synthshards", "bench", "--quick"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A whole quick run with --json in a folder of its own, and that folder."""
    folder = tmp_path_factory.mktemp("bench")
    return subprocess.run([*BENCH, "--json"], cwd=folder, capture_output=True, text=True, timeout=600), folder


@pytest.fixture
def document(ran: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    """A copy of that run's document."""
    return json.loads(ran[0].stdout)  # type: ignore[no-any-return]


# Plain Python ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_plain_rows_obey_the_law(preset: str) -> None:
    task = make_task(preset)
    draw = PLAIN[task.name](task.params)
    rows = [draw(random.Random(seed)) for seed in range(40)]
    for row in rows:
        verdict = task.validate_example(row)
        assert verdict, verdict.reason
    assert len({str(row) for row in rows}) == len(rows)
    assert draw(random.Random(7)) == rows[7]


@pytest.mark.parametrize("preset", PRESETS)
def test_plain_rows_are_as_long_as_the_package_s(preset: str) -> None:
    # Else a ratio of tokens a second would compare two kinds of rows. The mean of 1,500 has a deviation of 2%.
    task = make_task(preset)
    draw, rng = PLAIN[task.name](task.params), random.Random(1)
    mean = sum(units(draw(rng)) for _ in range(1500)) / 1500
    assert mean == pytest.approx(type(task).presets[preset].mean_length, rel=0.1)


def test_nothing_but_bench_imports_plain() -> None:
    for file in ROOT.glob("*/**/*.py"):
        place = file.relative_to(ROOT).parts
        if place[0] not in ("synthshards", "pipelines", "loaders", "train") or place[1] in ("bench", "bench.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not any({"bench", "plain"} & set(name.split(".")) for name in names), (file, node.lineno)


def test_a_build_does_not_load_bench(tmp_path: Path) -> None:
    code = """
import sys
from synthshards.cli import cli
cli.main(["build", "depo", "N=5", "--examples", "3", "--out", sys.argv[1]], standalone_mode=False)
print([name for name in sys.modules if "bench" in name])
"""
    assert python("-c", code, str(tmp_path / "out")).stdout.splitlines()[-1] == "[]"


# The document ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_json_holds_every_section_and_nothing_is_left_behind(
    ran: tuple[subprocess.CompletedProcess[str], Path], document: dict[str, Any]
) -> None:
    pytest.importorskip("torch")  # for the section on loaders
    ended, folder = ran
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(folder.iterdir()) == []
    assert document["schema_version"] == 1
    assert document["quick"] is True
    machine = document["machine"]
    assert machine["cores"] >= 1
    assert {"cpu", "memory_bytes", "system", "python", "numpy", "numba", "pyarrow", "load"} <= machine.keys()
    assert [e["preset"] for e in document["plain"]] == list(command.PRESETS)
    assert [e["preset"] for e in document["generation"]] == list(command.PRESETS)
    assert [e["preset"] for e in document["digests"]] == list(command.PRESETS)
    every = [(name, compression) for name, format in FORMATS.items() for compression in format.compressions]
    found = [(e["preset"], e["format"], e["compression"]) for e in document["formats"]]
    assert found == [(preset, *case) for preset in command.PRESETS for case in every]
    for preset in command.PRESETS:  # read back, every format has the same rows
        assert len({e["content"] for e in document["formats"] if e["preset"] == preset}) == 1
    for section in ("builds", "verifications"):
        assert {(e["format"], e["workers"]) for e in document[section]} == {(f, machine["cores"]) for f in FORMATS}
        first = command.PRESETS[0]
        assert {(e["preset"], e["rows"]) for e in document[section]} == {
            (first, 16_384), (first, 4_096), ("capo-50k", 81_920)
        }  # fmt: skip
    assert [e["command"] for e in document["start_up"]] == ["--help", "build of one row"]
    assert [e["shards"] for e in document["resume"]] == [100]
    assert {(e["preset"], e["rows"]) for e in document["loaders"]} == {(command.PRESETS[0], 4096)}


@pytest.mark.slow
def test_speeds_and_ratios_are_the_quotients_they_claim_to_be(document: dict[str, Any]) -> None:
    plain = {}
    for e in document["plain"]:
        assert len(e["measured"]) == 3
        plain[e["preset"]] = e["per_second"]
        assert e["per_second"] == max(e["measured"]) > 0
    for e in [*document["builds"], *document["verifications"]]:
        assert e["per_second"] == e["units"] / e["seconds"]
        assert e["ratio"] == e["per_second"] / plain[e["preset"]]
        assert 0 < e["seconds"] <= e["median_seconds"]
        assert e["units"] == pytest.approx((338.9 if e["unit"] == "characters" else 283.8) * e["rows"], rel=0.1)
        assert e["peak_bytes"] > 50e6
        assert e["cpu_seconds"] > 0.05
    for e in document["generation"]:
        assert e["ratio"] == e["per_second"] / plain[e["preset"]]
        assert e["rows_per_second"] * e["mean_length"] == pytest.approx(e["per_second"])
        assert e["ns_per_row"] * e["rows_per_second"] == pytest.approx(1e9)
        assert e["median_per_second"] <= e["per_second"]
    for e in document["formats"]:
        assert e["write_ratio"] == e["write_per_second"] / plain[e["preset"]]
        assert e["read_ratio"] == e["read_per_second"] / plain[e["preset"]]
        assert e["bytes_per_unit"] == e["bytes"] / e["units"]
        assert e["write_rows_per_second"] * e["units"] == pytest.approx(e["write_per_second"] * e["rows"])
    for e in document["digests"]:
        assert e["content_ratio"] == e["content_per_second"] / plain[e["preset"]]


def test_speeds_leave_out_the_first_run_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    now, runs = 0.0, 0

    def work() -> int:
        nonlocal now, runs
        runs += 1
        now += {1: 100.0, 2: 4.0, 3: 2.0}.get(runs, 5.0)
        return 20

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert timing.speeds(work, 0.0) == [5.0, 10.0, 4.0]  # three repeats at least
    runs = 0
    assert len(timing.speeds(work, 12.0)) == 4
    assert timing.summary([5.0, 10.0, 4.0]) == {"per_second": 10.0, "median_per_second": 5.0, "repeats": 3}


def test_a_format_that_reads_other_rows_than_it_wrote_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = memory.MeasuredPreset.of("depo1-225")
    made = memory.batches_of(subject, 1500)
    assert list(map(len, made)) == [1024, 476]
    read = FORMATS["arrow"].reader.read
    monkeypatch.setattr(FORMATS["arrow"].reader, "read", lambda self, a, b: read(self, 0, b - a))
    with pytest.raises(DataError, match="rows read are not those written"):
        memory.format_speeds(subject, "arrow", "none", made, 0.0)


# Tables ----------------------------------------------------------------------------------------------------------

PAGE = """# Speed

<!-- bench:machine -->
<!-- /bench -->
Prose stays.
<!-- bench:generation -->
old
<!-- /bench -->
End.
"""


@pytest.mark.slow
def test_tables_go_between_the_markers_and_nowhere_else(document: dict[str, Any], tmp_path: Path, cli: Any) -> None:
    pytest.importorskip("torch")  # for the section on loaders
    page, stored = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text(PAGE)
    stored.write_text(json.dumps(document))
    ended = cli("bench", "--from", stored, "--markdown", page)
    assert (ended.code, ended.err) == (0, "")
    once = page.read_text()
    lines = once.splitlines()
    assert lines[:3] == PAGE.splitlines()[:3]
    assert lines[3].startswith(document["machine"]["cpu"])
    assert lines[4:7] == ["<!-- /bench -->", "Prose stays.", "<!-- bench:generation -->"]
    assert [line.split(" | ")[0] for line in lines[7:-2]] == ["| preset", "| ---", *(f"| {p}" for p in command.PRESETS)]
    assert lines[-2:] == ["<!-- /bench -->", "End."]
    ratio = document["generation"][0]["ratio"]
    assert lines[9].endswith(f" {ratio:,.0f} × |") or lines[9].endswith(f" {ratio:.1f} × |")
    cli("bench", "--from", stored, "--markdown", page)
    assert page.read_text() == once
    for name in tables.TABLES:
        assert (len(report.markdown(document, name).splitlines()) > 2) == (name not in ("peers", "train")), name
    assert json.loads(cli("bench", "--from", stored, "--json").out) == document
    for title in ("Generation, one core", "Builds, whole processes", "Resuming a build"):
        assert title in ended.out


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_the_markers_in_our_own_pages_are_known(page: Path) -> None:
    if "<!-- bench" in page.read_text() or page.name == "performance.md":
        report.check_markers(page)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.5, "1.50"), (12.34, "12.3"), (999, "999"), (1234, "1.23 k"), (62_400_000, "62.4 M"), (1.26e9, "1.26 G")],
)
def test_rates_have_three_digits(value: float, shown: str) -> None:
    assert figures.rate(value) == shown


# Wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["depo1-226"], "no task or preset 'depo1-226'; did you mean 'depo1-225'?"),
        (["--formats", "parquet,arow"], "unknown format 'arow'"),
        (["--formats", "arrow:snappy"], "format arrow has no compression 'snappy'"),
        (["--workers", "1,0"], "--workers '1,0'; legal: numbers 1..4096, with commas between"),
        (["--workers", "two"], "--workers 'two'; legal"),
        (["--only", "build"], "--only 'build'; did you mean 'builds'?; legal: start-up, builds"),
        (["--rows", "0"], "Invalid value for '--rows'"),
        (["--from", "none.json"], "--from none.json: no such file"),
        (["--markdown", "none.md"], "--markdown none.md: no such file"),
        (["--markdown", "plain.md"], "plain.md: no <!-- bench:NAME --> … <!-- /bench --> in it"),
        (["--markdown", "wrong.md"], "wrong.md: unknown marker bench:builts; legal: machine, plain"),
    ],
)
def test_wrong_usage_is_one_line_and_measures_nothing(
    args: list[str], says: str, tmp_path: Path, cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command.BenchRun, "measure", lambda self: pytest.fail("measured"))
    Path("plain.md").write_text("nothing here\n")
    Path("wrong.md").write_text("<!-- bench:builts -->\n<!-- /bench -->\n")
    ended = cli("bench", *args)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ")
    assert says in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "plain": 3}'])
def test_a_stored_document_that_is_none_is_one_line(text: str, tmp_path: Path, cli: Callable[..., Ended]) -> None:
    path = tmp_path / "bench.json"
    path.write_text(text)
    assert cli("bench", "--from", path) == Ended(1, "", f"error: {path}: not a document of bench --json\n")


def test_names_and_options_choose_what_is_measured(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen: list[command.BenchSettings] = []

    def stop(self: command.BenchRun) -> dict[str, Any]:
        chosen.append(self.settings)
        raise SynthshardsError("enough")

    monkeypatch.setattr(command.BenchRun, "measure", stop)
    assert cli("bench").code == 1
    assert (chosen[0].presets, chosen[0].built, chosen[0].rows) == (command.PRESETS, ("depo1-225", "capo-50k"), 1 << 20)
    assert chosen[0].workers == tuple(sorted({1, cores()}))
    cli("bench", "depo", "depo2-75", "depo1-225", "--formats", "arrow:lz4,parquet", "--workers", "3,1,3", "--quick")
    assert chosen[1].presets == chosen[1].built == ("depo1-225", "depo2-75")
    assert chosen[1].formats == (("arrow", "lz4"), ("parquet", "zstd"))
    assert (chosen[1].workers, chosen[1].rows) == ((1, 3), 1 << 14)
    cli("bench", "--rows", "5", "--quick", "--only", "generation,formats")
    assert (chosen[2].rows, chosen[2].sections) == (5, ("generation", "formats"))


# What is left behind ---------------------------------------------------------------------------------------------


def test_a_process_that_fails_gives_its_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subject = memory.MeasuredPreset.of("depo1-225")
    with pytest.raises(SynthshardsError, match=r"^synthshards build .*: unknown format 'parket'.*$") as error:
        process.build(subject, 100, "parket", "zstd", 1, 1)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_ours_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = dict.fromkeys((signal.SIGINT, signal.SIGTERM), signal.default_int_handler)
    outside = {number: signal.signal(number, handler) for number, handler in before.items()}

    def fail() -> None:
        with process.scratch_folder() as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "file").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert {number: signal.getsignal(number) for number in before} == before
    for number, handler in outside.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_build_leaves_no_folder_and_no_process(
    number: signal.Signals, tmp_path: Path
) -> None:
    pipe = subprocess.PIPE
    bench = subprocess.Popen(
        [*BENCH, "--json", "--only", "builds", "--rows", "20000000"],
        cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("synthshards-bench-*/built/*.parquet")):
        assert bench.poll() is None, bench.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    bench.send_signal(number)  # to it alone: it has to stop its child itself
    assert (*bench.communicate(timeout=60), bench.returncode) == ("", "stopped\n", 130)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):  # nothing of its session is left
        os.killpg(bench.pid, 0)
