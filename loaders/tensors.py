"""Memory for batches: used again only when nobody holds a tensor of it.

A fresh batch of 64 rows wants a megabyte or two, and pages fresh from the system cost more than filling them. Each
batch is therefore cut from one flat buffer, and a buffer serves again once every tensor cut from it (views of them
included) is gone: weak references to the arrays that the tensors hold tell.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch

#: Buffers that are kept for use again, at most.
_KEPT = 64
_DTYPES = {"loss_mask": torch.bool}
_ALIGNED = 64
_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)


class Memory:
    """A pool of buffers; threads may share it.

    Args:
        pinned: page-locked memory (for copies to a GPU beside computation); PyTorch itself then uses it again.
    """

    def __init__(self, pinned: bool = False) -> None:
        self.pinned = pinned
        self._buffers: list[tuple[np.ndarray, list[weakref.ref[np.ndarray]]]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"pinned": self.pinned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def batch(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
        """Uninitialised tensors by name (`loss_mask` bool, all else int64), and the same memory as NumPy arrays.

        The arrays must not be kept: only tensors keep a buffer from being used again.
        """
        if self.pinned:
            tensors = {
                name: torch.empty(shape, dtype=_DTYPES.get(name, torch.int64), pin_memory=True)
                for name, shape in shapes.items()
            }
            return tensors, {name: tensor.numpy() for name, tensor in tensors.items()}
        cuts, at = [], 0
        for name, shape in shapes.items():
            dtype, size = (_BOOL, 1) if name in _DTYPES else (_INT64, 8)
            cuts.append((name, shape, dtype, at))
            at += -(-prod(shape) * size // _ALIGNED) * _ALIGNED
        tensors, arrays = {}, {}
        with self._lock:
            buffer, users = self._free(at)
            users.clear()
            for name, shape, dtype, start in cuts:
                arrays[name] = array = np.ndarray(shape, dtype, buffer, start)
                users.append(weakref.ref(array))
        for name, array in arrays.items():
            tensors[name] = torch.from_numpy(array)
        return tensors, arrays

    def _free(self, size: int) -> tuple[np.ndarray, list[weakref.ref[np.ndarray]]]:
        """A buffer of at least `size` bytes of which no tensor is left, and the list of its users."""
        for at in reversed(range(len(self._buffers))):  # that used last is in the processor's caches
            buffer, users = self._buffers[at]
            if buffer.nbytes < size:
                continue
            for user in users:
                if user() is not None:
                    break
            else:
                self._buffers.append(self._buffers.pop(at))
                return buffer, users
        self._buffers.append((np.empty(size + size // 4 + _ALIGNED, np.uint8), []))
        del self._buffers[:-_KEPT]
        return self._buffers[-1]
