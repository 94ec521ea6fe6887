"""What executors have in common: how many jobs are in flight, and what a failure stops."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")

#: How long the main thread sleeps between looks, so that Ctrl-C is seen at once (seconds).
_LOOK = 0.1


def as_they_come(
    submit: Callable[[J], Future[R]],
    jobs: Iterable[J],
    in_flight: int,
    *,
    stop: Callable[[], None],
    show: Callable[[], None],
) -> Generator[R, None, None]:
    """Yield the results of jobs as they come, with at most `in_flight` of them submitted at a time.

    When a job fails, `stop` is called, what has not begun is cancelled, the results of jobs that finish all the same
    are yielded, and the error goes on. Results that nobody takes hold further jobs back.
    """
    queue = iter(jobs)
    pending: set[Future[R]] = set()
    failure: BaseException | None = None
    while True:
        pending.update(map(submit, islice(queue, in_flight - len(pending))))
        if not pending:
            break
        done, pending = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
        show()
        for future in done:
            error = future.exception()
            if error is None:
                yield future.result()
            elif failure is None:
                failure = error
                stop()
                queue = iter(())
                pending = {other for other in pending if not other.cancel()}
    if failure is not None:
        raise failure
