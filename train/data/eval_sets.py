"""Eval sets: rows of the split "eval" of the data's own seed, so that none of them is trained on by construction.

A set is named by its identity and its first row. Fresh ones follow one another in the split; a frozen one can be had
again from its manifest alone, which holds no row, only what rows are a function of, and their digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthshards.dataset.manifest import Manifest, ShardEntry, shard_name
from synthshards.digest import ContentDigest
from synthshards.errors import UsageError
from synthshards.identity import Identity, Layout
from synthshards.loaders.batching.context import Batch
from synthshards.loaders.dataset import Dataset
from synthshards.loaders.open_dataset import open_dataset
from synthshards.loaders.order.state import LaneCursors, Position
from synthshards.pipelines.shard import batch_counts
from synthshards.ragged import RaggedBatch
from synthshards.storage.local import replacing
from synthshards.tasks.task import Row, Task

from ..config.options import EvalOptions, TrainOptions
from ..evaluation.metrics import MetricOptions, with_qa
from .train_tasks import TrainTask


@dataclass(frozen=True)
class EvalSet:
    """Rows to evaluate on.

    Attributes:
        label: its name, such as ``hop_8``: that of its manifest.
        hop: the steps that each of its answers takes; None for tasks without.
        task, seed, split: of its rows.
        count: how many rows.
        start: the first of them.
    """

    label: str
    hop: int | None
    task: Task
    seed: int
    split: str
    count: int
    start: int = 0

    @property
    def identity(self) -> Identity:
        """Of its rows."""
        return self.task.identity(self.seed, self.split)

    def batch(self) -> RaggedBatch:
        """The rows as columns."""
        return self.task.batch(self.seed, self.split, self.start, self.count)

    def rows(self) -> list[Row]:
        """The rows."""
        return list(self.batch().rows())

    def windows(self, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """The rows packed as in the paper (each window begins with a whole row), `batch_size` windows at a time."""
        stream = Dataset(self.task, self.seed, self.split, self.start + self.count).batches(
            batch_size,
            packing="paper",
            seq_len=seq_len,
            rank=0,
            world_size=1,  # all, on whichever rank evaluates
        )
        stream.move_to(Position(0, 0, [LaneCursors(1, np.arange(1), np.array([[self.start, 0]]))]))
        return iter(stream)

    def at(self, number: int) -> EvalSet:
        """The set that follows `number` sets later: fresh rows (of a finite task again from its first on)."""
        start, limit = number * self.count, self.task.num_examples
        if limit is not None:
            start %= max(1, limit - self.count + 1)
        return EvalSet(self.label, self.hop, self.task, self.seed, self.split, self.count, start)

    def manifest(self) -> bytes:
        """The manifest's bytes: enough to make the rows again, anywhere."""
        assert self.start == 0, "a manifest begins at row 0"
        batch = self.batch()
        content = ContentDigest(self.task.columns)
        content.update(batch)
        entry = ShardEntry(
            path=shard_name(self.split, 0, "parquet"), start=0, stop=self.count, **batch_counts(batch), bytes=None,
            sha256=None, content=content.hexdigest(),
        )  # fmt: skip
        return Manifest(self.identity, Layout("parquet", self.count, 1, "zstd"), self.task.columns, [entry]).to_json()


def eval_sets(train_task: TrainTask, options: EvalOptions) -> list[EvalSet]:
    """The eval sets of a train task, one for each stratum of its evaluation.

    Raises:
        UsageError: options that the task refuses, or rows that are trained on.
    """
    seed, trained = train_task.seed, train_task.dataset.identity.split
    if trained == "eval":
        raise UsageError(
            "data.path: its rows are of the split eval, on which the run is evaluated; legal: another split, or "
            "eval.manifests"
        )
    sets = []
    for stratum in train_task.evaluation.strata(train_task.task, options.hops, options.qa):
        own = stratum.label or train_task.name
        label = f"{train_task.name}_{own}" if train_task.mixed and stratum.label else own
        limit = stratum.task.num_examples
        count = options.num_examples_per_hop if limit is None else min(options.num_examples_per_hop, limit)
        split = trained if stratum.trained else "eval"
        sets.append(EvalSet(label, stratum.hop, stratum.task, seed, split, count))
    return sets


