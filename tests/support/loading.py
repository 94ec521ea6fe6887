"""Helpers of the loaders' tests: rows as lists, streams as lists, and the same by the plain-Python reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import reference_loading as plain
import torch

from synthshards.loaders.dataset import Dataset

Batch = dict[str, Any]


def rows_of(ds: Dataset, count: int) -> list[plain.Row]:
    """Rows 0..count−1 as (index, ids, mask)."""
    batch = ds.task.batch(ds.identity.seed, ds.identity.split, 0, count)
    return [(i, row["input_ids"].tolist(), row["loss_mask"].tolist()) for i, row in enumerate(batch.rows())]


def lists(batch: Batch) -> dict[str, Any]:
    """A batch's tensors as nested lists."""
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def all_of(stream: Any) -> list[dict[str, Any]]:
    """Every batch of an epoch."""
    return [lists(batch) for batch in stream]


def some_of(stream: Any, count: int) -> list[dict[str, Any]]:
    """The next batches, fewer at the end of an epoch."""
    out: list[dict[str, Any]] = []
    if count == 0:
        return out
    iterator: Iterator[Batch] = iter(stream)
    for batch in iterator:
        out.append(lists(batch))
        if len(out) == count:
            break
    return out


def joined(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The ranks' batches as those of one rank (of one width)."""
    assert len({len(part) for part in parts}) == 1, "every rank yields the same number of batches"
    out = []
    for batches in zip(*parts, strict=True):
        names = batches[0].keys()
        out.append({name: [row for batch in batches for row in batch[name]] for name in names})
    return out


def padded(rows: list[plain.Row], width: int, pad_id: int = 0) -> dict[str, Any]:
    """A padded batch by the plain-Python reference."""
    out: dict[str, list[Any]] = {name: [] for name in ("input_ids", "labels", "attention_mask", "loss_mask", "index")}
    for index, ids, mask in rows:
        rest = width - len(ids)
        out["input_ids"].append(ids + [pad_id] * rest)
        out["labels"].append([t if m else -100 for t, m in zip(ids, mask, strict=True)] + [-100] * rest)
        out["attention_mask"].append([1] * len(ids) + [0] * rest)
        out["loss_mask"].append(mask + [False] * rest)
        out["index"].append(index)
    return out


def packed(rows: Iterator[plain.Row], mode: str, seq_len: int, size: int, pad_id: int = 0) -> list[dict[str, Any]]:
    """All batches of one packed pass over one lane, by the plain-Python reference."""
    found = [plain.tensors_of(pieces, seq_len, pad_id) for pieces in plain.windows(mode, seq_len, rows)]
    batches = [found[at : at + size] for at in range(0, len(found), size)]
    return [{name: [window[name] for window in batch] for name in batch[0]} for batch in batches]
