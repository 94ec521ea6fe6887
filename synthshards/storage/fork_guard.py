"""Forks wait until no request to a store is running.

pyarrow holds a lock of its S3 library during every request, shared among requests, and takes it alone to connect. A
child that is forked meanwhile has the lock and not the thread that would let it go: it waits for ever when it connects
(so did nearly all children that were forked while a thread read, with pyarrow 26). Therefore forks wait until the
requests of all threads have ended, and requests wait for a fork. `subprocess` forks too, but runs no Python in the
child, and is not concerned.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: How long a fork waits at most (seconds): longer than pyarrow asks a store that does not answer.
LONGEST = 30.0


class _Gate:
    def __init__(self) -> None:
        self.change = threading.Condition()
        self.requests = 0  # that are being made
        self.forks = 0  # that are being made, or wait


_gate = _Gate()


@contextmanager
def request() -> Iterator[None]:
    """During this, no thread forks. Not to be nested."""
    gate = _gate
    with gate.change:
        gate.change.wait_for(lambda: gate.forks == 0)
        gate.requests += 1
    try:
        yield
    finally:
        with gate.change:
            gate.requests -= 1
            gate.change.notify_all()


def _before() -> None:
    gate = _gate
    with gate.change:
        gate.forks += 1
        gate.change.wait_for(lambda: gate.requests == 0, LONGEST)


def _in_parent() -> None:
    gate = _gate
    with gate.change:
        gate.forks -= 1
        gate.change.notify_all()


def _in_child() -> None:
    global _gate
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
