"""The executor of this process.

Threads, not processes: kernels, Parquet encoding and hashing all release the GIL, so threads scale as processes do
(docs/performance.md has the measurement) and share compiled code and memory, and none outlives its process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import TypeVar

from .futures import as_they_come
from .progress import Tick

J = TypeVar("J")
R = TypeVar("R")

_numbers = count()


class Stopped(Exception):  # noqa: N818 (a signal, not an error)
    """The run is being stopped; the job in hand is dropped."""


def run_in_threads(
    work: Callable[[J, Tick], R], jobs: Iterable[J], workers: int, *, tick: Tick, show: Callable[[], None]
) -> Generator[R, None, None]:
    """An `Executor`: at most two jobs a worker are in flight, whatever the number of jobs.

    Running jobs are stopped in their next tick. Close the generator before you let go of what the jobs work on: after
    an exception in the loop's body, its traceback would keep the generator, and its threads, alive.
    """
    stop = threading.Event()

    def tick_or_stop(counts: dict[str, int]) -> None:
        if stop.is_set():
            raise Stopped
        tick(counts)

    def run(job: J) -> R:
        tick_or_stop({})
        return work(job, tick_or_stop)

    name = f"synthshards-{next(_numbers)}"
    threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
    try:
        yield from as_they_come(lambda job: threads.submit(run, job), jobs, 2 * workers, stop=stop.set, show=show)
    finally:
        stop.set()
        threads.shutdown(wait=True, cancel_futures=True)
        for thread in threading.enumerate():
            # An interrupt while a thread was being started makes the executor of threads forget it.
            if thread.name.startswith(f"{name}_"):
                with suppress(RuntimeError):  # not started, and nothing left for it to do
                    thread.join()
