"""Disks that are full, and folders and files that may not be read or written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from random import Random

from folders import SMALL, files, picture, small
from small_datasets import run

from synthshards import open_dataset
from synthshards.errors import StorageError
from synthshards.pipelines.build import build
from synthshards.storage.folder import SCRATCH

from .fault import Fault

NOBODY = 65534


@contextmanager
def disk_of(size: int, at: Path) -> Iterator[Callable[[], None]]:
    """A file system of `size` bytes at the new folder `at`; what is yielded makes it large.

    Who may not mount one gets a limit on the size of each file instead.
    """
    at.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    mounted = (
        sys.platform == "linux"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", at], capture_output=True
        ).returncode
    )
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, limits[1]))

    def large() -> None:
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", at], check=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    try:
        yield large
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if mounted:
            subprocess.run(["umount", "-l", at], check=True)


def full(tries: int, chance: Random, place: Path) -> Iterator[str]:
    """Builds, and builds that grow, on disks of 1 to 20 pages."""
    build(small(1), str(place / "begun"))
    build(small(4), str(place / "whole"))
    whole = files(place / "whole")
    for number in range(tries):
        at = place / str(number)
        with disk_of(4096 * chance.randint(1, 20), at) as large:
            out, said, problem = at / "out", "", ""
            try:
                if chance.random() < 0.5:
                    build(small(1), str(out))
                build(small(4), str(out), workers=chance.randint(1, 2))
            except StorageError as error:
                said = str(error)
            if said and not said.endswith((": No space left on device", ": File too large")):
                problem = said
            for name, data in files(out).items() if out.exists() else ():
                if name.endswith(".tmp"):
                    problem = f"{name} is left"
                if not name.startswith(SCRATCH) and name != "_manifest" and data != whole[name]:
                    problem = f"{name} is half made"
            large()
            build(small(4), str(out))
            yield problem or ("" if files(out) == whole else "the same command made other files")


def heals(tries: int, chance: Random, place: Path) -> Iterator[str]:
    """`heal="rewrite"` where the damaged shard does not fit any more."""
    out = place / "disk" / "out"
    with disk_of(64 << 20, place / "disk"):
        build(small(4), str(out))
        before, rows = files(out), rows_of(out)
        for _ in range(tries):
            name = f"train-0000{chance.randrange(4)}.parquet"
            (out / name).write_bytes(before[name][: chance.randrange(64)])
            left = files(out)
            with no_room(place / "disk", chance.randrange(4096)), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = rows_of(out, heal="rewrite")
            problem = "" if found == rows else "other rows"
            if not any(name in str(each.message) for each in caught):
                problem = f"no warning names {name}"
            if files(out) not in (left, before):
                problem = "something else was written"
            (out / name).write_bytes(before[name])
            yield problem


@contextmanager
def no_room(disk: Path, left: int) -> Iterator[None]:
    """Fill a disk with a file, up to `left` bytes."""
    stat = os.statvfs(disk)
    filler = disk / "filler"
    try:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bavail * stat.f_frsize - left))
        yield
    finally:
        filler.unlink()


def rows_of(out: Path | str, **options: str) -> list[list[int]]:
    """Every row of a dataset, as a loader gives it."""
    stream = open_dataset(str(out)).batches(64, **options)  # type: ignore[arg-type]
    return [row for batch in stream for row in (batch["input_ids"] * batch["attention_mask"]).tolist()]


#: What is closed → the modes.
CLOSED = {
    "the folder, for writing": {".": 0o555},
    "the folder, for all": {".": 0o000},
    "the manifest": {"_manifest": 0o000},
    "a shard": {"train-00001.parquet": 0o000},
    "the scratch folder, for writing": {SCRATCH: 0o555},
    "the scratch folder, for all": {SCRATCH: 0o000},
}
COMMANDS = (
    "build --shards 3", "build --shards 4", "build --shards 3 --overwrite", "seal", "info", "verify", "inspect",
    "overlap", "reproduce", "read", "read rewrite",
)  # fmt: skip


def closed(tries: int, chance: Random, place: Path) -> Iterator[str]:
    """Every command on what another user owns and has closed (a fixed number of tries)."""
    place.chmod(0o755)
    for what, words, finished in product(CLOSED, COMMANDS, (True, False)):
        if (SCRATCH in CLOSED[what]) == finished:
            continue
        out = place / f"{what} {words}"
        build(small(3), str(out), only_shards=None if finished else "0-2")
        for name, mode in CLOSED[what].items():
            (out / name).chmod(mode)
        before = picture(out)
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            problem = tried(words, str(out))
        finally:
            if root:
                os.seteuid(0)
        if root and picture(out) != before:
            problem = problem or "it changed something"
        for name in CLOSED[what]:
            (out / name).chmod(0o755)
        yield problem and f"{what}: {words}: {problem}"


def tried(words: str, out: str) -> str:
    """Do what `words` say with `out`; what is wrong with how that ended."""
    name, *options = words.split()
    if name == "read":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rows_of(out, heal=options[0] if options else "regenerate")
        except ValueError as error:
            return "" if "\n" not in str(error) else str(error)
        return ""
    args = {
        "build": [*SMALL, *options, "--out", out],
        "overlap": [out, out],
        "reproduce": [out, "--out", out],
    }.get(name, [out])
    ended = run(name, *args)
    fine = ended.code in (0, 1, 2) and "fault of synthshards" not in ended.err
    if ended.code:
        fine = fine and ended.err.startswith("error: ") and ended.err.count("\n") == 1
    return "" if fine else f"exit code {ended.code}: {ended.err}"


FAULTS = [
    Fault(
        "a full disk under a build or a growth",
        "one line, no file is half made; with room again the same command gives the bytes of an uninterrupted build",
        100, 4, full,
    ),
    Fault(
        'a full disk under `heal="rewrite"`', "the rows are right, a warning names the shard, no other file is touched",
        100, 3, heals,
    ),
    Fault("no permission: 11 commands, six things closed", "one line or success, and nothing changes", 1, 1, closed),
]  # fmt: skip
