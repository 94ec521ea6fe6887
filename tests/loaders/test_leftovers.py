"""Nothing is left behind, no thread, process, shared memory or temporary file, after an end of any kind."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from helpers import python
from loading import some_of
from small_datasets import make
from torch.utils.data import DataLoader

from synthshards import open_dataset
from synthshards.kernels.buffers import Pool
from synthshards.loaders.batching.tensors import Memory
from synthshards.loaders.dataset import Dataset
from synthshards.loaders.sources.source import StoredSource

OPTIONS: list[dict[str, Any]] = [{}, {"packing": "concat", "seq_len": 64}]


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("synthshards")]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return make(tmp_path / "out", examples=3000, shard_examples=1000)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_threads_end_with_the_epoch_a_break_or_an_error(folder: str, options: dict[str, Any]) -> None:
    loader = open_dataset(folder).batches(16, **options).loader(num_workers=2)
    for _ in loader:
        assert ours()
    assert ours() == []
    iterator = iter(loader)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert ours() == []
    for batch in loader:
        assert batch
        break
    del batch
    gc.collect()
    assert ours() == []

    def broken() -> None:
        for _ in loader:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    gc.collect()
    assert ours() == []


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_error_in_a_thread_reaches_the_loop(tmp_path: Path, options: dict[str, Any]) -> None:
    out = make(tmp_path / "out", examples=300, shard_examples=100)
    (tmp_path / "out" / "train-00001.parquet").unlink()
    loader = open_dataset(out).batches(10, heal="raise", **options).loader(num_workers=2)
    with pytest.raises(ValueError, match=r"train-00001\.parquet"):
        list(loader)
    assert ours() == []


def test_a_loader_hands_out_what_came_before_an_error(tmp_path: Path) -> None:
    out = make(tmp_path / "out", examples=4096, shard_examples=1024)
    (tmp_path / "out" / "train-00003.parquet").unlink()
    loader = open_dataset(out).batches(64, heal="raise").loader(num_workers=2)
    seen: list[int] = []

    def run() -> None:
        for batch in loader:
            seen.extend(batch["index"].tolist())

    with pytest.raises(ValueError, match="train-00003"):
        run()
    assert seen == list(range(len(seen)))
    assert len(seen) >= 1024
    assert loader.state_dict()["unit"] == len(seen)


SCRIPT = """
import sys, time
from synthshards import open_dataset
from torch.utils.data import DataLoader
if __name__ == "__main__":
    stream = open_dataset(sys.argv[1]).batches(16, repeat=True, packing="concat", seq_len=64)
    loader = stream.loader(num_workers=2) if sys.argv[2] == "threads" else DataLoader(stream, None, num_workers=2)
    for n, batch in enumerate(loader):
        if n == 3:
            print("running", flush=True)
            if sys.argv[3] == "error":
                raise RuntimeError("on purpose")
            if sys.argv[3] == "end":
                break
        if n > 3:
            time.sleep(0.05)
"""


UNFINISHED = """
import sys
from synthshards import open_dataset
options = {} if sys.argv[2] == "pad" else {"packing": sys.argv[2], "seq_len": 64}
stream = open_dataset(sys.argv[1]).batches(16, repeat=True, **options)
batches = iter(stream.loader(num_workers=int(sys.argv[3])))
for _ in range(3):
    batch = next(batches)
"""


@pytest.mark.parametrize("packing", ["pad", "concat"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_script_that_ends_amid_a_stream_ends_in_silence(folder: str, packing: str, workers: int) -> None:
    done = python("-c", UNFINISHED, folder, packing, str(workers))
    assert (done.stdout, done.stderr) == ("", "")


def children(pid: int) -> list[int]:
    """Every process below `pid`, however deep."""
    found = [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]
    return found + [below for child in found for below in children(child)]


def alive(pid: int) -> bool:
    """Whether a process is there (a zombie that nobody waits for is not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize("how", ["end", "error", "ctrl-c"])
def test_nothing_is_left_of_a_script(folder: str, tmp_path: Path, kind: str, how: str) -> None:
    script, temp = tmp_path / "script.py", Path(mkdtemp(dir="/tmp"))  # a socket's path may have 107 bytes
    script.write_text(SCRIPT)
    running = subprocess.Popen(
        [sys.executable, str(script), folder, kind, how],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(temp)},
        start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "running\n"
    below = children(running.pid)
    assert bool(below) == (kind == "processes") or how != "ctrl-c"
    if how == "ctrl-c":
        os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode == 0) == (how == "end"), errors
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if alive(pid)]
    # Python's multiprocessing makes a folder pymp-… in a worker, and now and then one stays that torch has ended.
    assert not [path for path in temp.iterdir() if kind == "threads" or not path.name.startswith("pymp-")]
    rmtree(temp)
    shared = [path.name for path in Path("/dev/shm").iterdir()]
    assert not [name for name in shared for pid in (running.pid, *below) if f"_{pid}_" in name]
    assert sorted(p.name for p in Path(folder).iterdir()) == [
        "_manifest",
        *(f"train-0000{i}.parquet" for i in range(3)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "workers"), [({}, 0), ({"packing": "best-fit", "seq_len": 64}, 2)], ids=str)
