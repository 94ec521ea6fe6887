"""Shards in an object store: fetched once, cached, fetched ahead; and what networks and stores do to that."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from helpers import PACKAGE, SUPPORT, python
from s3 import Server
from shard_parts import ROWS, build, opened, right, same, wanted

from synthshards.errors import DataError, HealWarning, StorageError
from synthshards.loaders.shards import download as fetching
from synthshards.loaders.shards import prefetch as module
from synthshards.loaders.shards.cache import Cache
from synthshards.loaders.shards.reader import Shards

SHARD = "GET /.*train-0000"
MIDDLE = "GET /.*train-00001"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset on disk."""
    return Path(build(tmp_path_factory.mktemp("local") / "set"))


@pytest.fixture
def url(s3_url: str, s3_bucket: str, s3_env: Server, local: Path) -> str:
    """The dataset in a bucket of its own."""
    for path in local.iterdir():
        s3_env.put(s3_bucket, f"prefix/{path.name}", path.read_bytes())
    return s3_url


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache of the test's own."""
    monkeypatch.setenv("SYNTHSHARDS_CACHE", str(tmp_path / "cache"))
    return Cache.of_environment()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow asks once instead of four times (which takes seconds), and we wait less."""
    real = pyarrow.fs.AwsStandardS3RetryStrategy
    monkeypatch.setattr(pyarrow.fs, "AwsStandardS3RetryStrategy", lambda max_attempts: real(max_attempts=1))
    monkeypatch.setattr(fetching, "BACKOFF", 0.01)


def sizes(local: Path) -> list[int]:
    return [path.stat().st_size for path in sorted(local.glob("train-*"))]


def fetches(proxy: Server) -> list[str]:
    """The shards' names in the GET requests since the last call."""
    return [request.rpartition("/")[2] for request in proxy.seen() if "GET" in request and "train-" in request]


def healed(caught: Any) -> list[str]:
    return [str(each.message) for each in caught if each.category is HealWarning]


# Fetching and caching -----------------------------------------------------------------------------------------------


def test_a_shard_is_fetched_once_and_then_comes_from_the_cache(
    url: str, local: Path, s3_proxy: Server, cache: Cache
) -> None:
    shards, tally = opened(url, keep=1)
    assert right(shards)
    assert right(shards)
    total = sum(sizes(local))
    assert tally.counts == {"bytes_read": total, "bytes_fetched": total, "shards_opened": 6, "cache_hits": 3}
    assert sorted(fetches(s3_proxy)) == sorted(path.name for path in local.glob("train-*"))
    again, tally = opened(url)
    assert right(again)
    assert tally.counts == {"bytes_read": total, "shards_opened": 3, "cache_hits": 3}
    assert fetches(s3_proxy) == []
    assert sorted(file.size for file in cache.files()) == sorted(sizes(local))


def test_two_datasets_of_one_identity_share_their_copies(url: str, local: Path, s3_bucket: str, s3_env: Server) -> None:
    assert right(opened(url)[0])
    for path in local.iterdir():
        s3_env.put(s3_bucket, f"other/{path.name}", path.read_bytes())
    shards, tally = opened(f"s3://{s3_bucket}/other")
    assert right(shards)
    assert tally["bytes_fetched"] == 0


