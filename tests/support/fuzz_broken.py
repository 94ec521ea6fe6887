"""A subject of `fuzz` with every fault that it must see: memory, another error, a crash; what is left is read."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from synthshards.errors import DataError


def broken(folder: Path) -> Callable[[random.Random], None]:
    numbers: Iterator[int] = count()

    def case(chance: random.Random) -> None:
        match next(numbers):
            case 1:
                bytearray(1 << 30)
            case 2:
                raise TypeError("of a footer")
            case 3:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 4:
                raise DataError("refused")

    return case
