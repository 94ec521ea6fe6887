"""Ctrl-C and SIGTERM: an orderly stop within a second, whatever the threads are at."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from .progress import on_terminal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: How long an orderly stop may take (seconds).
_GRACE = 0.7


@contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """On Ctrl-C and SIGTERM raise KeyboardInterrupt inside, then end a command with one line and exit code 130 or 143.

    What has not stopped in `_GRACE` seconds (an upload over a slow network, a compilation), or hears a second signal,
    ends at once, as by a kill. A build survives that.

    Args:
        advice: how to go on, for the line.
    """
    line = f"stopped; {advice}" if advice else "stopped"
    saying_so = threading.Lock()  # for one line, whoever comes first
    code, said = 0, False

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal code
        if code:
            end(number)
        code = 128 + number
        raise KeyboardInterrupt

    def say(before: str) -> None:
        nonlocal said
        with saying_so:
            if not said:
                os.write(2, f"{before if on_terminal() else ''}{line}\n".encode())
            said = True

    def end(number: int) -> None:
        with suppress(OSError):  # nobody listens
            say("\n")
        os._exit(code or 128 + number)

    # Python's handlers wait until the main thread comes back to Python. This pipe hears of a signal at once.
    ears, mouth = os.pipe()
    os.set_blocking(mouth, False)
    threading.Thread(target=_watch, args=(ears, end), daemon=True).start()
    wakeup_before = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    # Where SIGINT is ignored (nohup, background jobs of a script) it stays so.
    ours = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, heard) for number in ours}
    try:
        yield
    except KeyboardInterrupt:
        before = dict.fromkeys(before, signal.SIG_IGN)  # another signal may not change how we end
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        with suppress(OSError):
            say("\r")  # over the ^C
        raise click.exceptions.Exit(code or 130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(mouth)


def _watch(ears: int, end: Callable[[int], None]) -> None:
    while number := os.read(ears, 1):  # empty when the other end is closed
        if number[0] in _SIGNALS:
            if not select.select([ears], [], [], _GRACE)[0] or os.read(ears, 1):
                end(number[0])
            break
    os.close(ears)
