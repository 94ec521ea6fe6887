"""A stream of batches: every option of `Dataset.batches`, checked, and the parts that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from synthshards.errors import UsageError
from synthshards.kernels.buffers import Pool

from .batching.context import Stats
from .batching.options import StreamOptions, flag, integer
from .batching.ordered_source import OrderedSource
from .batching.packing import Packing
from .batching.tensors import Memory
from .order.mixing import Schedule
from .shards.healing import check_heal
from .sources.tokenize import TextTokens
from .stream import Stream


class StreamedDataset(Protocol):
    """What a stream asks of a dataset."""

    @property
    def num_examples(self) -> int | None:
        """Rows, None: endless."""

    def tokens(self, tokenizer: Any, join: bool, facts: Sequence[str]) -> TextTokens | None:
        """What turns its rows into token rows, None where they are.

        Args:
            tokenizer: the stream's; None: the dataset's own.
            join: whether texts are joined, by an end-of-text token.
            facts: columns that batches bring along.

        Raises:
            UsageError: text rows and no tokenizer, token rows and a tokenizer, or a name that is no fact.
        """

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
        """Its rows in the order of a stream.

        Args:
            seed, lanes, shuffle: of the order.
            endless: whether epochs follow one another without end.
            heal, count: what to do about damaged shards, and who counts.
            tokens, facts: see `tokens`.
        """


def stream_of(
    datasets: Sequence[StreamedDataset],
    schedule: Schedule | None,
    exhaustion: str,
    fingerprint: str,
    pool: Pool,
    batch_size: int,
    *,
    seq_len: int | None = None,
    packing: Packing = "pad",
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    repeat: bool = False,
    drop_last: bool = False,
    lanes: int | None = None,
    heal: str = "regenerate",
    pad_id: int = 0,
    pin_memory: bool = False,
    columns: Sequence[str] = (),
    tokenizer: Any = None,
) -> Stream:
    """Batches of rows or windows, in one order for every number of ranks and workers, format, and on the fly.

    Args:
        batch_size: rows (or windows) of the global batch; a multiple of `world_size`.
        seq_len: tokens of a padded row or of a window. Padded rows without it are as long as the longest of the
            rank's part; with it a longer row is an error.
        packing: how rows become windows, as `PACKINGS` says; "pad": they do not.
        shuffle: by blocks of 1,024 rows and within them; not for an endless dataset.
        seed, epoch: of the shuffle; each epoch has an order of its own.
        rank, world_size: rank r of W gets its contiguous part of every batch.
        repeat: go on through epochs without end; batches straddle them.
        drop_last: leave out the last, short batch of an epoch.
        lanes: from how many places of the dataset a shuffled or packed batch is drawn; default `batch_size`. A resumed
            stream keeps those of its first run.
        heal: "regenerate" rows of damaged or missing shards, "raise", or "rewrite" the shard, too.
        pad_id: fills padding.
        pin_memory: page-locked tensors.
        columns: facts to bring along (padded): int64 tensors [rows], or [rows, most] filled up with −1; lists of
            strings.
        tokenizer: for text rows; packed, texts are joined by its end-of-text token.

    Yields:
        dicts of tensors. Padded: `input_ids`, `labels` (−100 where not trained on), `attention_mask` int64 and
        `loss_mask` bool [rows, width], `index` int64 [rows]. Packed: the same [windows, seq_len] with `index` a token,
        and `segment_ids` (from 1 in each window, 0 padding), `position_ids` (from 0 in each row; of a row that "concat"
        carries over, counted on). Padding has index −1 in windows. Mixtures add `source` int64 [rows or windows].

    Raises:
        UsageError (a ValueError): an option out of range, with the legal values.
    """
    rows = [dataset.num_examples for dataset in datasets]
    shuffle = flag("shuffle", shuffle)
    if shuffle and None in rows:
        raise UsageError("shuffle=True of an endless dataset; legal: give it num_examples=, or shuffle=False")
    check_heal(heal)
    if isinstance(columns, str):
        raise UsageError(f"columns={columns!r}; legal: a list of names, [{columns!r}]")
    options = StreamOptions(
        batch_size, seq_len, packing, rank, world_size, repeat, drop_last, pad_id, pin_memory, tuple(columns)
    )
    seed = integer("seed", seed, 0)
    lane_count = options.batch_size if lanes is None else integer("lanes", lanes, 1)
    length = rows[0] if schedule is None else schedule.length(rows) if exhaustion == "stop" else None
    if repeat and 0 in rows:
        raise UsageError("repeat=True of a dataset of 0 rows; legal: with rows")
    if repeat:
        length = None
    tokens = [dataset.tokens(tokenizer, packing != "pad", options.columns) for dataset in datasets]
    stats = Stats()
    components = [
        dataset.ordered_source(
            seed=seed, lanes=lane_count, shuffle=shuffle, endless=length is None, heal=heal, count=stats.add,
            tokens=own_tokens, facts=options.columns,
        )
        for dataset, own_tokens in zip(datasets, tokens, strict=True)
    ]  # fmt: skip
    signature = {
        "dataset": fingerprint,
        "rows": rows[0] if schedule is None else length,
        "seed": seed if shuffle else 0,
        "shuffle": shuffle,
        "lanes": lane_count,
        "packing": packing,
        "seq_len": options.seq_len,
        "repeat": options.repeat,
    }  # fmt: skip
    digests = [own_tokens.digest for own_tokens in tokens if own_tokens is not None]
    if digests:
        signature["tokenizer"] = hashlib.sha256(" ".join(digests).encode()).hexdigest()
    memory = Memory(pool, options.pin_memory)
    return Stream(components, options, signature, epoch, stats, memory, lanes is not None, schedule, length)
