"""A stream: batches of a dataset or mixture in one order for any world, and the exact state between any two of them.

What a stream gives is decided by where it stands (`Position`) and by nothing else; batches read ahead never count.
"""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from synthshards.errors import UsageError
from synthshards.tasks.task import Buffers

from . import state as states
from .component import Component, lanes_met
from .options import Options, integer
from .packing import Packer, Plan
from .padding import fill_padded
from .schedule import Schedule
from .state import Position, Stand
from .tensors import Memory

Batch: TypeAlias = dict[str, Any]
#: A batch, and where the stream stands after it.
Step: TypeAlias = tuple[Batch, Position]
#: Makes the next steps; its argument is what generated rows lie in, one a component.
Job: TypeAlias = Callable[[Sequence[Buffers]], Iterator[Step]]

#: Rows taken from the sources at a time.
_AT_A_TIME = 1024
_PADDED = ("input_ids", "labels", "attention_mask", "loss_mask")
_PACKED = ("input_ids", "labels", "attention_mask", "loss_mask", "index", "segment_ids", "position_ids")


class Stats:
    """What a stream has counted; threads may count at once."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def add(self, name: str, count: int) -> None:
        """Count `count` more of `name`."""
        with self._lock:
            self._counts[name] += count

    def add_all(self, **counts: int) -> None:
        """Count more of several names."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def all(self) -> dict[str, int]:
        """Every count."""
        with self._lock:
            return dict(self._counts)


