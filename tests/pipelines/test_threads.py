"""Jobs in threads: how many at once, what a failure stops, and that no thread is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from synthshards.pipelines.execution.progress import Tick
from synthshards.pipelines.execution.threads import Stopped, run_in_threads


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("synthshards")]


def run(jobs: range, work: Any, workers: int = 2, show: Any = lambda: None) -> Any:
    return run_in_threads(work, jobs, workers, tick=lambda counts: None, show=show)


def until_stopped(tick: Tick) -> None:
    while True:
        tick({})
        time.sleep(0.001)


def test_every_job_is_done_once_by_as_many_threads_as_asked_for() -> None:
    barrier = threading.Barrier(3, timeout=10)  # only three at once can pass it

    def work(job: int, tick: Tick) -> tuple[int, str]:
        barrier.wait()
        return job, threading.current_thread().name

    done = list(run(range(9), work, workers=3))
    assert sorted(job for job, _ in done) == list(range(9))
    assert len({name for _, name in done}) == 3


def test_no_job_at_all() -> None:
    assert list(run(range(0), None)) == []


def test_results_that_nobody_has_taken_hold_jobs_back() -> None:
    begun: list[int] = []
    with closing(run(range(1000), lambda job, tick: begun.append(job))) as results:
        next(results)
        time.sleep(0.1)
        assert len(begun) <= 5
    assert len(begun) <= 5


def test_after_a_failure_nothing_new_begins_and_what_finishes_all_the_same_is_yielded() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(job: int, tick: Tick) -> int:
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
    begun, stopped = threading.Event(), []

    def work(job: int, tick: Tick) -> None:
        if job == 0:
            begun.wait(10)
            raise ValueError("first")
        begun.set()
        try:
            until_stopped(tick)
        except Stopped:
            stopped.append(job)
            raise

    with pytest.raises(ValueError, match="first"):
        list(run(range(4), work))
    assert 1 in stopped


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_main_thread_stops_jobs_and_waits_for_them(error: type[BaseException]) -> None:
    ended: list[int] = []

    def work(job: int, tick: Tick) -> None:
        try:
            until_stopped(tick)
        finally:
            ended.append(job)

    def show() -> None:
        raise error

    with pytest.raises(error):
        list(run(range(100), work, show=show))
    assert sorted(ended) == [0, 1]


def test_an_interrupt_as_a_thread_starts_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        real(thread)
        raise KeyboardInterrupt

    def work(job: int, tick: Tick) -> None:
        try:
            until_stopped(tick)
        finally:
            time.sleep(0.2)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        list(run(range(9), work))


def test_show_is_called_often_while_jobs_take_long() -> None:
    calls: list[float] = []
    list(run(range(1), lambda job, tick: time.sleep(0.6), show=lambda: calls.append(time.monotonic())))
    assert len(calls) >= 3


def test_ticks_are_counted_until_the_run_is_stopped() -> None:
    counted: list[dict[str, int]] = []

    def work(job: int, tick: Tick) -> None:
        tick({"examples": job})
        if job == 3:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(run_in_threads(work, range(1, 100), 1, tick=counted.append, show=lambda: None))
    assert [counts["examples"] for counts in counted if counts] == [1, 2, 3]


def test_jobs_are_taken_as_there_is_room() -> None:
    """A job may hold a shard's part of a manifest; a hundred thousand of them at once would be a lot."""
    taken: list[int] = []
    jobs = (taken.append(job) or job for job in range(1000))  # type: ignore[func-returns-value]
    with closing(run_in_threads(lambda job, tick: job, jobs, 2, tick=lambda counts: None, show=lambda: None)) as done:
        next(done)
        assert len(taken) == 4
