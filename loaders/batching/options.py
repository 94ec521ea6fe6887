"""The options of a stream, checked: a wrong one is reported in one line that names the legal values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from synthshards.errors import UsageError, cut, nearest

from ..order.state import LIMIT, MOST_LANES
from .packing import PACKINGS, Packing


@dataclass(frozen=True)
class StreamOptions:
    """What `Dataset.batches` was asked for (`stream_of`'s docstring says what each means).

    Raises:
        UsageError: an option out of range.
    """

    batch_size: int
    seq_len: int | None
    packing: Packing
    rank: int
    world_size: int
    repeat: bool
    drop_last: bool
    pad_id: int
    pin_memory: bool
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch_size", integer("batch_size", self.batch_size, 1, MOST_LANES))
        if not isinstance(self.pad_id, int | np.integer) or not -(1 << 63) <= self.pad_id < 1 << 63:
            raise UsageError(f"pad_id={self.pad_id!r}; legal: an integer of 64 bits")
        for name in ("repeat", "drop_last", "pin_memory"):
            object.__setattr__(self, name, flag(name, getattr(self, name)))
        if self.batch_size % self.world_size:
            low = self.batch_size // self.world_size * self.world_size
            legal = [n for n in (low, low + self.world_size) if n > 0]
            raise UsageError(
                f"batch_size={self.batch_size} is no multiple of world_size={self.world_size}; "
                f"legal: {' or '.join(map(str, legal))}"
            )
        if self.packing not in PACKINGS:
            raise UsageError(
                f"packing={self.packing!r}{nearest(str(self.packing), PACKINGS)}; legal: {', '.join(PACKINGS)}"
            )
        if self.seq_len is not None:
            object.__setattr__(self, "seq_len", integer("seq_len", self.seq_len, 1, MOST_LANES))
        elif self.packing != "pad":
            raise UsageError(f"packing={self.packing!r} needs seq_len, the tokens of a window")
        if self.columns and self.packing != "pad":
            raise UsageError(f"columns={list(self.columns)} with packing={self.packing!r}; legal: with packing='pad'")


def integer(name: str, value: Any, least: int, most: int = LIMIT - 1) -> int:
    """`value` as Python's own integer, which a state's JSON takes (NumPy's it does not).

    Raises:
        UsageError: no integer, or not in least..most.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}={cut(repr(value))}; legal: an integer of at least {least}")
    if value > most:
        raise UsageError(f"{name}={cut(repr(value))}; legal: at most {most}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value`, a bool: "no" or "false" from a command line would be true.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name}={cut(repr(value))}; legal: True, False")
    return bool(value)
