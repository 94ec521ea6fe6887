"""Batches of padded rows, a row of the tensors for each, padded at its end.

They are made many at a time: rows are taken by the thousand and filled by the hundred in one kernel call, so that
Python's part of a batch is making its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from synthshards.errors import UsageError
from synthshards.kernels.arrays import I64, U64, Ids
from synthshards.kernels.jit import kernel

from ..order.state import Position
from ..sources.row_refs import RowRefs, RowTable, array_at, fetch_row
from .context import Batch, BatchContext, Job, Step

#: Rows taken from the sources at a time, about.
_TAKEN = 1024
#: Rows filled in one call: more of them are out of the processor's caches before they are looked at.
_FILLED = 256
#: The tensors that `_write_rows` writes, as `Memory.batch` takes them.
_FIELDS = ("input_ids", "labels", "attention_mask", "loss_mask", ".index")
_IGNORED, _SHIFT = np.int64(-100), np.int64(100)
#: Rows whose bytes are asked for ahead.
_AHEAD = 2
_8 = np.uint64(8)


@kernel
def _widths_of(length: I64, bounds: I64, widths: I64) -> None:
    """Raise widths[b] to the longest of the rows bounds[b] .. bounds[b+1]−1, of each batch b.

    Args:
        length: [rows]; bounds: [batches + 1]; widths: [batches].
    """
    for b in range(widths.size):
        widest = widths[b]
        for i in range(bounds[b], bounds[b + 1]):
            widest = max(widest, length[i])
        widths[b] = widest


@kernel
def _write_rows(rows: RowTable, like: Ids, bounds: I64, places: I64, tensors: U64, widths: I64, pad_id: int) -> int:
    """Write the rows bounds[b] .. bounds[b+1]−1 to places[…] of batch b, for each b.

    Loops run from 0 over views, and a label is computed without a branch: then the compiler uses wide registers
    (2.7 times as fast as plain loops, measured).

    Args:
        like: [0], of the ids' dtype.
        bounds: [batches + 1].
        places: [rows]: which row of its batch each one is.
        tensors: [batches, 5]: addresses of each batch's `_FIELDS`.
        widths: [batches]: tokens of a row of the batch; no row is longer.

    Returns:
        tokens written.
    """
    ids_at, mask_at, length, indices = rows.ids, rows.mask, rows.length, rows.indices
    size = np.uint64(like.itemsize)
    written = 0
    last = bounds[bounds.size - 1]
    for b in range(widths.size):
        width = widths[b]
        for i in range(bounds[b], bounds[b + 1]):
            if i + _AHEAD < last:
                ahead = i + _AHEAD
                fetch_row(ids_at[ahead], mask_at[ahead], 0, length[ahead], size)
            n, to = length[i], places[i]
            tokens, trained = array_at(ids_at[i], n, like.dtype), array_at(mask_at[i], n, np.uint8)
            begin = np.uint64(to * width)
            ids = array_at(tensors[b, 0] + begin * _8, width, np.int64)
            labels = array_at(tensors[b, 1] + begin * _8, width, np.int64)
            attention = array_at(tensors[b, 2] + begin * _8, width, np.int64)
            mask = array_at(tensors[b, 3] + begin, width, np.uint8)
            row_ids, row_labels, row_mask = ids[:n], labels[:n], mask[:n]
            for j in range(n):
                token, on = np.int64(tokens[j]), np.int64(trained[j])
                row_ids[j] = token
                row_labels[j] = (token + _SHIFT) * on - _SHIFT
                row_mask[j] = trained[j]
            attention[:n] = 1
            attention[n:] = 0
            ids[n:] = pad_id
            labels[n:] = _IGNORED
            mask[n:] = 0
            array_at(tensors[b, 4], to + 1, np.int64)[to] = indices[i]
            written += n
    return written


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


def padded_jobs(context: BatchContext, start: Position, own: int, workers: int) -> Iterator[Job]:
    """The work from `start` to the end of the epoch, in pieces that can be done in any order.

    Args:
        own, workers: every `workers`-th batch is made, from number `own` on.
    """
    size, length, unit = context.options.batch_size, context.length, start.unit
    most = max(1, _TAKEN * context.options.world_size // size)
    at_a_time = 1  # the first batches come soon, the others in larger pieces
    while True:
        batches: list[tuple[int, int]] = []
        while len(batches) < at_a_time:
            first, after = unit + own * size, unit + workers * size
            if length is not None and first + size > length:
                if batches:
                    yield partial(_take, context, start.epoch, size, batches)
                if first < length and not context.options.drop_last:
                    yield partial(_take, context, start.epoch, length - first, [(first, length)])
                return
            unit = after if length is None else min(after, length)
            batches.append((first, unit))
        yield partial(_take, context, start.epoch, size, batches)
        at_a_time = min(most, 2 * at_a_time)


def _take(context: BatchContext, epoch: int, size: int, batches: list[tuple[int, int]]) -> Iterator[Step]:
    """Take the rows of batches of `size` units, of which this rank gives its part: (first unit, where the stream stands
    after it)."""
    shares = _shares(context, [first for first, _ in batches], size)
    rows = [c.take(epoch, units) for c, units in zip(context.components, shares.units, strict=True)]
    return _batches(context, shares, rows, [Position(epoch, unit) for _, unit in batches])


def _batches(
    context: BatchContext, shares: _Shares, rows: Sequence[RowRefs], positions: Sequence[Position]
) -> Iterator[Step]:
    """The batches of rows taken, and where the stream stands after each."""
    options = context.options
    widths = np.zeros(len(positions), np.int64)
    for refs, bounds in zip(rows, shares.bounds, strict=True):
        _widths_of(refs.length, bounds, widths)
    good = len(positions)
    if options.seq_len is not None:
        too_wide = np.flatnonzero(widths > options.seq_len)
        good = int(too_wide[0]) if len(too_wide) else good
        widths[:good] = options.seq_len
    step = max(1, _FILLED // max(1, shares.size))
    for at in range(0, good, step):
        stop = min(at + step, good)
        batches = _fill(context, shares, rows, widths, at, stop)
        for b in range(at, stop):
            batch = batches.pop(0)
            for name in options.columns:
                batch[name] = _facts(name, rows, shares, b)
            yield batch, positions[b]
            del batch
    if good < len(positions):
        raise _too_long(rows, shares, good, int(widths[good]), options.seq_len)


def _shares(context: BatchContext, firsts: Sequence[int], size: int) -> _Shares:
    """This rank's part of batches of `size` units that begin at `firsts`."""
    start, stop = context.rank_part(size)
    count = stop - start
    if context.schedule is None:
        own = np.arange(start, stop)
        units = (np.array(firsts, np.int64)[:, None] + own).ravel()
        places = np.tile(own - start, len(firsts))
        return _Shares(count, None, [units], [places], [np.arange(len(firsts) + 1) * count])
    n = len(context.components)
    units_and_places: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in range(n)]
    sources = np.empty((len(firsts), count), np.int64)
    for b, first in enumerate(firsts):
        before = context.schedule.counts(first)
        source = context.schedule.components(first, size)
        skipped = np.bincount(source[:start], minlength=n)
        sources[b] = source[start:stop]
        for c in range(n):
            places = np.flatnonzero(sources[b] == c)
            units_and_places[c].append((before[c] + skipped[c] + np.arange(len(places)), places))
    bounds = [np.cumsum([0, *(len(places) for _, places in pairs)]) for pairs in units_and_places]
    units_of, places_of = (
        [np.concatenate([pair[i] for pair in pairs]) for pairs in units_and_places] for i in range(2)
    )
    return _Shares(count, sources, units_of, places_of, bounds)


