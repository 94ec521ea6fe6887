"""The task that every peer is given, and the clock."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

BATCH = 64
#: int64 ids and bool mask, both [rows, width].
Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
#: Ids and mask of one row.
Row: TypeAlias = tuple[Any, Any]
#: Name of a way to read → what gives the batches of one pass.
Readers: TypeAlias = dict[str, Callable[[], Iterable[Batch]]]


class FlatRows(NamedTuple):
    """Rows end to end: uint16 ids and bool mask [tokens], int64 offsets [rows + 1]."""

    ids: np.ndarray
    mask: np.ndarray
    offsets: np.ndarray

    def row(self, i: int) -> Row:
        """Ids and mask of row i."""
        span = slice(self.offsets[i], self.offsets[i + 1])
        return self.ids[span], self.mask[span]

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override]
        return map(self.row, range(len(self.offsets) - 1))


def load(folder: Path) -> FlatRows:
    """The rows that `rivals` has left for us."""
    return FlatRows(*(np.load(folder / f"{name}.npy") for name in FlatRows._fields))


def collate(rows: Sequence[Row]) -> Batch:
    """A padded batch. NumPy, since its slices cost less than torch's."""
    width = max(len(ids) for ids, _ in rows)
    out, on = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.bool_)
    for i, (ids, mask) in enumerate(rows):
        n = len(ids)
        out[i, :n] = ids
        on[i, :n] = mask
    return torch.from_numpy(out), torch.from_numpy(on)


def batched(rows: Iterable[Row]) -> Iterator[Batch]:
    """Batches of neighbouring rows."""
    iterator = iter(rows)
    while some := list(islice(iterator, BATCH)):
        yield collate(some)


def passes(reader: Callable[[], Iterable[Batch]], rows: FlatRows, seconds: float) -> dict[str, Any]:
    """Time whole passes of a reader, three at least unless they are long.

    A first pass is not counted: it looks whether the rows are those that were written.

    Raises:
        ValueError: they are not.
    """
    ids = trained = count = 0
    for batch, mask in reader():
        count += len(batch)
        ids += int(batch.sum())
        trained += int(batch[mask].sum())
    expected = len(rows.offsets) - 1, int(rows.ids.sum(dtype=np.int64)), int(rows.ids[rows.mask].sum(dtype=np.int64))
    if (count, ids, trained) != expected:
        raise ValueError(f"read (rows, sum of ids, sum of trained ids) = {(count, ids, trained)}; expected {expected}")
    found: list[float] = []
    while len(found) < 2 or (len(found) < 10 and sum(found) < seconds):
        start = time.perf_counter()
        for _ in reader():
            pass
        found.append(time.perf_counter() - start)
    return {"seconds": min(found), "measured": found}


def main(
    package: str, write: Mapping[str, Callable[[FlatRows, Path], None]], readers: Callable[[Path], Readers]
) -> None:
    """Write, read, and print what was found as JSON on the last line: ``python -m peers.NAME FOLDER OUT SECONDS``.

    Args:
        write: name of a layout → what writes it to a path.
        readers: given the folder of all layouts; the name of a reader starts with that of its layout and a colon.
    """
    torch.set_num_threads(1)
    folder, out, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    rows = load(folder)
    written = {}
    out.mkdir()
    for layout, write_to in write.items():
        start = time.perf_counter()
        write_to(rows, out / layout)
        size = sum(path.stat().st_size for path in (out / layout).rglob("*") if path.is_file())
        written[layout] = {"write_seconds": time.perf_counter() - start, "bytes": size}
    found = [
        {"reader": name, **written[name.partition(":")[0]], **passes(reader, rows, seconds)}
        for name, reader in readers(out).items()
    ]
    print(json.dumps({"version": version(package), "readers": found}))
