"""Mixtures: each component its share to within one row, its own order unchanged, for every number of ranks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import reference_loading as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import all_of, joined, some_of

from synthshards import UsageError, open_dataset
from synthshards.loaders.batching.packing import PACKINGS
from synthshards.loaders.order import mixing
from synthshards.loaders.order.mixing import LARGEST_SUM, Schedule, integer_weights

WEIGHTS = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@settings(deadline=None, max_examples=300, derandomize=True)
@given(WEIGHTS)
def test_every_prefix_is_within_one_unit_of_ideal(weights: list[int]) -> None:
    schedule = Schedule(weights)
    sequence = schedule.components(0, 2 * schedule.total + 17)
    given_ = np.stack([np.cumsum(sequence == i) for i in range(len(weights))])
    ideal = np.outer(schedule.shares, np.arange(1, len(sequence) + 1)) / schedule.total
    assert np.abs(given_ - ideal).max() < 1


@settings(deadline=None, max_examples=60, derandomize=True)
@given(WEIGHTS, st.integers(0, 500), st.integers(0, 60))
def test_it_is_the_schedule_of_the_prose_from_anywhere(weights: list[int], start: int, count: int) -> None:
    schedule = Schedule(weights)
    expected = plain.mixed([Fraction(w) for w in weights], start + count)
    assert schedule.components(start, count).tolist() == expected[start:]
    assert schedule.counts(start) == [expected[:start].count(i) for i in range(len(weights))]
    assert schedule.components(start + 3, count)[: max(0, count - 3)].tolist() == expected[start + 3 :]


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([0.7, 0.3], [7, 3]),
        ([1 / 3, 2 / 3], [1, 2]),
        ([1 / 7, 1 / 7, 1 / 7], [1, 1, 1]),
        ([2, 4], [1, 2]),
        ([0.125, 1], [1, 8]),
        ([Fraction(1, 3), Fraction(1, 6)], [2, 1]),
        ([1e-3, 1], [1, 1000]),
        ([0.12345, 0.5], [2469, 10000]),
    ],
)
def test_weights_become_the_smallest_integers(weights: list[Any], shares: list[int]) -> None:
    assert integer_weights(weights) == shares


def test_weights_of_no_small_proportion_are_rounded() -> None:
    found = integer_weights([0.1234567890123, 0.9876543210987, 1e-13])
    assert sum(found) <= LARGEST_SUM
    assert min(found) >= 1
    assert found[0] / found[1] == pytest.approx(0.1234567890123 / 0.9876543210987, rel=1e-8)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "x", True, None])
def test_no_weight_is_refused(weight: Any) -> None:
    with pytest.raises(UsageError, match=r"a weight of .* in a mixture; legal: numbers above 0"):
        integer_weights([1, weight])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(0, 90)), min_size=1, max_size=4))
def test_the_end_comes_before_the_first_unit_that_is_missing(parts: list[tuple[int, int | None]]) -> None:
    schedule, rows = Schedule([w for w, _ in parts]), [n for _, n in parts]
    length = schedule.length(rows)
    if all(n is None for n in rows):
        assert length is None
        return
    assert length is not None
    counts = schedule.counts(length)
    assert all(n is None or c <= n for c, n in zip(counts, rows, strict=True))
    missing = int(schedule.components(length, 1)[0])
    assert rows[missing] == counts[missing]


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.lists(st.integers(1, 3000) | st.sampled_from([1, 1, 2]), min_size=1, max_size=5), st.data())
def test_a_short_walk_finds_what_the_walk_from_the_start_does(weights: list[int], data: Any) -> None:
    whole = Schedule(weights)
    sequence = whole.components(0, 2 * whole.total + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixing, "_NEAR_BY", 2)
        for position in data.draw(st.lists(st.integers(0, 2 * whole.total), min_size=1, max_size=6)):
            counts = np.bincount(sequence[:position], minlength=len(weights)).tolist()
            assert Schedule(weights).counts(position) == counts
            assert Schedule(weights).components(position, 1) == sequence[position]
        rows = data.draw(st.lists(st.integers(0, whole.total), min_size=len(weights), max_size=len(weights)))
        given_ = np.cumsum([sequence == i for i in range(len(weights))], axis=1) > np.array(rows)[:, None]
        assert Schedule(weights).length(rows) == int(given_.any(axis=0).argmax())


@pytest.mark.parametrize(
    ("weights", "length"),
    [
        ([123_456_789, 876_543_211], 1_140_845_069),
        ([1, 999_999_999], 1_000_000_001),
        ([999_999_999, 1], 1_000_000_001),
        ([1, 1, 10**9], 1_000_000_002),
        ([0.333333334, 0.333333333, 0.333333333], 2_999_999_996),
    ],
)
def test_weights_of_nine_digits_need_no_walk_over_a_billion_units(
    weights: list[float], length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked, walk = 0, mixing._walk

    def counted(shares: Any, total: Any, counts: Any, left: Any, place: Any, stop: Any) -> Any:
        nonlocal walked
        end = walk(shares, total, counts, left, place, stop)
        walked += int(end - place) if 2 * max(shares) <= total else len(shares)
        return end

    monkeypatch.setattr(mixing, "_walk", counted)
    assert Schedule(weights).length([10**9] * len(weights)) == length
    schedule = Schedule(weights)
    for position in (length // 3, length - 1, 12_345):
        assert sum(schedule.counts(position)) == position
        assert abs(schedule.counts(position)[0] * schedule.total - position * schedule.shares[0]) < schedule.total
    assert walked < 100_000
    ds = open_dataset([(open_dataset("mano", L=3, num_examples=10**9), weight) for weight in weights])
    assert len(ds) == length
    assert len(next(iter(ds.batches(8)))["index"]) == 8


def parts(first: int | None = 300, second: int | None = 200) -> list[Any]:
    return [open_dataset("depo", N=12, num_examples=first), open_dataset("mano", L=3, num_examples=second)]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_components_keep_their_own_order(packing: str, shuffle: bool) -> None:
    options = {"packing": packing, "seq_len": 400 if packing == "pad" else 80, "shuffle": shuffle, "lanes": 8}
    datasets = parts()
    found = all_of(open_dataset(list(zip(datasets, (2, 1), strict=True))).batches(10, **options))
    units = [
        (batch["source"][r], {n: batch[n][r] for n in batch if n != "source"})
        for batch in found
        for r in range(len(batch["source"]))
    ]
    schedule = plain.mixed([Fraction(2), Fraction(1)], len(units))
    assert [source for source, _ in units] == schedule
    for c, ds in enumerate(datasets):
        alone = all_of(ds.batches(10, **options))
        own = [{n: batch[n][r] for n in batch} for batch in alone for r in range(len(batch["index"]))]
        mine = [unit for source, unit in units if source == c]
        assert mine == own[: len(mine)]
    if packing == "pad":
        assert len(units) == len(open_dataset(list(zip(datasets, (2, 1), strict=True)))) == 450


@pytest.mark.parametrize("packing", ["pad", "concat", "best-fit"])
@pytest.mark.parametrize("exhaustion", ["stop", "repeat"])
@pytest.mark.parametrize("world_size", [2, 5])
def test_ranks_together_give_the_batches_of_one(packing: str, exhaustion: str, world_size: int) -> None:
    ds = open_dataset(list(zip(parts(90, 40), (0.7, 0.3), strict=True)), exhaustion=exhaustion)
    options = {"packing": packing, "seq_len": 400 if packing == "pad" else 80, "shuffle": exhaustion == "stop"}
    count = 30
    alone = some_of(ds.batches(10, **options), count)
    assert (len(alone) == count) == (exhaustion == "repeat")
    assert (
        joined([some_of(ds.batches(10, rank=r, world_size=world_size, **options), count) for r in range(world_size)])
        == alone
    )


def test_repeating_components_run_on_into_their_epochs() -> None:
    ds = open_dataset(list(zip(parts(7, None), (1, 1), strict=True)), exhaustion="repeat")
    found = some_of(ds.batches(10), 6)
    first = [i for batch in found for i, source in zip(batch["index"], batch["source"], strict=True) if source == 0]
    assert first == [i % 7 for i in range(30)]
    with pytest.raises(TypeError, match="no len"):
        len(ds)


def test_rows_by_index_say_where_they_come_from() -> None:
    datasets = parts(20, 30)
    ds = open_dataset(list(zip(datasets, (2, 1), strict=True)))
    assert len(ds) == 30
    seen = [0, 0]
    for i in range(len(ds)):
        row = ds[i]
        own = datasets[row["source"]][seen[row["source"]]]
        assert row["input_ids"].tolist() == own["input_ids"].tolist()
        seen[row["source"]] += 1
    assert seen == [20, 10]
    assert ds[-1]["input_ids"].tolist() == ds[29]["input_ids"].tolist()
    with pytest.raises(IndexError, match="row 30 of 30"):
        ds[30]


def test_a_mapping_of_names_takes_seed_and_split() -> None:
    ds = open_dataset({"depo1-225": 0.5, "mano-10": 0.5}, seed=3, split="eval")
    alone = open_dataset("mano-10", seed=3, split="eval")
    assert ds[1]["input_ids"].tolist() == alone[0]["input_ids"].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: open_dataset({}), "a mixture of nothing; legal: at least one dataset"),
        (lambda: open_dataset({"mano": 1}, exhaustion="stopp"), "exhaustion='stopp'; legal: stop, repeat"),
        (lambda: open_dataset({"mano": 0}), "a weight of 0"),
        (lambda: open_dataset({"mano": 1}, num_examples=3), "num_examples with a mixture; legal: open the component"),
        (lambda: open_dataset({"mano": 1}, L=3), "L with a mixture"),
        (lambda: open_dataset({"mano": 1, "depo": 1}).batches(4, shuffle=True), "shuffle=True of an endless dataset"),
    ],
)
def test_wrong_mixtures_are_refused(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
