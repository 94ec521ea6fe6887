"""Run shard jobs side by side.

Threads, not processes: kernels, Parquet encoding and hashing all release the GIL, so threads scale as processes do
(docs/performance.md has the measurement) and share compiled code and memory, and none outlives its process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from typing import TypeVar

from ..shard import Stopped

J = TypeVar("J")
R = TypeVar("R")

#: How long the main thread sleeps between looks, so that Ctrl-C is seen at once (seconds).
_LOOK = 0.1
_numbers = count()


def run_local(
    jobs: Iterable[J], work: Callable[[J], R], workers: int, stop: threading.Event, show: Callable[[], None]
) -> Generator[R, None, None]:
    """Yield the results of ``work(job)`` as they come, from `workers` threads.

    At most two jobs a worker are in flight, whatever the number of jobs. When a job fails, `stop` is set, the results
    of jobs that finish all the same are yielded, and the error goes on. When this thread is interrupted, or the
    generator is closed, `stop` is set and running jobs are awaited (they look at `stop` after every few thousand rows).
    Close the generator before you let go of what the jobs work on: after an exception in the loop's body, its traceback
    would keep the generator, and its threads, alive.

    `show` is called in this thread, several times a second.
    """
    pending: set[Future[R]] = set()
    queue = deque(jobs)
    failure: BaseException | None = None
    name = f"synthshards-{next(_numbers)}"
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    try:
        while queue or pending:
            while queue and len(pending) < 2 * workers:
                pending.add(pool.submit(work, queue.popleft()))
            done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
            show()
            for future in done:
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield future.result()
                elif failure is None:
                    failure = error
                    stop.set()
                    queue.clear()
                    for other in pending:
                        other.cancel()
        if failure is not None:
            raise failure
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for thread in threading.enumerate():
            # An interrupt while the pool was starting a thread made it forget that one.
            if thread.name.startswith(f"{name}_"):
                with suppress(RuntimeError):  # not started, and nothing left for it to do
                    thread.join()


def check_stop(stop: threading.Event) -> None:
    """Raise `Stopped` when `stop` is set."""
    if stop.is_set():
        raise Stopped
