"""A stream of batches: every option of `Dataset.batches`, checked, and the parts that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from synthshards.errors import UsageError
from synthshards.kernels.buffers import Pool

from .batching.context import Stats
from .batching.options import Options, flag, integer
from .batching.tensors import Memory
from .order.mixing import Schedule
from .shards.healing import check_heal
from .stream import Stream

if TYPE_CHECKING:
    from .dataset import Dataset


def stream_of(
    parts: Sequence[Dataset],
    schedule: Schedule | None,
    exhaustion: str,
    fingerprint: str,
    pool: Pool,
    batch_size: int,
    *,
    seq_len: int | None = None,
    packing: str = "pad",
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
    """Batches of rows or windows, in one order for every world, number of workers, format, and on the fly.

    Args:
        batch_size: rows (or windows) of the global batch; a multiple of `world_size`.
        seq_len: tokens of a padded row or of a window. Padded rows without it are as long as the longest of the
            rank's part; with it a longer row is an error.
        packing: "pad"; "concat", rows end to end, cut at the window; "paper" (Part 4.1), the first row of a window
            whole and the last cut; "best-fit", no row cut.
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
    endless = any(part.num_examples is None for part in parts)
    shuffle = flag("shuffle", shuffle)
    if shuffle and endless:
        raise UsageError("shuffle=True of an endless dataset; legal: give it num_examples=, or shuffle=False")
    check_heal(heal)
    if isinstance(columns, str):
        raise UsageError(f"columns={columns!r}; legal: a list of names, [{columns!r}]")
    options = Options(
        batch_size, seq_len, packing, rank, world_size, repeat, drop_last, pad_id, pin_memory, tuple(columns)
    )
    seed, chosen_lanes = integer("seed", seed, 0), None if lanes is None else integer("lanes", lanes, 1)
    rows = [part.num_examples for part in parts]
    length = rows[0] if schedule is None else schedule.length(rows) if exhaustion == "stop" else None
    if repeat and 0 in rows:
        raise UsageError("repeat=True of a dataset of 0 rows; legal: with rows")
    if repeat:
        length = None
    tokens = [part.tokens(tokenizer, packing != "pad", "spans" in columns) for part in parts]
    for part, token in zip(parts, tokens, strict=True):
        known = [*part.columns, *(("input_ids", "loss_mask") if token else ())]
        for name in columns:
            if name not in known or name in ("input_ids", "loss_mask"):
                raise UsageError(
                    f"columns: {name!r} is no fact of {part.identity.task}; legal: {', '.join(part.columns)}"
                )
    stats = Stats()
    order = {"seed": seed, "lanes": chosen_lanes or options.batch_size, "shuffle": shuffle}
    components = [
        part.component(order, length is None, heal, stats.add, token, columns)
        for part, token in zip(parts, tokens, strict=True)
    ]
    described = {
        "dataset": fingerprint,
        "rows": rows[0] if schedule is None else length,
        "seed": seed if shuffle else 0,
        "shuffle": shuffle,
        "lanes": order["lanes"],
        "packing": packing,
        "seq_len": options.seq_len,
        "repeat": options.repeat,
    }  # fmt: skip
    digests = [token.digest for token in tokens if token is not None]
    if digests:
        described["tokenizer"] = hashlib.sha256(" ".join(digests).encode()).hexdigest()
    memory = Memory(pool, options.pin_memory)
    return Stream(components, options, described, epoch, stats, memory, lanes is not None, schedule, length)
