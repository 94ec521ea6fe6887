"""Batches of packed windows. Each is planned where the one before ends, so they are planned one after another."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from math import gcd

import numpy as np

from ..order.state import LaneCursors, Position
from .context import BatchContext, Job, Step
from .lanes import Packer
from .packing import FIELDS, WindowPlan


def lane_counts(context: BatchContext) -> list[int]:
    """Packing lanes of each component."""
    return [c.packing_lanes(context.length is not None) for c in context.components]


def check_cursors(context: BatchContext, position: Position) -> None:
    """Raise `UsageError` unless the packing lanes can stand so after `position.unit` windows."""
    unit = position.unit
    windows = [unit] if context.schedule is None else context.schedule.counts(unit)
    for component, cursors, given in zip(context.components, position.cursors, windows, strict=True):
        component.check_cursors(cursors, given, context.length is not None)


def lanes_followed(context: BatchContext, position: Position) -> list[np.ndarray]:
    """The packing lanes of each component that this rank must follow."""
    counts = lane_counts(context)
    if context.schedule is not None or context.options.world_size == 1:
        return [np.arange(count) for count in counts]
    size = context.options.batch_size
    return [_lanes_met(position.unit, count, size, *context.rank_part(size)) for count in counts]


def _lanes_met(unit: int, lanes: int, batch_size: int, start: int, stop: int) -> np.ndarray:
    """Packing lanes that windows start..stop−1 of any batch belong to, for batches from window `unit` on.

    Returns:
        int64, ascending.
    """
    step = gcd(batch_size, lanes)  # batches begin at lanes that lie so far apart
    met = (np.arange(lanes) - unit - start) % step < stop - start
    return np.flatnonzero(met)


def packed_jobs(
    context: BatchContext, start: Position, own: int, workers: int, threads: Executor | None
) -> Iterator[Job]:
    """The batches from `start` to the end of the epoch, each of them planned, its rows at hand.

    Args:
        own, workers: every `workers`-th batch is made, from number `own` on (the others are planned, too).
        threads: they share the taking of rows.
    """
    options = context.options
    assert options.seq_len is not None
    packers = [
        component.packer(options.packing, options.seq_len, start.epoch, cursors, threads)
        for component, cursors in zip(context.components, start.cursors, strict=True)
    ]
    at = copy.copy(start)
    over = False
    while not over:
        # One round: a batch for each worker, of which this one's is made.
        planned: tuple[list[WindowPlan], np.ndarray | None, list[int]] | None = None
        for worker in range(workers):
            plans, source, count = _plan(context, packers, at)
            over = count < options.batch_size
            if count and worker == own and not (over and options.drop_last):
                planned = plans, source, _parts(context, at, source, count)
            at = Position(
                at.epoch,
                at.unit + count,
                [LaneCursors(c.count, c.lanes, p.cursors.copy()) for c, p in zip(start.cursors, packers, strict=True)],
            )
            if over:
                break
        if planned is not None:
            yield partial(_fill, context, *planned, at)


def _plan(
    context: BatchContext, packers: Sequence[Packer], at: Position
) -> tuple[list[WindowPlan], np.ndarray | None, int]:
    """Plan the batch at window `at.unit`: each component's windows, their components, how many."""
    size = context.options.batch_size
    if context.schedule is None:
        source, before, windows = None, [at.unit], [size]
    else:
        source, before = context.schedule.components(at.unit, size), context.schedule.counts(at.unit)
        windows = np.bincount(source, minlength=len(before)).tolist()
    plans, count = [], size
    for c, (packer, cursors) in enumerate(zip(packers, at.cursors, strict=True)):
        lanes = (before[c] + np.arange(windows[c])) % cursors.count
        place = np.searchsorted(cursors.lanes, lanes)
        followed = cursors.lanes[np.minimum(place, len(cursors.lanes) - 1)] == lanes
        plan = packer.plan(place[followed])
        plans.append(plan)
        if len(plan) < int(followed.sum()):  # only a single pass ends, and it follows its one lane
            ends = len(plan) if source is None else int(np.flatnonzero(source == c)[len(plan)])
            count = min(count, ends)
    return plans, source, count


def _parts(context: BatchContext, at: Position, source: np.ndarray | None, count: int) -> list[int]:
    """The first and last window (exclusive) of this rank in a batch of `count`; and of each component, how many windows
    that were planned come before."""
    start, stop = context.rank_part(count)
    if source is not None:
        return [start, stop, *(int((source[:start] == c).sum()) for c in range(len(context.components)))]
    # Planned are those windows whose lane is followed here.
    cursors = at.cursors[0]
    before = int(np.isin((at.unit + np.arange(start)) % cursors.count, cursors.lanes).sum()) if start else 0
    return [start, stop, before]


def _fill(
    context: BatchContext, plans: Sequence[WindowPlan], source: np.ndarray | None, parts: Sequence[int], after: Position
) -> Iterator[Step]:
    """The tensors of this rank's part of a batch, and where the stream stands after it."""
    start, stop, *firsts = parts
    windows, seq_len = stop - start, context.options.seq_len
    assert seq_len is not None
    own_source = None if source is None else source[start:stop]
    batch, addresses = context.memory.batch(FIELDS if own_source is None else (*FIELDS, ".source"), windows, seq_len)
    tensors = np.array(addresses, np.uint64)
    pad_tokens, truncated = 0, 0
    for c, (plan, first) in enumerate(zip(plans, firsts, strict=True)):
        places = np.arange(windows) if own_source is None else np.flatnonzero(own_source == c)
        padding, cut = plan.fill(first, places, context.options.pad_id, tensors)
        pad_tokens, truncated = pad_tokens + padding, truncated + cut
    if own_source is not None:
        batch["source"].numpy()[:] = own_source
    tokens = windows * seq_len - pad_tokens
    context.stats.add_all(batches=1, windows=windows, tokens=tokens, pad_tokens=pad_tokens, truncated_tokens=truncated)
    yield batch, after
