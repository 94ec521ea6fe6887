"""The tensors of a batch, cut from one buffer of a pool: allocating them anew would cost more than filling them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from synthshards.kernels.buffers import Pool

#: Batches whose buffer is kept for use again.
_KEPT = 64
_ALIGNED = 64
_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)


def batch_pool() -> Pool:
    """What the streams of a dataset share: buffers that served batches nobody holds any more."""
    return Pool(_KEPT)


class Memory:
    """Memory for batches; threads may share it.

    Args:
        pool: what it comes from.
        pinned: page-locked memory (for copies to a GPU beside computation); PyTorch itself then uses it again.
    """

    def __init__(self, pool: Pool, pinned: bool = False) -> None:
        self._pool, self.pinned = pool, pinned

    def batch(self, fields: tuple[str, ...], rows: int, width: int) -> tuple[dict[str, torch.Tensor], list[int]]:
        """Uninitialised tensors by name, [rows, width], and their addresses; a name that begins with "." is of one
        [rows] (and stands without the point). `loss_mask` is bool, all else int64.
        """
        cuts, size = _cuts(fields, rows, width)
        tensors: dict[str, torch.Tensor] = {}
        addresses = []
        if self.pinned:
            for name, shape, dtype, _ in cuts:
                of_torch = torch.bool if dtype is _BOOL else torch.int64
                tensors[name] = torch.empty(shape, dtype=of_torch, pin_memory=True, device="cpu")
                addresses.append(tensors[name].data_ptr())
            return tensors, addresses
        buffer, address = self._pool.take(size)
        for name, shape, dtype, start in cuts:
            tensors[name] = torch.from_numpy(np.ndarray(shape, dtype, buffer, start))
            addresses.append(address + start)
        return tensors, addresses


@lru_cache(maxsize=4096)
def _cuts(
    fields: tuple[str, ...], rows: int, width: int
) -> tuple[list[tuple[str, tuple[int, ...], np.dtype[Any], int]], int]:
    """Name, shape, dtype and first byte of each tensor, and bytes in all."""
    cuts: list[tuple[str, tuple[int, ...], np.dtype[Any], int]] = []
    at = 0
    for field in fields:
        name, shape = (field[1:], (rows,)) if field.startswith(".") else (field, (rows, width))
        dtype: np.dtype[Any] = _BOOL if name == "loss_mask" else _INT64
        cuts.append((name, shape, dtype, at))
        count = rows if len(shape) == 1 else rows * width
        at += -(-count * dtype.itemsize // _ALIGNED) * _ALIGNED
    return cuts, at
