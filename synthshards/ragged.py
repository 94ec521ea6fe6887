"""The batch of rows that everything passes on: columns of flat values, ragged ones with offsets.

A column's *kind* is a string, the same in code, in manifests and in docs: a scalar (``uint16``, ``int32`` …),
``string`` (UTF-8 bytes with offsets) or a list (``list<uint16>``, ``list<bool>`` …).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

#: Every kind a column can have, with the NumPy dtype of its flat values (little-endian, one byte a bool).
SCALARS = {
    "bool": np.dtype("?"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "int32": np.dtype("<i4"),
    "uint64": np.dtype("<u8"),
    "int64": np.dtype("<i8"),
}
KINDS: dict[str, np.dtype[Any]] = {
    **SCALARS,
    "string": np.dtype("u1"),
    **{f"list<{name}>": dtype for name, dtype in SCALARS.items()},
}

#: Rows in a block: the unit that loaders shuffle, and that readers decode at a time.
BLOCK_ROWS = 1024
#: What a block may take in memory. Longer rows are not built in blocks so large, so no file is believed to hold more.
MAX_BLOCK_BYTES = 1 << 30


def block_sizes(rows: int) -> list[int]:
    """The sizes of the blocks that `rows` rows fill, the last one perhaps in part."""
    full, rest = divmod(rows, BLOCK_ROWS)
    return [BLOCK_ROWS] * full + [rest] * (rest > 0)


def is_ragged(kind: str) -> bool:
    """Whether a column of this kind has offsets."""
    return kind == "string" or kind.startswith("list<")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Flat values of one column over consecutive rows.

    Attributes:
        kind: a key of `KINDS`.
        values: 1-D array of dtype ``KINDS[kind]``; ragged kinds hold all rows end to end.
        offsets: int64 [rows + 1], starting at 0, for ragged kinds; None for scalars.
    """

    kind: str
    values: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def slice(self, start: int, stop: int) -> Column:
        """Rows start..stop-1 (values are a view, offsets start at 0 again)."""
        if self.offsets is None:
            return Column(self.kind, self.values[start:stop])
        first, last = self.offsets[start], self.offsets[stop]
        return Column(self.kind, self.values[first:last], self.offsets[start : stop + 1] - first)

    def lengths(self) -> np.ndarray:
        """Length of each row of a ragged column, int64 [rows]."""
        assert self.offsets is not None, "a scalar column has no lengths"
        return np.diff(self.offsets)

    def tolist(self) -> list[Any]:
        """Each row as a Python value: int, bool, str or a list of them."""
        if self.offsets is None:
            return self.values.tolist()  # type: ignore[no-any-return]
        bounds = self.offsets.tolist()
        if self.kind == "string":
            data = self.values.tobytes()
            return [data[a:b].decode() for a, b in pairwise(bounds)]
        flat = self.values.tolist()
        return [flat[a:b] for a, b in pairwise(bounds)]


def concat_columns(parts: Sequence[Column]) -> Column:
    """The rows of several columns of one kind, end to end."""
    values = np.concatenate([part.values for part in parts])
    if parts[0].offsets is None:
        return Column(parts[0].kind, values)
    lengths = np.concatenate([part.lengths() for part in parts])
    return Column(parts[0].kind, values, offsets_of(lengths))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """int64 offsets [n + 1] from n lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True, slots=True, eq=False)
class RaggedBatch:
    """Consecutive rows as columns, in the order of the task's schema.

    Token tasks have ``input_ids`` and ``loss_mask`` (which share their offsets) first, then the task's facts.
    """

    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def nbytes(self) -> int:
        """Bytes of all values and offsets."""
        arrays = [array for c in self.columns.values() for array in (c.values, c.offsets) if array is not None]
        return sum(array.nbytes for array in arrays)

    @property
    def kinds(self) -> dict[str, str]:
        """Column name → kind."""
        return {name: column.kind for name, column in self.columns.items()}

    @property
    def input_ids(self) -> np.ndarray:
        """Token ids of all rows end to end: uint16 or uint32 [tokens]."""
        return self._values("input_ids")

    @property
    def loss_mask(self) -> np.ndarray:
        """Bool [tokens]: true on the tokens that are trained on."""
        return self._values("loss_mask")

    @property
    def text(self) -> np.ndarray:
        """UTF-8 bytes of all texts end to end: uint8 (text tasks)."""
        return self._values("text")

    def _values(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise AttributeError(f"this batch has no {name}; its columns are {', '.join(self.columns)}")
        return self.columns[name].values

    @property
    def offsets(self) -> np.ndarray:
        """int64 [rows + 1]: row r holds tokens (or bytes) offsets[r]..offsets[r+1]-1."""
        column = self.columns["input_ids"] if "input_ids" in self.columns else self.columns["text"]
        assert column.offsets is not None
        return column.offsets

    def slice(self, start: int, stop: int) -> RaggedBatch:
        """Rows start..stop-1; values are views."""
        return RaggedBatch({name: column.slice(start, stop) for name, column in self.columns.items()})

    def blocks(self) -> Iterator[RaggedBatch]:
        """The rows in pieces of 1,024, the last perhaps smaller."""
        for at in range(0, len(self), BLOCK_ROWS):
            yield self.slice(at, min(at + BLOCK_ROWS, len(self)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dict: `input_ids` and `labels` int64 arrays, `loss_mask` bool array, facts Python values."""
        facts = {
            name: column.tolist() for name, column in self.columns.items() if name not in ("input_ids", "loss_mask")
        }
        tokens = "input_ids" in self.columns
        for i in range(len(self)):
            row: dict[str, Any] = {}
            if tokens:
                span = slice(self.offsets[i], self.offsets[i + 1])
                ids = self.input_ids[span].astype(np.int64)
                mask = self.loss_mask[span].astype(bool)
                row = {"input_ids": ids, "loss_mask": mask, "labels": np.where(mask, ids, -100)}
            for name, values in facts.items():
                row[name] = values[i]
            yield row


def concat(batches: Sequence[RaggedBatch]) -> RaggedBatch:
    """The rows of several batches of one schema, end to end."""
    if len(batches) == 1:
        return batches[0]
    return RaggedBatch({name: concat_columns([b.columns[name] for b in batches]) for name in batches[0].columns})
