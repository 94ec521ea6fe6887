"""`open_dataset`: rows from shards or on the fly behind one face, alone or mixed."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch.utils.data import Dataset as TorchDataset

from synthshards.catalog import is_task_name, make_task
from synthshards.dataset import StoredDataset, open_stored
from synthshards.digest import canonical_json
from synthshards.errors import UsageError
from synthshards.spec import Identity
from synthshards.tasks.task import Row, Task

from .component import Component
from .options import Options, flag, integer
from .order import Order
from .schedule import Schedule
from .source import Generated, Source, Stored
from .stream import Stats, Stream
from .tokens import TextTokens

#: What `open_dataset` takes.
Location: TypeAlias = "str | Path | Task | Dataset | Mapping[Any, float] | Sequence[tuple[Any, float]]"
_HEAL = ("regenerate", "raise", "rewrite")
#: Rows of an endless dataset: what counts them has 63 bits.
_ENDLESS = 1 << 63


def open_dataset(
    location: Location,
    *,
    seed: int | None = None,
    split: str | None = None,
    num_examples: int | None = None,
    exhaustion: str = "stop",
    tokenizer: Any = None,
    **overrides: Any,
) -> Dataset | Mixture:
    """Open rows: from shards, from a manifest, on the fly, or a mixture of these.

    Args:
        location: one of
            - a folder, a URI or the path of a manifest: rows are read from its shards, and those of missing or damaged
              ones generated. `seed`, `split` and parameters may be given if they are the manifest's;
            - a task or preset name, or a `Task`: rows are generated on the fly;
            - a mapping (or pairs) of these to weights: a mixture. `seed` and `split` then go to what is generated.
        seed: 0..2^64−1; on the fly 0 where it is not given.
        split: ``[a-z0-9_]+``; on the fly "train" where it is not given.
        num_examples: the first so many rows; None: all, on the fly without end (Capo is finite).
        exhaustion: of a mixture: "stop" before the first row that a component lacks, or "repeat" components for ever.
        tokenizer: for text rows: see `TextTokens`.
        **overrides: parameters of the task.

    Raises:
        UsageError: no such task, dataset or parameter, or one that differs from the manifest's.
        ManifestError, StorageError: the manifest is hostile, or cannot be read.

    >>> from synthshards import open_dataset
    >>> ds = open_dataset("depo1-225", num_examples=1000, K=4)
    >>> len(ds), ds[7]["n"]
    (1000, 89)
    """
    if isinstance(location, Mapping) or (isinstance(location, Sequence) and not isinstance(location, str | bytes)):
        pairs = list(location.items() if isinstance(location, Mapping) else location)
        for pair in pairs:
            if not (isinstance(pair, Sequence) and not isinstance(pair, str | bytes) and len(pair) == 2):
                raise UsageError(f"{pair!r} in a mixture; legal: pairs of a dataset and its weight, or a mapping")
        if num_examples is not None or overrides:
            given = "num_examples" if num_examples is not None else next(iter(overrides))
            raise UsageError(f"{given} with a mixture; legal: open the component with it, and mix the opened datasets")
        parts = [_open_one(what, seed, split, None, tokenizer, {}, mixed=True) for what, _ in pairs]
        return Mixture(parts, [weight for _, weight in pairs], exhaustion)
    return _open_one(location, seed, split, num_examples, tokenizer, overrides)


def _open_one(
    location: Any, seed: int | None, split: str | None, num_examples: int | None, tokenizer: Any,
    overrides: dict[str, Any], mixed: bool = False,
) -> Dataset:  # fmt: skip
    if isinstance(location, Dataset):
        return location
    if isinstance(location, Task) or (isinstance(location, str) and is_task_name(location)):
        if isinstance(location, Task):
            task = location if not overrides else type(location)(location.params.canonical(), **overrides)
        else:
            task = make_task(location, **overrides)
        return Dataset(task, 0 if seed is None else seed, "train" if split is None else split, num_examples, tokenizer)
    if not isinstance(location, str | Path):
        raise UsageError(
            f"open_dataset takes no {type(location).__name__}; legal: a folder, a URI, a manifest, a task or preset "
            "name, or a mapping of these to weights"
        )
    stored = open_stored(str(location))
    identity = stored.manifest.identity
    asked = {} if mixed else {"seed": seed, "split": split}
    for name, value in asked.items():
        if value is not None and value != getattr(identity, name):
            raise UsageError(
                f"{name}={value!r}, and {location} has {getattr(identity, name)!r}; legal: that, or leave it out"
            )
    if overrides:
        parameters = stored.manifest.task().params.canonical()
        wanted = make_task(identity.task, identity.params, **overrides).params.canonical()
        for name in overrides:
            if wanted.get(name) != parameters.get(name):
                raise UsageError(
                    f"{name}={overrides[name]!r}, and {location} has {parameters.get(name)!r}; "
                    "legal: that, or leave it out"
                )
    return Dataset.of(stored, num_examples, tokenizer)


class Dataset(TorchDataset[Row]):
    """Rows by index, and streams of them in batches; made by `open_dataset`.

    Attributes:
        identity: task, task_version, params, seed and split.
        columns: column name → kind, as stored.
        num_examples: rows, None: endless.
        stored: the folder and manifest, None on the fly.
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
        limit: int | None
        if stored is not None:
            self.identity, self.columns, limit = (
                stored.manifest.identity,
                stored.manifest.columns,
                stored.manifest.examples,
            )
        else:
            assert task is not None, "rows come from somewhere"
            self.identity, self.columns, limit = Identity.of(task, seed, split), task.columns, task.num_examples
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
            VersionError: they are of a task version that this package does not generate.
        """
        if self._task is None:
            assert self.stored is not None
            self._task = self.stored.manifest.task()
        return self._task

    @property
    def fingerprint(self) -> str:
        """``sha256:`` and 64 hex digits: of the identity."""
        return self.identity.fingerprint

    def __repr__(self) -> str:
        where = self.stored.folder.where("") if self.stored is not None else "on the fly"
        rows = "endless" if self.num_examples is None else f"{self.num_examples} rows"
        return f"<Dataset {self.identity.task} seed={self.identity.seed} split={self.identity.split} {rows} {where}>"

    def __len__(self) -> int:
        if self.num_examples is None:
            raise TypeError("an endless dataset has no len; give it one with num_examples=")
        return self.num_examples

    def __getitem__(self, i: int) -> Row:
        """Row i: a dict of `input_ids` and `labels` (int64 arrays), `loss_mask` (bool array) and facts; text rows hold
        `text` and facts, and the first three with a tokenizer. Negative i count from the end."""
        at = _row_number(i, self.num_examples)
        if self._rows_by_index is None:
            self._rows_by_index = self._source("regenerate", lambda name, count: None, None)
        batch = self._rows_by_index.raw(at, 1)
        if self._tokenizer is not None:
            batch = TextTokens(self._tokenizer, spans=True)(batch)
        return next(batch.rows())

    def batches(self, batch_size: int, **options: Any) -> Stream:
        """A stream of batches: see `stream_of`, whose options these are."""
        return stream_of([self], None, "stop", self.fingerprint, batch_size, **options)

    def _source(
        self,
        heal: str,
        count: Callable[[str, int], None],
        convert: TextTokens | None,
        wanted: Collection[str] | None = None,
    ) -> Source:
        if self.stored is not None:
            return Stored(self.stored, heal, count, convert, wanted)
        return Generated(self.task, self.identity.seed, self.identity.split, convert)

    def component(
        self,
        order: dict[str, Any],
        endless: bool,
        heal: str,
        count: Callable[[str, int], None],
        tokens: TextTokens | None,
        facts: Sequence[str],
    ) -> Component:
        """This dataset as a part of a stream, of whose columns batches hold the rows themselves and `facts`."""
        source = self._source(heal, count, tokens, {"input_ids", "loss_mask", "text", *facts})
        source.hold(order["lanes"] if order["shuffle"] else 1)
        return Component(source, Order(self.fingerprint, self.num_examples, **order), endless)

    def tokens(self, tokenizer: Any, join: bool, spans: bool) -> TextTokens | None:
        """What turns the rows into token rows, None where they are.

        Raises:
            UsageError: text rows and no tokenizer.
        """
        chosen = self._tokenizer if tokenizer is None else tokenizer
        if "text" not in self.columns:
            if tokenizer is not None:
                raise UsageError(f"a tokenizer, and rows of {self.identity.task} are token ids; legal: with text rows")
            return None
        if chosen is None:
            raise UsageError(f"rows of {self.identity.task} are text: batches want a tokenizer=")
        return TextTokens(chosen, join=join, spans=spans)


def _row_number(i: Any, rows: int | None) -> int:
    """i counted from the first row.

    Raises:
        IndexError: there is no such row.
        TypeError: i is no integer.
    """
    try:
        at = operator.index(i)
    except TypeError:
        raise TypeError(f"ds[{i!r}]; legal: an integer, as in [ds[i] for i in range(10)]") from None
    if at < 0 and rows is not None:
        at += rows
    if not 0 <= at < (_ENDLESS if rows is None else rows):
        raise IndexError(f"row {i} of {'endlessly many' if rows is None else rows}")
    return at


class Mixture(TorchDataset[Row]):
    """Datasets mixed by weights: in every prefix of the stream each has its share to within one row or window.

    Args:
        parts: the datasets; each keeps its own order.
        weights: positive numbers.
        exhaustion: "stop" before the first row that a part lacks, or "repeat" parts for ever.

    Raises:
        UsageError: an illegal weight or exhaustion, or no part.
    """

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float], exhaustion: str = "stop") -> None:
        if not parts:
            raise UsageError("a mixture of nothing; legal: at least one dataset")
        if exhaustion not in ("stop", "repeat"):
            raise UsageError(f"exhaustion={exhaustion!r}; legal: stop, repeat")
        self.parts, self.exhaustion = tuple(parts), exhaustion
        self.schedule = Schedule(weights)
        rows = [part.num_examples for part in parts]
        self.num_examples = self.schedule.length(rows) if exhaustion == "stop" else None

    @property
    def fingerprint(self) -> str:
        """Of the parts, their numbers of rows, and the weights."""
        parts = [[part.fingerprint, part.num_examples] for part in self.parts]
        named = {"mixture": parts, "weights": self.schedule.shares, "exhaustion": self.exhaustion}
        return f"sha256:{hashlib.sha256(canonical_json(named)).hexdigest()}"

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{share}/{self.schedule.total} {part!r}"
            for share, part in zip(self.schedule.shares, self.parts, strict=True)
        )
        return f"<Mixture of {shares}>"

    def __len__(self) -> int:
        if self.num_examples is None:
            raise TypeError("an endless mixture has no len")
        return self.num_examples

    def __getitem__(self, i: int) -> Row:
        """Row i of the mixture in index order, with `source`, the position of its dataset."""
        at = _row_number(i, self.num_examples)
        before = self.schedule.counts(at)
        source = int(self.schedule.components(at, 1)[0])
        part = self.parts[source]
        row = before[source] if part.num_examples is None else before[source] % part.num_examples
        return {**part[row], "source": source}

    def batches(self, batch_size: int, **options: Any) -> Stream:
        """A stream of batches: see `stream_of`, whose options these are."""
        return stream_of(self.parts, self.schedule, self.exhaustion, self.fingerprint, batch_size, **options)


def stream_of(
    parts: Sequence[Dataset],
    schedule: Schedule | None,
    exhaustion: str,
    fingerprint: str,
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
    if heal not in _HEAL:
        raise UsageError(f"heal={heal!r}; legal: {', '.join(_HEAL)}")
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
    return Stream(components, options, described, epoch, stats, lanes is not None, schedule, length)
