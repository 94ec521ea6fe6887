"""Which part of the work is this process's: its rank, given or taken from torch.distributed."""

from __future__ import annotations

import torch.distributed as dist

from synthshards.errors import UsageError

from .batching.options import integer
from .order.state import MOST_LANES


def rank_and_world_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and number of ranks; None: those of torch.distributed where it runs, else 0 of 1.

    To be asked in the main process: workers of a DataLoader are no ranks, and do not know of any.

    Raises:
        UsageError: a number out of range.
    """
    running = dist.is_available() and dist.is_initialized()
    if world_size is None:
        world_size = dist.get_world_size() if running else 1
    world_size = integer("world_size", world_size, 1, MOST_LANES)
    if rank is None:
        rank = dist.get_rank() if running and world_size > 1 else 0
    rank = integer("rank", rank, 0, MOST_LANES)
    if rank >= world_size:
        raise UsageError(f"rank={rank} of world_size={world_size}; legal: 0..{world_size - 1}")
    return rank, world_size
