"""Batches of padded rows, many at a time: rows are taken by the thousand and filled by the hundred in one kernel call,
so that Python's part of a batch is making its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from synthshards.errors import UsageError

from ..order.state import Position
from ..sources.row_refs import Rows
from .context import Batch, Job, Making, Step
from .padding import FIELDS, fill_padded, widths_of

#: Rows filled in one call: more of them are out of the processor's caches before they are looked at.
_FILLED = 256


class _Shares(NamedTuple):
    """A rank's part of some neighbouring batches, each of `size` rows.

    Attributes:
        source: int64 [batches, size], of a mixture: each row's component.
        units: of each component, int64: its list positions, batch after batch.
        places: of each component, int64: the row of its batch that each one is.
        bounds: of each component, int64 [batches + 1]: which of these belong to which batch.
    """

    size: int
    source: np.ndarray | None
    units: list[np.ndarray]
    places: list[np.ndarray]
    bounds: list[np.ndarray]


def padded_jobs(making: Making, start: Position, own: int, workers: int, rows: int) -> Iterator[Job]:
    """The work from `start` to the end of the epoch, in pieces that can be done in any order.

    Args:
        own, workers: every `workers`-th batch is made, from number `own` on.
        rows: of a piece, about.
    """
    size, length, unit = making.options.batch_size, making.length, start.unit
    most = max(1, rows * making.options.world_size // size)
    at_a_time = 1  # the first batches come soon, the others in larger pieces
    while True:
        batches: list[tuple[int, int]] = []
        while len(batches) < at_a_time:
            first, after = unit + own * size, unit + workers * size
            if length is not None and first + size > length:
                if batches:
                    yield partial(_take, making, start.epoch, size, batches)
                if first < length and not making.options.drop_last:
                    yield partial(_take, making, start.epoch, length - first, [(first, length)])
                return
            unit = after if length is None else min(after, length)
            batches.append((first, unit))
        yield partial(_take, making, start.epoch, size, batches)
        at_a_time = min(most, 2 * at_a_time)


def _take(making: Making, epoch: int, size: int, batches: list[tuple[int, int]]) -> Iterator[Step]:
    """Take the rows of batches of `size` units, of which this rank gives its part: (first unit, where the stream stands
    after it)."""
    shares = _shares(making, [first for first, _ in batches], size)
    rows = [c.take(epoch, units) for c, units in zip(making.components, shares.units, strict=True)]
    return _batches(making, shares, rows, [Position(epoch, unit) for _, unit in batches])


def _batches(making: Making, shares: _Shares, rows: Sequence[Rows], stands: Sequence[Position]) -> Iterator[Step]:
    """The batches of rows taken, and where the stream stands after each."""
    options = making.options
    widths = np.zeros(len(stands), np.int64)
    for r, bounds in zip(rows, shares.bounds, strict=True):
        widths_of(r.length, bounds, widths)
    good = len(stands)
    if options.seq_len is not None:
        too_wide = np.flatnonzero(widths > options.seq_len)
        good = int(too_wide[0]) if len(too_wide) else good
        widths[:good] = options.seq_len
    step = max(1, _FILLED // max(1, shares.size))
    for at in range(0, good, step):
        stop = min(at + step, good)
        made = _fill(making, shares, rows, widths, at, stop)
        for b in range(at, stop):
            batch = made.pop(0)
            for name in options.columns:
                batch[name] = _facts(name, rows, shares, b)
            yield batch, stands[b]
            del batch
    if good < len(stands):
        raise _too_long(rows, shares, good, int(widths[good]), options.seq_len)


def _shares(making: Making, firsts: Sequence[int], size: int) -> _Shares:
    """This rank's part of batches of `size` units that begin at `firsts`."""
    start, stop = making.part(size)
    count = stop - start
    if making.schedule is None:
        own = np.arange(start, stop)
        units = (np.array(firsts, np.int64)[:, None] + own).ravel()
        places = np.tile(own - start, len(firsts))
        return _Shares(count, None, [units], [places], [np.arange(len(firsts) + 1) * count])
    n = len(making.components)
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(n)]
    sources = np.empty((len(firsts), count), np.int64)
    for b, first in enumerate(firsts):
        before = making.schedule.counts(first)
        source = making.schedule.components(first, size)
        skipped = np.bincount(source[:start], minlength=n)
        sources[b] = source[start:stop]
        for c in range(n):
            places = np.flatnonzero(sources[b] == c)
            found[c].append((before[c] + skipped[c] + np.arange(len(places)), places))
    bounds = [np.cumsum([0, *(len(places) for _, places in of)]) for of in found]
    units_of, places_of = ([np.concatenate([pair[i] for pair in of]) for of in found] for i in range(2))
    return _Shares(count, sources, units_of, places_of, bounds)


def _fill(making: Making, shares: _Shares, rows: Sequence[Rows], widths: np.ndarray, at: int, stop: int) -> list[Batch]:
    """The tensors of batches at .. stop−1."""
    fields = FIELDS if shares.source is None else (*FIELDS, ".source")
    made, tables, room = [], [], 0
    for width in widths[at:stop].tolist():
        batch, addresses = making.memory.batch(fields, shares.size, width)
        made.append(batch)
        tables.append(addresses)
        room += width * shares.size
    tensors, tokens = np.array(tables, np.uint64), 0
    for r, bounds, places in zip(rows, shares.bounds, shares.places, strict=True):
        tokens += fill_padded(r, bounds[at : stop + 1], places, tensors, widths[at:stop], making.options.pad_id)
    if shares.source is not None:
        for batch, source in zip(made, shares.source[at:stop], strict=True):
            batch["source"].numpy()[:] = source
    making.stats.add_all(batches=stop - at, rows=(stop - at) * shares.size, tokens=tokens, pad_tokens=room - tokens)
    return made


def _facts(name: str, rows: Sequence[Rows], shares: _Shares, b: int) -> torch.Tensor | list[str]:
    """A column of facts in the order of batch b: int64 [rows], [rows, most] (padded with −1), or strings."""
    values: list[Any] = [None] * shares.size
    for r, bounds, places in zip(rows, shares.bounds, shares.places, strict=True):
        for i in range(bounds[b], bounds[b + 1]):
            values[places[i]] = r.fact(name, i)
    if values and isinstance(values[0], str):
        return values
    if values and isinstance(values[0], list):
        most = max(len(value) for value in values)
        values = [value + [-1] * (most - len(value)) for value in values]
    return torch.tensor(values, dtype=torch.int64)


def _too_long(rows: Sequence[Rows], shares: _Shares, b: int, longest: int, seq_len: int | None) -> UsageError:
    for r, bounds in zip(rows, shares.bounds, strict=True):
        for i in range(bounds[b], bounds[b + 1]):
            if r.length[i] == longest:
                return UsageError(
                    f"row {r.index[i]} has {longest} tokens; legal: seq_len of at least {longest}, or packing"
                )
    raise AssertionError("a batch's width is that of one of its rows")
