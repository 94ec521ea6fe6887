"""Failures of memory, devices, other ranks and code of the user's: no fault of the package, and one line each."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

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
        UsageError: what cannot be compiled, or run on this device, or was raised by code of the user's (a model).
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
        if users_line(error) is not None:
            raise UsageError(raised(error)) from error
        raise
    except SynthshardsError:
        raise
    except Exception as error:
        if users_line(error) is None:
            raise
        raise UsageError(raised(error)) from error


@contextmanager
def users_code(where: str) -> Iterator[None]:
    """What code of the user's raises, as one line that says where it was raised.

    Raises:
        UsageError: it raised anything but what is the machine's fault (memory, a device) or ours.
    """
    try:
        yield
    except (SynthshardsError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{where}: {raised(error)}") from error


def raised(error: BaseException) -> str:
    """An error in one line: its class, what it says, and the line of the user's code that it came from."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    said = cut(first_line(error), 300)
    kind = "" if said == type(error).__name__ else f"{type(error).__name__}: "
    return f"{kind}{said}{users_line(error) or ''}"


def users_line(error: BaseException) -> str | None:
    """`` (file, line n)``, the innermost line of a user's own code that an error came through, None without any."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_users(frame)]
    return f" ({frames[-1][0].f_code.co_filename}, line {frames[-1][1]})" if frames else None


def _is_users(frame: FrameType) -> bool:
    """Whether a frame is neither ours, nor of an installed package, nor of Python."""
    file, module = frame.f_code.co_filename, str(frame.f_globals.get("__name__", ""))
    ours = module.partition(".")[0] == "synthshards"
    return not (ours or "site-packages" in file or file.startswith(("<", str(Path(os.__file__).parent))))
