"""Several processes under torchrun: one process group, a device for each, and what is done by rank 0 alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

#: Ranks wait for rank 0 while it evaluates, which may take longer than the half hour that torch allows.
_PATIENCE = timedelta(hours=24)


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The process group of a run that torchrun has started; nothing where it has not, or where there is one.

    Args:
        device: ``train.device``. On CUDA each process takes the card of its LOCAL_RANK, and gradients go over NCCL;
            elsewhere, and for a few numbers on the CPU, Gloo.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield
        return
    cards = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if cards and device in ("auto", "cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process, and how many there are; (0, 1) without a process group."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def on_any_rank(masks: Sequence[np.ndarray], world_size: int) -> Sequence[np.ndarray]:
    """What is true on any rank, on every rank: of bool arrays, alike in shape on all ranks, which are changed."""
    for mask in masks if world_size > 1 else ():
        dist.all_reduce(torch.from_numpy(mask.view(np.uint8)), dist.ReduceOp.MAX)
    return masks


def gathered(mine: object, world_size: int) -> list[object]:
    """What each rank has, in their order, on every rank."""
    if world_size == 1:
        return [mine]
    everyone: list[object] = [None] * world_size
    dist.all_gather_object(everyone, mine)
    return everyone
