"""Eval sets: rows of the split "eval" of the data's own seed, so that none of them is trained on by construction.

A set is named by its identity and its first row. Fresh ones follow one another in the split; a frozen one can be had
again from its manifest alone, which holds no row, only what rows are a function of, and their digest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthshards.digest import ContentDigest
from synthshards.errors import UsageError
from synthshards.loaders.dataset import Dataset, open_dataset
from synthshards.manifest import Manifest, ShardEntry, shard_name
from synthshards.pipelines.shard import batch_counts
from synthshards.spec import Identity, Layout
from synthshards.tasks.task import Row, Task

from .options import EvalOptions
from .subjects import Subject

_HOP = re.compile(r"hop_(\d+)")


@dataclass(frozen=True)
class EvalSet:
    """Rows to evaluate on.

    Attributes:
        label: its name, such as ``hop_8``: that of its manifest.
        hop: of Depo: the k of every query.
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

    def rows(self) -> list[Row]:
        """The rows."""
        return list(self.task.batch(self.seed, self.split, self.start, self.count).rows())

    def dataset(self) -> Dataset:
        """The rows from the split's first on, to stream."""
        return Dataset(self.task, self.seed, self.split, self.start + self.count)

    def at(self, number: int) -> EvalSet:
        """The set that follows `number` sets later: fresh rows (of a finite task again from its first on)."""
        start, limit = number * self.count, self.task.num_examples
        if limit is not None:
            start %= max(1, limit - self.count + 1)
        return EvalSet(self.label, self.hop, self.task, self.seed, self.split, self.count, start)

    def manifest(self) -> bytes:
        """The manifest's bytes: enough to make the rows again, anywhere."""
        assert self.start == 0, "a manifest begins at row 0"
        batch = self.task.batch(self.seed, self.split, 0, self.count)
        content = ContentDigest(self.task.columns)
        content.update(batch)
        entry = ShardEntry(
            path=shard_name(self.split, 0, "parquet"), start=0, stop=self.count, **batch_counts(batch), bytes=None,
            sha256=None, content=content.hexdigest(),
        )  # fmt: skip
        identity = Identity.of(self.task, self.seed, self.split)
        return Manifest(identity, Layout("parquet", self.count, 1, "zstd"), self.task.columns, [entry]).to_json()


def hops_of(task: Task, options: EvalOptions) -> list[int]:
    """The hops to evaluate: those asked for, or the powers of two up to K.

    Raises:
        UsageError: a hop above K.
    """
    K = task.params.K
    if options.hops is None:
        return [1 << i for i in range(K.bit_length()) if 1 << i <= K]
    if not options.hops:
        raise UsageError("eval.hops=[]; legal: at least one hop, or null")
    for hop in options.hops:
        if hop > K:
            raise UsageError(f"eval.hops: {hop} is above dataset.K={K}; legal: 1..{K}")
    return list(dict.fromkeys(options.hops))


def eval_sets(subject: Subject, options: EvalOptions) -> list[EvalSet]:
    """The eval sets of a subject: one a hop of Depo, questions and biographies of Capo, else one.

    Raises:
        UsageError: a hop above K.
    """
    task, count = subject.task, options.num_examples_per_hop
    params = task.params.canonical()
    if task.name == "depo":
        return [
            EvalSet(
                f"hop_{hop}", hop, type(task)({**params, "qa": options.qa, "fixed_k": hop}), subject.seed, "eval", count
            )
            for hop in hops_of(task, options)
        ]
    if task.name == "capo":
        asked = type(task)(num_people=params["num_people"], they=params["they"], form="qa", people="test")
        held = task.num_examples
        assert asked.num_examples is not None, "people are finite"
        assert held is not None, "people are finite"
        return [
            EvalSet("capo_qa", None, asked, subject.seed, "eval", min(count, asked.num_examples)),
            # Bits are of what was trained on.
            EvalSet("capo_bios", None, task, subject.seed, subject.dataset.identity.split, min(count, held)),
        ]
    if "qa" in params:
        task = type(task)({**params, "qa": options.qa})
    return [EvalSet(subject.name, None, task, subject.seed, "eval", count)]


def stored_sets(folder: Path, subject: Subject) -> list[EvalSet]:
    """The eval sets whose manifests lie in a folder, of the subject's task.

    Raises:
        UsageError: there are none.
        ManifestError: one is hostile.
    """
    found = []
    for path in sorted(folder.glob("*.manifest.json")):
        ds = open_dataset(path)
        assert isinstance(ds, Dataset), "a manifest is of one dataset"
        if ds.identity.task != subject.task.name:
            continue
        label = path.name.removesuffix(".manifest.json")
        hop = _HOP.fullmatch(label)
        found.append(
            EvalSet(label, int(hop[1]) if hop else None, ds.task, ds.identity.seed, ds.identity.split, len(ds))
        )
    if not found:
        raise UsageError(
            f"eval.manifests={folder}: no *.manifest.json of {subject.task.name} in it; legal: the folder eval of a "
            "run with eval.resample_each_eval=false"
        )
    return sorted(found, key=lambda one: (one.hop or 0, one.label))


def write_manifests(sets: Sequence[EvalSet], folder: Path) -> None:
    """Write each set's manifest into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in sets:
        unfinished = folder / f".{one.label}.tmp"
        unfinished.write_bytes(one.manifest())
        unfinished.replace(folder / f"{one.label}.manifest.json")


def longest_row(sets: Sequence[EvalSet], tokenizer: Any = None) -> int:
    """Tokens of the longest row of the sets."""
    longest = 0
    for one in sets:
        batch = one.task.batch(one.seed, one.split, one.start, one.count)
        if tokenizer is not None:
            texts = batch.columns["text"].tolist()
            longest = max(longest, *(len(ids) + 1 for ids in tokenizer(texts)["input_ids"]))
        else:
            longest = max(longest, int(batch.columns["input_ids"].lengths().max(initial=0)))
    return longest
