"""The order of rows: every row once an epoch, equal to the plain-Python one, near to its shards, and well mixed."""

from __future__ import annotations

import numpy as np
import pytest
from reference_loading import order as plain_order
from scipy import stats

from synthshards.loaders.order.shuffle import Order
from synthshards.ragged import BLOCK_ROWS

SIZES = [*range(1, 130), 1000, 1023, 1024, 1025, 2047, 2048, 2049, 5000, 16383, 16384, 16385, 17500, 33000, 100_000]
LANES = [1, 2, 3, 7, 8, 64, 100, 512, 5000]


def make(
    rows: int | None, lanes: int = 64, seed: int = 0, shuffle: bool = True, fingerprint: str = "sha256:0"
) -> Order:
    return Order(fingerprint, rows, seed, lanes, shuffle)


@pytest.mark.parametrize("lanes", LANES)
def test_every_row_stands_once_in_an_epoch(lanes: int) -> None:
    for rows in SIZES:
        found = np.sort(make(rows, lanes).indices(1, np.arange(rows)))
        assert np.array_equal(found, np.arange(rows)), (rows, lanes)


@pytest.mark.parametrize(("rows", "lanes"), [(1, 1), (5, 2), (63, 64), (1024, 3), (3000, 2), (20_000, 3), (40_000, 64)])
def test_it_is_the_order_of_the_prose(rows: int, lanes: int) -> None:
    expected = plain_order("sha256:0", rows, 7, 3, lanes)
    assert make(rows, lanes, seed=7).indices(3, np.arange(rows)).tolist() == expected


def test_positions_may_be_asked_for_in_any_order_and_number() -> None:
    order, rng = make(50_000, 8), np.random.default_rng(0)
    whole = order.indices(0, np.arange(50_000))
    for _ in range(50):
        asked = rng.integers(0, 50_000, rng.integers(1, 300))
        assert np.array_equal(order.indices(0, asked), whole[asked])


def test_a_trillion_rows_are_permuted_in_constant_memory() -> None:
    rows = 10**12
    order = make(rows, 512)
    rng = np.random.default_rng(1)
    asked = np.unique(np.concatenate([rng.integers(0, rows, 200_000), np.arange(1000), rows - 1 - np.arange(1000)]))
    found = order.indices(0, asked)
    assert len(np.unique(found)) == len(asked)
    assert found.max() < rows
    # A lane's first 1,024 turns are one whole block.
    lane = order.indices(0, 3 + 512 * np.arange(BLOCK_ROWS))
    assert np.array_equal(np.sort(lane), lane.min() // BLOCK_ROWS * BLOCK_ROWS + np.arange(BLOCK_ROWS))


def test_without_shuffling_and_without_end_it_is_index_order() -> None:
    asked = np.array([5, 0, 10**15])
    assert make(10**16, shuffle=False).indices(4, asked).tolist() == asked.tolist()
    assert make(None, shuffle=False).indices(0, asked).tolist() == asked.tolist()


@pytest.mark.parametrize("change", [{"seed": 1}, {"fingerprint": "sha256:1"}, {"lanes": 32}, {"epoch": 1}])
def test_seed_fingerprint_lanes_and_epoch_each_make_another_order(change: dict[str, int]) -> None:
    epoch = change.pop("epoch", 0)
    one, other = make(5000).indices(0, np.arange(5000)), make(5000, **change).indices(epoch, np.arange(5000))  # type: ignore[arg-type]
    assert (one == other).mean() < 0.01


def opens(order: Order, rows: int, batch: int, world_size: int, rank: int, shard: int) -> tuple[float, float]:
    """Blocks and shards that a rank opens in an epoch, as multiples of its fair share."""
    part = batch // world_size
    positions = (np.arange(0, rows - batch + 1, batch)[:, None] + rank * part + np.arange(part)[None, :]).reshape(-1)
    found = order.indices(0, positions).astype(np.int64)
    blocks, shards = len(np.unique(found // BLOCK_ROWS)), len(np.unique(found // shard))
    return blocks * world_size / (rows / BLOCK_ROWS), shards * world_size / (rows / shard)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_a_shuffled_rank_reads_only_its_share(world_size: int) -> None:
    rows, shard = 64 * 16_384, 16_384
    for rank in (0, world_size - 1):
        blocks, shards = opens(make(rows, 64), rows, 64, world_size, rank, shard)
        assert blocks < 1.01
        assert shards < 1.2


@pytest.mark.parametrize(("rows", "most"), [(4096, 2.01), (100_000, 1.1)])
def test_few_rows_are_read_by_few_ranks(rows: int, most: float) -> None:
    for rank in (0, 7):
        assert opens(make(rows, 64), rows, 64, 8, rank, 16_384)[0] < most


def test_without_superblocks_every_rank_would_open_nearly_every_shard() -> None:
    # What the superblocks are for: with blocks permuted over the whole dataset, the alarm above rings.
    rows, shard, rng = 64 * 16_384, 16_384, np.random.default_rng(0)
    lanes_of_rank = rng.permutation(rows // BLOCK_ROWS).reshape(64, 16)[:8]
    shards = len(np.unique(lanes_of_rank * BLOCK_ROWS // shard)) * 8 / (rows / shard)
    assert shards > 5


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 16, 40])
def test_small_orders_are_uniform_over_pairs(rows: int) -> None:
    """The rows at the first two positions, over many seeds: chi-squared against the uniform law on ordered pairs."""
    counts = np.zeros((rows, rows))
    for seed in range(6000):
        first, second = make(rows, 1, seed=seed).indices(0, np.arange(2)).tolist()
        counts[first, second] += 1
    pairs = counts[~np.eye(rows, dtype=bool)]
    assert stats.chisquare(pairs).pvalue > 1e-4


def test_neighbours_in_a_batch_come_from_far_apart() -> None:
    rows = 10**6
    found = make(rows, 64).indices(0, np.arange(64 * 200)).reshape(200, 64).astype(np.int64)
    for batch in found:
        assert len(np.unique(batch // BLOCK_ROWS)) > 55
