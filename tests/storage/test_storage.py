"""Folders: what a local disk, S3 and an fsspec store have in common, then what each must do on its own."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from s3 import Server

from synthshards.errors import StorageError, UsageError
from synthshards.storage import local as storage_local
from synthshards.storage import s3 as storage_s3
from synthshards.storage.folder import SCRATCH, Folder, reason
from synthshards.storage.open import open_folder, split_url

MANIFEST = "manifest.json"
ODD_NAMES = ["a b", "50%", "c%20d", "e#f", "g+h", "é✓", "what?", "x&y=1", "~", "a=b;c"]


@pytest.fixture(params=["local", "s3", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where nothing is yet."""
    if request.param == "local":
        return str(tmp_path / "data" / "set")
    if request.param == "memory":
        pytest.importorskip("fsspec")
        return f"memory://{uuid.uuid4().hex}/set"
    return str(request.getfixturevalue("s3_url"))


@pytest.fixture
def folder(location: str) -> Folder:
    return open_folder(location)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=60
    )


def fails(call: Callable[[], object], *parts: str) -> str:
    """The message of the StorageError that `call` raises: one line that holds `parts`."""
    with pytest.raises(StorageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    assert "Request ID" not in message
    for part in parts:
        assert part in message
    return message


def temporary_files(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*.tmp")]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What every folder promises


def test_a_life(folder: Folder) -> None:
    """Write, list, read, replace, delete."""
    assert not folder.exists()
    assert folder.list() == {} == folder.list("absent")
    assert folder.subfolders() == []
    folder.make()
    folder.write(MANIFEST, b"first, and longer")
    folder.write(MANIFEST, b"{}")
    folder.write("train-00001.parquet", pa.py_buffer(b"rows" * 1000))
    folder.write("train-00000.parquet", b"")
    folder.write(f"{SCRATCH}/plan.json", b"plan")
    folder.write(f"{SCRATCH}/records/0.jsonl", b"records")
    assert folder.exists()
    assert list(folder.list().items()) == [(MANIFEST, 2), ("train-00000.parquet", 0), ("train-00001.parquet", 4000)]
    assert folder.list(SCRATCH) == {"plan.json": 4}
    assert folder.list(f"{SCRATCH}/records") == {"0.jsonl": 7}
    assert folder.subfolders() == [SCRATCH]
    assert folder.read(MANIFEST).to_pybytes() == b"{}"
    assert folder.read("train-00000.parquet").to_pybytes() == b""
    assert folder.read(f"{SCRATCH}/plan.json").to_pybytes() == b"plan"
    assert isinstance(folder.read("train-00001.parquet"), pa.Buffer)
    folder.delete("train-00000.parquet")
    folder.delete_tree(SCRATCH)
    assert folder.list() == {MANIFEST: 2, "train-00001.parquet": 4000}
    assert folder.subfolders() == []


def test_absent_is_fine_to_delete_and_clear_to_read(folder: Folder) -> None:
    for _ in range(2):  # before and after the folder is there
        folder.delete("nothing")
        folder.delete_tree("nothing")
        for name in ("nothing", "no/thing"):
            with pytest.raises(FileNotFoundError) as caught:
                folder.read(name)
            assert caught.value.filename == folder.where(name)
            assert caught.value.strerror == "No such file or directory"
        folder.write("something", b"")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_taken_as_written(location: str, name: str) -> None:
    if "?" in name and location.startswith("memory:"):
        pytest.importorskip("fsspec", "2026.7", reason="older ones take ? for a pattern when they delete")
    folder = open_folder(f"{location}/{name}")
    folder.make()
    folder.write(name, b"odd")
    folder.write(f"{SCRATCH}/{name}", b"odder")
    assert folder.list() == {name: 3}
    assert folder.list(SCRATCH) == {name: 5}
    assert folder.read(name).to_pybytes() == b"odd"
    assert open_folder(location).subfolders() == [name]
    assert folder.where(name).endswith(f"/{name}/{name}")
    if folder.is_local:
        assert (Path(location) / name / name).read_bytes() == b"odd"
    again, last = split_url(f"{location}/{name}/{name}")
    assert (again.url, last) == (folder.url, name)
    folder.delete(name)
    folder.delete_tree(SCRATCH)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a//b", "a/../b", "a/", "nul\0"])
def test_no_name_leaves_the_folder(folder: Folder, tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"outside")
    for call in (folder.read, folder.delete, folder.delete_tree, lambda name: folder.write(name, b"no")):
        with pytest.raises(StorageError, match="does not name a file within"):
            call(name)
    assert (tmp_path / "data" / "x").read_bytes() == b"outside"
    assert not folder.exists()


def test_a_folder_can_be_pickled(folder: Folder) -> None:
    folder.write("x", b"abc")
    assert pickle.loads(pickle.dumps(folder)).list() == {"x": 3}


def test_a_listing_shows_what_others_wrote(location: str) -> None:
    one, other = open_folder(location), open_folder(location)
    assert one.list() == {}
    other.write("x", b"abc")
    assert one.list() == {"x": 3}


def test_a_listing_passes_the_cache_of_fsspec(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    dropped = []
    monkeypatch.setattr(memory, "invalidate_cache", lambda self, path=None: dropped.append(path))
    open_folder("memory://x").list()
    assert dropped


def test_a_finished_dataset_holds_its_files_and_nothing_else(location: str, request: pytest.FixtureRequest) -> None:
    """After the scratch folder and single files were deleted, also when that was all there was."""
    folder = open_folder(location)
    folder.make()
    folder.write("old", b"")
    folder.delete("old")
    folder.write(f"{SCRATCH}/plan.json", b"plan")
    folder.delete_tree(SCRATCH)
    folder.write(f"{SCRATCH}/records.jsonl", b"records")
    folder.write("train-00000.parquet", b"rows")
    folder.write(MANIFEST, b"{}")
    folder.delete(f"{SCRATCH}/records.jsonl")
    folder.delete_tree(SCRATCH)
    if folder.path is not None:
        assert names_in(folder.path) == [MANIFEST, "train-00000.parquet"]
    elif location.startswith("s3://"):
        server: Server = request.getfixturevalue("s3_server")
        assert server.objects(location.split("/")[2]) == {f"prefix/{MANIFEST}": 2, "prefix/train-00000.parquet": 4}


# Where a folder is


def test_local_paths_stay_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    relative = open_folder("data/x/")
    assert (relative.url, relative.where("f"), relative.path) == ("data/x", "data/x/f", Path("data/x"))
    assert open_folder(".").where(MANIFEST) == MANIFEST
    assert open_folder("/").url == "/"
    home = open_folder("~/x")
    assert (home.url, home.path) == ("~/x", tmp_path / "home" / "x")
    assert open_folder(Path("a%20b")).path == Path("a%20b")
    decoded = open_folder("file:///tmp/a%20b/")
    assert (decoded.url, decoded.path, decoded.is_local) == ("file:///tmp/a%20b", Path("/tmp/a b"), True)
    (tmp_path / "data").write_bytes(b"")
    fails(relative.make, "cannot create the folder data/x: data is a file")


def test_urls_keep_their_query() -> None:
    folder = open_folder("s3://bucket/some/prefix/?region=eu-west-1&scheme=http")
    assert folder.url == "s3://bucket/some/prefix?region=eu-west-1&scheme=http"
    assert folder.where("train-00000.parquet") == "s3://bucket/some/prefix/train-00000.parquet"
    assert (folder.path, folder.is_local) == (None, False)
    assert open_folder("S3://bucket").where("x") == "S3://bucket/x"


@pytest.mark.parametrize(
    ("location", "url", "name"),
    [
        ("data/x/manifest.json", "data/x", MANIFEST),
        ("manifest.json", ".", MANIFEST),
        ("/manifest.json", "/", MANIFEST),
        ("a%20b/c%20d", "a%20b", "c%20d"),
        ("why?x=1/f", "why?x=1", "f"),
        (Path("data/x/manifest.json"), "data/x", MANIFEST),
        ("file:///a%20b/c%20d", "file:///a%20b", "c d"),
        ("file:///manifest.json", "file:///", MANIFEST),
        ("s3://bucket/manifest.json", "s3://bucket", MANIFEST),
        ("s3://bucket/p/c%20d?region=x", "s3://bucket/p?region=x", "c%20d"),
        ("s3://bucket/p/m?endpoint_override=http://h:1", "s3://bucket/p?endpoint_override=http://h:1", "m"),
        ("memory://x/manifest.json", "memory://x", MANIFEST),
    ],
)
def test_split_url(location: str | Path, url: str, name: str) -> None:
    folder, found = split_url(location)
    assert (folder.url.rstrip("/"), found) == (url.rstrip("/"), name)


@pytest.mark.parametrize("location", ["", "data/", "..", ".", "s3://bucket", "s3://bucket/p/", "s3://bucket/?region=x"])
def test_split_url_needs_a_name(location: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        split_url(location)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "names no folder"),
        ("nul\0", "names no folder"),
        ("~no-such-user-at-all/x", "cannot expand"),
        ("s4://bucket/x", "unknown scheme 's4' .*a local path, file://, s3://, gs://"),
        ("gsx://bucket/x", "unknown scheme 'gsx' .*did you mean 'gs'"),
        ("file://host/x", "file:///absolute/path"),
        ("s3://", "must be s3://bucket/prefix"),
        ("s3:///x", "must be s3://bucket/prefix"),
        ("s3://bucket/a//b", "must be s3://bucket/prefix"),
        ("s3://bucket/a/../b", "must be s3://bucket/prefix"),
        ("s3://bucket/x?regoin=x", "unknown option 'regoin' .*region, scheme.*did you mean 'region'"),
        ("s3://bucket/x?anonymous=yes", "must be true or false"),
        ("gs://bucket/x?colour=red", "cannot use gs://bucket.*colour"),
        ("abfss://nothing", "cannot use abfss://nothing.*account name"),
    ],
)
def test_wrong_locations(location: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_folder(location)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as caught:
        open_folder("s3://AKIAEXAMPLE:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def lacking(url: str) -> None:
        raise ImportError("Install huggingface_hub to access HfFileSystem")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(UsageError, match=r"hf:// needs another package: Install huggingface_hub"):
        open_folder("hf://datasets/x/y")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"hf:// needs fsspec: pip install 'synthshards\[remote\]'"):
        open_folder("hf://datasets/x/y")


# The local disk


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
    done = run(
        """
        import resource, sys
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        folder.write("x", b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            folder.write("x", bytes(1_000_000))
        except Exception as error:
            print(type(error).__name__, error)
        """,
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
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
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
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(milliseconds / 1000)
            writer.kill()
        data = folder.read("x").to_pybytes()
        assert data == data[:1] * 3_000_000
    assert set(folder.list()) == {"x"}


# S3


def test_s3_keys_are_the_url(s3_server: Server, s3_bucket: str) -> None:
    """No decoding, no encoding, no marker objects, and a dataset may fill a bucket."""
    open_folder(f"s3://{s3_bucket}").write("x%20y é", b"abc")
    open_folder(f"s3://{s3_bucket}/a b%/c#d+e/").write(f"{SCRATCH}/f", b"")
    assert s3_server.objects(s3_bucket) == {"x%20y é": 3, f"a b%/c#d+e/{SCRATCH}/f": 0}
    folder = open_folder(f"s3://{s3_bucket}/")
    assert (folder.list(), folder.subfolders()) == ({"x%20y é": 3}, ["a b%"])


@pytest.mark.parametrize("size", [9_000_000, 25_000_000])
def test_s3_large_objects(s3_proxy: Server, s3_url: str, size: int) -> None:
    """One request up to 10 MB; parts beyond."""
    folder, data = open_folder(s3_url), os.urandom(1000) * (size // 1000)
    folder.write("x", pa.py_buffer(data))
    assert len(s3_proxy.seen()) == (1 if size < 10_000_000 else 5)
    assert folder.read("x").equals(pa.py_buffer(data))
    assert len(s3_proxy.seen()) == 2  # the size, the bytes


def test_s3_listing_by_the_page(s3_server: Server, s3_proxy: Server, s3_bucket: str) -> None:
    names = [f"train-{shard:05}.parquet" for shard in range(2500)]
    s3_server.put_many(s3_bucket, [f"p/{name}" for name in names] + ["p/sub/x", "p.json"])
    folder = open_folder(f"s3://{s3_bucket}/p")
    s3_proxy.seen()
    assert folder.list() == dict.fromkeys(names, 1)
    requests = s3_proxy.seen()
    assert len(requests) == 3
    assert all("delimiter=" in request for request in requests)
    assert folder.subfolders() == ["sub"]


def test_s3_markers_of_other_tools(s3_server: Server, s3_bucket: str) -> None:
    for marker in ("p", "p/sub"):
        s3_server.put_marker(s3_bucket, marker)
    assert open_folder(f"s3://{s3_bucket}/p/sub").list() == {}
    assert not open_folder(f"s3://{s3_bucket}/p/sub").exists()
    folder = open_folder(f"s3://{s3_bucket}/p")
    assert (folder.list(), folder.subfolders()) == ({}, ["sub"])
    folder.write("x", b"abc")
    assert (folder.list(), folder.subfolders()) == ({"x": 3}, ["sub"])


def test_s3_without_botocore(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage_s3._botocore.cache_clear()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    folder = open_folder(s3_url)
    for name in ("x", f"{SCRATCH}/y"):
        folder.write(name, b"")
    folder.delete("x")
    folder.delete_tree(SCRATCH)
    assert not folder.exists()


def test_s3_bucket_that_does_not_exist(s3_env: Server) -> None:
    """Every verb says so, and none creates it."""
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    folder = open_folder(f"s3://{missing}/prefix")
    why = "The specified bucket does not exist"
    assert fails(folder.make) == f"cannot reach s3://{missing}/prefix: {why}"
    assert fails(folder.list) == f"cannot list s3://{missing}/prefix: {why}"
    assert fails(folder.exists) == f"cannot list s3://{missing}/prefix: {why}"
    assert fails(lambda: folder.write("x", b"abc")) == f"cannot write s3://{missing}/prefix/x: {why}"
    assert fails(lambda: folder.read("x")) == f"cannot reach s3://{missing}/prefix: {why}"
    fails(lambda: folder.delete_tree("x"), f"cannot delete s3://{missing}/prefix/x: ")
    assert missing not in s3_env.buckets()


def test_s3_closed_door(s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens: refused in time, with the reason."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    folder, start = open_folder("s3://bucket/prefix"), time.monotonic()
    fails(folder.make, "cannot reach s3://bucket/prefix: ", "connect")
    assert time.monotonic() - start < 12


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", "Access Denied by policy"),
        ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records"),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match"),
    ],
)
def test_s3_bad_credentials(s3_proxy: Server, s3_url: str, code: str, message: str) -> None:
    s3_proxy.refuse(".", 403, code, message)
    folder = open_folder(s3_url)
    assert fails(folder.make) == f"cannot reach {s3_url}: {message}"
    assert fails(folder.list) == f"cannot list {s3_url}: {message}"
    assert fails(lambda: folder.write("x", b"")) == f"cannot write {s3_url}/x: {message}"
    assert fails(lambda: folder.read("x")) == f"cannot read {s3_url}/x: access denied"  # HEAD: no body, no reason


def test_s3_endpoints(s3_env: Server, s3_proxy_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL goes before AWS_ENDPOINT_URL_S3, that before AWS_ENDPOINT_URL; and amazonaws.com is never asked."""
    import pyarrow.fs

    def resolve(bucket: str) -> str:
        raise AssertionError("asked amazonaws.com for a region")

    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", resolve)
    monkeypatch.delenv("AWS_REGION")
    moto, nowhere = s3_env.endpoint, "http://127.0.0.1:9"
    open_folder(f"s3://{s3_bucket}/p").write("x", b"abc")  # by AWS_ENDPOINT_URL
    monkeypatch.setenv("AWS_ENDPOINT_URL", nowhere)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto + "/")
    assert open_folder(f"s3://{s3_bucket}/p").list() == {"x": 3}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", nowhere)
    host = moto.removeprefix("http://")
    for query in (f"endpoint_override={moto}", f"endpoint_override={host}&scheme=http&allow_bucket_creation=true"):
        folder, name = split_url(f"s3://{s3_bucket}/p/x?{query}")
        assert pickle.loads(pickle.dumps(folder)).read(name).to_pybytes() == b"abc"
        folder.write(f"{SCRATCH}/y", b"")
        folder.delete_tree(SCRATCH)
    assert s3_env.objects(s3_bucket) == {"p/x": 3}


def test_s3_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, or looked up once where there is no endpoint."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    import pyarrow.fs

    asked = []

    def resolve(bucket: str) -> str:
        asked.append(bucket)
        return "eu-north-1"

    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", resolve)
    bucket = uuid.uuid4().hex
    assert [storage_s3.settle(bucket, {})["region"] for _ in range(2)] == ["eu-north-1"] * 2
    assert storage_s3.settle(bucket, {"endpoint_override": "h"}) == {"endpoint_override": "h", "region": "us-east-1"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert storage_s3.settle(bucket, {})["region"] == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert storage_s3.settle(bucket, {})["region"] == "eu-west-2"
    assert storage_s3.settle(bucket, {"region": "eu-west-3"})["region"] == "eu-west-3"
    assert asked == [bucket]


REFUSALS = {
    "the only request": ("PUT", 1000),
    "opening in parts": ("POST .*uploads", 25_000_000),
    "first part": ("partNumber=1&", 25_000_000),
    "last part": ("partNumber=3&", 25_000_000),
    "completion": ("POST .*uploadId", 25_000_000),
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_s3_failed_upload_leaves_no_object(s3_proxy: Server, s3_server: Server, s3_bucket: str, refused: str) -> None:
    """Neither at once, nor when the stream is collected, nor when the interpreter ends; an old object stays."""
    requests, size = REFUSALS[refused]
    s3_server.put(s3_bucket, "p/old", b"old")
    s3_proxy.refuse(requests, 403, "AccessDenied", "Not you")
    done = run(
        """
        import gc, sys
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        for name in ("old", "new"):
            try:
                folder.write(name, bytes(int(sys.argv[2])))
            except Exception as error:
                print(type(error).__name__, error)
        gc.collect()
        """,
        f"s3://{s3_bucket}/p",
        str(size),
    )
    assert done.stdout.splitlines() == [
        f"StorageError cannot write s3://{s3_bucket}/p/{name}: Not you" for name in ("old", "new")
    ]
    assert done.stderr == ""
    assert s3_server.objects(s3_bucket) == {"p/old": 3}
    assert s3_server.get(s3_bucket, "p/old") == b"old"


def test_s3_parts_go_up_together(s3_proxy: Server, s3_url: str) -> None:
    s3_proxy.delay("partNumber=", 0.8)
    start = time.monotonic()
    open_folder(s3_url).write("x", bytes(25_000_000))
    assert time.monotonic() - start < 2.4  # three parts, one after another


class HalfStream:
    """A pyarrow stream that takes half of what it is given and then fails."""

    def __init__(self, stream: Any, error: BaseException) -> None:
        self.stream, self.error = stream, error

    def write(self, data: pa.Buffer) -> None:
        self.stream.write(data.slice(0, data.size // 2))
        raise self.error

    def close(self) -> None:
        self.stream.close()


@pytest.mark.parametrize("error", [OSError("connection reset"), MemoryError(), KeyboardInterrupt()])
def test_s3_half_an_upload_is_never_committed(
    s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class HalfStore:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def open_output_stream(self, path: str, compression: None) -> HalfStream:
            return HalfStream(self.inner.open_output_stream(path, compression=compression), error)

    connect = storage_s3.connect
    monkeypatch.setattr(storage_s3, "connect", lambda *arguments: HalfStore(connect(*arguments)))
    with pytest.raises(StorageError if isinstance(error, Exception) else KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", b"abcdef")
    gc.collect()
    assert s3_server.objects(s3_bucket) == {}


def test_s3_interrupt_as_the_stream_opens(s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main thread this would drop the new stream, and so commit an empty object over a good one."""

    class Store:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def open_output_stream(self, path: str, compression: None) -> Any:
            stream = self.inner.open_output_stream(path, compression=compression)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            return stream

    connect = storage_s3.connect
    monkeypatch.setattr(storage_s3, "connect", lambda *arguments: Store(connect(*arguments)))
    with pytest.raises(KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", b"abcdef")
    assert s3_server.objects(s3_bucket) == {"p/x": 6}


def test_s3_interrupt_waits_for_the_object(s3_proxy: Server, s3_server: Server, s3_bucket: str) -> None:
    """Ctrl-C during an upload: raised, and the object is whole."""
    s3_proxy.delay("partNumber=1&", 1.5)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", bytes(12_000_000))
    timer.join()
    assert s3_server.objects(s3_bucket) == {"p/x": 12_000_000}


def read_again(folder: Folder, name: str, answers: Any) -> None:
    wrong = sum(folder.read(name).to_pybytes() != name.encode() * 50_000 for _ in range(60))
    answers.put(wrong)


def test_s3_survives_a_fork(s3_proxy: Server, s3_url: str) -> None:
    """Forked workers (a DataLoader's) that use their parent's folder get their own bytes, not each other's."""
    folder = open_folder(s3_url)
    for name in "ABCDEF":
        folder.write(name, name.encode() * 50_000)
    folder.read("A")  # leaves an open connection in the parent
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=read_again, args=(folder, name, answers)) for name in "ABCDEF"]
    for worker in workers:
        worker.start()
    wrong = [answers.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert wrong == [0] * len(workers)
    assert folder.read("B").to_pybytes() == b"B" * 50_000


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EROFS, "x", "file"), "Read-only file system"),
        (ValueError(""), "ValueError"),
        (OSError("Unable to load libjvm\ndlopen failed\ndlopen failed"), "Unable to load libjvm"),
        (
            OSError(
                "When listing objects under key '' in bucket 'b': AWS Error NETWORK_CONNECTION during ListObjectsV2 "
                "operation: curlCode: 6, Could not resolve hostname; Details: Could not resolve host: b.example.com"
            ),
            "Could not resolve host: b.example.com",
        ),
        (
            OSError("When reading information for key 'p' in bucket 'b': AWS Error UNKNOWN (HTTP status 301) during "
                    "HeadObject operation: No response body."),
            "the bucket is in another region; set AWS_REGION",
        ),
        (
            OSError("When x: AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body."),
            "HTTP status 503",
        ),
        (OSError("When reading x: AWS Error SERVICE_UNAVAILABLE during GetObject operation: "), "service unavailable"),
        (
            OSError("When x: AWS Error UNKNOWN (HTTP status 400) during PutObject operation: Unable to parse "
                    "ExceptionName: QuotaExceeded Message: Your quota is used up. (Request ID: abc)"),
            "QuotaExceeded: Your quota is used up",
        ),
        (
            OSError("google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of Could not "
                    "resolve hostname error_info={reason=, domain=, metadata={a=b}})"),
            "Could not resolve hostname",
        ),
    ],
)  # fmt: skip
def test_reasons_are_short(error: Exception, line: str) -> None:
    assert reason(error) == line


def test_local_work_loads_no_file_system_library() -> None:
    done = run(
        """
        import sys
        from synthshards.storage.open import open_folder
        open_folder("data").list()
        print([name for name in ("pyarrow.fs", "fsspec", "botocore") if name in sys.modules])
        """
    )
    assert done.stdout == "[]\n", done.stderr
    assert not re.search("Warning", done.stderr)
