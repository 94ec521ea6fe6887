"""Builds on a full disk, without permission, and with rows that are not what was promised."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from folders import SMALL, files, names, picture, small, unfinished

from synthshards.dataset.manifest_parser import load
from synthshards.errors import DataError, ManifestError, StorageError, UsageError
from synthshards.pipelines.build import build, seal
from synthshards.storage.local import LocalFolder, _create
from synthshards.storage.open import open_folder


def test_rows_that_are_not_what_was_promised_stop_the_build(tmp_path: Path) -> None:
    build(small(3), str(tmp_path / "whole"))
    expect = dict(enumerate(load(open_folder(tmp_path / "whole")).shards))
    expect[1] = msgspec.structs.replace(expect[1], content=f"sha256:{'0' * 64}")
    with pytest.raises(DataError, match=r"train-00001\.parquet: rows generated now have content"):
        build(small(3), str(tmp_path / "x"), expect=expect)
    assert "train-00001.parquet" not in files(tmp_path / "x")
    assert build(small(3), str(tmp_path / "x")).kept >= 1


def test_what_was_finished_beside_a_failure_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = LocalFolder.write

    def write(self: LocalFolder, name: str, data: Any) -> None:
        if name == "train-00000.parquet":
            while not (tmp_path / "train-00001.parquet").exists():
                pass
            raise UsageError("no")
        real(self, name, data)

    monkeypatch.setattr(LocalFolder, "write", write)
    with pytest.raises(UsageError, match="no"):
        build(small(2), str(tmp_path), workers=2)
    monkeypatch.undo()
    assert build(small(2), str(tmp_path)).kept == 1


class FullDisk:
    """Lets `room` writes through, then half of one more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, write: Any, *args: Any) -> int:
        data = memoryview(args[-1])
        self.room -= 1
        if self.room >= 0:
            return int(write(*args))
        if self.room == -1 and len(data) > 1:
            return int(write(*args[:-1], data[: len(data) // 2]))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_wherever_the_disk_is_full_one_line_says_so_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small(3), str(tmp_path / "whole"))
    whole = files(tmp_path / "whole")
    for room in range(100):
        disk, out = FullDisk(room), tmp_path / str(room)

        class File(FileIO):
            def write(self, data: Any, disk: FullDisk = disk) -> int:
                return disk.write(super().write, data)

        said = ""
        with monkeypatch.context() as patch:
            patch.setattr(
                "synthshards.storage.local._create",
                lambda path, create=_create, File=File: (create(path).close(), BufferedWriter(File(path, "wb")))[1],
            )
            patch.setattr(os, "write", lambda *args, disk=disk, write=os.write: disk.write(write, *args))
            try:
                build(small(3), str(out))
            except StorageError as error:
                said = str(error)
        for name, data in files(out).items():
            assert not name.endswith(".tmp")
            assert name.startswith(".building") or data == whole[name]
        build(small(3), str(out))
        assert files(out) == whole
        if not said:
            break
        assert re.fullmatch(rf"cannot write {out}/\S+: No space left on device", said)
    assert room == 8  # a plan, three shards, three records, a manifest


LIMITED = """
import resource
from synthshards.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
main()
"""


def test_the_command_line_ends_with_1_and_one_line_when_it_cannot_write(tmp_path: Path) -> None:
    args = [sys.executable, "-c", LIMITED, "build", *SMALL, "--shards", "3", "--out", str(tmp_path / "x")]
    ended = subprocess.run(args, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: cannot write {tmp_path}/x/train-0000")
    assert ended.stderr.endswith(".parquet: File too large\n")
    assert ended.stderr.count("\n") == 1
    assert not list((tmp_path / "x").glob("train-*"))
    build(small(3), str(tmp_path / "x"))
    assert set(files(tmp_path / "x")) == names(3)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, and that user."""
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield base
    finally:
        if root:
            os.seteuid(0)
        for folder in [base, *(path for path in base.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        shutil.rmtree(base)


def close(folder: Path) -> None:
    """Take away the permission to write in a folder."""
    if os.geteuid() == folder.stat().st_uid:
        folder.chmod(0o555)


def test_without_permission_one_line_says_so_and_nothing_changes(unprivileged: Path, cli: Any) -> None:
    close(unprivileged)
    before = picture(unprivileged)
    for out in (unprivileged, unprivileged / "x", unprivileged / "x" / "y"):
        ended = cli("build", *SMALL, "--shards", "2", "--out", out)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("error: cannot ")
        assert ended.err.endswith(": Permission denied\n")
        assert str(unprivileged) in ended.err
        assert ended.err.count("\n") == 1
    assert picture(unprivileged) == before


def test_a_finished_folder_that_may_only_be_read_is_complete_and_cannot_grow(unprivileged: Path, cli: Any) -> None:
    user = os.geteuid()
    os.seteuid(os.getuid())
    build(small(2), str(unprivileged / "x"))
    os.seteuid(user)
    close(unprivileged / "x")
    before = picture(unprivileged)
    assert cli("build", *SMALL, "--shards", "2", "--out", unprivileged / "x").code == 0
    for options in (["--shards", "3"], ["--shards", "2", "--overwrite"]):
        ended = cli("build", *SMALL, "--out", unprivileged / "x", *options)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.endswith(": Permission denied\n")
    assert picture(unprivileged) == before


@pytest.mark.parametrize("moment", ["in the middle", "behind the last shard", "and made again"])
@pytest.mark.parametrize("part", [None, "0-2"])
def test_a_folder_that_is_deleted_during_a_build_is_an_error_and_gets_no_manifest(
    part: str | None, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = LocalFolder.write, tmp_path / "x"

    def write(self: LocalFolder, name: str, data: Any) -> None:
        real(self, name, data)
        if name == f"train-0000{2 if 'last' in moment else 1}.parquet":
            shutil.rmtree(out)
            if "again" in moment:
                out.mkdir()

    monkeypatch.setattr(LocalFolder, "write", write)
    with pytest.raises(StorageError, match=r"deleted or moved|no longer what was written|No such file"):
        build(small(3), str(out), only_shards=part)
    assert not (out / "_manifest").exists()


@pytest.mark.parametrize("name", ["train-00001.parquet", "_manifest", ".building/plan-0.json", "train-00003.parquet"])
@pytest.mark.parametrize("command", ["build", "grow", "verify", "reproduce", "overlap", "seal", "info", "inspect"])
def test_nobody_waits_for_a_pipe(name: str, command: str, tmp_path: Path, cli: Any) -> None:
    """To open one that has the name of a shard, a manifest or a plan would wait for its writer, for ever."""
    out = tmp_path / "x"
    build(small(3), str(out))
    build(small(3), str(tmp_path / "source"))
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).unlink(missing_ok=True)
    os.mkfifo(out / name)
    words = {
        "build": ["build", *SMALL, "--shards", "3", "--out", out],
        "grow": ["build", *SMALL, "--shards", "4", "--out", out],
        "reproduce": ["reproduce", tmp_path / "source", "--out", out],
        "overlap": ["overlap", out, tmp_path / "source"],
        "inspect": ["inspect", out, "--show", "200", "--max-tokens", "1"],
    }.get(command, [command, out])
    ended = cli(*words)
    assert ended.code in (0, 1, 2)
    assert ended.err.count("\n") == (ended.code != 0)
    if name == "_manifest" or (name == "train-00001.parquet" and command in ("verify", "overlap", "inspect")):
        assert (ended.code, "a pipe, socket or device" in ended.err + ended.out) == (1, True)


NESTED = b"[" * 100_000 + b"]" * 100_000


def test_plans_and_records_that_are_nested_too_deeply_are_no_plans_and_records(tmp_path: Path) -> None:
    journal = unfinished(tmp_path / "x", 2)
    with journal.open("ab") as file:
        for line in (NESTED, b'{"shard_key": ' + NESTED + b"}", b'{"shard_key": "", "shard": ' + NESTED + b"}"):
            file.write(line + b"\n")
    assert build(small(2), str(tmp_path / "x")).kept == 2
    unfinished(tmp_path / "y", 2)
    (plan,) = (tmp_path / "y" / ".building").glob("plan-*")
    for data in (NESTED, b'{"dataset": {"params": {"a": ' + NESTED + b"}}}"):
        plan.write_bytes(data)
        for attempt in (lambda: build(small(2), str(tmp_path / "y")), lambda: seal(str(tmp_path / "y"))):
            with pytest.raises(ManifestError, match=r"plan-\w+\.json: not a plan"):
                attempt()


def test_a_record_that_names_another_file_counts_for_nothing(tmp_path: Path) -> None:
    """Else the manifest would vouch for a file of somebody else, and --overwrite would delete it."""
    journal = unfinished(tmp_path / "x", 2)
    size = (tmp_path / "x" / "train-00001.parquet").stat().st_size
    (tmp_path / "x" / "README.md").write_bytes(bytes(size))
    journal.write_text(journal.read_text().replace("train-00001.parquet", "README.md"))
    assert build(small(2), str(tmp_path / "x")).kept == 1
    assert (tmp_path / "x" / "README.md").read_bytes() == bytes(size)


@pytest.mark.parametrize("threads", range(4))
def test_too_few_threads_are_one_line(threads: int, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    left, start = threads, threading.Thread.start

    def limited(self: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    ended = cli("build", *SMALL, "--shards", "8", "--workers", "4", "--out", tmp_path / "x")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: no more threads can be started; legal: fewer --workers, ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("megabytes", [100, 300, 600])
def test_too_little_memory_is_one_line(megabytes: int, tmp_path: Path) -> None:
    """From LLVM it would be an abort, or a library that "cannot be found"."""
    limited = (
        f"import resource; from synthshards.cli import main; resource.setrlimit(resource.RLIMIT_AS, "
        f"({megabytes} << 20, {megabytes} << 20)); main()"
    )
    args = [sys.executable, "-c", limited, "build", *SMALL, "--shards", "3", "--out", str(tmp_path / "x")]
    ended = subprocess.run(args, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr == f"error: only {megabytes} MB of memory may be mapped (ulimit -v); legal: at least 1024 MB\n"
    assert not (tmp_path / "x").exists()
