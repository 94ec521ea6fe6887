"""What every task shares: rows by index, in batches and as iterators. A subclass adds the law, a checker and names.

The file is long because most of it is the interface of `Task`, with the contract of each method; it has one class to
read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from ..errors import UsageError, cut
from ..identity import Identity
from ..kernels.arrays import I64, U64, Bool, Ids
from ..kernels.buffers import Buffers
from ..kernels.rng import key_from_rng, key_of
from ..params import TaskParams, parse
from ..ragged import RaggedBatch

Row: TypeAlias = dict[str, Any]

#: Rows generated at a time by the row iterators, and bytes of rows that whoever needs many makes at a time.
_CHUNK, _STEP_BYTES = 256, 64 << 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check: true when valid, otherwise `reason` says in one line what is wrong."""

    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None


class BrokenLaw(ValueError):  # noqa: N818 (a checker's finding, not an error of the program)
    """A clause of the law that a row breaks; its text is the verdict's reason."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A named parameter set: what it is, and the mean length of its rows in tokens (bytes for text tasks)."""

    params: Mapping[str, Any]
    about: str
    mean_length: float


class TokenRows(NamedTuple):
    """Where a token kernel writes rows, end to end.

    Attributes:
        ids, mask: [room], one as long as the other.
        offsets: [rows + 1]: row r holds the tokens offsets[r]..offsets[r+1]-1.
    """

    ids: Ids
    mask: Bool
    offsets: I64


