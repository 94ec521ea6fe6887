"""Failures of memory, devices and other ranks during a run: no fault of the package, and one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from synthshards.errors import SynthshardsError, UsageError, cut, first_line

#: What torch writes where numbers of a tensor's size are too large for any memory.
_TOO_LARGE = (
    "alloc_cpu",
    "can't allocate memory",
    "overflowed",
    "multiplication overflow",
    "not enough memory",
    "Invalid buffer size",
)
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


@contextmanager
def explained() -> Iterator[None]:
    """What torch and the machine raise inside as errors of one line, which say what to change.

    Raises:
        UsageError: what cannot be compiled, or run on this device.
        SynthshardsError: too little memory or too few threads, or another rank that has ended.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OverflowError) as error:
        line = cut(first_line(error), 200)
        too_large = not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError)
        if too_large or any(words in line for words in _TOO_LARGE):
            raise SynthshardsError(
                f"out of memory ({line}); legal: a smaller train.batch_size, train.seq_len, eval.batch_size, "
                "eval.num_examples_per_hop or model"
            ) from error
        if "without overflow" in line:
            raise UsageError(
                f"{line}; legal: train.learning_rate, train.weight_decay and the like within float32"
            ) from error
        if type(error).__module__.startswith(_COMPILERS):
            raise UsageError(f"train.compile=true: {line}; legal: train.compile=false") from error
        if isinstance(error, dist.DistError) or (dist.is_initialized() and "gloo" in line):
            raise SynthshardsError(f"another rank has ended, and says why itself ({line})") from error
        if "CUDA" in line or type(error).__name__ == "AcceleratorError":
            raise SynthshardsError(f"the device failed: {line}; CUDA_LAUNCH_BLOCKING=1 tells where") from error
        if "start new thread" in line:
            raise SynthshardsError(f"{line}; legal: a smaller train.num_workers") from error
        raise
