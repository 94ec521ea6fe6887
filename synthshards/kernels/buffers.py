"""Memory that is reused: newly allocated pages cost more than filling them with rows.

`Buffers` are one caller's own arrays, written over with every batch. From a `Pool` anybody takes memory; nobody has to
give it back, and nothing that is still looked at is ever written over. (An array cut from a buffer holds a reference to
it, and so does whatever shares that array's memory: views, tensors, Arrow arrays.)
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


class Buffers:
    """Arrays that one caller uses again for every batch, because fresh pages cost a tenth of the time and more.

    A batch generated into buffers is valid until the next batch is generated into them.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def take(self, name: str, size: int, dtype: Any) -> np.ndarray:
        """An uninitialised 1-D array of at least `size` elements of `dtype`."""
        held = self._arrays.get(name)
        if held is None or held.size < size or held.dtype != np.dtype(dtype):
            held = self._arrays[name] = np.empty(size + size // 4, dtype)
        return held


class Pool:
    """Memory for arrays; threads may share a pool, and a fork may find it in any state. Pickled, it begins anew.

    Args:
        keep: buffers of about one size that are kept, at most; those beyond are the system's once nobody holds them.
    """

    def __init__(self, keep: int = 4096) -> None:
        self._keep = keep
        self._sizes: dict[int, list[tuple[np.ndarray, int]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Pool, (self._keep,)

    def empty(self, size: int, dtype: Any) -> np.ndarray:
        """An uninitialised array [size]."""
        kind = np.dtype(dtype)
        return np.ndarray((size,), kind, self.take(size * kind.itemsize)[0])

    def take(self, size: int) -> tuple[np.ndarray, int]:
        """At least `size` uninitialised bytes (uint8) and their address, in use for as long as anything holds them."""
        room = 1 << max(12, (size - 1).bit_length())
        buffers = self._sizes.setdefault(room, [])
        # No lock, which a fork would leave locked in the child: what is looked at is out of the list meanwhile.
        used: list[tuple[np.ndarray, int]] = []
        while True:
            try:
                last = buffers.pop()  # that used last is in the processor's caches
            except IndexError:
                buffer = np.empty(room, np.uint8)
                last = buffer, int(buffer.__array_interface__["data"][0])
                del used[self._keep :]
                break
            if sys.getrefcount(last[0]) == _IDLE:
                break
            used.append(last)
        # Held here, and then by the tuple returned: in the list it would else look idle to a thread that cuts in.
        buffer, address = last
        used.reverse()
        buffers += used
        buffers.append(last)
        return buffer, address


def _idle() -> int:
    """What `sys.getrefcount` says of a buffer that only the pool holds (it differs between Python's versions)."""
    entry = (np.empty(1, np.uint8), 0)
    return sys.getrefcount(entry[0])


_IDLE = _idle()
