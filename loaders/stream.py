"""A stream: batches of a dataset or mixture in one order for any number of ranks, and the exact state between any two.

What a stream gives is decided by where it stands (`Position`) and by nothing else; batches read ahead never count.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from synthshards.errors import UsageError

from .batching.context import Batch, BatchContext, Job, Stats
from .batching.options import StreamOptions, integer
from .batching.ordered_source import OrderedSource
from .batching.packed import check_cursors, lane_counts, lanes_followed, packed_jobs
from .batching.packing import LOOK
from .batching.padded import padded_jobs
from .batching.tensors import Memory
from .order import state as states
from .order.mixing import Schedule
from .order.state import LaneCursors, Position
from .threaded import Loader


class Stream(IterableDataset[Batch]):
    """Batches as dicts of tensors, with an exact position between any two. `Dataset.batches` makes it.

    Iterating runs from the stream's position to the end of the epoch, and leaves it at the start of the next one. It
    is a torch IterableDataset: pass it to a DataLoader with ``batch_size=None``.
    """

    def __init__(
        self,
        components: Sequence[OrderedSource],
        options: StreamOptions,
        signature: dict[str, Any],
        epoch: int,
        stats: Stats,
        memory: Memory,
        lanes_given: bool,
        schedule: Schedule | None = None,
        length: int | None = None,
    ) -> None:
        """Args:
        components: the datasets of a mixture, or one dataset by itself.
        signature: what the state says of dataset and order.
        epoch: where to start.
        memory: what tensors are cut from.
        lanes_given: whether a state with another number of lanes is refused.
        schedule: of a mixture; None: one component.
        length: units of a padded pass, or of any pass that has an end; None: endless.
        """
        super().__init__()
        self._context = BatchContext(tuple(components), options, schedule, length, memory, stats)
        self._signature, self._lanes_given = signature, lanes_given
        self._position = self._start(integer("epoch", epoch, 0))

    # Where it stands -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch of the next batch (for a repeating stream, the first epoch)."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of an epoch."""
        self._position = self._start(integer("epoch", epoch, 0))

    def state_dict(self) -> dict[str, Any]:
        """The stream's position as a JSON-able dict of at most 1 KiB plus 32 bytes per lane."""
        return states.to_json(self._signature, self._position)

    def load_state_dict(self, state: Any) -> None:
        """Move to the position of another stream, which may have had another batch size, number of ranks or workers.

        Args:
            state: what `state_dict` returned; for endless packing under another number of ranks, the list of the states
                of all ranks.

        Raises:
            UsageError: a state of another dataset, order or packing, or a damaged one.
        """
        signature = {**self._signature, **({} if self._lanes_given else {"lanes": states.ANY})}
        position, signed = states.from_json(state, signature, len(self._context.components), self.packed)
        lanes = signed["lanes"]  # those of the run that the state is of
        components = tuple(replace(c, order=replace(c.order, lanes=lanes)) for c in self._context.components)
        context = replace(self._context, components=components)
        if self.packed:
            check_cursors(context, position)
        elif context.length is not None and position.unit > context.length:
            raise UsageError(f"state['unit'] is {position.unit}; legal: 0..{context.length}, the rows of an epoch")
        self._position = _of_this_rank(context, position)
        self._context, self._signature = context, {**self._signature, "lanes": lanes}
        for component in components:
            component.source.hold(lanes if component.order.shuffle else 1)

    def _start(self, epoch: int) -> Position:
        counts = lane_counts(self._context) if self.packed else []
        return _of_this_rank(self._context, Position(epoch, 0, [LaneCursors.start(count) for count in counts]))

    def rows_given(self, first: int) -> list[np.ndarray]:
        """Which of the `first` rows of each component have been given as a whole, since the start of epoch 0 and in
        index order: bool [first, or the component's rows if they are fewer]; packed, of the lanes that this rank
        follows.
        """
        context, position = self._context, self._position
        assert not any(component.order.shuffle for component in context.components), "rows are given in index order"
        out = [np.zeros(first if c.rows is None else min(first, c.rows), np.bool_) for c in context.components]
        counts = [position.unit] if context.schedule is None else context.schedule.counts(position.unit)
        for component, rows in enumerate(out):
            if not self.packed:
                rows[: counts[component]] = True
                continue
            cursors = position.cursors[component]
            for lane, (n, carry) in zip(cursors.lanes.tolist(), cursors.at.tolist(), strict=True):
                of_lane = rows[lane :: cursors.count]
                of_lane[:n] = True
                if context.options.packing == "best-fit":
                    of_lane[n:][[i for i in range(min(LOOK, len(of_lane) - n)) if carry >> i & 1]] = True
        return out

    def stats(self) -> dict[str, int]:
        """Counts since the stream was made, in this process.

        `batches`, `rows` or `windows`, `tokens` (without padding), `pad_tokens`, `truncated_tokens`, `blocks_opened`,
        and from shards `shards_opened`, `bytes_read`, `bytes_fetched`, `cache_hits`, `retries`, `shards_healed`.
        Batches that are prepared but not yet handed out are included (padded batches are made several at a time).
        """
        names = ("batches", "windows" if self.packed else "rows", "tokens", "pad_tokens", "truncated_tokens")
        return {**dict.fromkeys(names, 0), "bytes_read": 0, "blocks_opened": 0, **self._context.stats.all()}

    def __len__(self) -> int:
        """Number of batches in a padded epoch.

        Raises:
            TypeError: the stream is endless or packed (the number of windows depends on the rows).
        """
        options, length = self._context.options, self._context.length
        if self.packed or length is None:
            raise TypeError("an endless or packed stream has no len")
        full, rest = divmod(length, options.batch_size)
        return full + (rest > 0 and not options.drop_last)

    # Iterating -----------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        for job in self.jobs():
            for batch, position in job():
                self._position = position
                yield batch
        self.finish()

    def loader(self, num_workers: int = 1, prefetch: int = 2) -> Loader:
        """The same batches and the same exact state, with threads that prefetch rows.

        Args:
            num_workers: number of threads; 0 prefetches nothing.
            prefetch: pieces of work (of 1,024 rows, or a batch of windows) that may wait, at least 1.
        """
        return Loader(self, num_workers, prefetch)

    def move_to(self, position: Position) -> None:
        """Stand where a step has led."""
        self._position = position

    def finish(self) -> None:
        """Stand at the start of the next epoch, if this one has an end."""
        if self._context.length is not None:
            self._position = self._start(self._position.epoch + 1)

    def jobs(self, threads: Executor | None = None) -> Iterator[Job]:
        """The work from here to the end of the epoch, piece by piece. Padded, the pieces can be done in any order; a
        packed one must be done before the next.

        Under a DataLoader with k workers, worker i does every k-th batch from i on, and stands after each at the end of
        that round of k batches (as torchdata's StatefulDataLoader wants it).

        Args:
            threads: they share the work of one piece.
        """
        info = get_worker_info()
        own, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        start = copy.deepcopy(self._position)
        if self.packed:
            return packed_jobs(self._context, start, own, workers, threads)
        return padded_jobs(self._context, start, own, workers)

    @property
    def packed(self) -> bool:
        """Whether batches are windows (else rows)."""
        return self._context.options.packing != "pad"


def _of_this_rank(context: BatchContext, position: Position) -> Position:
    """The position with those cursors alone that this rank must follow."""
    if position.cursors:
        followed = lanes_followed(context, position)
        position.cursors = [c.only(lanes) for c, lanes in zip(position.cursors, followed, strict=True)]
    return position
