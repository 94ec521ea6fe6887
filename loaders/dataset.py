"""Rows by index, from shards or on the fly; `open_dataset` makes these, `stream_builder` streams them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from synthshards.dataset.stored import StoredDataset
from synthshards.errors import UsageError
from synthshards.kernels.buffers import Pool
from synthshards.tasks.task import Row, Task

from .batching.options import integer
from .batching.ordered_source import OrderedSource
from .batching.tensors import batch_pool
from .order.shuffle import Order
from .shards.reader import ignore
from .sources.source import GeneratedSource, Source, StoredSource
from .sources.tokenize import TextTokens
from .stream import Stream
from .stream_builder import stream_of

#: Rows of an endless dataset: what counts them has 63 bits.
_ENDLESS = 1 << 63
#: The columns that are no facts.
_TOKENS = ("input_ids", "loss_mask")


class Dataset(TorchDataset[Row]):
    """Rows by index, and streams of batches. `open_dataset` makes it.

    Attributes:
        identity: task, task_version, params, seed and split.
        columns: column name → kind, as stored.
        num_examples: number of rows; None is endless.
        stored: folder and manifest; None on the fly.
    """

    def __init__(
        self,
        task: Task | None,
        seed: int,
        split: str,
        num_examples: int | None = None,
        tokenizer: Any = None,
        stored: StoredDataset | None = None,
    ) -> None:
        self._task, self.stored, self._tokenizer = task, stored, tokenizer
        self._pool, self._batch_pool = Pool(), batch_pool()
        limit: int | None
        if stored is not None:
            self.identity, self.columns, limit = (
                stored.manifest.identity,
                stored.manifest.columns,
                stored.manifest.examples,
            )
        else:
            assert task is not None, "rows come from somewhere"
            self.identity, self.columns, limit = task.identity(seed, split), task.columns, task.num_examples
        if num_examples is not None:
            num_examples = integer("num_examples", num_examples, 0)
            if limit is not None and num_examples > limit:
                raise UsageError(f"num_examples={num_examples}; legal: 0..{limit}, there are no more rows")
            limit = num_examples
        self.num_examples = limit
        if tokenizer is not None and "text" not in self.columns:
            raise UsageError(
                f"a tokenizer, and rows of {self.identity.task} are token ids; legal: with text rows (capo)"
            )
        self._rows_by_index: Source | None = None

    @staticmethod
    def of(stored: StoredDataset, num_examples: int | None = None, tokenizer: Any = None) -> Dataset:
        """The rows of a stored dataset; where its manifest says that no file holds them, on the fly."""
        manifest = stored.manifest
        if manifest.shards and all(entry.sha256 is None for entry in manifest.shards):
            count = manifest.examples if num_examples is None else num_examples
            if count > manifest.examples:
                raise UsageError(f"num_examples={count}; legal: 0..{manifest.examples}, there are no more rows")
            identity = manifest.identity
            return Dataset(manifest.task(), identity.seed, identity.split, count, tokenizer)
        return Dataset(None, 0, "", num_examples, tokenizer, stored)

    @property
    def task(self) -> Task:
        """The task of the rows.

        Raises:
            VersionError: the rows are of a task version that this package cannot generate.
        """
        if self._task is None:
            assert self.stored is not None
            self._task = self.stored.manifest.task()
        return self._task

    @property
    def fingerprint(self) -> str:
        """``"sha256:"`` and the 64 hex digits of the identity's digest."""
        return self.identity.fingerprint

    def __repr__(self) -> str:
        where = self.stored.folder.where("") if self.stored is not None else "on the fly"
        rows = "endless" if self.num_examples is None else f"{self.num_examples} rows"
        return f"<Dataset {self.identity.task} seed={self.identity.seed} split={self.identity.split} {rows} {where}>"

    def __len__(self) -> int:
        """Number of rows.

        Raises:
            TypeError: the dataset is endless.
        """
        if self.num_examples is None:
            raise TypeError("an endless dataset has no len; give it one with num_examples=")
        return self.num_examples

    def __getitem__(self, i: int) -> Row:
        """Row i, as `Task.example` returns it. Text rows also have token ids if there is a tokenizer.

        Raises:
            IndexError: there is no such row; negative i count from the end.
        """
        index = row_index(i, self.num_examples)
        if self._rows_by_index is None:
            self._rows_by_index = self._source("regenerate", ignore, None)
        batch = self._rows_by_index.raw(index, 1)
        if self._tokenizer is not None:
            batch = TextTokens(self._tokenizer, spans=True)(batch)
        return next(batch.rows())

    def batches(self, batch_size: int, **options: Any) -> Stream:
        """A stream of batches. `synthshards.loaders.stream_builder.stream_of` documents the options."""
        return stream_of([self], None, "stop", self.fingerprint, self._batch_pool, batch_size, **options)

    # What a stream is built of: see `StreamedDataset` ----------------------------------------------------------------

    def tokens(self, tokenizer: Any, join: bool, facts: Sequence[str]) -> TextTokens | None:
        """What turns the rows into token rows, None where they are."""
        if "text" in self.columns:
            chosen = self._tokenizer if tokenizer is None else tokenizer
            if chosen is None:
                raise UsageError(f"rows of {self.identity.task} are text: batches want a tokenizer=")
            tokens = TextTokens(chosen, join=join, spans="spans" in facts)
        elif tokenizer is not None:
            raise UsageError(f"a tokenizer, and rows of {self.identity.task} are token ids; legal: with text rows")
        else:
            tokens = None
        for name in facts:
            if name not in self.columns or name in _TOKENS:
                raise UsageError(
                    f"columns: {name!r} is no fact of {self.identity.task}; legal: {', '.join(self.columns)}"
                )
        return tokens

    def ordered_source(
        self,
        *,
        seed: int,
        lanes: int,
        shuffle: bool,
        endless: bool,
        heal: str,
        count: Callable[[str, int], None],
        tokens: TextTokens | None,
        facts: Sequence[str],
    ) -> OrderedSource:
        """The rows in the order of a stream."""
        source = self._source(heal, count, tokens, {*_TOKENS, "text", *facts})
        source.hold(lanes if shuffle else 1)
        return OrderedSource(source, Order(self.fingerprint, self.num_examples, seed, lanes, shuffle), endless)

    def _source(
        self,
        heal: str,
        count: Callable[[str, int], None],
        tokens: TextTokens | None,
        columns: Collection[str] | None = None,
    ) -> Source:
        if self.stored is not None:
            return StoredSource(self.stored, heal, count, self._pool, tokens, columns)
        return GeneratedSource(self.task, self.identity.seed, self.identity.split, self._pool, tokens)


def row_index(i: Any, rows: int | None) -> int:
    """i counted from the first of `rows` rows (None: endlessly many).

    Raises:
        IndexError: there is no such row.
        TypeError: i is no integer.
    """
    try:
        index = operator.index(i)
    except TypeError:
        raise TypeError(f"ds[{i!r}]; legal: an integer, as in [ds[i] for i in range(10)]") from None
    if index < 0 and rows is not None:
        index += rows
    if not 0 <= index < (_ENDLESS if rows is None else rows):
        raise IndexError(f"row {i} of {'endlessly many' if rows is None else rows}")
    return index
