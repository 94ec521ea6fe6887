"""The build lock: who may work side by side, that it dies with its holder, and that it never guards a deleted file."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from folders import SMALL, files, names, picture, small, unfinished

from synthshards.errors import StorageError, UsageError
from synthshards.pipelines.build import build, seal
from synthshards.pipelines.folder.lock import locked
from synthshards.pipelines.folder.preflight import declare
from synthshards.pipelines.folder.scratch import delete_dataset
from synthshards.storage.folder import SCRATCH
from synthshards.storage.local import LocalFolder
from synthshards.storage.open import open_folder

HOLD = """
import sys, time
from synthshards.pipelines.folder.lock import locked
from synthshards.storage.open import open_folder
with locked(open_folder(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(folder: Path, kind: str = "alone") -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the folder's lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, kind], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_build_is_refused_in_one_line_and_a_killed_holder_blocks_nothing(tmp_path: Path, cli: Any) -> None:
    unfinished(tmp_path, 3)
    command = ["build", *SMALL, "--shards", "3", "--out", tmp_path]
    with holder(tmp_path) as process:
        before = picture(tmp_path)
        for args in (command, [*command, "--only-shards", "0"], [*command, "--overwrite"], ["seal", tmp_path]):
            ended = cli(*args)
            assert (ended.code, ended.out) == (2, "")
            assert ended.err == (
                f"error: {tmp_path}: another build is at work there; wait for it, or stop it "
                "(runs with --only-shards may work side by side)\n"
            )
        assert picture(tmp_path) == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / SCRATCH / "lock").exists()
        assert cli(*command).code == 0
    assert set(files(tmp_path)) == names(3)


def test_parts_work_side_by_side_and_keep_whole_builds_out(tmp_path: Path) -> None:
    with holder(tmp_path, "shared") as process:
        build(small(3), str(tmp_path), only_shards="0-2")
        for attempt in (lambda: build(small(3), str(tmp_path)), lambda: seal(str(tmp_path))):
            with pytest.raises(UsageError, match="another build is at work"):
                attempt()
        process.kill()
        process.wait()
        seal(str(tmp_path))
    assert set(files(tmp_path)) == names(3)


def test_the_lock_goes_with_its_last_holder(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    with locked(folder, shared=True):
        with locked(folder, shared=True):
            pass
        with pytest.raises(UsageError), locked(folder, shared=False):
            pass
        assert (tmp_path / SCRATCH / "lock").exists()
    assert files(tmp_path) == {}
    folder.write(f"{SCRATCH}/plan-1.json", b"{}")
    with locked(folder, shared=False):
        pass
    assert set(files(tmp_path)) == {SCRATCH, f"{SCRATCH}/plan-1.json"}


@pytest.mark.parametrize("release_when", ["opened", "folder made"])
def test_a_lock_file_that_is_deleted_under_our_hands_is_not_taken_for_the_lock(
    release_when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ExitStack()
    first.enter_context(locked(open_folder(tmp_path), shared=False))
    real = os.open

    def slow(*args: Any) -> int:
        if release_when == "folder made":
            first.close()  # the holder finishes after we saw its folder, before we open the file in it
        handle = real(*args)
        first.close()  # the holder finishes after we opened its file, before we lock it
        return handle

    monkeypatch.setattr(os, "open", slow)
    with locked(open_folder(tmp_path), shared=False):
        monkeypatch.undo()
        assert (tmp_path / SCRATCH / "lock").exists()
        with pytest.raises(UsageError), locked(open_folder(tmp_path), shared=False):
            pass
    assert files(tmp_path) == {}


RACE = """
import os, sys
from pathlib import Path
from synthshards.errors import UsageError
from synthshards.pipelines.folder.lock import locked
from synthshards.storage.open import open_folder
folder, inside = open_folder(sys.argv[1]), Path(sys.argv[1], "inside")
for _ in range(1000):
    try:
        with locked(folder, shared=False):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if another one is inside
            inside.unlink()
    except UsageError:
        pass
"""


@pytest.mark.slow
def test_never_two_are_inside_however_often_the_lock_comes_and_goes(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", RACE, tmp_path], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], errors
    assert files(tmp_path) == {}


@pytest.mark.parametrize("work", ["overwrite", "delete", "build", "seal"])
def test_the_lock_is_held_while_the_scratch_folder_is_emptied(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(tmp_path, 3)
    tries = []

    def attempt(name: str) -> None:
        tries.append(name)
        with pytest.raises(UsageError, match="at work"), locked(open_folder(tmp_path), shared=True):
            pass

    for method in ("write", "delete"):
        real = getattr(LocalFolder, method)

        def guarded(self: LocalFolder, *args: Any, real: Any = real) -> None:
            attempt(args[0])
            real(self, *args)
            attempt(args[0])

        monkeypatch.setattr(LocalFolder, method, guarded)
    runs: dict[str, Callable[[], object]] = {
        "overwrite": lambda: build(small(3), str(tmp_path), overwrite=True),
        "delete": lambda: delete_dataset(open_folder(tmp_path)),
        "build": lambda: build(small(4), str(tmp_path)),
        "seal": lambda: seal(str(tmp_path)),
    }
    runs[work]()
    assert any(name.startswith(SCRATCH) for name in tries)
    assert SCRATCH not in files(tmp_path)


def test_a_file_in_the_place_of_the_scratch_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / SCRATCH).touch()
    with pytest.raises(StorageError, match=r"\.building"), locked(open_folder(tmp_path), shared=False):
        pass


def refuse_locks(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_lock_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match=rf"cannot lock {tmp_path}/\.building/lock: {os.strerror(errno.EIO)}"):
        build(small(), str(tmp_path))


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_without_locks_all_works_after_one_warning(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """Lustre, as it is often mounted."""
    build(small(3), str(tmp_path / "whole"))
    refuse_locks(monkeypatch, error)
    command, out = ["build", *SMALL, "--shards", "3", "--out", tmp_path / "x"], tmp_path / "x"
    ended = cli(*command)
    assert (ended.code, ended.err.count("\n")) == (0, 1)
    assert ended.err.startswith(f"warning: {out}: its file system has no locks; ")
    assert files(out) == files(tmp_path / "whole")
    for args in ([*command, "--overwrite"], [*command, "--shards", "5", "--only-shards", "3-4"], ["seal", out]):
        assert cli(*args).code == 0
    assert set(files(out)) == names(5)


def test_without_locks_another_identity_gives_way_as_in_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.ENOSYS)
    real = LocalFolder.write

    def write(self: LocalFolder, name: str, data: Any) -> None:
        real(self, name, data)
        if name.startswith("train"):
            monkeypatch.setattr(LocalFolder, "write", real)
            with pytest.raises(UsageError, match="seed is 0 there, 1 here"):
                build(small(3, seed=1), str(tmp_path / "x"))
            build(small(3), str(tmp_path / "x"))  # the same rows: harmless

    monkeypatch.setattr(LocalFolder, "write", write)
    build(small(3), str(tmp_path / "x"))
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


@pytest.mark.parametrize("fails", ["mkdir", "open"])
def test_a_folder_in_which_nothing_can_be_made_is_given_up(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /proc, or the current folder once it is deleted: each try says that something is not there."""
    tries = 0

    def absent(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(*((Path, "mkdir") if fails == "mkdir" else (os, "open")), absent)
    with pytest.raises(StorageError, match="No such file or directory"), locked(open_folder(tmp_path), shared=False):
        pass
    assert tries == 100


def test_an_interrupt_in_the_loop_leaves_neither_threads_nor_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synthshards.pipelines.build.Journal.append", append)
    with pytest.raises(KeyboardInterrupt) as caught:
        build(small(200), str(tmp_path), workers=2)
    # `caught` keeps the traceback, hence the frames, alive, as a debugger or a notebook does.
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("synthshards")], caught
    assert not (tmp_path / SCRATCH / "lock").exists()
    assert len(list(tmp_path.glob("*.parquet"))) < 20


@pytest.mark.parametrize("moment", ["before we declare", "before we look again"])
def test_of_two_plans_that_come_at_once_at_most_one_goes_on(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two parts share the lock, so that nothing but their declared plans keeps two identities apart."""
    real = LocalFolder.write
    other: dict[str, Any] = {}

    def come() -> None:
        monkeypatch.setattr(LocalFolder, "write", real)
        try:
            other["found"] = declare(open_folder(tmp_path), small(seed=1), None, alone=False)
        except UsageError as error:
            other["refused"] = error

    def write(self: LocalFolder, name: str, data: Any) -> None:
        if moment == "before we declare":
            come()
        real(self, name, data)
        if moment == "before we look again":
            come()

    monkeypatch.setattr(LocalFolder, "write", write)
    refused = ""
    try:
        build(small(), str(tmp_path), only_shards="0-1")
    except UsageError as error:
        refused = str(error)
    assert ("seed is 1 there, 0 here" in refused) == ("found" in other)
    assert ("seed is 0 there, 1 here" in str(other.get("refused"))) == (not refused)
    (plan,) = (tmp_path / SCRATCH).glob("plan-*")
    assert plan.name == small(seed=1 if refused else 0).file


def test_a_program_started_during_a_build_does_not_hold_its_lock(tmp_path: Path) -> None:
    with locked(open_folder(tmp_path), shared=False):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        with locked(open_folder(tmp_path), shared=False):
            pass
    finally:
        child.kill()
        child.wait()