def _fill(
    context: BatchContext, shares: _Shares, rows: Sequence[RowRefs], widths: np.ndarray, at: int, stop: int
) -> list[Batch]:
    """The tensors of batches at .. stop−1."""
    fields = _FIELDS if shares.source is None else (*_FIELDS, ".source")
    batches, tables, room = [], [], 0
    for width in widths[at:stop].tolist():
        batch, addresses = context.memory.batch(fields, shares.size, width)
        batches.append(batch)
        tables.append(addresses)
        room += width * shares.size
    tensors, tokens = np.array(tables, np.uint64), 0
    for refs, bounds, places in zip(rows, shares.bounds, shares.places, strict=True):
        tokens += int(
            _write_rows(
                refs.table, refs.like, bounds[at : stop + 1], places, tensors, widths[at:stop], context.options.pad_id
            )
        )
    if shares.source is not None:
        for batch, source in zip(batches, shares.source[at:stop], strict=True):
            batch["source"].numpy()[:] = source
    context.stats.add_all(batches=stop - at, rows=(stop - at) * shares.size, tokens=tokens, pad_tokens=room - tokens)
    return batches


def _facts(name: str, rows: Sequence[RowRefs], shares: _Shares, b: int) -> torch.Tensor | list[str]:
    """A column of facts in the order of batch b: int64 [rows], [rows, most] (padded with −1), or strings."""
    values: list[Any] = [None] * shares.size
    for refs, bounds, places in zip(rows, shares.bounds, shares.places, strict=True):
        for i in range(bounds[b], bounds[b + 1]):
            values[places[i]] = refs.fact(name, i)
    if values and isinstance(values[0], str):
        return values
    if values and isinstance(values[0], list):
        most = max(len(value) for value in values)
        values = [value + [-1] * (most - len(value)) for value in values]
    return torch.tensor(values, dtype=torch.int64, device="cpu")  # where the tokens are, whatever the default


def _too_long(rows: Sequence[RowRefs], shares: _Shares, b: int, longest: int, seq_len: int | None) -> UsageError:
    for refs, bounds in zip(rows, shares.bounds, strict=True):
        for i in range(bounds[b], bounds[b + 1]):
            if refs.length[i] == longest:
                return UsageError(
                    f"row {refs.index[i]} has {longest} tokens; legal: seq_len of at least {longest}, or packing"
                )
    raise AssertionError("a batch's width is that of one of its rows")
