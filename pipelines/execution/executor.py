"""Executors: they run the jobs of builds and checks, in threads or by other means with the same protocol."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

from synthshards.errors import UsageError, cut

from .progress import Tick
from .threads import run_in_threads

J = TypeVar("J")
R = TypeVar("R")


class Executor(Protocol):
    """Runs jobs side by side, here or elsewhere.

    A job is a plain picklable value, `work` a module-level function, and a result is small (no rows), so all three can
    be sent to another process or machine.

    The first job that fails ends the run: no new job starts, the results of jobs that still finish are yielded, and the
    error is raised. Losing a worker is a one-line `SynthshardsError`. If the caller closes the generator or is
    interrupted, running jobs are stopped; when the generator has ended, no job is running. Processes are spawned, never
    forked, because a fork would keep holding the lock of the folder that is being built.
    """

    def __call__(
        self, work: Callable[[J, Tick], R], jobs: Iterable[J], workers: int, *, tick: Tick, show: Callable[[], None]
    ) -> Generator[R, None, None]:
        """Yield the results of ``work(job, tick)`` as they come.

        Args:
            work: does one job. It often calls the `tick` that it is given, in which the executor may raise to stop it.
            jobs: taken one by one when there is room, so that their number costs no memory.
            workers: number of jobs to work on at the same time.
            tick: called in this process, from any thread, with what was done: during a job, or at its end.
            show: called in the caller's thread, several times per second.
        """
        ...


#: Name on the command line → executor.
EXECUTORS: dict[str, Executor] = {"local": run_in_threads}


def executor_named(name: str) -> Executor:
    """The executor of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in EXECUTORS:
        raise UsageError(f"--executor {cut(repr(name))}; legal: {', '.join(EXECUTORS)}")
    return EXECUTORS[name]
