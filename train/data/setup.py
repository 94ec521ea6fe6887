"""What a run is made of, from its options: the stream of rows, the model that holds them, the tables it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthshards.errors import UsageError
from synthshards.loaders.dataset import Dataset
from synthshards.loaders.mixture import Mixture
from synthshards.loaders.stream import Stream

from ..config.options import DataOptions, EvalOptions, TrainOptions
from ..models.base import BuiltModel, build_model
from ..report.table import Table
from .eval_sets import EvalSet, longest_row, longest_trained
from .train_tasks import Subject


def training_rows(subjects: Sequence[Subject], data: DataOptions) -> Dataset | Mixture:
    """The rows of all subjects, by the weights of `data.mixture`; one that ends begins again.

    Raises:
        UsageError: an illegal weight.
    """
    if len(subjects) == 1:
        return subjects[0].training_rows()
    assert data.mixture is not None, "several subjects are a mixture"
    return Mixture([s.dataset for s in subjects], list(data.mixture.values()), "repeat")


def stream_of(
    rows: Dataset | Mixture, subjects: Sequence[Subject], o: TrainOptions, pad_id: int, rank: int, world: int
) -> Stream:
    """Batches for one rank, without end: in index order, so that shards and rows on the fly give the same ones."""
    return rows.batches(
        o.batch_size, seq_len=o.seq_len if o.packing != "pad" else None, packing=o.packing, repeat=True,
        rank=rank, world_size=world, pad_id=pad_id, tokenizer=subjects[0].tokenizer,
    )  # fmt: skip


def model_of(
    name: str,
    options: Mapping[str, Any],
    seed: int,
    subjects: Sequence[Subject],
    sets: Sequence[Sequence[EvalSet]],
    o: TrainOptions,
    e: EvalOptions,
) -> BuiltModel:
    """The model, whose vocabulary and context hold what it will meet.

    Raises:
        UsageError: they do not, or an option is illegal.
    """
    longest = max(o.seq_len or 0, e.packed_seq_len or 0)
    rows = o.max_steps * o.batch_size * o.gradient_accumulation_steps
    for subject, some in zip(subjects, sets, strict=True):
        longest = max(longest, longest_row(some, subject.tokenizer))
        if o.packing == "pad":
            longest = max(longest, longest_trained(subject, rows))
    largest = max(subject.largest_id for subject in subjects)
    what = " and ".join(subject.name for subject in subjects)
    return build_model(name, options, seed=seed, task=what, largest_id=largest, longest_row=longest)


def tables_of(
    subjects: Sequence[Subject], folder: Path, metrics_file: str | None, plot_file: str | None
) -> list[Table]:
    """A CSV and a picture for each subject: ``depo_hop_metrics.csv`` and ``depo_hop_curve.png``, ``mano_metrics.csv`` …

    Raises:
        UsageError: names of one file for several subjects, or of a kind that is not written.
    """
    for key, value, kinds in (
        ("metrics_file", metrics_file, (".csv",)),
        ("plot_file", plot_file, (".png", ".svg", ".pdf")),
    ):
        if value is not None and len(subjects) > 1:
            raise UsageError(f"{key}={value}: a mixture has one for each task; legal: null")
        if value is not None and Path(value).suffix not in kinds:
            raise UsageError(f"{key}={value}; legal: a name that ends in {' or '.join(kinds)}")
    tables = []
    for subject in subjects:
        stem = "depo_hop" if subject.name == "depo" else subject.name
        csv, plot = metrics_file or f"{stem}_metrics.csv", plot_file or f"{stem}_curve.png"
        tables.append(Table(subject.task.name, folder / csv, folder / plot))
    return tables
