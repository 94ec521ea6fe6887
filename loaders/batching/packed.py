"""Batches of packed windows. Each is planned where the one before ends, so they are planned one after another."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np

from ..order.state import Position, Stand
from .context import Job, Making, Step
from .lanes import Packer
from .ordered_source import lanes_met
from .packing import FIELDS, Plan


def lane_counts(making: Making) -> list[int]:
    """Packing lanes of each component."""
    return [c.packing_lanes(making.length is not None) for c in making.components]


def lanes_known(making: Making, position: Position) -> list[np.ndarray]:
    """The packing lanes of each component that this rank must follow."""
    counts = lane_counts(making)
    if making.schedule is not None or making.options.world_size == 1:
        return [np.arange(count) for count in counts]
    size = making.options.batch_size
    return [lanes_met(position.unit, count, size, *making.part(size)) for count in counts]


def packed_jobs(making: Making, start: Position, own: int, workers: int, pool: Executor | None) -> Iterator[Job]:
    """The batches from `start` to the end of the epoch, each of them planned, its rows at hand.

    Args:
        own, workers: every `workers`-th batch is made, from number `own` on (the others are planned, too).
        pool: threads that share the taking of rows.
    """
    options = making.options
    assert options.seq_len is not None
    packers = [
        component.packer(options.packing, options.seq_len, start.epoch, stand.lanes, stand.count, stand.at, pool)
        for component, stand in zip(making.components, start.stands, strict=True)
    ]
    at = copy.copy(start)
    over = False
    while not over:
        # One round: a batch for each worker, of which this one's is made.
        planned: tuple[list[Plan], np.ndarray | None, list[int]] | None = None
        for worker in range(workers):
            plans, source, count = _plan(making, packers, at)
            over = count < options.batch_size
            if count and worker == own and not (over and options.drop_last):
                planned = plans, source, _parts(making, at, source, count)
            stands = [Stand(s.count, s.lanes, p.stand.copy()) for s, p in zip(start.stands, packers, strict=True)]
            at = Position(at.epoch, at.unit + count, stands)
            if over:
                break
        if planned is not None:
            yield partial(_fill, making, *planned, at)


def _plan(making: Making, packers: Sequence[Packer], at: Position) -> tuple[list[Plan], np.ndarray | None, int]:
    """Plan the batch at window `at.unit`: each component's windows, their components, how many."""
    size = making.options.batch_size
    if making.schedule is None:
        source, before, wanted = None, [at.unit], [size]
    else:
        source, before = making.schedule.components(at.unit, size), making.schedule.counts(at.unit)
        wanted = np.bincount(source, minlength=len(before)).tolist()
    plans, count = [], size
    for c, (packer, stand) in enumerate(zip(packers, at.stands, strict=True)):
        lanes = (before[c] + np.arange(wanted[c])) % stand.count
        place = np.searchsorted(stand.lanes, lanes)
        known = stand.lanes[np.minimum(place, len(stand.lanes) - 1)] == lanes
        plan = packer.plan(place[known])
        plans.append(plan)
        if len(plan) < int(known.sum()):  # only a single pass ends, and it follows its one lane
            ends = len(plan) if source is None else int(np.flatnonzero(source == c)[len(plan)])
            count = min(count, ends)
    return plans, source, count


def _parts(making: Making, at: Position, source: np.ndarray | None, count: int) -> list[int]:
    """The first and last window (exclusive) of this rank in a batch of `count`; and of each component, how many windows
    that were planned come before."""
    start, stop = making.part(count)
    if source is not None:
        return [start, stop, *(int((source[:start] == c).sum()) for c in range(len(making.components)))]
    # Planned are those windows whose lane is followed here.
    stand = at.stands[0]
    return [start, stop, int(np.isin((at.unit + np.arange(start)) % stand.count, stand.lanes).sum()) if start else 0]


def _fill(
    making: Making, plans: Sequence[Plan], source: np.ndarray | None, parts: Sequence[int], after: Position
) -> Iterator[Step]:
    """The tensors of this rank's part of a batch, and where the stream stands after it."""
    start, stop, *firsts = parts
    windows, seq_len = stop - start, making.options.seq_len
    assert seq_len is not None
    mine = None if source is None else source[start:stop]
    batch, addresses = making.memory.batch(FIELDS if mine is None else (*FIELDS, ".source"), windows, seq_len)
    tensors = np.array(addresses, np.uint64)
    pad_tokens, truncated = 0, 0
    for c, (plan, first) in enumerate(zip(plans, firsts, strict=True)):
        places = np.arange(windows) if mine is None else np.flatnonzero(mine == c)
        padding, cut = plan.fill(first, places, making.options.pad_id, tensors)
        pad_tokens, truncated = pad_tokens + padding, truncated + cut
    if mine is not None:
        batch["source"].numpy()[:] = mine
    tokens = windows * seq_len - pad_tokens
    making.stats.add_all(batches=1, windows=windows, tokens=tokens, pad_tokens=pad_tokens, truncated_tokens=truncated)
    yield batch, after
