"""Ctrl-C during training: the current step is finished, so that a checkpoint is unambiguous."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist


class StopSignal:
    """Hears Ctrl-C while it is entered (in the main thread).

    A step under way is finished first; `at_once` marks what may end in the middle. A second Ctrl-C ends everything,
    without a checkpoint. Of several ranks, all stop behind the same step; there a second signal says nothing, since
    torchrun passes on what the terminal has already sent.

    Args:
        world_size: ranks of the run.
        say: is told a line at the first Ctrl-C.
    """

    def __init__(self, world_size: int, say: Callable[[str], None]) -> None:
        self._world_size, self._say, self._heard, self._free = world_size, say, False, False
        self._before: Any = None

    def __enter__(self) -> StopSignal:
        ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT)
        if ours and ours is not signal.SIG_IGN:  # nohup and background jobs keep on ignoring it
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._world_size == 1 and (self._free or self._heard):
            raise KeyboardInterrupt
        if not self._heard:
            self._heard = True
            self._say("stopping after this step (Ctrl-C again: now, without a checkpoint)")

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What stands in here ends at the first Ctrl-C, by KeyboardInterrupt."""
        self._free = True
        try:
            yield
        finally:
            self._free = False

    def check(self) -> None:
        """Raise KeyboardInterrupt where any rank has heard one. Every rank calls it behind the same steps."""
        heard = self._heard
        if self._world_size > 1:
            count = torch.tensor(float(heard))
            dist.all_reduce(count)
            heard = bool(count)
        if heard:
            raise KeyboardInterrupt
