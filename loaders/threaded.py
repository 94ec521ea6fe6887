"""A stream whose rows are prefetched by threads: generated, or fetched, checked and decoded. Kernels release Python's
lock, so that the threads run in parallel, and nothing is done twice.

The tensors of a batch are written when it is handed out, by the thread that asks for it. That takes some ten
microseconds, no more than handing over a batch made elsewhere; it leaves the batch in the caches of the processor that
goes on with it, and what waits is small: three bytes a token, not twenty-five and as much for padding.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .batching.context import Batch, JobStream, Step
from .batching.options import integer


class Loader:
    """The batches of a stream, with threads that prefetch rows. `Stream.loader` makes it.

    Args:
        stream: the stream; do not iterate it elsewhere at the same time.
        num_workers: number of threads; 0 prefetches nothing.
        prefetch: pieces of work (of 1,024 rows, or a batch of windows) that may wait, beside those in progress, at
            least 1.

    Raises:
        UsageError: a number out of range.
    """

    def __init__(self, stream: JobStream, num_workers: int = 1, prefetch: int = 2) -> None:
        self.stream = stream
        self.num_workers, self.prefetch = integer("num_workers", num_workers, 0), integer("prefetch", prefetch, 1)

    def __len__(self) -> int:
        return len(self.stream)

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out; prefetched rows do not count."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """See `Stream.load_state_dict`."""
        self.stream.load_state_dict(state)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Batches from the stream's position to the end of the epoch. Closing the iterator ends the threads."""
        if self.num_workers == 0:
            yield from self.stream
            return
        for batch, position in self._steps():
            self.stream.move_to(position)
            yield batch
        self.stream.finish()

    def _steps(self) -> Iterator[Step]:
        # Packed batches are planned one after another: one thread plans, the others share the rows that it takes.
        packed = self.stream.packed
        takers = ThreadPoolExecutor(1 if packed else self.num_workers, "synthshards-batches")
        sharers = ThreadPoolExecutor(self.num_workers, "synthshards-rows") if packed and self.num_workers > 1 else None
        jobs = self.stream.jobs(sharers)

        def plan() -> Iterator[Step] | None:
            job = next(jobs, None)
            return None if job is None else job()

        ahead: deque[Future[Iterator[Step] | None]] = deque()
        ending = sys.is_finalizing  # where Python ends, modules are empty, and its threads have been joined
        try:
            ended = False
            while True:
                while not ended and len(ahead) < self.num_workers + self.prefetch:
                    if packed:
                        ahead.append(takers.submit(plan))
                        continue
                    job = next(jobs, None)
                    ended = job is None
                    if job is not None:
                        ahead.append(takers.submit(job))
                if not ahead:
                    return
                steps = ahead.popleft().result()
                if steps is None:
                    return
                yield from steps
        finally:
            for threads in () if ending() else (takers, sharers):
                if threads is not None:
                    threads.shutdown(cancel_futures=True)
