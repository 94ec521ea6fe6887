"""What every executor gives alike: the same bytes and findings, one line for what fails, and a build that goes on."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from folders import SMALL, files, names, small
from processes import Processes
from small_datasets import make

from synthshards import make_task
from synthshards.catalog import TASKS
from synthshards.dataset.manifest import ShardEntry
from synthshards.errors import DataError, SynthshardsError
from synthshards.pipelines.build import build
from synthshards.pipelines.execution.executor import EXECUTORS, Executor
from synthshards.pipelines.execution.progress import Tick
from synthshards.pipelines.folder.journal import Journal
from synthshards.pipelines.overlap import overlap
from synthshards.pipelines.plan import make_plan
from synthshards.pipelines.reproduce import reproduce
from synthshards.pipelines.shard import ShardJob, make_and_store
from synthshards.pipelines.verify import verify
from synthshards.storage.folder import SCRATCH
from synthshards.storage.open import open_folder

J = TypeVar("J")
R = TypeVar("R")

#: Bytes of a pickled job: it may not hold the entries of all shards, which may be a hundred thousand.
SMALL_PICKLE = 4096


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def test_verify_finds_the_same(tmp_path: Path, executor: Executor) -> None:
    out = make(tmp_path / "out", shards=5, shard_examples=40)
    whole = verify(out, rederive=True, workers=2, executor=executor)
    assert (whole.ok, whole.shards, whole.rederived) == (True, 5, 200)
    assert whole.summary.startswith("200 rows, ")
    damage(Path(out, "train-00001.parquet"))
    Path(out, "train-00003.parquet").unlink()
    assert verify(out, workers=2, executor=executor).problems == [
        ("train-00001.parquet", "the sha256 of the file differs from the manifest's (damaged)"),
        ("train-00003.parquet", "the file is absent"),
    ]


def test_reproduce_mends_and_refuses_the_same(tmp_path: Path, executor: Executor) -> None:
    source, again = make(tmp_path / "source"), tmp_path / "again"
    for standing in (0, 2):
        report = reproduce(source, str(again), workers=2, executor=executor)
        assert (report.made, report.kept) == (3 - standing, standing)
        assert files(again) == files(Path(source))
        damage(again / "train-00002.parquet")


def test_overlap_counts_the_same(tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthshards.pipelines.overlap._PASS_ROWS", 100)
    few = {"N": 3, "K": 1, "mini_vocab": 3, "max_tlen": 1}
    a, b = make(tmp_path / "a", params=few, examples=150), make(tmp_path / "b", params=few, split="eval")
    shared = overlap(a, b, workers=2, executor=executor)
    assert shared == overlap(a, b)
    assert sum(shared.by_size.values()) == shared.shared > 20


def test_a_job_that_fails_ends_the_build_and_the_next_one_goes_on(tmp_path: Path, executor: Executor) -> None:
    promised = build(small(6), str(tmp_path / "whole")).manifest.shards  # type: ignore[union-attr]
    expect = dict(enumerate(promised)) | {3: msgspec.structs.replace(promised[3], content="other")}
    with pytest.raises(DataError, match=r"^train-00003\.parquet: rows generated now have content sha256:.*says other$"):
        build(small(6), str(tmp_path / "x"), workers=2, expect=expect, executor=executor)
    assert "train-00003.parquet" not in files(tmp_path / "x")
    report = build(small(6), str(tmp_path / "x"), workers=2, executor=executor)
    assert report.kept >= 2  # what was done before the fourth shard began
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_an_interrupt_lets_go_of_the_folder(
    tmp_path: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", append)
    with pytest.raises(KeyboardInterrupt):
        build(small(100), str(tmp_path), workers=2, executor=executor)
    monkeypatch.undo()
    shards = len(list(tmp_path.glob("*.parquet")))
    assert 1 <= shards < 20
    assert not (tmp_path / SCRATCH / "lock").exists()
    build(small(10), str(tmp_path / "x"), workers=2, executor=executor)
    assert len(list(tmp_path.glob("*.parquet"))) == shards, "jobs of the first build went on"


def test_a_killed_worker_is_one_line_and_the_next_build_goes_on(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    real = Journal.append

    def append(self: Journal, entry: ShardEntry) -> None:
        real(self, entry)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]

    monkeypatch.setitem(EXECUTORS, "processes", processes)
    command = ["build", *SMALL, "--shards", "30", "--out", tmp_path / "x", "--executor", "processes"]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append)
        ended = cli(*command)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "error: a worker process has died; run the same command again\n"
    ended = cli(*command)
    assert ended.code == 0
    assert " kept" in ended.out
    build(small(30), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")
    assert set(files(tmp_path / "x")) == names(30)


def test_an_error_in_a_worker_keeps_its_class_and_line(processes: Processes) -> None:
    jobs = [ShardJob(small(1), open_folder("/dev/null/x"), 0)]
    with pytest.raises(SynthshardsError, match=r"^/dev/null/x: was deleted or moved during the build; run the"):
        list(processes(make_and_store, jobs, 1, tick=lambda counts: None, show=lambda: None))


def pickled(
    work: Callable[[J, Tick], R], jobs: Iterable[J], workers: int, *, tick: Tick, show: Callable[[], None]
) -> Generator[R, None, None]:
    """An executor that lets nothing but small pickles through."""
    for job in jobs:
        there = pickle.dumps((work, job))
        again, value = pickle.loads(there)
        back = pickle.dumps(again(value, tick))
        assert len(there) < SMALL_PICKLE
        assert len(back) < SMALL_PICKLE
        yield pickle.loads(back)


@pytest.mark.parametrize("task", TASKS)
def test_jobs_and_results_are_small_values(task: str, tmp_path: Path) -> None:
    plan, out = make_plan(make_task(task), shards=40, shard_examples=2), str(tmp_path)
    assert build(plan, out, executor=pickled).made == 40
    assert verify(out, rederive=True, executor=pickled).rederived == 80
    assert overlap(out, out, executor=pickled).shared_in_a == 80
