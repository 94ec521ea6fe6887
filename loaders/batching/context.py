"""What makers of padded and of packed batches share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..order.mixing import Schedule
from ..order.state import Position
from .options import Options
from .ordered_source import Component
from .tensors import Memory

Batch: TypeAlias = dict[str, Any]
#: A batch, and where the stream stands after it.
Step: TypeAlias = tuple[Batch, Position]
#: Takes the rows of the next batches, which are then made one by one.
Job: TypeAlias = Callable[[], Iterator[Step]]


class Stats:
    """What a stream has counted; threads may count at once."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Stats, ()

    def add(self, name: str, count: int) -> None:
        """Count `count` more of `name`."""
        with self._lock:
            self._counts[name] += count

    def add_all(self, **counts: int) -> None:
        """Count more of several names."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def all(self) -> dict[str, int]:
        """Every count."""
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True)
class Making:
    """What batches are made of.

    Attributes:
        components: the datasets.
        schedule: of a mixture; None: one component.
        length: units of a padded pass, or of any pass that has an end; None: endless.
        memory: what tensors are cut from.
    """

    components: Sequence[Component]
    options: Options
    schedule: Schedule | None
    length: int | None
    memory: Memory
    stats: Stats

    def part(self, count: int) -> tuple[int, int]:
        """Which of a batch's `count` places are this rank's: [start, stop)."""
        rank, world = self.options.rank, self.options.world_size
        return rank * count // world, (rank + 1) * count // world
