"""Threads that fetch shards ahead of their readers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from weakref import WeakMethod

#: Threads that fetch ahead.
THREADS = 4


class Prefetcher:
    """Calls `fetch` for the shards that are wanted, one after another, in threads that come and go.

    The threads are not daemons, which the end of the program stops in the midst of a file of the cache, or of pyarrow.
    They end by themselves when nothing is left to fetch, when the owner of `fetch` is gone (which they hold only while
    they call it), and when the main thread ends.

    Args:
        fetch: a method, called with the number of a shard.
        most: shards that wait at most.
    """

    def __init__(self, fetch: Callable[[int], None], most: int) -> None:
        self._fetch, self._most = WeakMethod(fetch), most
        self._lock = threading.Lock()  # of all that follows; not held during a fetch
        self._wanted: deque[int] = deque()
        self._threads: list[threading.Thread] = []  # some may have ended
        self._running = 0  # of them

    def want(self, shards: Iterable[int]) -> None:
        """Fetch these shards in this order, too; beyond `most` that wait, the rest is ignored."""
        with self._lock:
            for shard in shards:
                if len(self._wanted) >= self._most:
                    break
                if shard not in self._wanted:
                    self._wanted.append(shard)
            fresh = [
                threading.Thread(target=self._run, name="synthshards-prefetch")
                for _ in range(min(len(self._wanted), THREADS - self._running))
            ]
            self._running += len(fresh)
            self._threads = [thread for thread in self._threads if thread.is_alive()] + fresh
            for thread in fresh:
                thread.start()

    def close(self) -> None:
        """Forget what waits, and wait for the fetches in progress."""
        with self._lock:
            self._wanted.clear()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (shard := self._next()) is not None:
            fetch = self._fetch()
            try:
                if fetch is not None:
                    fetch(shard)
            except BaseException:
                with self._lock:
                    self._running -= 1
                raise
            del fetch  # between two shards the thread does not hold the owner

    def _next(self) -> int | None:
        """A shard that is wanted; None when there is none, or the program ends: then the thread does, too."""
        with self._lock:
            if not self._wanted or not threading.main_thread().is_alive():
                self._running -= 1  # here, so that what is wanted from now on gets a thread of its own
                return None
            return self._wanted.popleft()
