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
from .order.state import MOST_LANES
from .ranks import rank_and_world_size
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
    rank: int | None = None,
    world_size: int | None = None,
    repeat: bool = False,
    drop_last: bool = False,
    lanes: int | None = None,
    heal: str = "regenerate",
    pad_id: int = 0,
    pin_memory: bool = False,
    columns: Sequence[str] = (),
    tokenizer: Any = None,
) -> Stream:
    """A stream of batches of rows or windows, in an order that does not depend on ranks, workers or format.

    `Dataset.batches` and `Mixture.batches` supply the first five arguments; the others are the user's.

    Args:
        datasets: the components of a mixture, or one dataset.
        schedule: which component comes when, for a mixture.
        exhaustion: for a mixture, "stop" or "repeat".
        fingerprint: of the dataset or mixture.
        pool: memory for batches.
        batch_size: rows (or windows) of the global batch, over all ranks; a multiple of `world_size`.
        seq_len: tokens of a padded row or a window; a longer row is an error when padding. Without it, padded batches
            are as wide as the longest row in the rank's part.
        packing: how rows become windows, as `PACKINGS` says; "pad": they do not.
        shuffle: blocks of 1,024 rows, and rows within them; not possible for endless datasets.
        seed: of the shuffle.
        epoch: where to start; each epoch has an order of its own.
        rank: which part of every batch this process gets, 0..world_size−1.
        world_size: number of ranks; rank r gets the r-th contiguous part. Both are those of torch.distributed where it
            runs when the stream is made, else 0 of 1.
        repeat: continue through epochs without end; batches run across the end of an epoch.
        drop_last: leave out the last, short batch of an epoch.
        lanes: number of places in the dataset that a shuffled or packed batch is drawn from; default `batch_size`. A
            resumed stream keeps that of its first run.
        heal: "regenerate" rows of damaged or missing shards, "raise", or "rewrite" the shard as well.
        pad_id: token id of padding.
        pin_memory: allocate page-locked tensors.
        columns: facts to add to padded batches: int64 tensors [rows], or [rows, longest] padded with −1; strings as
            lists.
        tokenizer: for text rows; packed texts are separated by its end-of-text token.

    Returns:
        A stream of dicts of tensors. Padded: `input_ids`, `labels` (−100 where there is no loss), `attention_mask`
        int64 and `loss_mask` bool [rows, width], `index` int64 [rows]. Packed: the same tensors [windows, seq_len],
        `index` per token (−1 in padding), `segment_ids` (1, 2, … in each window, 0 in padding) and `position_ids`
        (from 0 in each row; a row that "concat" carries over continues). Mixtures add `source`, int64 [rows] or
        [windows]. Labels are not shifted.

    Raises:
        UsageError: an option out of range; it names the legal values.
    """
    rows = [dataset.num_examples for dataset in datasets]
    shuffle = flag("shuffle", shuffle)
    if shuffle and None in rows:
        raise UsageError("shuffle=True of an endless dataset; legal: give it num_examples=, or shuffle=False")
    check_heal(heal)
    if isinstance(columns, str):
        raise UsageError(f"columns={columns!r}; legal: a list of names, [{columns!r}]")
    rank, world_size = rank_and_world_size(rank, world_size)
    options = StreamOptions(
        batch_size, seq_len, packing, rank, world_size, repeat, drop_last, pad_id, pin_memory, tuple(columns)
    )
    seed = integer("seed", seed, 0)
    lane_count = options.batch_size if lanes is None else integer("lanes", lanes, 1, MOST_LANES)
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
