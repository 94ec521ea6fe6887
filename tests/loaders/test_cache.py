"""The cache of remote shards: bounded, shared without locks, never in the way; and the command that shows it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import python

from synthshards.catalog import make_task
from synthshards.dataset.manifest import ShardEntry
from synthshards.digest import sha256_of
from synthshards.errors import UsageError
from synthshards.identity import Identity
from synthshards.loaders.shards import cache as module
from synthshards.loaders.shards.cache import DEFAULT_BYTES, Cache

IDENTITY = make_task("depo").identity(0, "train")
OTHER = make_task("depo").identity(1, "a_" * 100)
SIZE = 1000


def entry(k: int) -> tuple[ShardEntry, pa.Buffer]:
    """Shard k and its bytes."""
    data = np.random.default_rng(k).bytes(SIZE)
    digest = sha256_of(data)
    made = ShardEntry(
        path=f"train-{k:05}.tar", start=0, stop=1, characters=1, bytes=SIZE, sha256=digest, content=digest
    )
    return made, pa.py_buffer(data)


def put(cache: Cache, k: int, identity: Identity = IDENTITY) -> Path:
    shard, data = entry(k)
    path = cache.path(identity, shard)
    assert cache.put(path, data)
    assert path.read_bytes() == data.to_pybytes()
    return path


def age(path: Path, seconds: int) -> None:
    """Make a file look as if it had been written and used that long ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_copies_lie_by_fingerprint_and_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    path = put(cache, 0)
    shard, _ = entry(0)
    assert shard.sha256 is not None
    assert listing(tmp_path) == [
        f"depo-train-{IDENTITY.fingerprint[7:]}",
        f"depo-train-{IDENTITY.fingerprint[7:]}/{shard.sha256[7:]}.tar",
    ]
    assert put(cache, 0) == path
    put(cache, 0, OTHER)  # a split's name may be longer than a file's
    assert [len(files) for files in cache.folders().values()] == [1, 1]


def test_the_least_recently_used_copies_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    paths = [put(cache, k) for k in range(3)]
    for k, path in enumerate(paths):
        age(path, 100 - k)
    before = paths[0].stat()
    cache.touch(paths[0], before.st_mtime_ns)
    assert paths[0].stat().st_mtime_ns == before.st_mtime_ns
    put(cache, 3)
    assert [path.exists() for path in paths] == [True, False, True]
    put(cache, 4, OTHER)
    assert [path.exists() for path in paths] == [True, False, False]


def test_a_copy_larger_than_the_cache_evicts_nothing(tmp_path: Path) -> None:
    path = put(Cache(tmp_path, SIZE), 0)
    cache = Cache(tmp_path, SIZE - 1)
    shard, data = entry(1)
    assert not cache.put(cache.path(IDENTITY, shard), data)
    assert path.exists()


def test_a_large_cache_is_bounded_without_looking_at_every_file_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, files = [], Cache.files
    monkeypatch.setattr(Cache, "files", lambda self: (looks.append(1), files(self))[1])
    cache = Cache(tmp_path, 600 * SIZE)
    for k in range(1300):
        put(cache, k)
        if k % 50 == 0:
            assert sum(file.size for file in files(cache)) <= cache.limit
    assert 500 * SIZE < sum(file.size for file in files(cache)) <= cache.limit
    assert len(looks) < 400


def test_two_processes_that_know_nothing_of_each_other_keep_the_bound(tmp_path: Path) -> None:
    caches = [Cache(tmp_path, 600 * SIZE) for _ in range(2)]
    for k in range(1300):
        put(caches[k % 2], k)
        if k % 25 == 0:
            assert sum(file.size for file in caches[0].files()) <= 600 * SIZE


