"""Shards: what is read, what is hashed again, threads, processes. Healing, cache and S3 have files of their own."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from shard_parts import ROWS, Tally, build, opened, right, same, spoil, wanted
from small_datasets import FORMATS

from synthshards.dataset.stored import open_stored
from synthshards.errors import HealWarning, UsageError
from synthshards.loaders.shards import checked_files
from synthshards.loaders.shards.reader import Shards


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Not to be changed."""
    return build(tmp_path_factory.mktemp("built") / "set")


@pytest.mark.parametrize("format", FORMATS)
def test_any_range_of_rows_is_that_of_the_law(format: str, tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set", format=format))
    for shard, start, stop in [
        (0, 0, 0), (0, 0, 1), (0, 1000, 1100), (0, 1023, 2049), (0, 0, 2500), (1, 2499, 2500), (1, 7, 9), (2, 0, 300),
    ]:  # fmt: skip
        assert same(shards.read(shard, start, stop), wanted(shard, start, stop)), (shard, start, stop)
    sizes = [entry.bytes for entry in open_stored(str(tmp_path / "set")).manifest.shards]
    assert tally.counts == {"shards_opened": 3, "bytes_read": sum(size or 0 for size in sizes)}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("copied", [0, checked_files.COPIED])
def test_a_disk_without_maps(format: str, copied: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files, which are mapped elsewhere, and small ones."""

    def refuse(name: bytes) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(pa, "memory_map", refuse)
    monkeypatch.setattr(checked_files, "COPIED", copied)
    shards, _ = opened(build(tmp_path / "set", format=format))
    assert all(right(shards, shard) for shard in range(3))


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    shards, _ = opened(build(tmp_path / os.fsdecode(b"a\xff\xe9")))
    assert all(right(shards, shard) for shard in range(3))


def test_a_pipe_in_place_of_a_shard_is_not_waited_for(tmp_path: Path) -> None:
    location = build(tmp_path / "set")
    path = tmp_path / "set" / open_stored(location).manifest.shards[1].path
    path.unlink()
    os.mkfifo(path)
    shards, _ = opened(location)
    with pytest.warns(HealWarning, match="a pipe, socket or device"):
        assert right(shards, 1)


def test_rows_stay_when_their_shard_is_closed(built: str) -> None:
    shards, _ = opened(built, keep=1)
    rows = shards.read(0, 0, 100)
    assert right(shards)
    shards.close()
    assert same(rows, wanted(0, 0, 100))


def test_an_unchanged_file_is_hashed_once(built: str) -> None:
    shards, tally = opened(built, keep=1)
    for shard in (0, 1, 0, 1, 0):
        assert right(shards, shard)
    sizes = [entry.bytes or 0 for entry in open_stored(built).manifest.shards]
    assert tally.counts == {"shards_opened": 5, "bytes_read": sizes[0] + sizes[1]}


def test_the_least_recently_used_shard_is_closed(built: str) -> None:
    shards, tally = opened(built, keep=2)
    for shard in (0, 1, 0, 2, 0):
        shards.read(shard, 0, 1)
    assert tally["shards_opened"] == 3
    shards.read(1, 0, 1)
    assert tally["shards_opened"] == 4


def test_damage_is_noticed_while_the_shard_is_open(tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set"))
    assert right(shards)
    file = tmp_path / "set" / "train-00001.parquet"
    spoil(file, "flipped")
    with pytest.warns(HealWarning, match=r"train-00001\.parquet"):
        assert right(shards)
    assert (tally["shards_healed"], tally["shards_opened"]) == (1, 3)


def test_a_file_that_is_whole_again_is_read_again(tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set"))
    file = tmp_path / "set" / "train-00001.parquet"
    data = file.read_bytes()
    file.unlink()
    with pytest.warns(HealWarning):
        assert right(shards, 1)
    assert tally["shards_opened"] == 0
    file.write_bytes(data)
    assert right(shards, 1)
    assert tally["shards_opened"] == 1


def test_a_file_replaced_by_its_like_is_checked_and_used(tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set"))
    assert right(shards)
    read, file = tally["bytes_read"], tmp_path / "set" / "train-00000.parquet"
    copy = tmp_path / "copy"
    copy.write_bytes(file.read_bytes())
    copy.replace(file)
    assert right(shards)
    assert tally["bytes_read"] == read + file.stat().st_size


def test_a_deleted_file_that_is_open_goes_on_being_read(tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set"))
    assert right(shards)
    (tmp_path / "set" / "train-00000.parquet").unlink()
    assert right(shards)
    assert tally["shards_opened"] == 3


@pytest.mark.parametrize("format", FORMATS)
def test_threads_open_a_shard_once_and_read_what_is_right(format: str, tmp_path: Path) -> None:
    shards, tally = opened(build(tmp_path / "set", format=format))
    start = threading.Barrier(8)

    def work(thread: int) -> bool:
        start.wait()
        draw = np.random.default_rng(thread)
        for _ in range(40):
            shard = int(draw.integers(3))
            begin, end = sorted(draw.integers(ROWS[shard] + 1, size=2).tolist())
            end = min(end, begin + 300)
            if not same(shards.read(shard, begin, end), wanted(shard, begin, end)):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert tally["shards_opened"] == 3


def test_threads_with_room_for_one_shard(built: str) -> None:
    shards, _ = opened(built, keep=1)
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda thread: right(shards, *((thread + k) % 3 for k in range(3))), range(6)))


def test_who_waits_for_a_thread_that_fails_tries_for_himself(built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, _ = opened(built)
    real, entered, go = Shards._open, threading.Event(), threading.Event()

    def failing(*args: object) -> object:
        entered.set()
        go.wait(10)
        monkeypatch.setattr(Shards, "_open", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(Shards, "_open", failing)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(shards.read, 0, 0, 10)
        assert entered.wait(10)
        second = pool.submit(shards.read, 0, 0, 10)
        go.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(10)
        assert same(second.result(10), wanted(0, 0, 10))


def child(shards: Shards, answers: multiprocessing.SimpleQueue[tuple[bool, bool, int]]) -> None:
    tally = shards._count
    assert isinstance(tally, Tally)
    before = tally["shards_opened"]
    answers.put((right(shards), right(shards), tally["shards_opened"] - before))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reads_for_itself(method: str, built: str) -> None:
    shards, tally = opened(built)
    assert right(shards)
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    process = context.Process(target=child, args=(shards, answers))
    with shards._state.lock, shards._state.count.lock:  # as another thread of the parent might hold them at the fork
        process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answers.get() == (True, True, 3)  # its first open is its own, with its own check
    assert tally["shards_opened"] == 3


def test_pickling_keeps_the_options(built: str) -> None:
    shards, _ = opened(built, heal="raise", keep=3)
    assert right(shards)
    copy = pickle.loads(pickle.dumps(shards))
    assert (copy._healer.mode, copy._keep) == ("raise", 3)
    assert right(copy)


def test_prefetching_local_files_does_nothing(built: str) -> None:
    shards, tally = opened(built)
    before = threading.active_count()
    shards.prefetch([0, 1, 2])
    assert threading.active_count() == before
    shards.close()
    assert tally.counts == {}


def test_reading_after_closing_works(built: str) -> None:
    shards, _ = opened(built)
    shards.close()
    shards.close()
    assert right(shards)


@pytest.mark.parametrize("heal", ["rewrit", "", None, 1])
def test_another_heal_is_refused(heal: object, built: str) -> None:
    with pytest.raises(UsageError, match=r"heal=.*; legal: regenerate, raise, rewrite") as caught:
        Shards(open_stored(built), heal=heal)  # type: ignore[arg-type]
    assert ("did you mean 'rewrite'" in str(caught.value)) == (heal == "rewrit")


def test_files_and_maps_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthshards.loaders.shards.checked_files.COPIED", 0)  # else there are no maps
    built = build(tmp_path / "set")
    shards, _ = opened(built, keep=2)
    assert right(shards)

    def mapped() -> set[str]:
        maps = Path("/proc/self/maps").read_text().split("\n")
        return {Path(line.split()[-1]).name for line in maps if built in line}

    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc")
    assert mapped() == {"train-00001.parquet", "train-00002.parquet"}
    shards.close()
    assert mapped() == set()
    assert not [fd for fd in Path("/proc/self/fd").iterdir() if built in str(fd.resolve())]


@pytest.mark.parametrize("format_name", ["parquet", "arrow", "webdataset"])
def test_a_file_that_is_cut_short_while_it_is_read_kills_nobody(tmp_path: Path, format_name: str) -> None:
    from small_datasets import make

    from synthshards import open_dataset

    out = Path(make(tmp_path / "out", examples=5000, shard_examples=5000, format=format_name))
    stream = iter(open_dataset(out).batches(64, shuffle=True))
    seen = next(stream)["index"].tolist()
    file = next(out.glob("train-*"))
    file.write_bytes(file.read_bytes()[:100])  # the same inode: a map would end here, and so would the process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damage that is noticed is healed with a warning
        seen += [i for batch in stream for i in batch["index"].tolist()]
    assert sorted(seen) == list(range(5000))


def test_nothing_here_warns_without_damage(built: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert right(opened(built)[0])