def stored_sets(folder: Path, train_task: TrainTask) -> list[EvalSet]:
    """The eval sets whose manifests lie in a folder, of the train task's law; in a mixture, those named after it.

    Raises:
        UsageError: there are none.
        ManifestError: one is hostile.
    """
    entries = []
    for path in sorted(folder.glob("*.manifest.json")):
        ds = open_dataset(path)
        assert isinstance(ds, Dataset), "a manifest is of one dataset"
        label = path.name.removesuffix(".manifest.json")
        if ds.identity.task != train_task.task.name:
            continue
        if train_task.mixed and not f"{label}_".startswith(f"{train_task.name}_"):
            continue
        try:
            stratum = train_task.evaluation.stratum_of(ds.task)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        _check_ids(ds.task, train_task, path)
        one = EvalSet(label, stratum.hop, ds.task, ds.identity.seed, ds.identity.split, len(ds))
        entries.append((stratum.hop or 0, stratum.trained, label, one))
    if not entries:
        raise UsageError(
            f"eval.manifests={folder}: no *.manifest.json of {train_task.task.name} in it; legal: the folder eval of a "
            "run with eval.resample_each_eval=false"
        )
    return [one for *_, one in sorted(entries, key=lambda entry: entry[:3])]


def _check_ids(task: Task, train_task: TrainTask, path: Path) -> None:
    if train_task.tokenizer is None and (largest := max(task.token_ids()) + train_task.offset) > train_task.largest_id:
        raise UsageError(
            f"{path}: its rows hold the id {largest}, and {train_task.name} has ids up to {train_task.largest_id}; "
            "legal: rows of the same tokens"
        )


def write_manifests(sets: Sequence[EvalSet], folder: Path) -> None:
    """Write each set's manifest into a folder."""
    for one in sets:
        with replacing(folder / f"{one.label}.manifest.json") as file:
            file.write(one.manifest())


def metric_options(options: EvalOptions, train_task: TrainTask, seed: int) -> MetricOptions:
    """How to measure a train task.

    Args:
        seed: of what a model is asked to write, 0..2^64−1.
    """
    tokenizer = train_task.tokenizer
    return MetricOptions(
        batch_tokens=options.batch_size * 512, batch_rows=options.batch_size, isolate=options.isolate,
        samples=options.samples, seed=seed % (1 << 63), tokenizer=tokenizer,
        used_tokens=None if tokenizer is None else len(tokenizer),
    )  # fmt: skip


def longest_met(
    train_tasks: Sequence[TrainTask], sets: Sequence[Sequence[EvalSet]], o: TrainOptions, e: EvalOptions
) -> int:
    """Tokens of the longest row or window that a run meets: what a model's context must hold."""
    longest = max(o.seq_len or 0, e.packed_seq_len or 0)
    rows = o.max_steps * o.batch_size * o.gradient_accumulation_steps
    for train_task, own_sets in zip(train_tasks, sets, strict=True):
        longest = max(longest, longest_row(own_sets, train_task.tokenizer))
        if o.packing == "pad":
            longest = max(longest, longest_trained(train_task, rows))
    return longest


def longest_trained(train_task: TrainTask, rows: int) -> int:
    """Tokens of the longest of the first `rows` rows that are trained on, and of the hardest size (n = N), if there is
    one: what a model's context must hold. At most 4,096 rows are looked at (1,024 of text)."""
    dataset, task = train_task.dataset, train_task.task
    limit = dataset.num_examples if dataset.num_examples is not None else rows
    count = min(rows, limit, 4096 if train_task.tokenizer is None else 1024)
    sets = [EvalSet("", None, task, train_task.seed, dataset.identity.split, count)]
    if "qa" in task.params.canonical():
        sets.append(EvalSet("", None, with_qa(task, True), train_task.seed, "eval", 256))
    return longest_row(sets, train_task.tokenizer)


def longest_row(sets: Sequence[EvalSet], tokenizer: Any = None) -> int:
    """Tokens of the longest row of the sets."""
    longest = 0
    for one in sets:
        batch = one.batch()
        if tokenizer is not None:
            texts = batch.columns["text"].tolist()
            longest = max(longest, *(len(ids) + 1 for ids in tokenizer(texts)["input_ids"]))
        else:
            longest = max(longest, int(batch.columns["input_ids"].lengths().max(initial=0)))
    return longest
