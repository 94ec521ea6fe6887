"""mosaicml-streaming: MDS shards by its `MDSWriter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from .common import BATCH, Batch, FlatRows, Readers, batched, collate, main

# It imports torchvision, whose operators want CUDA's libraries beside a PyTorch without them. Nothing here uses one;
# that they have names is enough for the import.
_untyped: Any = torch.library
_names = _untyped.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _names.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from streaming import MDSWriter, StreamingDataset  # noqa: E402


def write(rows: FlatRows, out: Path) -> None:
    """Arrays of a known type, which is its fastest encoding."""
    columns = {"input_ids": "ndarray:uint16", "loss_mask": "ndarray:uint8"}
    with MDSWriter(out=str(out), columns=columns) as writer:
        for ids, mask in rows:
            writer.write({"input_ids": ids, "loss_mask": mask.view("u1")})


def _collate(rows: list[Any]) -> Batch:
    return collate([(row["input_ids"], row["loss_mask"]) for row in rows])


def readers(out: Path) -> Readers:
    """By a DataLoader as in its docs, and row by row."""
    dataset = StreamingDataset(local=str(out / "MDS"), shuffle=False, batch_size=BATCH)
    return {
        "MDS: DataLoader": lambda: DataLoader(dataset, batch_size=BATCH, collate_fn=_collate),
        "MDS: by index": lambda: batched(
            (row["input_ids"], row["loss_mask"]) for row in map(dataset.__getitem__, range(len(dataset)))
        ),
    }


if __name__ == "__main__":
    main("mosaicml-streaming", {"MDS": write}, readers)
