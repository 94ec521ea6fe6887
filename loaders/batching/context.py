"""What makers of padded and of packed batches share, and what the loader on threads knows of a stream."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ..order.mixing import Schedule
from ..order.state import Position
from .options import StreamOptions
from .ordered_source import OrderedSource
from .tensors import Memory

Batch: TypeAlias = dict[str, Any]
#: A batch, and where the stream stands after it.
Step: TypeAlias = tuple[Batch, Position]
#: Takes the rows of the next batches, which are then made one by one.
Job: TypeAlias = Callable[[], Iterator[Step]]


class JobStream(Protocol):
    """A stream whose jobs others do: see `Stream`."""

    @property
    def packed(self) -> bool:
        """Whether batches are windows; then a job must be done before the next one is asked for."""

    def jobs(self, threads: Executor | None = None) -> Iterator[Job]:
        """The work from where the stream stands to the end of the epoch."""

    def move_to(self, position: Position) -> None:
        """Stand where a step has led."""

    def finish(self) -> None:
        """Stand where the last step of an epoch leads."""

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""

    def load_state_dict(self, state: Any) -> None:
        """Stand where another stream stood."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int: ...


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
class BatchContext:
    """What batches are made of.

    Attributes:
        components: the datasets of a mixture, or one dataset by itself.
        schedule: of a mixture; None: one component.
        length: units of a padded pass, or of any pass that has an end; None: endless.
        memory: what tensors are cut from.
    """

    components: Sequence[OrderedSource]
    options: StreamOptions
    schedule: Schedule | None
    length: int | None
    memory: Memory
    stats: Stats

    def rank_part(self, count: int) -> tuple[int, int]:
        """Which of a batch's `count` places are this rank's: [start, stop)."""
        rank, world_size = self.options.rank, self.options.world_size
        return rank * count // world_size, (rank + 1) * count // world_size
