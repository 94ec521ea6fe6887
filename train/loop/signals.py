"""Signals that end a training run: the current step is finished, so that a checkpoint is unambiguous."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Terminated(KeyboardInterrupt):
    """Somebody else than the keyboard ended the run: SIGTERM (Slurm, Kubernetes, torchrun), or SIGUSR1 by option."""


class StopSignal:
    """Hears Ctrl-C and SIGTERM while it is entered (in the main thread).

    A step under way is finished first; `at_once` marks what may end in the middle. Of several ranks, all stop behind
    the same step. A second Ctrl-C ends everything, without a checkpoint, but not under torchrun, which passes on what
    the terminal has already sent; nor does a second SIGTERM, since schedulers, too, send theirs to more than one.

    Args:
        world_size: ranks of the run.
        say: is told a line at the first signal.
        usr1: hear SIGUSR1, too.
    """

    def __init__(self, world_size: int, say: Callable[[str], None], usr1: bool = False) -> None:
        self._world_size, self._say, self._heard, self._free = world_size, say, 0, False
        self._numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if usr1 else [])]
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs keep on ignoring it
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._heard and not dist.is_torchelastic_launched():
            raise KeyboardInterrupt
        if not self._heard:
            again = " (Ctrl-C again: now, without a checkpoint)" if number == signal.SIGINT else ""
            self._heard = number
            with suppress(RuntimeError):  # where it comes in the middle of a print
                self._say(f"{signal.Signals(number).name}: stopping after this step{again}")
        if self._free:
            self._free = False
            raise KeyboardInterrupt

    def at_once(self, work: Callable[[], T]) -> T | None:
        """What `work` gives, or None where the first signal has ended it in the middle: the next `check` raises."""
        self._free = True
        try:
            return None if self._heard else work()
        except KeyboardInterrupt:
            if not self._heard:
                raise
            return None
        finally:
            self._free = False

    def check(self) -> None:
        """Raise KeyboardInterrupt (`Terminated`) where any rank has heard a signal. Every rank calls it behind the
        same steps, and none goes on before all have called it."""
        heard = self._heard
        if self._world_size > 1:
            numbers = torch.tensor(heard)
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
            heard = int(numbers)
        if heard:
            raise KeyboardInterrupt if heard == signal.SIGINT else Terminated
