"""litdata: `optimize` and `StreamingDataset`; a row as two arrays, and as one flat array, which is faster."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, optimize

from .common import BATCH, Batch, FlatRows, Readers, collate, load, main


def _two(folder: Path, i: int) -> Any:
    ids, mask = _rows(folder).row(i)
    return {"input_ids": ids, "loss_mask": mask}


def _flat(folder: Path, i: int) -> Any:
    """Ids, and the mask behind them."""
    ids, mask = _rows(folder).row(i)
    return torch.from_numpy(np.concatenate([ids, mask]).astype(np.int32))


_held: dict[Path, FlatRows] = {}


def _rows(folder: Path) -> FlatRows:
    """The rows, loaded once by each process of `optimize`."""
    if folder not in _held:
        _held[folder] = load(folder)
    return _held[folder]


def _write(make: Any, rows: FlatRows, out: Path) -> None:
    optimize(
        fn=partial(make, Path(sys.argv[1])),
        inputs=list(range(len(rows.offsets) - 1)),
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=1,
    )


def _collate_two(rows: list[Any]) -> Batch:
    return collate([(row["input_ids"], row["loss_mask"]) for row in rows])


def _collate_flat(rows: list[Any]) -> Batch:
    arrays = [row.numpy() for row in rows]
    return collate([(a[: len(a) // 2], a[len(a) // 2 :]) for a in arrays])


def readers(out: Path) -> Readers:
    """Both layouts, by its own DataLoader."""

    def reader(name: str, collate_fn: Any) -> Any:
        dataset = StreamingDataset(str(out / name), shuffle=False)
        return lambda: StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=collate_fn)

    return {"two arrays": reader("two arrays", _collate_two), "flat": reader("flat", _collate_flat)}


if __name__ == "__main__":
    main("litdata", {"two arrays": partial(_write, _two), "flat": partial(_write, _flat)}, readers)
