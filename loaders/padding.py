"""Padded batches: a row of the tensor for each row, padded at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from synthshards.kernel import kernel

from .rows import Rows, array_at

_IGNORED, _SHIFT = np.int64(-100), np.int64(100)


@kernel
def _fill(
    addresses: Any, part: Any, start: Any, length: Any, first: Any, count: Any, places: Any, pad_id: Any, like: Any,
    ids: Any, labels: Any, attention: Any, loss_mask: Any,
) -> None:  # fmt: skip
    """Write rows first .. first+count−1 to rows places[0..count−1] of the tensors.

    Loops run from 0 over views, and a label is computed without a branch: then the compiler uses wide registers
    (2.7 times as fast as plain loops, measured).
    """
    size = np.uint64(like.itemsize)
    for r in range(count):
        i, to = first + r, places[r]
        n = length[i]
        block = addresses[part[i]]
        tokens = array_at(block[0] + np.uint64(start[i]) * size, n, like.dtype)
        trained = array_at(block[1] + np.uint64(start[i]), n, np.uint8)
        row_ids, row_labels, row_mask = ids[to, :n], labels[to, :n], loss_mask[to, :n]
        for j in range(n):
            token, on = np.int64(tokens[j]), np.int64(trained[j])
            row_ids[j] = token
            row_labels[j] = (token + _SHIFT) * on - _SHIFT
            row_mask[j] = trained[j]
        attention[to, :n] = 1
        attention[to, n:] = 0
        ids[to, n:] = pad_id
        labels[to, n:] = _IGNORED
        loss_mask[to, n:] = 0


def fill_padded(
    rows: Rows, first: int, count: int, places: np.ndarray, pad_id: int, arrays: dict[str, np.ndarray]
) -> None:
    """Write `count` rows from `first` on into a batch.

    Args:
        places: int64 [count]: the row of the batch that each goes to.
        arrays: `input_ids`, `labels`, `attention_mask` int64 and `loss_mask` bool, all [rows, width], and `index`
            int64 [rows]. No row is longer than the width.
    """
    _fill(
        rows.addresses, rows.part, rows.start, rows.length, first, count, places, pad_id, np.empty(0, rows.dtype),
        arrays["input_ids"], arrays["labels"], arrays["attention_mask"], arrays["loss_mask"].view(np.uint8),
    )  # fmt: skip
    arrays["index"][places] = rows.index[first : first + count]