@pytest.mark.parametrize("limit", ["0", "full", "no folder"])
def test_without_a_cache_all_is_as_right(
    limit: str, url: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "0":
        monkeypatch.setenv("SYNTHSHARDS_CACHE_BYTES", "0")
    elif limit == "full":
        refuses = "synthshards.loaders.shards.cache.replacing"
        monkeypatch.setattr(refuses, lambda *args, **options: os.truncate("/", -1))  # an OSError
    else:
        (tmp_path / "cache").write_bytes(b"")
    shards, tally = opened(url)
    assert right(shards)
    assert right(shards)
    shards.close()
    assert right(shards, 2)
    assert (tally["bytes_fetched"], tally["cache_hits"]) == (sum(sizes(local)) + sizes(local)[2], 0)


def test_a_cache_of_one_shard(url: str, local: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHSHARDS_CACHE_BYTES", str(max(sizes(local))))
    assert right(opened(url)[0])
    assert sum(file.size for file in cache.files()) <= max(sizes(local))


@pytest.mark.parametrize("open_meanwhile", [False, True])
def test_a_damaged_copy_is_deleted_and_fetched_again(open_meanwhile: bool, url: str, local: Path, cache: Cache) -> None:
    shards, tally = opened(url)
    assert right(shards)
    for file in cache.files():
        data = bytearray(file.path.read_bytes())
        data[100] ^= 1
        file.path.write_bytes(data)
    if not open_meanwhile:
        shards, tally = opened(url)
    before = tally["bytes_fetched"]
    assert right(shards)
    assert tally["bytes_fetched"] - before == sum(sizes(local))
    assert right(opened(url)[0])
    assert len(cache.files()) == 3


def test_a_damaged_copy_goes_also_where_no_other_can_be_written(
    url: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert right(opened(url)[0])
    damaged = cache.files()[0].path
    damaged.write_bytes(b"x")
    monkeypatch.setattr(Cache, "put", lambda self, path, data: False)
    assert right(opened(url)[0])
    assert not damaged.exists()
    assert len(cache.files()) == 2


def test_no_cache_means_that_its_copies_are_not_read(url: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert right(opened(url)[0])
    monkeypatch.setenv("SYNTHSHARDS_CACHE_BYTES", "0")
    shards, tally = opened(url)
    assert right(shards)
    assert (tally["bytes_fetched"], tally["cache_hits"]) == (sum(sizes(local)), 0)


def test_clearing_the_cache_disturbs_nobody(url: str, cache: Cache) -> None:
    shards, tally = opened(url)
    assert right(shards)
    cache.clear()
    assert right(shards)
    assert tally["shards_opened"] == 3


def share(url: str, answers: Any) -> None:
    shards, tally = opened(url, keep=1)
    answers.put((all(right(shards) for _ in range(3)), tally["bytes_fetched"]))


def test_processes_share_the_cache(url: str, local: Path, cache: Cache) -> None:
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    workers = [context.Process(target=share, args=(url, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    found = [answers.get() for _ in workers]
    assert all(fine for fine, _ in found)
    assert sum(fetched for _, fetched in found) <= 3 * sum(sizes(local))
    assert sorted(file.size for file in cache.files()) == sorted(sizes(local))
    assert not any(file.temporary for file in cache.files())


# Fetching ahead -----------------------------------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ahead() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "synthshards-prefetch"]


def test_shards_are_fetched_ahead_each_once(url: str, s3_proxy: Server) -> None:
    shards, tally = opened(url)
    shards.prefetch([2, 0])
    until(lambda: tally["shards_opened"] == 2)
    shards.prefetch([2, 0, 1])
    assert right(shards)
    assert len(fetches(s3_proxy)) == 3
    until(lambda: not ahead())  # threads end when there is nothing to do


def test_reading_waits_for_a_fetch_in_progress(url: str, s3_proxy: Server) -> None:
    s3_proxy.delay(MIDDLE, 0.5)
    shards, _ = opened(url)
    shards.prefetch([1])
    until(lambda: bool(ahead()))
    assert right(shards, 1)
    assert len(fetches(s3_proxy)) == 1


def test_what_is_cached_is_not_fetched_ahead(url: str, s3_proxy: Server) -> None:
    assert right(opened(url)[0])
    fetches(s3_proxy)
    shards, tally = opened(url)
    shards.prefetch([0, 1, 2])
    until(lambda: not ahead())
    assert (fetches(s3_proxy), tally.counts) == ([], {})


def test_few_threads_and_a_bounded_list(tmp_path: Path, s3_url: str, s3_proxy: Server) -> None:
    build(s3_url, examples=200, shard_examples=10)
    s3_proxy.seen()
    s3_proxy.delay(SHARD, 0.2)
    shards, tally = opened(s3_url, keep=8)
    shards.prefetch(range(20))
    most = 0
    while ahead():
        most = max(most, len(ahead()))
        time.sleep(0.01)
    assert most == module.THREADS
    assert len(fetches(s3_proxy)) == tally["shards_opened"] == 8


def test_errors_ahead_of_time_wait_until_the_shard_is_read(url: str, s3_proxy: Server, quick: None) -> None:
    s3_proxy.refuse(MIDDLE)
    shards, _ = opened(url, heal="raise")
    shards.prefetch([0, 1, 2])
    until(lambda: not ahead())
    assert right(shards, 0, 2)
    with pytest.raises(StorageError, match=r"train-00001\.parquet"):
        shards.read(1, 0, 1)
    s3_proxy.refuse("")
    assert right(shards)


def test_close_waits_for_fetches_and_begins_none(url: str, s3_proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS", 1)
    s3_proxy.delay(SHARD, 0.3)
    shards, tally = opened(url)
    shards.prefetch([0, 1, 2])
    until(lambda: bool(s3_proxy.seen()))
    shards.close()
    assert ahead() == []
    assert tally["shards_opened"] == 1
    shards.prefetch([1])
    assert ahead() == []


def test_threads_end_when_the_shards_are_forgotten(url: str, s3_proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THREADS", 1)
    s3_proxy.delay(SHARD, 0.3)
    shards, _ = opened(url)
    shards.prefetch([0, 1, 2])
    until(lambda: bool(s3_proxy.seen()))
    del shards
    until(lambda: not ahead())
    assert len(fetches(s3_proxy)) <= 1  # the one in progress


def child(shards: Shards, answers: Any) -> None:
    shards.prefetch([2])
    answers.put(right(shards))
    shards.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_begun_in_the_midst_of_fetches(method: str, url: str, s3_proxy: Server) -> None:
    shards, _ = opened(url, keep=1)
    assert right(shards, 0)
    s3_proxy.delay(SHARD, 0.3)
    fetches(s3_proxy)
    shards.prefetch([1, 2])
    until(
        lambda: bool(fetches(s3_proxy))
    )  # so that pyarrow holds its lock: children hung without `synthshards.storage.fork_guard`
    context = multiprocessing.get_context(method)
    answers: Any = context.SimpleQueue()
    workers = [context.Process(target=child, args=(shards, answers)) for _ in range(2 if method == "fork" else 1)]
    for worker in workers:
        worker.start()
    assert right(shards)
    for worker in workers:
        worker.join(60)
    assert [(worker.exitcode, answers.get()) for worker in workers] == [(0, True)] * len(workers)


# Faults -------------------------------------------------------------------------------------------------------------

FAULTS: dict[str, Callable[[Server, str, int], None]] = {
    "throttled": lambda proxy, which, times: proxy.throttle(which, times=times),
    "reset": lambda proxy, which, times: proxy.reset(which, times=2 * times),  # curl itself tries twice
    "cut": lambda proxy, which, times: proxy.cut(which, 500, times=times),
    "garbled": lambda proxy, which, times: proxy.garble(which, times=times),
    "internal error": lambda proxy, which, times: proxy.refuse(which, 500, "InternalError", times=times),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_costs_a_retry(fault: str, url: str, s3_proxy: Server, quick: None) -> None:
    FAULTS[fault](s3_proxy, MIDDLE, 1)
    shards, tally = opened(url, heal="raise")
    assert right(shards)
    assert tally["retries"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["throttled", "cut"])
def test_pyarrow_has_patience_of_its_own(fault: str, url: str, s3_proxy: Server) -> None:
    FAULTS[fault](s3_proxy, MIDDLE, 2)
    shards, tally = opened(url, heal="raise")
    assert right(shards)
    assert tally["retries"] == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_is_healed_or_raised(fault: str, url: str, s3_proxy: Server, quick: None) -> None:
    FAULTS[fault](s3_proxy, MIDDLE, 0)
    shards, tally = opened(url)
    with pytest.warns(HealWarning) as caught:
        assert right(shards)
    (line,) = healed(caught)
    assert f"{url}/train-00001.parquet" in line
    asked = 2 if fault == "garbled" else fetching.ATTEMPTS
    assert (tally["shards_healed"], tally["retries"]) == (1, asked - 1)
    with pytest.raises((StorageError, DataError), match=r"train-00001\.parquet"):
        opened(url, heal="raise")[0].read(1, 0, 1)


def test_damage_in_the_store_is_looked_at_twice(url: str, s3_bucket: str, s3_env: Server, quick: None) -> None:
    data = bytearray(s3_env.get(s3_bucket, "prefix/train-00001.parquet"))
    data[200] ^= 1
    s3_env.put(s3_bucket, "prefix/train-00001.parquet", bytes(data))
    shards, tally = opened(url)
    with pytest.warns(HealWarning, match="damaged"):
        assert right(shards)
    assert (tally["retries"], tally["shards_healed"]) == (1, 1)


def objects(s3: Server, bucket: str) -> dict[str, bytes]:
    return {key: s3.get(bucket, key) for key in s3.objects(bucket)}


@pytest.mark.parametrize("how", ["absent", "damaged"])
def test_rewrite_repairs_an_object(how: str, url: str, s3_bucket: str, s3_proxy: Server, quick: None, cli: Any) -> None:
    before = objects(s3_proxy, s3_bucket)
    key = "prefix/train-00001.parquet"
    if how == "absent":
        s3_proxy._ask("DELETE", f"/{s3_bucket}/{key}")
    else:
        s3_proxy.put(s3_bucket, key, b"x" * len(before[key]))
    s3_proxy.seen()
    damaged = objects(s3_proxy, s3_bucket)
    with pytest.warns(HealWarning, match=r"train-00001\.parquet: .*nothing was written"):
        assert right(opened(url)[0])
    assert objects(s3_proxy, s3_bucket) == damaged
    s3_proxy.seen()
    shards, tally = opened(url, heal="rewrite")
    with pytest.warns(HealWarning, match=r"train-00001\.parquet: .*the file was written again"):
        assert right(shards)
    assert objects(s3_proxy, s3_bucket) == before
    assert cli("verify", url).code == 0
    assert tally["retries"] == (1 if how == "damaged" else 0)  # that nothing is there need not be asked twice


def test_rewrite_writes_nothing_because_a_store_fails(url: str, s3_proxy: Server, quick: None) -> None:
    s3_proxy.throttle(MIDDLE)
    with pytest.warns(HealWarning, match="nothing was written"):
        assert right(opened(url, heal="rewrite")[0])
    assert not [request for request in s3_proxy.seen() if request.startswith("PUT")]


def test_a_store_that_goes_on_failing_is_left_in_peace_and_asked_again(
    s3_url: str, s3_proxy: Server, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(s3_url, examples=70, shard_examples=10)
    shards, tally = opened(s3_url)
    s3_proxy.seen()
    s3_proxy.throttle(SHARD)
    begun = time.monotonic()
    with pytest.warns(HealWarning) as caught:
        assert all(same(shards.read(shard, 0, 10), law(shard)) for shard in range(5))
    assert fetches(s3_proxy) == ["train-00000.parquet"] * 3 + ["train-00001.parquet"]
    assert len(healed(caught)) == 5
    assert "not asked again within 60 s" in healed(caught)[2]
    shards.prefetch([5])
    until(lambda: not ahead())
    assert fetches(s3_proxy) == []
    s3_proxy.refuse("")
    monkeypatch.setattr(fetching.time, "monotonic", lambda: begun + 1000)
    assert same(shards.read(5, 0, 10), law(5))
    assert fetches(s3_proxy) == ["train-00005.parquet"]
    assert tally["shards_healed"] == 5


def law(shard: int) -> Any:
    return wanted(0, 10 * shard, 10 * shard + 10)


def test_a_single_object_out_of_reach_does_not_condemn_the_store(s3_url: str, s3_proxy: Server, quick: None) -> None:
    build(s3_url, examples=40, shard_examples=10)
    s3_proxy.refuse("GET .*train-0000[02]")
    shards, tally = opened(s3_url)
    with pytest.warns(HealWarning):
        assert all(same(shards.read(shard, 0, 10), law(shard)) for shard in range(4))
    assert (tally["shards_healed"], tally["shards_opened"]) == (2, 2)


def test_training_goes_on_through_a_dead_bucket(
    url: str, s3_env: Server, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server("proxy", s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        shards, tally = opened(url)
        assert right(shards, 0)
    shards.prefetch([1, 2])
    with pytest.warns(HealWarning) as caught:
        assert right(shards)
    assert ["train-00001" in healed(caught)[0], "train-00002" in healed(caught)[1]] == [True, True]
    assert tally["shards_healed"] == 2
    shards.close()
    with pytest.raises(StorageError, match=r"cannot read s3://.*train-00001\.parquet: "):
        Shards(shards._stored, "raise").read(1, 0, 1)


@pytest.mark.parametrize("heal", ["regenerate", "raise"])
def test_chance_is_the_users_own(heal: str, url: str, s3_proxy: Server, quick: None) -> None:
    """A retry must not change what the user's program draws."""
    import random

    random.seed(0)
    expected = random.random()
    random.seed(0)
    s3_proxy.throttle(MIDDLE, times=1)
    assert right(opened(url, heal=heal)[0])
    assert random.random() == expected


# Ends ---------------------------------------------------------------------------------------------------------------

READING = """
import sys, time
from shard_parts import opened, right
shards, tally = opened(sys.argv[1], keep=1)
shards.prefetch([0, 1, 2])
print("begun", flush=True)
{}
"""
ENDS = {
    "normal": ("assert right(shards)", 0),
    "closed": ("assert right(shards); shards.close()", 0),
    "exception": ("shards.read(0, 0, 1); raise SystemExit(7)", 7),
    "at once": ("sys.exit(5)", 5),
    "ctrl-c": ("while True: right(shards); time.sleep(0.01)", -signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(end: str, url: str, tmp_path: Path, cache: Cache, s3_proxy: Server) -> None:
    """No temporary file, no process, no delay, and not a word."""
    s3_proxy.delay("GET /.*train-0000[12]", 0.4)
    code, status = ENDS[end]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = os.pathsep.join([str(PACKAGE.parent), str(SUPPORT)])
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(READING).format(code), url],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    if end == "ctrl-c":
        for _ in range(8):  # one that falls into a callback of Numba's compiler is swallowed there
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
                break
    _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert said == "" if end != "ctrl-c" else said.rstrip().endswith("KeyboardInterrupt")
    assert list(scratch.iterdir()) == []
    assert not any(file.temporary for file in cache.files())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert right(opened(url)[0])


WRITING = """
import sys, time
from contextlib import contextmanager
from shard_parts import opened
from synthshards.loaders.shards import cache

class Slow:
    def __init__(self, file):
        self.file = file
    def write(self, data):
        self.file.write(bytes(data)[:100])
        self.file.flush()
        begun.append(self)
        time.sleep(2)
        return self.file.write(bytes(data)[100:])

@contextmanager
def slowly(*args, **options):
    with replacing(*args, **options) as file:
        yield Slow(file)

begun, replacing, cache.replacing = [], cache.replacing, slowly
shards, _ = opened(sys.argv[1])
shards.prefetch([0, 1, 2])
while len(begun) < 3:
    time.sleep(0.01)
"""


def test_a_copy_that_is_being_written_is_finished(url: str, local: Path, cache: Cache) -> None:
    """Though the main thread has ended by then."""
    assert python("-c", WRITING, url).stderr == ""
    assert sorted(file.size for file in cache.files()) == sorted(sizes(local))
    assert not any(file.temporary for file in cache.files())


def test_the_end_of_a_program_does_not_wait_for_all_that_is_wanted(s3_url: str, s3_proxy: Server) -> None:
    build(s3_url, examples=200, shard_examples=10)
    s3_proxy.delay(SHARD, 0.5)
    s3_proxy.seen()
    code = "import sys; from shard_parts import opened; shards, _ = opened(sys.argv[1]); shards.prefetch(range(20))"
    python("-c", code, s3_url)
    assert len(fetches(s3_proxy)) <= module.THREADS


def test_threads_read_what_others_fetch(url: str, s3_proxy: Server) -> None:
    s3_proxy.delay(SHARD, 0.1)
    shards, tally = opened(url)
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda thread: right(shards, thread % 3), range(6)))
    assert len(fetches(s3_proxy)) == 3
    assert tally["shards_opened"] == len(ROWS)
