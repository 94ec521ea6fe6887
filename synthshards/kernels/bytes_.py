"""Copying and comparing bytes inside kernels, at the speed of memory."""

from __future__ import annotations

import numpy as np

from .jit import helper


@helper
def copy_bytes(out: np.ndarray, at: int, data: np.ndarray, start: int, count: int) -> None:
    """out[at:at+count] = data[start:start+count], of uint8 arrays.

    The loop runs from 0 over views: Numba lets an index such as at + i be negative, and then uses no wide registers
    (7 times as slow here). Assigning the slices is right but asks first whether they overlap.
    """
    target, source = out[at : at + count], data[start : start + count]
    for i in range(count):
        target[i] = source[i]


@helper
def equal_bytes(some: np.ndarray, data: np.ndarray, at: int, count: int) -> bool:
    """Whether some[:count] is data[at:at+count], of uint8 arrays. No early exit, for the same reason."""
    other = data[at : at + count]
    differences = 0
    for i in range(count):
        differences += some[i] != other[i]
    return differences == 0
