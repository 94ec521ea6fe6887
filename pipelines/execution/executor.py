"""Who does the work of shards: threads of this process, or what else the table below names."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

from synthshards.errors import UsageError

from .progress import Tick
from .threads import run_in_threads

J = TypeVar("J")
R = TypeVar("R")


class Executor(Protocol):
    """Runs jobs side by side, here or elsewhere, and yields the results of ``work(job, tick)`` as they come.

    A job is a plain value that pickles, `work` a function of a module, a result is small (no rows): all three may
    travel to another process or machine.

    Args:
        work: does one job. It calls the `tick` that it is handed often: the executor may raise in there to stop it.
        jobs: taken one by one as there is room, so that their number costs no memory.
        workers: how many jobs to work on at once.
        tick: is told in this process, from any thread, what was done: while a job runs, or at its end.
        show: is called in the caller's thread, several times a second.

    The first job that fails ends the run: nothing new begins, the results of jobs that finish all the same are
    yielded, and its error is raised. A worker that is lost is a `SynthshardsError` of one line. Where the caller closes
    the generator, or is interrupted, running jobs are stopped; none is at work any more when the generator has ended.
    Processes are spawned, never forked: a fork would go on holding the lock of the folder that is being built.
    """

    def __call__(
        self, work: Callable[[J, Tick], R], jobs: Iterable[J], workers: int, *, tick: Tick, show: Callable[[], None]
    ) -> Generator[R, None, None]: ...


#: Name on the command line → executor.
EXECUTORS: dict[str, Executor] = {"local": run_in_threads}


def executor_named(name: str) -> Executor:
    """The executor of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in EXECUTORS:
        raise UsageError(f"--executor {name!r}; legal: {', '.join(EXECUTORS)}")
    return EXECUTORS[name]