def test_what_is_not_the_caches_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "shards", 2 * SIZE)
    path = put(cache, 0)
    outside = tmp_path / "outside"
    outside.mkdir()
    strange = [
        path.parent / "notes.txt", path.with_name(f"{path.name}.bak"), cache.root / "notes.txt",
        path.parent.parent / "kernels" / path.name, outside / ("0" * 64 + ".tar"),
    ]  # fmt: skip
    for file in strange:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 10 * SIZE)
        age(file, 10**6)
    (cache.root / ("depo-link-" + "0" * 64)).symlink_to(outside)
    (path.parent / ("1" * 64 + ".tar")).symlink_to(strange[0])
    for k in range(1, 5):
        put(cache, k)
    assert len(cache.files()) == 2
    assert cache.clear() == (2, 2 * SIZE)
    assert all(file.exists() for file in strange)
    assert (path.parent / ("1" * 64 + ".tar")).is_symlink()


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 5 * SIZE)
    path = put(cache, 0)
    old, young = (path.with_name(f"{path.name}.1-2-{name}.tmp") for name in ("abcd", "ef01"))
    for file in (old, young):
        file.write_bytes(b"x" * SIZE)
    age(old, 2 * module._ABANDONED)
    put(Cache(tmp_path, 5 * SIZE), 1)
    assert (old.exists(), young.exists()) == (False, True)
    assert cache.clear()[0] == 3
    assert not tmp_path.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> Path:
        assert self.stat().st_size == SIZE
        raise error

    cache, (shard, data) = Cache(tmp_path), entry(0)
    path = cache.path(IDENTITY, shard)
    monkeypatch.setattr(Path, "replace", refused)
    if isinstance(error, OSError):
        assert not cache.put(path, data)
    else:
        with pytest.raises(KeyboardInterrupt):
            cache.put(path, data)
    assert list(path.parent.iterdir()) == []


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache, (shard, data) = Cache(tmp_path / "file" / "shards"), entry(0)
    assert not cache.put(cache.path(IDENTITY, shard), data)
    assert cache.files() == []
    assert cache.clear() == (0, 0)


def test_a_folder_that_another_process_removes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, real, removed = Cache(tmp_path), Path.mkdir, []

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        real(self, *args, **options)
        if self.name.startswith("depo-") and not removed:
            removed.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    put(cache, 0)
    assert removed


def busy(root: Path, seed: int, limit: int, answers: Any) -> None:
    """Write, map and read copies, hold some open after they were evicted, and look at the bound."""
    cache, draw, held, wrong = Cache(root, limit), np.random.default_rng(seed), [], 0
    for _ in range(300):
        shard, data = entry(int(draw.integers(40)))
        path = cache.path(IDENTITY if draw.integers(2) else OTHER, shard)
        try:
            found = pa.memory_map(str(path)).read_buffer()
        except FileNotFoundError:
            wrong += not cache.put(path, data)
            continue
        wrong += found.to_pybytes() != data.to_pybytes()
        cache.touch(path, 0)  # perhaps evicted by now
        held.append((found, data))
        wrong += sum(a.to_pybytes() != b.to_pybytes() for a, b in held[-5:])
    answers.put(wrong)