class Stream(IterableDataset[Batch]):
    """Batches as dicts of tensors; made by `Dataset.batches`, which documents them.

    Iterating runs from where the stream stands to the end of the epoch, and then stands at the start of the next one.
    """

    def __init__(
        self,
        components: Sequence[Component],
        options: Options,
        described: dict[str, Any],
        epoch: int,
        stats: Stats,
        lanes_given: bool,
        schedule: Schedule | None = None,
        length: int | None = None,
    ) -> None:
        """Args:
        components: the datasets.
        described: what the state says of dataset and order.
        epoch: where to start.
        lanes_given: whether a state with another number of lanes is refused.
        schedule: of a mixture; None: one component.
        length: units of a padded pass, or of any pass that has an end; None: endless.
        """
        super().__init__()
        self._components, self._options, self._described = tuple(components), options, described
        self._schedule, self._length, self._stats, self._lanes_given = schedule, length, stats, lanes_given
        self._memory = Memory(options.pin_memory)
        self._position = self._start(integer("epoch", epoch, 0))

    # Where it stands -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to (of a repeating stream: the first one)."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch."""
        self._position = self._start(integer("epoch", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands: JSON-able, at most 1 KiB and 32 bytes a lane."""
        return states.to_json(self._described, self._position)

    def load_state_dict(self, state: Any) -> None:
        """Stand where another stream stood, of any batch size, world or number of workers.

        Args:
            state: what `state_dict` gave; for endless packing under another number of ranks, the list of all ranks'.

        Raises:
            UsageError (a ValueError): a state of another dataset, order or packing, or a damaged one.
        """
        described = {**self._described, **({} if self._lanes_given else {"lanes": states.ANY})}
        position, known = states.from_json(state, described, len(self._components), self.packed)
        before = self._components, self._described
        self._deal_to(known["lanes"])
        try:
            self._position = self._checked(position)
        except UsageError:
            self._components, self._described = before
            raise

    def _deal_to(self, lanes: int) -> None:
        """Go on with the lanes of the run that the state is of."""
        self._described = {**self._described, "lanes": lanes}
        self._components = tuple(replace(c, order=replace(c.order, lanes=lanes)) for c in self._components)
        for component in self._components:
            component.source.hold(lanes if component.order.shuffle else 1)

    def _checked(self, position: Position) -> Position:
        for stand, count in zip(position.stands, self._lane_counts(), strict=True):
            if stand.count != count:
                raise UsageError(f"the state has {stand.count} packing lanes, this stream {count}")
        known = self._known(position)
        position.stands = [stand.only(lanes) for stand, lanes in zip(position.stands, known, strict=True)]
        return position

    def stats(self) -> dict[str, int]:
        """Counts since the stream was made, in this process: `batches`, `rows` or `windows`, `tokens` (without
        padding), `pad_tokens`, `truncated_tokens`, `blocks_opened`, and from shards `shards_opened`, `bytes_read`,
        `bytes_fetched`, `cache_hits`, `retries`, `shards_healed`. What was made ahead is counted too."""
        names = ("batches", "windows" if self.packed else "rows", "tokens", "pad_tokens", "truncated_tokens")
        return {**dict.fromkeys(names, 0), "bytes_read": 0, "blocks_opened": 0, **self._stats.all()}

    def __len__(self) -> int:
        """Batches of a padded pass.

        Raises:
            TypeError: the stream is endless, or packs (how many windows there are shows only in the rows).
        """
        if self.packed or self._length is None:
            raise TypeError("an endless or packed stream has no len")
        full, rest = divmod(self._length, self._options.batch_size)
        return full + (rest > 0 and not self._options.drop_last)

    # Iterating -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        buffers = self.buffers()
        for job in self.jobs():
            for batch, position in job(buffers):
                self._position = position
                yield batch
        self.finish()

    def loader(self, num_workers: int = 1, prefetch: int = 2) -> Any:
        """The same batches, made ahead by threads, with exact state: see `Loader`."""
        from .threads import Loader

        return Loader(self, num_workers, prefetch)

    def buffers(self) -> list[Buffers]:
        """What a job's generated rows lie in."""
        return [Buffers() for _ in self._components]

    def stand_at(self, position: Position) -> None:
        """Stand where a step has led."""
        self._position = position

    def finish(self) -> None:
        """Stand at the start of the next epoch, if this one has an end."""
        if self._length is not None:
            self._position = self._start(self._position.epoch + 1)

    def jobs(self, pool: Executor | None = None, rows: int = _AT_A_TIME) -> Iterator[Job]:
        """The work from here to the end of the epoch, piece by piece. Padded, the pieces can be done in any order; a
        packed one must be done before the next.

        Under a DataLoader with k workers, worker i does every k-th batch from i on, and stands after each at the end of
        that round of k batches (as torchdata's StatefulDataLoader wants it).

        Args:
            pool: threads that share the work of one piece.
            rows: of a padded piece, about.
        """
        info = get_worker_info()
        own, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        start = copy.deepcopy(self._position)
        if self.packed:
            return self._packed_jobs(start, own, workers, pool)
        return self._padded_jobs(start, own, workers, rows)

    # Padded --------------------------------------------------------------------------------------------------------

    def _padded_jobs(self, start: Position, own: int, workers: int, rows: int) -> Iterator[Job]:
        size, length, unit = self._options.batch_size, self._length, start.unit
        most = max(1, rows * self._options.world_size // size)
        at_a_time = 1  # the first batches come soon, the others in larger pieces
        while True:
            batches = []
            for _ in range(at_a_time):
                first, unit = unit + own * size, unit + workers * size
                if length is not None:
                    rest = length - first
                    if rest <= 0 or (rest < size and self._options.drop_last):
                        break
                    batches.append((first, min(size, rest), min(unit, length)))
                else:
                    batches.append((first, size, unit))
            if batches:
                yield partial(self._pad, start.epoch, batches)
            if len(batches) < at_a_time:
                return
            at_a_time = min(most, 2 * at_a_time)

    def _pad(self, epoch: int, batches: list[tuple[int, int, int]], buffers: Sequence[Buffers]) -> Iterator[Step]:
        """Batches of (first unit, units, where the stream stands then), of which this rank gives its part."""
        shares = [self._share(first, count) for first, count, _ in batches]
        rows = [
            component.take(epoch, np.concatenate([share.units[c] for share in shares]), buffer)
            for c, (component, buffer) in enumerate(zip(self._components, buffers, strict=True))
        ]
        taken = [0] * len(rows)
        for share, (_, _, stands) in zip(shares, batches, strict=True):
            batch = self._pad_one(share, rows, taken)
            taken = [at + len(units) for at, units in zip(taken, share.units, strict=True)]
            yield batch, Position(epoch, stands)

    def _pad_one(self, share: _Share, rows: Sequence[Any], taken: Sequence[int]) -> Batch:
        options, count = self._options, share.count
        lengths = [r.length[at : at + len(u)] for r, at, u in zip(rows, taken, share.units, strict=True)]
        longest = max([int(np.maximum.reduce(some)) for some in lengths if len(some)], default=0)
        width = options.seq_len if options.seq_len is not None else longest
        if longest > width:
            c = next(c for c, some in enumerate(lengths) if len(some) and some.max() == longest)
            index = int(rows[c].index[taken[c] + int(lengths[c].argmax())])
            raise UsageError(f"row {index} has {longest} tokens; legal: seq_len of at least {longest}, or packing")
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PADDED, (count, width))
        shapes["index"] = (count,)
        if self._schedule is not None:
            shapes["source"] = (count,)
        batch, arrays = self._memory.batch(shapes)
        if self._schedule is not None:
            arrays["source"][:] = share.source
        tokens = 0
        for r, at, places in zip(rows, taken, share.places, strict=True):
            if len(places):
                tokens += fill_padded(r, at, places, options.pad_id, arrays)
        for name in options.columns:
            batch[name] = _facts(name, rows, taken, share)
        self._stats.add_all(batches=1, rows=count, tokens=tokens, pad_tokens=count * width - tokens)
        return batch

    def _share(self, first: int, count: int) -> _Share:
        """This rank's part of a batch of units first .. first+count−1."""
        start, stop = self._part(count)
        if self._schedule is None:
            return _Share(stop - start, None, [np.arange(first + start, first + stop)], [np.arange(stop - start)])
        before = self._schedule.counts(first)
        source = self._schedule.components(first, count)
        skipped = np.bincount(source[:start], minlength=len(before))
        mine = source[start:stop]
        places = [np.flatnonzero(mine == c) for c in range(len(before))]
        units = [n + skipped[c] + np.arange(len(places[c])) for c, n in enumerate(before)]
        return _Share(stop - start, mine, units, places)

    def _part(self, count: int) -> tuple[int, int]:
        """Which of a batch's `count` places are this rank's: [start, stop)."""
        rank, world = self._options.rank, self._options.world_size
        return rank * count // world, (rank + 1) * count // world

    # Packed --------------------------------------------------------------------------------------------------------

    @property
    def packed(self) -> bool:
        """Whether batches are windows (else rows)."""
        return self._options.packing != "pad"

    def _lane_counts(self) -> list[int]:
        one_pass = self._length is not None
        return [c.packing_lanes(one_pass) for c in self._components] if self.packed else []

    def _start(self, epoch: int) -> Position:
        position = Position(epoch, 0, [Stand.start(count) for count in self._lane_counts()])
        known = self._known(position)
        position.stands = [stand.only(lanes) for stand, lanes in zip(position.stands, known, strict=True)]
        return position

    def _known(self, position: Position) -> list[np.ndarray]:
        """The packing lanes that this rank must follow."""
        counts = self._lane_counts()
        if self._schedule is not None or self._options.world_size == 1:
            return [np.arange(count) for count in counts]
        start, stop = self._part(self._options.batch_size)
        return [lanes_met(position.unit, count, self._options.batch_size, start, stop) for count in counts]

    def _packed_jobs(self, start: Position, own: int, workers: int, pool: Executor | None) -> Iterator[Job]:
        assert self._options.seq_len is not None
        packers: list[Packer] = []
        buffers: list[Buffers] = self.buffers()
        for component, stand, buffer in zip(self._components, start.stands, buffers, strict=True):
            packers.append(
                component.packer(
                    self._options.packing, self._options.seq_len, start.epoch, stand.lanes, stand.count, stand.at,
                    buffer, lambda: pool,
                )
            )  # fmt: skip
        at = copy.copy(start)
        over = False
        while not over:
            # One round: a batch for each worker, of which this one's is made.
            batch: Batch | None = None
            for worker in range(workers):
                plans, source, count = self._plan(packers, at)
                over = count < self._options.batch_size
                if count and worker == own and not (over and self._options.drop_last):
                    batch = self._fill(packers, plans, at, source, count)
                stands = [Stand(s.count, s.lanes, p.stand.copy()) for s, p in zip(start.stands, packers, strict=True)]
                at = Position(at.epoch, at.unit + count, stands)
                if over:
                    break
            if batch is not None:
                yield partial(_hand, batch, at)

    def _plan(self, packers: Sequence[Packer], at: Position) -> tuple[list[Plan], np.ndarray | None, int]:
        """Plan the batch that starts at window `at.unit`: each component's windows, their components, how many."""
        size = self._options.batch_size
        if self._schedule is None:
            source, before, wanted = None, [at.unit], [size]
        else:
            source, before = self._schedule.components(at.unit, size), self._schedule.counts(at.unit)
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

    def _fill(
        self, packers: Sequence[Packer], plans: Sequence[Plan], at: Position, source: np.ndarray | None, count: int
    ) -> Batch:
        start, stop = self._part(count)
        windows, seq_len = stop - start, self._options.seq_len
        assert seq_len is not None
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PACKED, (windows, seq_len))
        if source is not None:
            shapes["source"] = (windows,)
        batch, arrays = self._memory.batch(shapes)
        for c, (packer, plan, stand) in enumerate(zip(packers, plans, at.stands, strict=True)):
            if source is None:
                places = np.arange(windows)
                # Of this batch's windows, those before `start` whose lane is followed here.
                first = int(np.isin((at.unit + np.arange(start)) % stand.count, stand.lanes).sum())
            else:
                arrays["source"][:] = source[start:stop]
                places, first = np.flatnonzero(source[start:stop] == c), int((source[:start] == c).sum())
            padding, cut = packer.fill(plan, first, places, self._options.pad_id, arrays)
            tokens = len(places) * seq_len - padding
            self._stats.add_all(pad_tokens=padding, truncated_tokens=cut, tokens=tokens)
        self._stats.add_all(batches=1, windows=windows)
        return batch


@dataclass(frozen=True)
class _Share:
    """A rank's part of a padded batch: the units of each component, and the places they go to."""

    count: int
    source: np.ndarray | None
    units: list[np.ndarray]
    places: list[np.ndarray]


def _hand(batch: Batch, position: Position, buffers: Sequence[Buffers]) -> Iterator[Step]:
    yield batch, position


def _facts(name: str, rows: Sequence[Any], taken: Sequence[int], share: _Share) -> Any:
    """A column of facts in the order of the batch: int64 [rows], [rows, most] (padded with −1), or strings."""
    values: list[Any] = [None] * share.count
    for r, at, places in zip(rows, taken, share.places, strict=True):
        if len(places):
            for place, value in zip(places.tolist(), r.fact(name, at, at + len(places)), strict=True):
                values[place] = value
    if values and isinstance(values[0], str):
        return values
    if values and isinstance(values[0], list):
        most = max(len(value) for value in values)
        values = [value + [-1] * (most - len(value)) for value in values]
    return torch.tensor(values, dtype=torch.int64)
