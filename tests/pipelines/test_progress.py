"""What a build shows while it works: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from folders import SMALL

RATES = r"[\d.]+( [kMG])? rows/s, [\d.]+( [kMG])? tokens/s"
LEFT = r"(\d+:\d\d(:\d\d)?|\?) left"

#: The command line, slow enough to be looked at.
SLOW = """
import sys, time
from synthshards import cli
from synthshards.pipelines.execution import progress
from synthshards.storage.local import LocalFolder
real = LocalFolder.write
LocalFolder.write = lambda *args: (time.sleep(0.15), real(*args))
progress._EVERY = float(sys.argv.pop(1))
cli.main()
"""


def on_terminal(columns: int, *args: str) -> tuple[int, str]:
    """Run the command line on a terminal of that width; its exit code and all that it wrote there."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen([sys.executable, "-c", SLOW, "10", *args], stdout=writer, stderr=writer) as process:
        os.close(writer)
        written = b""
        try:
            while data := os.read(reader, 4096):
                written += data
        except OSError:  # Linux: the other side is closed
            pass
        os.close(reader)
    return process.returncode, written.decode()


@pytest.mark.parametrize(("columns", "bar"), [(120, 32), (80, 15)])
def test_a_terminal_shows_a_bar_with_rates_and_time_left(columns: int, bar: int, tmp_path: Path) -> None:
    code, written = on_terminal(columns, "build", *SMALL, "--shards", "8", "--workers", "1", "--out", str(tmp_path))
    assert code == 0
    drawn, _, report = written.partition("\n")
    lines = [line for line in drawn.replace("\r\n", "\r").split("\r") if line and not line.startswith("compiling")]
    assert len(lines) > 4
    for line in lines:
        assert len(line) == columns - 1  # covers the line before, and never wraps
        found = re.fullmatch(rf"building \[(#*)(-*)\] +(\d+)%  {RATES}, {LEFT} *", line)
        assert found, line
        done, rest, percent = len(found[1]), len(found[2]), int(found[3])
        assert done + rest >= bar
        assert abs(done - (done + rest) * percent / 100) <= 1
    shares = [int(re.findall(r"(\d+)%", line)[0]) for line in lines]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    assert len(set(shares)) >= 5
    assert "8 shards made; 512 rows" in report


def test_a_narrow_terminal_is_not_wrapped(tmp_path: Path) -> None:
    code, written = on_terminal(30, "build", *SMALL, "--shards", "3", "--out", str(tmp_path))
    assert code == 0
    drawn = written.partition("\n")[0].replace("\r\n", "\r").split("\r")
    assert all(len(line) <= 29 for line in drawn if line.startswith("building"))


def test_a_log_gets_plain_lines_now_and_then(tmp_path: Path) -> None:
    args = [
        sys.executable,
        "-c",
        SLOW,
        "0.3",
        "build",
        *SMALL,
        "--shards",
        "8",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    ended = subprocess.run(args, capture_output=True, text=True, check=True)
    lines = ended.stderr.splitlines()
    assert 2 <= len(lines) <= 8
    for line in lines:
        assert re.fullmatch(rf"building: \d+%, {RATES}, {LEFT}", line), line
    assert "\r" not in ended.stderr + ended.stdout
    assert "\x1b" not in ended.stderr + ended.stdout


def test_without_a_stderr_there_is_nothing_to_show(tmp_path: Path) -> None:
    line = f"{sys.executable} -m synthshards build {' '.join(SMALL)} --shards 3 --out {tmp_path} 2>&-"
    assert subprocess.run(line, shell=True, check=True, capture_output=True).stdout


def test_a_short_build_writes_nothing_on_stderr_and_its_rates_on_stdout(tmp_path: Path) -> None:
    args = [sys.executable, "-m", "synthshards", "build", *SMALL, "--shards", "3", "--out", str(tmp_path)]
    ended = subprocess.run(args, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    assert re.fullmatch(
        rf"{tmp_path}: 3 shards made; 192 rows, [\d.]+ k tokens in \d+\.\d s \({RATES}\)\n"
        r"fingerprint sha256:[0-9a-f]{64}\n",
        ended.stdout,
    ), ended.stdout


@pytest.mark.parametrize(("shards", "said"), [("1", ": 1 shard made; 64 rows"), ("2", ": 2 shards made; 128 rows")])
def test_one_shard_is_no_shards(shards: str, said: str, tmp_path: Path) -> None:
    args = [sys.executable, "-m", "synthshards", "build", *SMALL, "--shards", shards, "--out", str(tmp_path)]
    assert said in subprocess.run(args, capture_output=True, text=True, check=True).stdout
