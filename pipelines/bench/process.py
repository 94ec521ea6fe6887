"""What is timed as whole processes, including start-up, as a user experiences it: builds, verifications, resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import Any

from synthshards.dataset.manifest import NAME
from synthshards.errors import SynthshardsError
from synthshards.storage.folder import SCRATCH

from .memory import MeasuredPreset

#: A process is run again until there are three runs, or until this many seconds are gone.
_ENOUGH_RUNS, _ENOUGH_SECONDS = 3, 6.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder under the current one, gone when the block ends, however it ends: also by Ctrl-C or SIGTERM.

    Not `interruptible`: that gives an end 0.7 seconds, and gigabytes take longer to delete.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        folder = Path(mkdtemp(prefix="synthshards-bench-", dir="."))
        try:
            yield folder
        finally:
            for number in before:  # a second Ctrl-C waits until all is deleted
                signal.signal(number, signal.SIG_IGN)
            shutil.rmtree(folder)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Cost:
    """What one process took: wall time, processor time of all its threads, and its peak memory where it is known."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


def run(*args: str | Path) -> Cost:
    """Run `python -m synthshards` on `args`; when interrupted, stop it and wait for its end.

    Raises:
        SynthshardsError: it failed; with the last line it wrote.
    """
    command = [sys.executable, "-P", "-m", "synthshards", *map(str, args)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    with child.stderr, _watched(child.pid) as peaks:
        try:
            said = child.stderr.read()  # to its end, so that the child never waits for us
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        line = (said.decode(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        raise SynthshardsError(f"synthshards {' '.join(map(str, args))}: {line.removeprefix('error: ')}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, max(peaks, default=None))


@contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """Peak memory of a process so far, read fifty times a second (empty where the system does not tell).

    Not `ru_maxrss`: a child's begins at what its parent held.
    """
    peaks: list[int] = []
    status, done = Path(f"/proc/{pid}/status"), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            with suppress(OSError):
                lines = status.read_text().splitlines()
                peaks.extend(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        done.set()
        thread.join()


def repeated(once: Callable[[], Cost], runs: int) -> dict[str, Any]:
    """The best of up to `runs` runs, with their median wall time."""
    costs: list[Cost] = []
    while len(costs) < runs and sum(cost.seconds for cost in costs) < _ENOUGH_SECONDS:
        costs.append(once())
    best = min(costs, key=lambda cost: cost.seconds)
    return {
        "seconds": best.seconds,
        "median_seconds": statistics.median(cost.seconds for cost in costs),
        "cpu_seconds": best.cpu_seconds,
        "peak_bytes": max((cost.peak_bytes for cost in costs if cost.peak_bytes is not None), default=None),
        "runs": len(costs),
    }


def start_up(runs: int) -> list[dict[str, Any]]:
    """What a command costs before it does anything: `--help`, and a build of a single row."""
    with scratch_folder() as folder:

        def one_row() -> Cost:
            shutil.rmtree(folder / "row", ignore_errors=True)
            return run("build", "depo", "--examples", "1", "--out", folder / "row")

        one_row()  # compiles, where the kernel cache is empty
        return [
            {"command": "--help", **repeated(lambda: run("--help"), runs)},
            {"command": "build of one row", **repeated(one_row, runs)},
        ]


def build(
    subject: MeasuredPreset, rows: int, name: str, compression: str, workers: int, runs: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cost of a build, and of its verification: whole processes, from start to a manifest that is safe on disk."""
    with scratch_folder() as folder:
        out = folder / "built"

        def once(examples: int = rows) -> Cost:
            shutil.rmtree(out, ignore_errors=True)
            return run(
                "build", subject.preset, "--examples", str(examples), "--format", name, "--compression", compression,
                "--workers", str(workers), "--out", out,
            )  # fmt: skip

        once(1)  # compiles, where the kernel cache is empty
        run("verify", out)
        built = repeated(once, runs)
        totals = json.loads((out / NAME).read_bytes())["totals"]
        verified = repeated(lambda: run("verify", out, "--workers", str(workers)), runs)
    case = {
        "preset": subject.preset,
        "unit": subject.unit,
        "format": name,
        "compression": compression,
        "workers": workers,
        "rows": rows,
        "units": totals[subject.unit],
        "bytes": totals["bytes"],
    }
    return (
        {**case, **built, "per_second": case["units"] / built["seconds"]},
        {**case, **verified, "per_second": case["units"] / verified["seconds"]},
    )


def resume(shards: int) -> dict[str, Any]:
    """Cost of a build that finds all shards but one standing, and of one that finds all: planning, mostly.

    A real build makes the first shard, and its record and file are copied for the others under their own names and
    seed ranges; the last is left to make.
    """
    with scratch_folder() as folder:
        out = folder / "many"
        command = ("build", "depo", "--examples", str(shards), "--shard-examples", "1", "--out", out)
        run(*command, "--only-shards", "0")
        (log,) = (out / SCRATCH).glob("records-*")
        record = json.loads(log.read_bytes())
        first = record["shard"]
        with log.open("w") as lines:
            for i in range(shards - 1):
                path = first["path"].replace("00000", f"{i:05d}")
                if i:
                    with (out / path).open("wb") as file:
                        file.truncate(first["bytes"])
                record["shard"] = {**first, "path": path, "start": i, "stop": i + 1}
                lines.write(json.dumps(record) + "\n")
        resumed = run(*command)
        manifest = json.loads((out / NAME).read_bytes())
        kept = sum(entry["content"] == first["content"] for entry in manifest["shards"])
        if kept != shards - 1:
            raise SynthshardsError(f"resume of {shards} shards kept {kept}; expected {shards - 1}")
        again = run(*command)
    return {
        "shards": shards,
        "resume_seconds": resumed.seconds,
        "resume_cpu_seconds": resumed.cpu_seconds,
        "complete_seconds": again.seconds,
        "complete_cpu_seconds": again.cpu_seconds,
        "peak_bytes": resumed.peak_bytes,
    }