class Task:
    """The law of a task's rows. Row i is a pure function of (task, version, params, seed, split, i).

    Args:
        params: parameters by name; unknown names, wrong types and illegal values raise `UsageError`.
        **overrides: the same as keywords.

    Subclasses set `name`, `version`, `Params`, `presets` and define `columns`, `generate`, `check_example`,
    `check_answer` and `token_name`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    Params: ClassVar[type[TaskParams]]
    presets: ClassVar[Mapping[str, Preset]]
    #: The fact that `overlap` counts shared rows by.
    size_fact: ClassVar[str]

    def __init__(self, params: Mapping[str, Any] | None = None, /, **overrides: Any) -> None:
        self.params: Any = parse(self.Params, {**(params or {}), **overrides}, self.name)
        self._keys: dict[tuple[int, str], U64] = {}
        self._step_rows: int | None = None

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={cut(repr(value))}" for name, value in self.params.canonical().items())
        return f"{type(self).__name__}({given})"

    # What a task defines -------------------------------------------------------------------------------------------

    @property
    def columns(self) -> dict[str, str]:
        """Column name → kind, such as ``list<uint16>`` (see `synthshards.ragged.KINDS`), in the order of the schema."""
        raise NotImplementedError

    @property
    def num_examples(self) -> int | None:
        """Number of rows of a finite task, None for an endless one."""
        return None

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        """The rows of `indices` ([rows], any order) under `key`, which is what the method `key` gives."""
        raise NotImplementedError

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Raise `BrokenLaw` unless a row obeys this task's law; shares no code with `generate`."""
        raise NotImplementedError

    def check_answer(self, example: Mapping[str, Any], answer_ids: Any) -> None:
        """Raise `BrokenLaw` unless generated tokens (a text, where rows are text) answer a row rightly."""
        raise NotImplementedError

    def token_name(self, token: int) -> str:
        """The name of a token id, as it is printed."""
        raise NotImplementedError

    def shared_state(self, seed: int) -> U64:
        """What generating needs to know of a seed beside the stream key (any number of them): what splits share."""
        return np.empty(0, np.uint64)

    def token_ids(self) -> Sequence[int]:
        """Every id that a row can contain, in any order.

        Raises:
            UsageError: rows of this task are text.
        """
        raise NotImplementedError

    def tokenizer_texts(self) -> Iterable[str] | None:
        """Texts to train a tokenizer on (see `synthshards.tokenizer`); None if rows are tokens."""
        return None

    # What follows from it ------------------------------------------------------------------------------------------

    def validate_example(self, example: Mapping[str, Any]) -> Verdict:
        """Whether a row obeys this task's law, checked without the generator's code.

        Args:
            example: `input_ids` and `loss_mask`, sequences, or `text`; `labels` and facts are checked where present.
        """
        return _verdict(self.check_example, example)

    def score_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int] | str) -> Verdict:
        """Whether generated tokens (a text, where rows are text) answer `example` rightly; `reason` says why not."""
        return _verdict(self.check_answer, example, answer_ids)

    def identity(self, seed: int, split: str) -> Identity:
        """What the rows of `seed` and `split` are a pure function of.

        Raises:
            UsageError: seed or split is not legal.
        """
        return Identity(self.name, self.version, self.params.canonical(), seed, split)

    def key(self, seed: int, split: str) -> U64:
        """What `generate` takes for the rows of `seed` and `split`: the stream key [2], then the shared state."""
        key = self._keys.get((seed, split)) if type(seed) is int else None  # 1.0 and True equal 1: refused below
        if key is None:
            stream = key_of(self.identity(seed, split).digest)
            key = self._keys[seed, split] = np.concatenate([stream, self.shared_state(seed)])
        return key

    def step_rows(self, key: U64) -> int:
        """How many rows to generate at a time, by their size: a row can have a million tokens.

        Args:
            key: what the method `key` gives; rows of any are about as long.
        """
        if self._step_rows is None:
            rows, size, most = 0, 0, min(64, self.num_examples or 64)
            while size < 1 << 20 and rows < most:  # twice as many each time: the first rows may be short by chance
                batch = self.generate(key, np.arange(rows, min(max(1, 2 * rows), most), dtype=np.uint64), Buffers())
                rows, size = rows + len(batch), size + batch.nbytes
            self._step_rows = max(1, _STEP_BYTES * rows // size)
        return self._step_rows

    def batch(self, seed: int, split: str, start: int, count: int, *, buffers: Buffers | None = None) -> RaggedBatch:
        """Rows start..start+count-1 of (seed, split) as a ragged batch.

        Args:
            seed: 0..2^64−1.
            split: ``[a-z0-9_]+``.
            start: index of the first row.
            count: number of rows.
            buffers: memory to reuse; the batch is then valid until its next use.

        Returns:
            A batch whose `input_ids` (uint16 or uint32 [tokens]), `loss_mask` (bool [tokens]) and `offsets`
            (int64 [count + 1]) hold the rows end to end; for text tasks `text` (uint8 [bytes]) and its `offsets`.

        Raises:
            UsageError: seed, split, start or count out of range.
        """
        self.check_range(start, count)
        indices = np.arange(start, start + count, dtype=np.uint64)
        return self.generate(self.key(seed, split), indices, buffers or Buffers())

    def check_range(self, start: int, count: int) -> None:
        """Raise `UsageError` unless rows start..start+count-1 exist."""
        limit = self.num_examples if self.num_examples is not None else 1 << 63
        if start < 0 or count < 0 or start + count > limit:
            raise UsageError(f"{self.name}: rows {start}..{start + count - 1} asked for; legal: 0..{limit - 1}")

    def example(self, seed: int, split: str, i: int) -> Row:
        """Row i of (seed, split) as a dict.

        Returns:
            `input_ids` and `labels` (int64 [tokens]; labels are −100 where the mask is false), `loss_mask` (bool
            [tokens]), and the facts as Python values. Text rows have `text` and facts.

        Raises:
            UsageError: seed, split or i out of range.
        """
        return next(self.batch(seed, split, i, 1).rows())

    def take(self, seed: int, count: int) -> list[Row]:
        """The first `count` rows of (seed, split "train"), as `example` returns them."""
        return list(self.iter_examples(seed, count))

    def iter_examples(self, seed: int, num_examples: int | None = None) -> Iterator[Row]:
        """Rows 0, 1, 2 … of (seed, split "train"), as `example` returns them: the rows of the shards of that seed.

        Args:
            seed: 0..2^64−1.
            num_examples: how many; None is all rows of a finite task, and endless otherwise.
        """
        stop = num_examples if num_examples is not None else self.num_examples
        if num_examples is not None:
            self.check_range(0, num_examples)
        at, count, buffers = 0, 1, Buffers()
        while stop is None or at < stop:
            batch = self.batch(seed, "train", at, count if stop is None else min(count, stop - at), buffers=buffers)
            yield from batch.rows()
            at += len(batch)
            count = max(1, min(_CHUNK, 4 * count, _STEP_BYTES * len(batch) // batch.nbytes))

    def iterable(
        self, seed: int, num_examples: int | None = None, *, rank: int | None = None, world_size: int | None = None
    ) -> Any:
        """A torch IterableDataset of the rows of `iter_examples` as tensors, split over ranks and DataLoader workers.

        Args:
            rank: None: that of torch.distributed where it runs now, else 0.
            world_size: likewise, else 1.

        Raises:
            UsageError: torch is not installed, or an argument is out of range.
        """
        try:
            from .. import TaskIterable  # a public name of the package, which alone knows that it needs torch
        except ImportError as error:
            if error.name != "torch":
                raise
            raise UsageError("iterable() needs torch; install it with: pip install 'synthshards[torch]'") from None
        return TaskIterable(self, seed, num_examples, rank, world_size)

    def generate_example(self, rng: int | random.Random | np.random.Generator) -> Row:
        """A row drawn from the caller's generator: a function of its state, unrelated to the rows of `example`.

        What the rows of a seed share (Capo's people) is that of seed 0.

        Raises:
            UsageError: rng is neither an int nor a `random.Random` nor a `numpy.random.Generator`.
        """
        indices = np.zeros(1, np.uint64)
        key = np.concatenate([key_from_rng(rng), self.shared_state(0)])
        return next(self.generate(key, indices, Buffers()).rows())

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The names of token ids, one per token."""
        return [self.token_name(int(token)) for token in ids]


def _verdict(check: Callable[..., None], example: Mapping[str, Any], *rest: Any) -> Verdict:
    try:
        check(example, *rest)
    except KeyError as missing:
        return Verdict(f"the row has no {missing}")
    except BrokenLaw as broken:
        return Verdict(str(broken))
    return Verdict()


def token_rows(
    fill: Callable[[int, TokenRows], int],
    dtype: str,
    rows: int,
    mean: float,
    longest: int,
    buffers: Buffers,
) -> TokenRows:
    """Run a token kernel until all rows are made, enlarging its buffers as needed.

    `fill(first, out)` writes rows first, first+1 … at offsets[first] … as long as another row surely fits, and returns
    the number of rows that stand. A row is a pure function of its index, so going on with more room gives the same
    rows.

    Args:
        dtype: of the ids, "uint16" or "uint32".
        mean, longest: tokens of an average row, and of the longest possible one (padding of wide stores included).

    Returns:
        the rows, views of the buffers: ids and mask are [tokens].
    """
    offsets = buffers.take("offsets", rows + 1, np.int64)[: rows + 1]
    offsets[0] = 0

    def room(capacity: int) -> tuple[Ids, Bool]:
        ids, mask = buffers.take("input_ids", capacity, dtype), buffers.take("loss_mask", capacity, np.bool_)
        size = min(ids.size, mask.size)  # they differ in buffers that have served ids of another width
        return ids[:size], mask[:size]

    ids, mask = room(int(rows * mean * 1.1) + longest)
    done = fill(0, TokenRows(ids, mask, offsets))
    while done < rows:
        used = int(offsets[done])
        kept_ids, kept_mask = ids[:used].copy(), mask[:used].copy()
        ids, mask = room(max(2 * ids.size, used + longest))
        ids[:used], mask[:used] = kept_ids, kept_mask
        done = fill(done, TokenRows(ids, mask, offsets))
    total = int(offsets[rows])
    return TokenRows(ids[:total], mask[:total], offsets)


def integers(values: Any, what: str) -> list[int]:
    """Token ids as Python integers: from a list, an array or a tensor.

    Raises:
        BrokenLaw: they are no flat sequence of integers (2.0 is none).
    """
    try:
        return [index(value) for value in values]
    except TypeError:
        raise BrokenLaw(f"{what} is not a flat sequence of integers") from None


def check_mask(ids: Sequence[int], right: Sequence[bool], example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless the example's `loss_mask` is `right`, and its `labels`, if any, follow from it."""
    try:
        mask = [bool(m) for m in example["loss_mask"]]
    except (TypeError, ValueError):
        raise BrokenLaw("loss_mask is not a flat sequence of booleans") from None
    if len(mask) != len(ids):
        raise BrokenLaw(f"loss_mask has {len(mask)} entries for {len(ids)} tokens")
    for at, (have, want) in enumerate(zip(mask, right, strict=True)):
        if have != want:
            raise BrokenLaw(f"loss_mask is {int(have)} at {at}; legal: {int(want)}")
    if "labels" in example:
        labels = integers(example["labels"], "labels")
        if len(labels) != len(ids):
            raise BrokenLaw(f"labels has {len(labels)} entries for {len(ids)} tokens")
        for at, (label, token, on) in enumerate(zip(labels, ids, mask, strict=True)):
            if label != (token if on else -100):
                raise BrokenLaw(f"label {label} at {at}; legal: {token if on else -100}")
