"""Batches and shards for the tests of the formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from synthshards.digest import ContentDigest
from synthshards.formats.base import Format
from synthshards.ragged import BLOCK_ROWS, KINDS, Column, RaggedBatch, is_ragged, offsets_of

#: Options that change which columns a task has, or their kinds.
OTHER_COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "brevo2": ("brevo2-30", {}),
    "depo, qa": ("depo", {"qa": True}),
    "brevo, qa": ("brevo", {"qa": True}),
    "mano, qa": ("mano", {"qa": True, "L": 8}),
    "lano, 81 symbols": ("lano-cfg3e1", {}),
    "capo, questions": ("capo", {"form": "qa"}),
    "capo, bioD": ("capo", {"form": "biod"}),
}


def column(kind: str, rows: int, rng: np.random.Generator, distinct: int = 50) -> Column:
    """Random rows of a kind, about a quarter of the lists empty, extreme values among them."""
    dtype = KINDS[kind]
    offsets = offsets_of(np.maximum(rng.integers(-4, 12, rows), 0)) if is_ragged(kind) else None
    size = rows if offsets is None else int(offsets[-1])
    if kind == "string":
        text = rng.choice(np.frombuffer(b'abc xyz"\\\n\x00\x1f', np.uint8), size)
        return Column(kind, text, offsets)
    if dtype == np.bool_:
        return Column(kind, rng.random(size) < 0.3, offsets)
    values = rng.integers(0, min(distinct, np.iinfo(dtype).max), size).astype(dtype)
    values[: min(size, 2)] = [np.iinfo(dtype).max, np.iinfo(dtype).min][: min(size, 2)]
    return Column(kind, values, offsets)


def token_batch(rows: int, seed: int = 0) -> RaggedBatch:
    """Rows like Depo's: ids and mask that share their offsets, two numbers and a list of facts."""
    rng = np.random.default_rng(seed)
    offsets = offsets_of(rng.integers(5, 90, rows))
    ids = rng.integers(0, 100, offsets[-1]).astype(np.uint16)
    ids[rng.random(len(ids)) < 0.05] = 9003
    queries = rng.integers(1, 10, rows)
    return RaggedBatch(
        {
            "input_ids": Column("list<uint16>", ids, offsets),
            "loss_mask": Column("list<bool>", rng.random(len(ids)) < 0.1, offsets),
            "n": Column("uint16", rng.integers(3, 226, rows).astype(np.uint16)),
            "queries": Column("uint16", queries.astype(np.uint16)),
            "ks": Column("list<uint16>", rng.integers(1, 9, queries.sum()).astype(np.uint16), offsets_of(queries)),
        }
    )


def strings(texts: list[str]) -> Column:
    parts = [text.encode() for text in texts]
    lengths = np.array([len(part) for part in parts], np.int64)
    return Column("string", np.frombuffer(b"".join(parts), np.uint8), offsets_of(lengths))


def text_batch(rows: int, seed: int = 0) -> RaggedBatch:
    """Rows like Capo's: a text, numbers and names, character spans."""
    rng = np.random.default_rng(seed)
    names = [str(rng.choice(["Ann", "José", "Zoë O'Neil", 'Bob "B"'])) for _ in range(rows)]
    return RaggedBatch(
        {
            "text": strings([f"{name} was born.\nIn {i}." for i, name in enumerate(names)]),
            "person_id": Column("uint32", rng.integers(0, 2**32, rows).astype(np.uint32)),
            "first_name": strings(names),
            "birth_year": Column("uint16", rng.integers(1900, 2100, rows).astype(np.uint16)),
            "spans": Column("list<int32>", np.arange(2 * rows, dtype=np.int32), np.arange(rows + 1) * 2),
        }
    )


def every_kind(rows: int, seed: int = 0) -> RaggedBatch:
    """A column of every kind, beside ids and mask."""
    rng = np.random.default_rng(seed)
    columns = dict(token_batch(rows, seed).columns)
    for kind in KINDS:
        columns[f"a {kind}"] = column(kind, rows, rng)
    return RaggedBatch(columns)


def encode(
    format: Format,
    batch: RaggedBatch,
    compression: str | None = None,
    metadata: dict[str, str] | None = None,
    start: int = 0,
) -> pa.Buffer:
    """A shard of the rows of `batch`."""
    writer = format.writer(batch.kinds, compression or format.compressions[0], metadata or {}, start)
    for at in range(0, len(batch), BLOCK_ROWS):
        writer.write(batch.slice(at, min(at + BLOCK_ROWS, len(batch))))
    return writer.finish()


def digest(batch: RaggedBatch) -> str:
    running = ContentDigest(batch.kinds)
    running.update(batch)
    return running.hexdigest()


def same(found: RaggedBatch, expected: RaggedBatch) -> None:
    """Assert equality of rows, dtypes and form."""
    assert found.kinds == expected.kinds
    for name, col in found.columns.items():
        wanted = expected.columns[name]
        assert col.values.dtype == KINDS[col.kind], name
        assert np.array_equal(col.values, wanted.values), name
        if wanted.offsets is None:
            assert col.offsets is None, name
        else:
            assert col.offsets is not None
            assert col.offsets.dtype == np.int64, name
            assert np.array_equal(col.offsets, wanted.offsets), name
