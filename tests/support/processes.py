"""An executor that works in other processes: nothing but what pickles reaches them, and a kill ends them."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import TypeVar

from synthshards.errors import SynthshardsError
from synthshards.pipelines.execution.futures import as_they_come
from synthshards.pipelines.execution.progress import Tick

J = TypeVar("J")
R = TypeVar("R")


class Processes:
    """An `Executor` of two processes, started by the first job and kept from run to run until `close`."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def __call__(
        self, work: Callable[[J, Tick], R], jobs: Iterable[J], workers: int, *, tick: Tick, show: Callable[[], None]
    ) -> Generator[R, None, None]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
        executor = self._executor
        futures: list[Future[tuple[R, Counter[str]]]] = []

        def submit(job: J) -> Future[tuple[R, Counter[str]]]:
            futures.append(executor.submit(_counted, work, job))
            return futures[-1]

        try:
            with closing(as_they_come(submit, jobs, 2 * workers, stop=lambda: None, show=show)) as results:
                for result, counts in results:
                    tick(counts)
                    yield result
        except BrokenProcessPool:
            self.close()
            raise SynthshardsError("a worker process has died; run the same command again") from None
        finally:
            wait([future for future in futures if not future.cancel()])

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _counted(work: Callable[[J, Tick], R], job: J) -> tuple[R, Counter[str]]:
    """A job's result, and the sum of what it ticked."""
    counts: Counter[str] = Counter()
    return work(job, counts.update), counts
