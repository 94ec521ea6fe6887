"""kill -9, Ctrl-C and SIGTERM at any moment: nothing half made, nothing left running, and the same command goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import files, names
from helpers import SUPPORT, Ended, python

#: What a build says that was told to stop.
STOPPED = "stopped; the same command goes on\n"
CLI = [sys.executable, "-m", "synthshards"]


def command(shards: int, out: Path, *more: str) -> list[str]:
    return ["build", "depo", "N=20", "--shards", str(shards), "--shard-examples", "2048", "--out", str(out), *more]


def start(*args: str, **options: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(args, stdout=pipe, stderr=pipe, text=True, start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def shards_in(out: Path) -> int:
    return len(list(out.glob("train-*")))


def end(process: subprocess.Popen[str], number: signal.Signals, times: int = 1) -> tuple[Ended, float]:
    """Send the signal, wait until the process has ended; how, and after how many seconds."""
    began = time.monotonic()
    for again in range(times):
        if again:
            time.sleep(0.3)  # a busy machine would see two signals as one
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):  # nothing of its session is left
        os.killpg(process.pid, 0)
    return Ended(process.returncode, out, err), time.monotonic() - began


@pytest.mark.slow
def test_killed_before_every_single_step_the_same_command_gives_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    outcome = json.loads(python(str(SUPPORT / "kill_every.py"), str(tmp_path)).stdout)
    assert {name: problems for name, (_, problems) in outcome.items() if problems} == {}
    assert min(steps for steps, _ in outcome.values()) > 15


@pytest.mark.slow
def test_the_command_line_killed_again_and_again_gives_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    shards = 40
    subprocess.run([*CLI, *command(shards, tmp_path / "whole")], check=True, capture_output=True)
    whole = files(tmp_path / "whole")
    rng = random.Random(0)
    for attempt in range(3):
        out = tmp_path / str(attempt)
        kills = 0
        for stood in sorted(rng.sample(range(shards), 3)):
            process = start(*CLI, *command(shards, out, "--workers", str(1 + attempt)))
            wait_for(lambda out=out, stood=stood: shards_in(out) > stood, process)  # type: ignore[misc]
            ended, _ = end(process, signal.SIGKILL)
            kills += ended.code == -signal.SIGKILL
            for name, data in files(out).items():
                assert name.startswith(".building") or data == whole[name]
        last = subprocess.run([*CLI, *command(shards, out)], check=True, capture_output=True, text=True)
        assert kills >= 1
        assert " kept" in last.stdout
        assert files(out) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_told_to_stop_says_one_line_and_is_continued(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "x"
    process = start(*CLI, *command(150, out))
    wait_for(lambda: shards_in(out) > 3, process)
    ended, seconds = end(process, number)
    assert (ended.code, ended.out, ended.err) == (128 + number, "", STOPPED)
    assert seconds < 5
    assert 3 < shards_in(out) < 150
    left = {name.partition("-")[0] for name in files(out) if not name.startswith("train-")}
    assert left == {".building", ".building/plan", ".building/records"}
    done = subprocess.run([*CLI, *command(150, out)], check=True, capture_output=True, text=True)
    assert int(done.stdout.split(" kept")[0].split()[-1]) >= 1
    assert set(files(out)) == names(150)


def test_large_shards_stop_as_fast(tmp_path: Path) -> None:
    out = tmp_path / "x"
    process = start(*CLI, *command(2, out, "--shard-examples", "5000000"))
    wait_for(lambda: (out / ".building").exists(), process)
    time.sleep(0.5)
    ended, seconds = end(process, signal.SIGINT)
    assert (ended.code, ended.err) == (130, STOPPED)
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.3, 1.5])
def test_a_compilation_stops_too(after: float, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "x"
    process = start(*CLI, *command(3, out), env={**os.environ, "SYNTHSHARDS_CACHE": str(cache)})
    wait_for(lambda: (out / ".building").exists(), process)
    time.sleep(after)
    assert shards_in(out) == 0
    ended, seconds = end(process, signal.SIGINT)
    assert (ended.code, ended.out, ended.err) == (130, "", STOPPED)
    assert seconds < 5
    subprocess.run([*CLI, *command(3, out)], check=True, capture_output=True)
    assert set(files(out)) == names(3)


#: The command line, with writes of shards that take a minute and cannot be interrupted.
STUCK = """
import sys, time
from synthshards import cli
from synthshards.pipelines.execution import signals
from synthshards.storage.local import LocalFolder
real = LocalFolder.write
def write(self, name, data):
    if name.startswith("train"):
        open(self.path / "stuck", "w").close()
        time.sleep(60)
    real(self, name, data)
LocalFolder.write = write
signals._GRACE = float(sys.argv.pop(1))
cli.main()
"""


@pytest.mark.parametrize(("grace", "times"), [("0.5", 1), ("60", 2), ("60", 3)])
def test_what_cannot_be_interrupted_is_ended_after_a_moment_or_by_a_second_ctrl_c(
    grace: str, times: int, tmp_path: Path
) -> None:
    out = tmp_path / "x"
    process = start(sys.executable, "-c", STUCK, grace, *command(3, out))
    wait_for(lambda: (out / "stuck").exists(), process)
    ended, seconds = end(process, signal.SIGINT, times)
    assert (ended.code, ended.out, ended.err) == (130, "", STOPPED)
    assert seconds < 5
    (out / "stuck").unlink()
    subprocess.run([*CLI, *command(3, out)], check=True, capture_output=True)
    assert set(files(out)) == names(3)


def test_where_ctrl_c_is_ignored_a_build_goes_on(tmp_path: Path) -> None:
    """As under nohup, or in the background of a script."""
    out = tmp_path / "x"
    ignored = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); from synthshards.cli import main; main()"
    )
    process = start(sys.executable, "-c", ignored, *command(40, out))
    wait_for(lambda: shards_in(out) > 3, process)
    ended, _ = end(process, signal.SIGINT, 2)
    assert (ended.code, ended.err) == (0, "")
    assert set(files(out)) == names(40)
