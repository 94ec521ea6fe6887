"""A folder on a local disk: what a write does in which order, and what is left when it fails or is killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pytest
from helpers import fails, python

from synthshards.storage import local as storage_local
from synthshards.storage.folder import SCRATCH
from synthshards.storage.open import open_folder


def temporary_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.tmp")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_lasts_before_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order: the bytes to the disk, then the name, then the folder to the disk; so for new folders, too."""
    folder, steps = open_folder(tmp_path / "new" / "set"), []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        shown = path.parent if path.suffix == ".tmp" else path
        steps.append(f"sync {shown.relative_to(tmp_path)}")
        if path.suffix == ".tmp":
            assert path.read_bytes() == b"whole"
            assert not (tmp_path / "new/set/x").exists()
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    folder.write("x", b"whole")
    made = ["sync .", "sync new", "sync new/set"]
    assert steps == [*made, f"sync new/set/{SCRATCH}", "rename", "sync new/set"]


def test_reading_copies_nothing_and_outlives_a_replacement(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    folder.write("x", bytes(8_000_000))
    before = pa.total_allocated_bytes()
    data = folder.read("x")
    assert pa.total_allocated_bytes() - before < 1_000_000
    folder.write("x", b"new")
    folder.delete("x")
    assert data.size == 8_000_000
    assert data.to_pybytes() == bytes(8_000_000)


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENOSYS, errno.EACCES, errno.ENOMEM])
def test_a_file_system_without_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """FUSE and some network disks: the file is read."""
    folder = open_folder(tmp_path)
    folder.write("x", b"abc")
    asked = []

    def refuse(name: bytes) -> None:
        asked.append(name)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pa, "memory_map", refuse)
    assert folder.read("x").to_pybytes() == b"abc"
    assert asked
    with pytest.raises(FileNotFoundError):
        folder.read("absent")
    fails(lambda: open_folder(tmp_path.parent).read(tmp_path.name), "cannot read", "is a directory")


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\xe9")
    folder = open_folder(tmp_path / name)
    folder.write(name, b"abc")
    assert folder.read(name).to_pybytes() == b"abc"
    assert folder.list() == {name: 3}
    folder.delete(name)
    assert not folder.exists()
    assert (tmp_path / name).is_dir()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    fails(lambda: open_folder(tmp_path).read("x"), f"cannot read {tmp_path}/x: ", "a pipe, socket or device")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_file_systems_that_cannot_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    folder = open_folder(tmp_path / "new")
    folder.write("x", b"abc")
    assert folder.list() == {"x": 3}


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    asked = [open_folder(tmp_path / name).is_file() for name in ("file", ".", "absent", "file/absent")]
    assert asked == [True, False, False, False]
    (tmp_path / "loop").symlink_to("loop")
    fails(open_folder(tmp_path / "loop").is_file, "cannot read", "Too many levels of symbolic links")