def test_processes_share_a_cache_that_is_always_too_small(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    workers = [context.Process(target=busy, args=(tmp_path, seed, 10 * SIZE, answers)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [answers.get() for _ in workers] == [0] * 4
    cache = Cache(tmp_path, 10 * SIZE)
    put(cache, 99)
    files = cache.files()
    assert not any(file.temporary for file in files)
    assert sum(file.size for file in files) <= cache.limit


@pytest.mark.parametrize(("text", "limit"), [("", DEFAULT_BYTES), ("0", 0), ("5000000", 5_000_000)])
def test_the_environment_says_where_and_how_large(
    text: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTHSHARDS_CACHE", str(tmp_path))
    monkeypatch.setenv("SYNTHSHARDS_CACHE_BYTES", text)
    cache = Cache.of_environment()
    assert (cache.root, cache.limit) == (tmp_path / "shards", limit)


def test_without_a_cache_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]) -> None:
    """No HOME, and a user whom the system does not know."""
    monkeypatch.setattr(module, "cache_root", lambda: None)
    cache = Cache.of_environment()
    shard, data = entry(0)
    path = cache.path(IDENTITY, shard)
    assert not cache.put(path, data)
    assert not path.exists()
    assert (cache.files(), cache.folders(), cache.clear()) == ([], {}, (0, 0))
    assert [cli("cache", command).code for command in ("ls", "clear")] == [0, 0]


@pytest.mark.parametrize("text", ["-1", "10GB", "1e9", "1.5", " 7", "٣", "9" * 30])
def test_a_bound_that_is_no_number_of_bytes_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHSHARDS_CACHE_BYTES", text)
    with pytest.raises(UsageError, match=r"SYNTHSHARDS_CACHE_BYTES=.*; legal: a number of bytes, 0 for no cache"):
        Cache.of_environment()


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """This user's cache, with copies of two datasets."""
    monkeypatch.setenv("SYNTHSHARDS_CACHE", str(tmp_path))
    cache = Cache.of_environment()
    for k in range(3):
        put(cache, k)
    put(cache, 3, OTHER)
    (tmp_path / "kernels").mkdir()
    return cache


def test_ls(filled: Cache, cli: Callable[..., Any]) -> None:
    ended = cli("cache", "ls")
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert len(lines) == 3
    assert f"depo-train{' ' * 35}  {IDENTITY.fingerprint[:23]}  3 files, 3,000 bytes" in lines
    assert lines[-1] == f"{filled.root}: 4 files, 4,000 bytes of at most 10,000,000,000 bytes"
    found = json.loads(cli("cache", "ls", "--json").out)
    assert {name: found[name] for name in ("path", "limit", "files", "bytes")} == {
        "path": str(filled.root), "limit": DEFAULT_BYTES, "files": 4, "bytes": 4000,
    }  # fmt: skip
    expected = {"name": "depo-train", "fingerprint": IDENTITY.fingerprint, "files": 3, "bytes": 3000}
    assert expected in found["datasets"]
    assert len(found["datasets"]) == 2


def test_clear_one_and_all(filled: Cache, tmp_path: Path, cli: Callable[..., Any]) -> None:
    ended = cli("cache", "clear", "--fingerprint", OTHER.fingerprint[:15])
    assert (ended.code, ended.out) == (0, f"{filled.root}: 1 file, 1,000 bytes deleted\n")
    assert [len(files) for files in filled.folders().values()] == [3]
    ended = cli("cache", "clear")
    assert (ended.code, ended.out) == (0, f"{filled.root}: 3 files, 3,000 bytes deleted\n")
    assert listing(tmp_path) == ["kernels"]
    assert cli("cache", "clear").code == 0
    assert cli("cache", "ls").out == f"{filled.root}: 0 files, 0 bytes of at most 10,000,000,000 bytes\n"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["clear", "--fingerprint", "sha256:xyz"], "--fingerprint 'sha256:xyz'; legal: sha256: and up to 64"),
        (["clear", "--fingerprint", ""], "--fingerprint ''; legal: sha256: and up to 64"),
        (["clear", "--fingerprint", "f" * 64], "has none of it; legal: what synthshards cache ls shows"),
        (["cler"], "No such command 'cler'"),
    ],
)
def test_wrong_usage_deletes_nothing(words: list[str], line: str, filled: Cache, cli: Callable[..., Any]) -> None:
    ended = cli("cache", *words)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert line in ended.err
    assert len(filled.files()) == 4


def test_the_bare_command_shows_its_help(cli: Callable[..., Any]) -> None:
    ended = cli("cache")
    assert ended.code == 0
    assert "synthshards cache clear" in ended.out


NO_TORCH = "import sys; sys.modules['torch'] = None; from synthshards.cli import main; main()"


def test_it_works_without_torch_and_its_neighbour_says_what_it_needs(tmp_path: Path) -> None:
    ended = python("-c", NO_TORCH, "cache", "ls", SYNTHSHARDS_CACHE=str(tmp_path))
    assert ended.stdout == f"{tmp_path}/shards: 0 files, 0 bytes of at most 10,000,000,000 bytes\n"
    ended = python("-c", NO_TORCH, "loaders-check", "depo", check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: loaders-check needs torch; install it with: pip install 'synthshards[torch]'\n"
