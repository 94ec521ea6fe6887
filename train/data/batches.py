"""Batches of a run: rows of its tasks by their shares, with the ids of each task at their place in the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from synthshards.loaders.dataset import Dataset
from synthshards.loaders.mixture import Mixture
from synthshards.loaders.stream import Stream

from ..config.options import DataOptions, TrainOptions
from .train_tasks import TrainTask


def training_rows(train_tasks: Sequence[TrainTask], data: DataOptions) -> Dataset | Mixture:
    """The rows of all train tasks, by the weights of `data.mixture`; one that ends begins again.

    Raises:
        UsageError: an illegal weight.
    """
    if len(train_tasks) == 1:
        return train_tasks[0].training_rows()
    assert data.mixture is not None, "several train tasks are a mixture"
    return Mixture([one.dataset for one in train_tasks], list(data.mixture.values()), "repeat")


def epoch_sizes(train_tasks: Sequence[TrainTask], data: DataOptions) -> list[tuple[str, int | None]]:
    """(name, rows until it begins again, None without end) of each part of `training_rows`."""
    rows = training_rows(train_tasks, data)
    parts = rows.parts if isinstance(rows, Mixture) else (rows,)
    names = [one.name for one in train_tasks]
    names += [f"{names[0]}'s questions"] * (len(parts) - len(names))
    return [(name, part.num_examples) for name, part in zip(names, parts, strict=True)]


def stream_of(
    train_tasks: Sequence[TrainTask], data: DataOptions, o: TrainOptions, *, pad_id: int, rank: int, world_size: int
) -> Stream:
    """Batches for one rank, without end: in index order, so that shards and rows on the fly give the same ones."""
    return training_rows(train_tasks, data).batches(
        o.batch_size, seq_len=o.seq_len if o.packing != "pad" else None, packing=o.packing, repeat=True,
        rank=rank, world_size=world_size, pad_id=pad_id, tokenizer=train_tasks[0].tokenizer,
    )  # fmt: skip


def training_tensors(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a loader's batch that training looks at."""
    names = ("input_ids", "labels", "attention_mask", "segment_ids", "position_ids")
    return {name: batch[name] for name in names if name in batch}


def shifted(batch: Mapping[str, Any], train_tasks: Sequence[TrainTask], pad_id: int) -> dict[str, Tensor]:
    """The same tensors; in a mixture of tasks, each row's ids moved to its task's place in the vocabulary."""
    tensors = training_tensors(batch)
    if len(train_tasks) > 1:
        offset = torch.tensor([one.offset for one in train_tasks])[batch["source"]][:, None]
        real, labelled = tensors["attention_mask"] == 1, tensors["labels"] != -100
        tensors["input_ids"] = torch.where(real, tensors["input_ids"] + offset, pad_id)
        tensors["labels"] = torch.where(labelled, tensors["labels"] + offset, -100)
    return tensors
