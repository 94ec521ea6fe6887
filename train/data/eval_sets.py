"""Eval sets: rows of the split "eval" of the data's own seed, so that none of them is trained on by construction.

A set is named by its identity and its first row. Fresh ones follow one another in the split; a frozen one can be had
again from its manifest alone, which holds no row, only what rows are a function of, and their digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthshards.dataset.manifest import Manifest, ShardEntry, shard_name
from synthshards.digest import ContentDigest
from synthshards.errors import UsageError
from synthshards.identity import Identity, Layout
from synthshards.loaders.dataset import Dataset
from synthshards.loaders.open_dataset import open_dataset
from synthshards.pipelines.shard import batch_counts
from synthshards.storage.local import replacing
from synthshards.tasks.task import Row, Task

from ..config.options import EvalOptions
from .train_tasks import Subject


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

    @property
    def identity(self) -> Identity:
        """Of its rows."""
        return self.task.identity(self.seed, self.split)

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
        return Manifest(self.identity, Layout("parquet", self.count, 1, "zstd"), self.task.columns, [entry]).to_json()


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
        UsageError: a hop above K, or rows that are trained on.
    """
    task, count = subject.task, options.num_examples_per_hop
    if subject.dataset.identity.split == "eval":
        raise UsageError(
            "data.path: its rows are of the split eval, on which the run is evaluated; legal: another split, or "
            "eval.manifests"
        )
    params = task.params.canonical()
    if task.name == "depo":
        of = {hop: type(task)({**params, "qa": options.qa, "fixed_k": hop}) for hop in hops_of(task, options)}
        return [
            EvalSet(f"{_prefix(subject)}hop_{hop}", hop, one, subject.seed, "eval", count) for hop, one in of.items()
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


def _prefix(subject: Subject) -> str:
    """What keeps the labels of two subjects apart."""
    return f"{subject.name}_" if subject.mixed else ""


def stored_sets(folder: Path, subject: Subject) -> list[EvalSet]:
    """The eval sets whose manifests lie in a folder, of the subject's task; in a mixture, those named after it.

    Raises:
        UsageError: there are none.
        ManifestError: one is hostile.
    """
    found = []
    for path in sorted(folder.glob("*.manifest.json")):
        ds = open_dataset(path)
        assert isinstance(ds, Dataset), "a manifest is of one dataset"
        label = path.name.removesuffix(".manifest.json")
        if ds.identity.task != subject.task.name or (subject.mixed and not f"{label}_".startswith(_prefix(subject))):
            continue
        hop = ds.task.params.fixed_k if subject.task.name == "depo" else None
        if subject.task.name == "depo" and hop is None:
            raise UsageError(f"{path}: its rows ask for different hops; legal: rows of one, fixed_k=HOP")
        _check_ids(ds.task, subject, path)
        found.append(EvalSet(label, hop, ds.task, ds.identity.seed, ds.identity.split, len(ds)))
    if not found:
        raise UsageError(
            f"eval.manifests={folder}: no *.manifest.json of {subject.task.name} in it; legal: the folder eval of a "
            "run with eval.resample_each_eval=false"
        )
    # Questions before biographies, as eval_sets has them: sums of floats depend on their order.
    return sorted(found, key=lambda one: (one.hop or 0, one.task.params.canonical().get("form") != "qa", one.label))


def _check_ids(task: Task, subject: Subject, path: Path) -> None:
    if subject.tokenizer is None and (largest := max(task.token_ids()) + subject.offset) > subject.largest_id:
        raise UsageError(
            f"{path}: its rows hold the id {largest}, and {subject.name} has ids up to {subject.largest_id}; "
            "legal: rows of the same tokens"
        )


def write_manifests(sets: Sequence[EvalSet], folder: Path) -> None:
    """Write each set's manifest into a folder."""
    for one in sets:
        with replacing(folder / f"{one.label}.manifest.json") as file:
            file.write(one.manifest())


def longest_trained(subject: Subject, rows: int) -> int:
    """Tokens of the longest of the first `rows` rows that are trained on, and of the hardest size (n = N), if there is
    one: what a model's context must hold. At most 4,096 rows are looked at (1,024 of text)."""
    dataset, params = subject.dataset, subject.task.params.canonical()
    limit = dataset.num_examples if dataset.num_examples is not None else rows
    count = min(rows, limit, 4096 if subject.tokenizer is None else 1024)
    sets = [EvalSet("", None, subject.task, subject.seed, dataset.identity.split, count)]
    if "qa" in params:
        sets.append(EvalSet("", None, type(subject.task)({**params, "qa": True}), subject.seed, "eval", 256))
    return longest_row(sets, subject.tokenizer)


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
