"""What a stream knows of its own past: which rows it has given."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from synthshards import open_dataset

MODES = ("pad", "concat", "paper", "best-fit")


def small(rows: int | None) -> Any:
    return open_dataset("depo", N=6, K=2, mini_vocab=6, max_tlen=1, num_examples=rows)


#: Datasets whose packed streams have one lane, four lanes with an end, and four without.
DATASETS = {
    "few": lambda: small(50), "many": lambda: small(5000), "endless": lambda: small(None),
    "mixture": lambda: open_dataset([(small(50), 1), (small(None), 3)], exhaustion="repeat"),
}  # fmt: skip


def given(batches: list[dict[str, Any]], mode: str, parts: int) -> list[set[int]]:
    """The rows in some batches, those that "concat" has begun alone left out."""
    tokens: Counter[tuple[int, int]] = Counter()
    for batch in batches:
        source = batch["source"].tolist() if parts > 1 else [0] * len(batch["index"])
        for part, index in zip(source, batch["index"].reshape(len(source), -1).tolist(), strict=True):
            tokens.update((part, i) for i in index if i >= 0)
    rows: list[set[int]] = [set() for _ in range(parts)]
    for (part, i), count in tokens.items():
        if mode != "concat" or count >= len(small(None)[i]["input_ids"]):
            rows[part].add(i)
    return rows


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_rows_given_are_those_of_all_ranks_batches(name: str, mode: str, world_size: int) -> None:
    options: dict[str, Any] = {"packing": mode, "seq_len": None if mode == "pad" else 64, "repeat": True}
    ranks = [DATASETS[name]().batches(4, rank=r, world_size=world_size, **options) for r in range(world_size)]
    parts = 2 if name == "mixture" else 1
    assert [int(mask.sum()) for mask in ranks[0].rows_given(40)] == [0] * parts
    iterators, seen = [iter(stream) for stream in ranks], []
    for count in (1, 2, 9):
        for _ in range(count):
            seen += [next(iterator) for iterator in iterators]
        for first in (3, 40, 100_000):
            masks = [stream.rows_given(first) for stream in ranks]
            found = [{int(i) for mask in of_part for i in mask.nonzero()[0]} for of_part in zip(*masks, strict=True)]
            assert found == [{i for i in rows if i < first} for rows in given(seen, mode, parts)]
