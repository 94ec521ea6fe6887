"""What a campaign is: one kind of fault, tried again and again, and how often what must hold did hold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

#: Tries, chance and an empty folder → for each try what went wrong, "" if nothing did.
Campaign = Callable[[int, Random, Path], Iterator[str]]
#: How many problems of a campaign are kept word for word.
_SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: the fault, as the table of docs/reliability.md names it.
        right: what must hold in each try.
        full: tries of `make faults`.
        few: tries in the test suite; 0 where other tests do the same.
        run: tries it.
    """

    name: str
    right: str
    full: int
    few: int
    run: Campaign


@dataclass
class Tally:
    """What came of a fault's tries."""

    fault: str
    tried: int = 0
    survived: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 1), "problems": self.problems[:_SHOWN]}


def attempt(fault: Fault, tries: int, seed: int = 0, show: Callable[[Tally], None] = lambda tally: None) -> Tally:
    """Try a fault in a folder that is deleted afterwards. An exception of a campaign ends it, and is a problem."""
    tally, began = Tally(fault.name), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        try:
            for problem in fault.run(tries, Random(f"{fault.name} {seed}"), Path(place)):
                tally.tried += 1
                tally.survived += not problem
                if problem:
                    tally.problems.append(problem)
                tally.seconds = time.monotonic() - began
                show(tally)
        except Exception as error:
            tally.tried += 1
            tally.problems.append(f"{type(error).__name__}: {error}")
    tally.seconds = time.monotonic() - began
    return tally
