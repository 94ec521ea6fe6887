"""The command line: exit codes, errors of one line, help that comes at once, commands that load what they need."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import IO

import click
import pytest
from helpers import python
from small_datasets import SMALL, make, run

from synthshards import cli
from synthshards.errors import DataError, ManifestError, StorageError, UsageError, VersionError

COMMANDS = list(cli.COMMANDS)


def test_help_is_quick_and_loads_click_alone() -> None:
    code = """
import sys
from synthshards.cli import main
sys.argv = ["synthshards", "--help"]
try:
    main()
finally:
    print(*sys.modules)
"""
    modules = set(python("-c", code).stdout.splitlines()[-1].split())
    assert "click" in modules
    ours = {name for name in modules if name.startswith("synthshards")}
    assert ours <= {"synthshards", "synthshards.cli", "synthshards.errors"}
    installed = {path.name.partition(".")[0] for path in Path(click.__file__).parents[1].iterdir()}
    others = {name.partition(".")[0] for name in modules} & installed - {"click", "synthshards", "__pycache__"}
    assert not {name for name in others if not name.startswith(("_", "distutils"))}


def test_help_lists_every_command() -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in outcome.out
    assert "Example:\n" in outcome.out
    assert run().out == outcome.out, "no arguments at all: help"
    assert run().code == 0
    assert run("-h").out == outcome.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    module = cli.COMMANDS[name][0]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not there yet")
    outcome = run(name, "--help")
    assert outcome.code == 0, outcome
    assert f"Usage: synthshards {name} " in outcome.out
    assert f"\n    synthshards {name} " in outcome.out, "an example that can be copied"


def test_version() -> None:
    outcome = run("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("synthshards, version 0.")


def test_as_a_module() -> None:
    done = python("-m", "synthshards", "tasks", "--json")
    assert {"name": "depo1-225"}.items() <= json.loads(done.stdout)[0].items()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["biuld"], "no command 'biuld'; did you mean 'build'?; legal: tasks, build, seal, info, verify,"),
        (["--nonsense"], "--nonsense"),
        (["tasks", "dep0"], "no task or preset 'dep0'; did you mean 'depo'?; legal: depo,"),
        (["tasks", "--nonsense"], "(see synthshards tasks --help)"),
        (["info"], "Missing argument 'OUT' (see synthshards info --help)"),
        (["info", "absent"], "absent: nothing there; legal: a dataset (make one with: synthshards build"),
        (["info", "depo"], "'depo' is a task, not a dataset; write ./depo for a folder of that name"),
        (["info", "./depo"], "./depo: nothing there"),
        (["inspect", "depoo"], "did you mean 'depo'?"),
        (["inspect", "depo", "N"], "depo: 'N' is not KEY=VALUE"),
        (["inspect", "depo", "N=2"], "depo: N='2' is not legal (expected int >= 3); legal: int 3..65535"),
        (["inspect", "depo", "NN=2"], "depo: no parameter 'NN'; did you mean 'N'?; legal: N, K, M,"),
        (["inspect", "depo", "N=5", "N=6"], "depo: N is given twice"),
        (["inspect", "N=5"], "'N=5': first a task or a dataset, then KEY=VALUE"),
        (["inspect", "depo", "--seed", "-1"], "seed=-1 is not legal; legal: an integer 0..2^64-1"),
        (["inspect", "depo", "--seed", "x"], "Invalid value for '--seed': 'x' is not a valid integer"),
        (["inspect", "depo", "--split", "../x"], "split='../x' is not legal; legal: lower-case letters, digits and _"),
        (["build", "depo", "--shards", "1", "--format", "parket"], "'parket'"),
        (["build", "depo", "--shards", "1", "--executor", "slurm"], "--executor 'slurm'; legal: local"),
    ],
)  # fmt: skip
def test_wrong_usage_is_2(args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*args)
    assert outcome.code == 2
    assert words in outcome.line
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_task_name_is_the_task_and_a_path_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("depo", params={**SMALL, "K": 2})
    assert run("inspect", "depo", "--show", "0").out.startswith("depo: seed 0, split train, made now")
    assert run("inspect", "./depo", "--show", "0").out.startswith("./depo: depo, seed 0, split train, read from")
    for command in ("info", "verify"):
        assert run(command, "depo").code == 2
        assert run(command, "./depo").code == 0
        assert run(command, f"file://{tmp_path}/depo").code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("what is wrong"), 2),
        (DataError("what is wrong"), 1),
        (ManifestError("what is wrong"), 1),
        (VersionError("what is wrong"), 1),
        (StorageError("what is wrong"), 1),
        (PermissionError(13, "what is wrong", "/some/file"), 1),
        (OSError(28, "what is wrong"), 1),
        (OSError("what\nis   wrong"), 1),
        (MemoryError("what is wrong"), 1),
        (KeyError("what is wrong"), 1),
        (AssertionError("what is wrong"), 1),
        (DataError("\x1b[31mwhat is wrong\n\x07"), 1),
    ],
)
def test_errors_are_one_line_without_traceback(error: Exception, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "invoke", fail)
    outcome = run("tasks")
    assert outcome.code == code
    assert outcome.line.isprintable()
    assert ("out of memory" if isinstance(error, MemoryError) else "what is wrong") in outcome.line
    if getattr(error, "filename", None):
        assert outcome.line == "error: /some/file: what is wrong"
    shown = run("tasks", "--debug")
    assert shown.code == code
    assert shown.err.startswith("Traceback (most recent call last):\n")
    assert shown.err.splitlines()[-1] == outcome.line


def test_a_fault_of_ours_asks_to_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.cli, "invoke", lambda ctx: [][0])
    assert "IndexError: list index out of range (a fault of synthshards: please report it" in run("tasks").line


def test_debug_shows_a_traceback() -> None:
    for args in (["--debug", "info", "absent"], ["info", "absent", "--debug"]):
        outcome = run(*args)
        assert outcome.code == 2
        assert "Traceback (most recent call last)" in outcome.err
        assert outcome.err.splitlines()[-1].startswith("error: absent: nothing there")


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "needs_extra.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "train", ("needs_extra", "train", "Train a model.", "train"))
    outcome = run("train")
    assert outcome.code == 2
    assert (
        outcome.line
        == "error: train needs package_that_is_not_there; install it with: pip install 'synthshards[train]'"
    )
    assert run("--help").code == 0


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("torch.nn", "info needs torch; install it with: pip install 'synthshards[train]'"),
        ("hydra", "info needs hydra; install it with: pip install 'synthshards[train]'"),
        ("wandb", "info needs wandb; install it with: pip install 'synthshards[logging]'"),
    ],
)
def test_a_module_that_is_missed_while_a_command_runs_is_one_line(
    module: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = f"import click\n@click.command\ndef info():\n    raise ModuleNotFoundError('no', name={module!r})\n"
    (tmp_path / f"needs_{line[11:15]}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "info", (f"needs_{line[11:15]}", "info", "Show.", None))
    outcome = run("info")
    assert (outcome.code, outcome.line) == (2, f"error: {line}")


def test_no_permission(tmp_path: Path) -> None:
    out = Path(make(tmp_path / "out"))
    (out / "_manifest").chmod(0)
    if os.access(out / "_manifest", os.R_OK):
        pytest.skip("this user may read everything")
    outcome = run("info", out)
    assert outcome.code == 1
    assert "Permission denied" in outcome.line


def synthshards(*args: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "synthshards", *args]
    return subprocess.Popen(command, text=True, stdout=stdout, stderr=subprocess.PIPE)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """They work, and are escaped where they are shown."""
    out = make(tmp_path / os.fsdecode(b"a\xff"))
    page, stray = tmp_path / os.fsdecode(b"p\xff.html"), Path(out, os.fsdecode(b"s\xff"))
    stray.write_bytes(b"")
    commands = [
        ["info", out],
        ["verify", out],
        ["verify", out, "--json"],
        ["inspect", out, "--show", "1", "--no-color"],
        ["inspect", out, "--show", "1", "--html", str(page)],
        ["info", os.fsdecode(b"absent\xff")],
    ]
    code = """
        import json, sys
        from synthshards.cli import main
        for argv in json.loads(sys.argv[1]):
            sys.argv = ["synthshards", *argv]
            try:
                main()
            except SystemExit as end:
                print("code", end.code, flush=True)
    """
    done = python("-c", dedent(code), json.dumps(commands), PYTHONIOENCODING="utf-8:strict")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("code")] == ["code 0"] * 5 + ["code 2"], done.stderr
    shown = [f"{tmp_path}/a\\udcff", "note: s\\udcff is no part of the dataset", f"wrote {tmp_path}/p\\udcff.html"]
    assert set(shown) < set(lines)
    assert done.stderr == (
        "error: absent\\udcff: nothing there; legal: a dataset (make one with: synthshards build TASK --shards N) or a "
        "manifest\n"
    )
    assert f"{tmp_path}/a\\udcff" in page.read_text()


def test_files_that_a_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "~" is a home, no folder of that name; and what cannot be written is named."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    assert run("tasks", "depo", "--tokenizer", "~/x.json").code == 0
    assert run("inspect", "depo", "--show", "1", "--html", "~/x.html").code == 0
    make("~/set")
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["set", "x.html", "x.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    for command in (["tasks", "depo", "--tokenizer"], ["inspect", "depo", "--html"]):
        assert run(*command, "~no-such-user-at-all/x").line.startswith(
            "error: cannot expand '~no-such-user-at-all/x': "
        )
    if Path("/dev/full").exists():
        assert (
            run("inspect", "depo", "--html", "/dev/full").line
            == "error: cannot write /dev/full: No space left on device"
        )


def test_ctrl_c_is_130() -> None:
    process = synthshards("inspect", "depo", "--show", "1000000")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "stopped"


SLOWLY = """
import importlib, os, sys, time
from synthshards.cli import main
module, name = importlib.import_module(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
quick = getattr(module, name)
def slow(*args):
    os.write(2, b"at work\\n")
    time.sleep(0.2)
    return quick(*args)
setattr(module, name, slow)
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["verify", "overlap", "reproduce"])
def test_a_long_proof_stops_at_once(command: str, number: signal.Signals, tmp_path: Path) -> None:
    """Of 60 shards that take 0.2 s each."""
    out = make(tmp_path / "out", shards=60, shard_examples=2)
    module, name = ("pipelines.shard", "make_shard") if command == "reproduce" else ("dataset.stored", "checked_bytes")
    rest = {"verify": [], "overlap": [out], "reproduce": ["--out", tmp_path / "again"]}[command]
    words = [SLOWLY, f"synthshards.{module}", name, command, out, *rest]
    process = subprocess.Popen(
        [sys.executable, "-c", *map(str, words)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "at work\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.count("at work") < 20
    stopped = "stopped; the same command goes on" if command == "reproduce" else "stopped"
    assert [line for line in err.splitlines() if line != "at work"] == [stopped]


def test_the_reader_of_a_pipe_may_leave() -> None:
    process = synthshards("inspect", "depo", "--show", "100000")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        process = synthshards("tasks", stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "error: No space left on device\n"


def test_tasks() -> None:
    outcome = run("tasks")
    assert outcome.code == 0
    for name in ("depo1-225", "depo1-300", "depo1-375", "depo2-75", "depo2-100", "depo2-125"):
        assert f"\n{name} " in outcome.out
    assert "depo = depo1-225" in outcome.out
    entries = json.loads(run("tasks", "--json").out)
    assert {"name", "task", "about", "mean_length"} <= set(entries[0])
    one = run("tasks", "depo2-75")
    assert one.out.startswith("depo2-75: task depo, version 1. ")
    rows = {line.split()[0]: line.split()[1] for line in one.out.splitlines()[2:]}
    assert (rows["N"], rows["K"], rows["qa"], rows["fixed_k"]) == ("75", "16", "false", "null")
    document = json.loads(run("tasks", "depo2-75", "--json").out)
    assert document["task"] == "depo"
    assert {"name": "K", "default": 16, "legal": "int 1..65535"}.items() <= document["parameters"][1].items()


def test_tasks_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens a second of token tasks, bytes a second of texts."""
    monkeypatch.setattr("synthshards.commands.preset_names", lambda: ["depo1-225", "capo-50k"])
    depo, capo = json.loads(run("tasks", "--measure", "--json").out)
    assert (depo["unit"], capo["unit"]) == ("tokens", "bytes")
    assert depo["tokens_per_second"] > 1e6
    assert capo["bytes_per_second"] > 1e6
    assert re.search(r"\n\d+ M tokens/s on one core\n$", run("tasks", "depo", "--measure").out)
    lines = run("tasks", "--measure").out.splitlines()
    assert re.match(r"preset +mean row +one core +what it is$", lines[0])
    assert re.match(r"capo-50k +\d+\.\d bytes +\d+ M bytes/s +bioS: ", lines[2])


def test_info(tmp_path: Path) -> None:
    out = make(tmp_path / "out", shards=8, shard_examples=20, seed=2**64 - 1)
    text = run("info", out).out
    for words in (
        "task         depo version 1\n",
        "stream       seed 18446744073709551615, split train\n",
        "parameters   N=9 K=3 M=10 ",
        "layout       8 parquet shards of 20 rows, compression zstd\n",
        "columns      input_ids list<uint16>, loss_mask list<bool>, n uint16, queries uint16, ks list<uint16>\n",
        "totals       160 examples, ",
        "    train-00000.parquet  0..19  ",
        "    train-00007.parquet  140..159  ",
        "    …\n",
    ):
        assert words in text
    assert "train-00004" not in text
    document = json.loads(run("info", out, "--json").out)
    assert document == json.loads((Path(out) / "_manifest").read_text())
    assert [(entry["start"], entry["stop"]) for entry in document["shards"]][-1] == (140, 160)
    assert run("info", Path(out) / "_manifest").code == 0