def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system names none where a write or a sync fails, and the temporary one where opening does."""
    target = tmp_path / "x"
    refuse_to_sync(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)))
    with (
        pytest.raises(OSError, match="Input/output error") as caught,
        storage_local.replacing(target, tmp_path / "tmp"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert caught.value.filename == str(target)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught, storage_local.replacing(target, tmp_path / "folder"):
        pass
    assert caught.value.filename == str(target)


def refuse_to_sync(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the temporary file be written, but not reach the disk."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".tmp":
            raise error
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(tmp_path)
    folder.write("x", b"old")
    refuse_to_sync(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    for name in ("x", "new"):
        message = fails(partial(folder.write, name, b"more"))
        assert message == f"cannot write {tmp_path}/{name}: No space left on device"
    assert folder.list() == {"x": 3}
    assert folder.subfolders() == []
    assert temporary_files(tmp_path) == []


def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    """The same by a real refusal of the system, half way through the data."""
    done = python(
        "-c",
        dedent("""
        import resource, sys
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        folder.write("x", b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            folder.write("x", bytes(1_000_000))
        except Exception as error:
            print(type(error).__name__, error)
        """),
        str(tmp_path),
    )
    assert done.stdout == f"StorageError cannot write {tmp_path}/x: File too large\n", done.stderr
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names_in(tmp_path) == ["x"]


def test_an_interrupt_passes_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(tmp_path)
    folder.write("x", b"old")
    refuse_to_sync(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        folder.write("x", b"new")
    assert names_in(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_files_and_folders_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "set" / "folder").mkdir(parents=True)
    under = open_folder(tmp_path / "file" / "set")
    fails(under.make, f"cannot create the folder {tmp_path}/file/set: {tmp_path}/file is a file")
    fails(lambda: under.write("x", b""), f"cannot write {tmp_path}/file/set/x: ")
    fails(under.list, "cannot list", "Not a directory")
    fails(under.exists, "cannot list", "Not a directory")
    fails(lambda: under.read("x"), "cannot read", "Not a directory")
    fails(lambda: under.delete("x"), "cannot delete", "Not a directory")
    folder = open_folder(tmp_path / "set")
    fails(lambda: folder.read("folder"), "cannot read", "is a directory")
    fails(lambda: folder.write("folder", b""), "cannot write", "Is a directory")
    fails(lambda: folder.delete("folder"), "cannot delete")
    assert temporary_files(tmp_path) == []
    assert folder.subfolders() == ["folder"]
    (tmp_path / "set" / "plain").write_bytes(b"")
    fails(lambda: folder.delete_tree("plain"), "cannot delete", "Not a directory")


def test_a_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if Path("/proc/self").exists():
        proc = open_folder("/proc/nothing")
        fails(proc.make, "cannot create the folder /proc/nothing: No such file or directory")
        fails(lambda: proc.write("x", b""), "cannot write /proc/nothing/x: No such file or directory")

    def denied(self: Path, mode: int = 0o777) -> None:  # root may write anywhere: so by hand
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", denied)
    folder = open_folder(tmp_path / "x")
    fails(folder.make, f"cannot create the folder {tmp_path}/x: Permission denied")
    fails(lambda: folder.write("f", b""), f"cannot write {tmp_path}/x/f: Permission denied")


def test_what_others_put_into_the_scratch_folder_stays(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    (tmp_path / SCRATCH).mkdir()
    folder.write("x", b"")
    assert (tmp_path / SCRATCH).is_dir()


def test_a_scratch_folder_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer removes it between our making it and our using it: made again."""
    make_folders = storage_local.make_folders
    vanished: list[Path] = []

    def make_and_lose(folder: Path) -> None:
        make_folders(folder)
        if folder.name == SCRATCH and len(vanished) < 3:
            folder.rmdir()
            vanished.append(folder)

    monkeypatch.setattr(storage_local, "make_folders", make_and_lose)
    open_folder(tmp_path).write("x", b"abc")
    assert len(vanished) == 3
    assert (tmp_path / "x").read_bytes() == b"abc"


def test_many_writers_of_one_name(tmp_path: Path) -> None:
    """Two processes of four threads: temporary names never clash, no reader sees half a file, no scratch is left."""
    code = """
        import sys
        from concurrent.futures import ThreadPoolExecutor
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        def write(thread):
            for _ in range(50):
                folder.write("x", bytes([65 + thread]) * 50_000)
        sys.stdin.read(1)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        """
    command = [sys.executable, "-c", dedent(code), str(tmp_path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    folder, seen = open_folder(tmp_path), 0
    folder.write("x", b"A" * 50_000)
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"!")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        data = folder.read("x").to_pybytes()
        assert data == data[:1] * 50_000
        seen += 1
    assert [writer.communicate()[1] for writer in writers] == [b"", b""]
    assert seen > 10
    assert set(folder.list()) == {"x"}
    assert temporary_files(tmp_path) == []


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    folder = open_folder(tmp_path)
    folder.write("x", b"0" * 3_000_000)
    code = """
        import sys
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        print(flush=True)
        while True:
            for digit in b"123":
                folder.write("x", bytes([digit]) * 3_000_000)
        """
    for milliseconds in (5, 11, 17, 23):
        command = [sys.executable, "-c", dedent(code), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.kill()
        data = folder.read("x").to_pybytes()
        assert data == data[:1] * 3_000_000
    assert set(folder.list()) == {"x"}
