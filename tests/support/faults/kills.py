"""kill -9, Ctrl-C and SIGTERM of `synthshards build`, at moments by chance, on a disk and in an object store."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Protocol

from folders import files
from helpers import SUPPORT, python

from . import store
from .building import Command
from .fault import Fault

FORMATS = ("parquet", "webdataset", "arrow")
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130, signal.SIGTERM: 143}


class Ground(Protocol):
    """Where builds are struck; `said` is the file of what they say."""

    shards: int
    said: Path

    def out(self, name: str) -> str: ...

    def names(self, name: str) -> set[str]: ...

    def content(self, name: str) -> dict[str, bytes]: ...


class Disk:
    shards = 24

    def __init__(self, place: Path) -> None:
        self.place, self.said = place, place / "said"

    def out(self, name: str) -> str:
        return str(self.place / name)

    def names(self, name: str) -> set[str]:
        return {f"{folder}/{file}" for folder, _, found in os.walk(self.out(name)) for file in found}

    def content(self, name: str) -> dict[str, bytes]:
        return files(self.place / name)


class Store:
    shards = 12

    def __init__(self, place: Path) -> None:
        self.bucket, self.said = store.bucket(), place / "said"

    def out(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"

    def names(self, name: str) -> set[str]:
        time.sleep(0.02)
        return {key.partition("/")[2] for key in store.server().objects(self.bucket) if key.startswith(f"{name}/")}

    def content(self, name: str) -> dict[str, bytes]:
        return {key: store.server().get(self.bucket, f"{name}/{key}") for key in self.names(name)}


def start(ground: Ground, name: str, format: str, workers: int) -> Command:
    """A build that has written something."""
    words = f"build depo N=20 --shards {ground.shards} --shard-examples 512 --format {format} --workers {workers} --out"
    before = ground.names(name)
    command = Command([*words.split(), ground.out(name)], ground.said)
    while command.poll() is None and ground.names(name) == before:
        time.sleep(0.003)
    return command


def strike(ground: Ground, tries: int, chance: Random, signals: list[tuple[signal.Signals, int]]) -> Iterator[str]:
    """Strike builds `tries` times in all, each build one to four times before it may end."""
    whole: dict[str, dict[str, bytes]] = {}
    lasts = 60.0  # seconds from the first file to the end
    for format in FORMATS:
        command, began = start(ground, format, format, 2), time.monotonic()
        if command.wait():
            raise RuntimeError(command.said.read_text())
        lasts = min(lasts, time.monotonic() - began)
        whole[format] = ground.content(format)
    done = builds = 0
    while done < tries:
        builds += 1
        name, format = f"struck-{builds}", FORMATS[builds % len(FORMATS)]
        problems: list[str] = []
        for _ in range(min(chance.randint(1, 4), tries - done)):
            number, times = chance.choice(signals)
            command = start(ground, name, format, chance.randint(1, 4))
            time.sleep(chance.uniform(0, lasts))
            for _ in range(times):
                command.send(number)
                time.sleep(0.02 * (times - 1))
            code, err = command.wait(), command.said.read_text()
            if code in (0, -number) and ground.content(name) == whole[format]:
                lasts *= 0.9  # it was faster: all was done before the signal
                break
            problem, lines = "", 0 if number == signal.SIGKILL else 1
            if code != ENDS[number] or err.count("\n") != lines or command.is_left():
                problem = f"{number.name} × {times}: ended with {code}: {err!r}"
            for path, data in ground.content(name).items():
                if not path.startswith(".building") and data != whole[format].get(path):
                    problem = f"{number.name} × {times}: {path} is half made"
            problems.append(problem)
        command = start(ground, name, format, 2)
        code, found = command.wait(), ground.content(name)
        if code and problems:
            problems[-1] = f"the same command ended with {code}: {command.said.read_text()}"
        elif found != whole[format] and problems:
            problems[-1] = f"made {sorted(found.keys() ^ whole[format].keys())}, or other bytes"
        yield from problems
        done += len(problems)


def local_kills(tries: int, chance: Random, place: Path) -> Iterator[str]:
    return strike(Disk(place), tries, chance, [(signal.SIGKILL, 1)])


def s3_kills(tries: int, chance: Random, place: Path) -> Iterator[str]:
    return strike(Store(place), tries, chance, [(signal.SIGKILL, 1)])


def signals(tries: int, chance: Random, place: Path) -> Iterator[str]:
    kinds = [(number, times) for number in (signal.SIGINT, signal.SIGTERM) for times in (1, 2)]
    return strike(Disk(place), tries, chance, kinds)


def every_step(tries: int, chance: Random, place: Path) -> Iterator[str]:
    """A fixed number of tries: as many as there are steps."""
    return steps_of(python(str(SUPPORT / "kill_every.py"), str(place)).stdout)


def every_step_s3(tries: int, chance: Random, place: Path) -> Iterator[str]:
    """The same."""
    return steps_of(python(str(SUPPORT / "kill_every_s3.py"), store.bucket(), "build", "seal", "grow").stdout)


def steps_of(outcome: str) -> Iterator[str]:
    for steps, problems in json.loads(outcome).values():
        yield from [*problems, *[""] * (steps - len(problems))]


GOES_ON = "no file is half made; the same command gives the bytes of an uninterrupted build"
FAULTS = [
    Fault("`kill -9` of a build, on a disk", GOES_ON, 200, 3, local_kills),
    Fault("`kill -9` before each system call of seven kinds of builds", GOES_ON, 1, 0, every_step),
    Fault("`kill -9` of a build, on S3", GOES_ON, 30, 1, s3_kills),
    Fault("`kill -9` before and after each change of S3", GOES_ON, 1, 0, every_step_s3),
    Fault("Ctrl-C and SIGTERM, once or twice", f"one line, exit code 130 or 143; {GOES_ON}", 60, 2, signals),
]
