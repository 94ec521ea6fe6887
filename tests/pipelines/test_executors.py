"""Jobs in threads: how many at once, what a failure stops, and that no thread is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from synthshards.pipelines.execution.threads import check_stop, run_local
from synthshards.pipelines.shard import Stopped


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("synthshards")]


def run(jobs: range, work: Any, workers: int = 2, show: Any = lambda: None) -> Any:
    return run_local(jobs, work, workers, threading.Event(), show)


def test_every_job_is_done_once_by_as_many_threads_as_asked_for() -> None:
    barrier = threading.Barrier(3, timeout=10)  # only three at once can pass it

    def work(job: int) -> tuple[int, str]:
        barrier.wait()
        return job, threading.current_thread().name

    done = list(run(range(9), work, workers=3))
    assert sorted(job for job, _ in done) == list(range(9))
    assert len({name for _, name in done}) == 3


def test_no_job_at_all() -> None:
    assert list(run(range(0), str)) == []


def test_results_that_nobody_has_taken_hold_jobs_back() -> None:
    begun: list[int] = []
    with closing(run(range(1000), begun.append)) as results:
        next(results)
        time.sleep(0.1)
        assert len(begun) <= 5
    assert len(begun) <= 5


def test_after_a_failure_nothing_new_begins_and_what_finishes_all_the_same_is_yielded() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(job: int) -> int:
        begun.append(job)
        if job == 1:
            failed.set()
            raise ValueError("no")
        if job == 0:
            failed.wait(10)
            time.sleep(0.3)
        return job

    got: list[int] = []
    with pytest.raises(ValueError, match="no"):
        got.extend(run(range(100), work))
    assert 0 in got
    assert len(begun) < 10


def test_the_first_failure_is_the_one_to_report() -> None:
    stop = threading.Event()

    def work(job: int) -> None:
        if job == 0:
            raise ValueError("first")
        while True:
            check_stop(stop)
            time.sleep(0.001)

    with pytest.raises(ValueError, match="first"):
        list(run_local(range(4), work, 2, stop, lambda: None))
    with pytest.raises(Stopped):
        check_stop(stop)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_main_thread_stops_jobs_and_waits_for_them(error: type[BaseException]) -> None:
    stop, ended = threading.Event(), []

    def work(job: int) -> None:
        try:
            while True:
                check_stop(stop)
                time.sleep(0.001)
        finally:
            ended.append(job)

    def show() -> None:
        raise error

    with pytest.raises(error):
        list(run_local(range(100), work, 2, stop, show))
    assert sorted(ended) == [0, 1]


def test_an_interrupt_as_a_thread_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        real(thread)
        raise KeyboardInterrupt

    def work(job: int) -> None:
        while not stop.is_set():
            time.sleep(0.001)
        time.sleep(0.2)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        list(run_local(range(9), work, 2, stop, lambda: None))


def test_show_is_called_often_while_jobs_take_long() -> None:
    calls: list[float] = []
    list(run(range(1), lambda job: time.sleep(0.6), show=lambda: calls.append(time.monotonic())))
    assert len(calls) >= 3
