"""HF datasets: `save_to_disk` (Arrow) map-style, and its own Parquet files streamed; in each of its formats."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value, disable_progress_bars, load_dataset, load_from_disk

from .common import BATCH, Batch, FlatRows, Readers, collate, main


def _dataset(rows: FlatRows) -> Dataset:
    offsets = pa.array(rows.offsets.astype(np.int32))
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(rows.ids)),
        "loss_mask": pa.ListArray.from_arrays(offsets, pa.array(rows.mask)),
    }
    features = Features({"input_ids": List(Value("uint16")), "loss_mask": List(Value("bool"))})
    return Dataset(pa.table(columns).cast(features.arrow_schema))


def _save(rows: FlatRows, out: Path) -> None:
    _dataset(rows).save_to_disk(str(out))


def _parquet(rows: FlatRows, out: Path) -> None:
    out.mkdir()
    _dataset(rows).to_parquet(str(out / "rows.parquet"))


def _arrays(dataset: Any) -> Iterable[Batch]:
    for batch in dataset.iter(batch_size=BATCH):
        yield collate(list(zip(batch["input_ids"], batch["loss_mask"], strict=True)))


def _tables(dataset: Any) -> Iterable[Batch]:
    """From pyarrow's own arrays: what who knows pyarrow would write."""
    for table in dataset.iter(batch_size=BATCH):
        ids, mask = (table[name].combine_chunks() for name in ("input_ids", "loss_mask"))
        bounds = ids.offsets.to_numpy()
        bounds = (bounds - bounds[0]).tolist()
        flat, on = ids.flatten().to_numpy(), mask.flatten().to_numpy(zero_copy_only=False)
        yield collate([(flat[a:b], on[a:b]) for a, b in pairwise(bounds)])


def readers(out: Path) -> Readers:
    """Map-style and streaming, in the formats numpy, torch and arrow."""
    disable_progress_bars()
    stored = load_from_disk(str(out / "map-style"))
    streamed = load_dataset("parquet", data_files=str(out / "streaming/rows.parquet"), split="train", streaming=True)
    found: Readers = {}
    for name, dataset in (("map-style", stored), ("streaming", streamed)):
        for kind in ("numpy", "torch", "arrow"):
            read = _tables if kind == "arrow" else _arrays
            found[f"{name}: {kind} format"] = partial(read, dataset.with_format(kind))
    return found


if __name__ == "__main__":
    main("datasets", {"map-style": _save, "streaming": _parquet}, readers)
