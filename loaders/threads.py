"""A stream made ahead by threads of one process. Kernels release Python's lock, so that threads work at once, and
nothing is done twice; what the loader hands out, and its state, are those of the stream itself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from synthshards.errors import UsageError

from .stream import Batch, Job, Step, Stream

#: Rows of a piece of work: fewer than of a stream's own, so that batches that wait stay in the processor's caches.
_PIECE = 256


class Loader:
    """Batches of a stream, made ahead.

    Args:
        stream: what to hand out; do not iterate it elsewhere meanwhile.
        num_workers: threads, 0: none (batches are made when they are asked for).
        prefetch: pieces of work that wait beside those in the making, at least 1.

    Raises:
        UsageError: a number out of range.
    """

    def __init__(self, stream: Stream, num_workers: int = 1, prefetch: int = 2) -> None:
        for name, value, least in (("num_workers", num_workers, 0), ("prefetch", prefetch, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name}={value!r}; legal: an integer of at least {least}")
        self.stream, self.num_workers, self.prefetch = stream, num_workers, prefetch

    def __len__(self) -> int:
        return len(self.stream)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands after the last batch handed out; what is made ahead does not count."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """See `Stream.load_state_dict`."""
        self.stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the stream stands to the end of the epoch. Closing the iterator ends the threads."""
        if self.num_workers == 0:
            yield from self.stream
            return
        for batch, position in self._steps():
            self.stream.stand_at(position)
            yield batch
        self.stream.finish()

    def _steps(self) -> Iterator[Step]:
        # A packed piece must be done before the next: one thread follows them, the others share each one's rows.
        packed = self.stream.packed
        makers = ThreadPoolExecutor(1 if packed else self.num_workers, "synthshards-batches")
        sharers = ThreadPoolExecutor(self.num_workers, "synthshards-rows") if packed and self.num_workers > 1 else None
        jobs = self.stream.jobs(sharers, rows=_PIECE)
        own = threading.local()

        def make(job: Job) -> list[Step]:
            if not hasattr(own, "buffers"):
                own.buffers = self.stream.buffers()
            return list(job(own.buffers))

        def make_next() -> list[Step] | None:
            job = next(jobs, None)
            return None if job is None else make(job)

        ahead: deque[Future[list[Step] | None]] = deque()
        try:
            ended = False
            while True:
                while not ended and len(ahead) < self.num_workers + self.prefetch:
                    if packed:
                        ahead.append(makers.submit(make_next))
                    else:
                        job = next(jobs, None)
                        ended = job is None
                        if job is not None:
                            ahead.append(makers.submit(make, job))
                if not ahead:
                    return
                steps = ahead.popleft().result()
                if steps is None:
                    ended = True
                    ahead.clear()
                    return
                yield from steps
        finally:
            makers.shutdown(cancel_futures=True)
            if sharers is not None:
                sharers.shutdown(cancel_futures=True)