def test_memory_stays_flat(options: dict[str, Any], workers: int) -> None:
    loader = open_dataset("mano-10", L=3).batches(8, **options).loader(num_workers=workers)
    iterator = iter(loader)

    def held(batches: int) -> int:
        for _ in range(batches):
            next(iterator)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    first = held(3000)
    assert held(100_000) - first < 24 << 20
    iterator.close()  # type: ignore[attr-defined]


def test_buffers_serve_again_once_nobody_holds_them() -> None:
    memory = Memory(Pool())
    fields = ("input_ids", "loss_mask", ".index")
    tensors, addresses = memory.batch(fields, 4, 100)
    assert [tensors[name].shape for name in tensors] == [(4, 100), (4, 100), (4,)]
    assert [tensor.data_ptr() for tensor in tensors.values()] == addresses
    view = tensors["loss_mask"][1:]
    del tensors
    other, others = memory.batch(fields, 4, 100)
    assert others[0] != addresses[0], "a view of one tensor holds the whole buffer"
    del view, other
    gc.collect()
    places = set()
    for _ in range(10):
        tensors, addresses = memory.batch(fields, 4, 100)
        places.add(addresses[0])
        del tensors
    assert len(places) <= 2


def test_a_pool_gives_no_memory_that_anything_holds() -> None:
    pool = Pool(keep=4)
    arrays = [pool.empty(5000, np.uint16) for _ in range(20)]
    for n, array in enumerate(arrays):
        array[:] = n
    held = [arrays[3][10:20], torch.from_numpy(arrays[5]), memoryview(arrays[7]), arrays[9].view(np.uint8)]
    arrays.clear()
    gc.collect()
    for _ in range(20):
        arrays.append(pool.empty(5000, np.uint16))
        arrays[-1][:] = 99
    assert [int(np.asarray(some).view(np.uint16).max()) for some in held] == [3, 5, 7, 9]
    assert pool.empty(0, np.int64).size == 0
    assert pickle.loads(pickle.dumps(pool)).empty(3, bool).size == 3


def test_a_thread_that_cuts_in_gets_other_memory() -> None:
    pool = Pool()
    pool.empty(100, np.uint8)  # idle from here on
    others: list[np.ndarray] = []

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code is not Pool.take.__code__:
            return None
        if event == "return":  # the buffer is in the pool's list again, and no array was cut from it yet
            sys.settrace(None)
            others.append(pool.empty(100, np.uint8))
        return trace

    known = sys.gettrace()
    sys.settrace(trace)
    try:
        array = pool.empty(100, np.uint8)
    finally:
        sys.settrace(known)
    assert len(others) == 1
    assert not np.shares_memory(array, others[0])


def test_threads_share_a_pool() -> None:
    pool = Pool()

    def use(number: int) -> bool:
        right = True
        for _ in range(2000):
            array = pool.empty(512, np.int64)
            array[:] = number
            time.sleep(0)
            right &= bool((array == number).all())
        return right

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(8)))


def test_workers_of_a_dataloader_give_tensors_of_their_own(folder: str) -> None:
    loader = DataLoader(open_dataset(folder).batches(16), batch_size=None, num_workers=2)
    assert some_of(loader, 40) == some_of(open_dataset(folder).batches(16), 40)


@pytest.mark.parametrize("far", [False, True])
def test_streams_look_ahead_where_shards_are_far(far: bool, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, asked = open_dataset(folder), []
    assert isinstance(dataset, Dataset)
    assert dataset.stored is not None
    monkeypatch.setattr(StoredSource, "ahead", lambda self, indices: asked.append(len(indices)))
    monkeypatch.setattr(type(dataset.stored.folder), "is_local", not far)
    assert len(list(dataset.batches(100))) == 30
    assert (sum(asked) == 3000) if far else (asked == [])
