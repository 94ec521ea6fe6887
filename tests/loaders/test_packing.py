"""Packed streams: equal to a plain-Python packer, for every number of ranks, and losing no row."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest
import reference_loading as plain
import torch
from loading import all_of, joined, lists, packed, rows_of, some_of

from synthshards import open_dataset
from synthshards.loaders.batching.packing import MODES, PACKINGS, Packing

ROWS = 700


def small(rows: int | None = ROWS, task: str = "depo", **options: Any) -> Any:
    options = options or {"N": 30}
    return open_dataset(task, num_examples=rows, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seq_len", [1, 50, 512])
@pytest.mark.parametrize("shuffle", [False, True])
def test_one_pass_is_that_of_a_plain_packer(mode: str, seq_len: int, shuffle: bool) -> None:
    count = 60 if seq_len == 1 else ROWS
    ds = small(count)
    rows = rows_of(ds, count)
    order = plain.order(ds.fingerprint, count, 3, 1, 16) if shuffle else range(count)
    found = all_of(ds.batches(16, packing=mode, seq_len=seq_len, shuffle=shuffle, seed=3, epoch=1, pad_id=7))
    assert found == packed((rows[i] for i in order), mode, seq_len, 16, 7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("name", "params"), [("mano-10", {"L": 4}), ("brevo1-70", {"N": 20}), ("lano-cfg3b", {"framing": "bos"})]
)
def test_other_tasks_too(mode: str, name: str, params: dict[str, Any]) -> None:
    ds = small(300, name, **params)
    assert all_of(ds.batches(4, packing=mode, seq_len=400)) == packed(iter(rows_of(ds, 300)), mode, 400, 4)


def test_dtypes_and_shapes_are_those_promised() -> None:
    batch = next(iter(small().batches(8, packing="concat", seq_len=100)))
    assert list(batch) == [
        "input_ids", "labels", "attention_mask", "loss_mask", "index", "segment_ids", "position_ids",
    ]  # fmt: skip
    for name, tensor in batch.items():
        assert tensor.dtype == (torch.bool if name == "loss_mask" else torch.int64)
        assert tuple(tensor.shape) == (8, 100)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("drop_last", [False, True])
def test_one_pass_ends_at_the_same_batch_on_every_rank(mode: str, world_size: int, drop_last: bool) -> None:
    options = {"batch_size": 24, "packing": mode, "seq_len": 96, "drop_last": drop_last, "shuffle": True}
    ds = small()
    alone = all_of(ds.batches(**options))
    sizes = [len(batch["index"]) for batch in alone]
    assert set(sizes[:-1]) == {24}
    assert (sizes[-1] == 24) == drop_last
    assert (
        joined([all_of(ds.batches(**options, rank=rank, world_size=world_size)) for rank in range(world_size)]) == alone
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_pass_loses_no_row(mode: str) -> None:
    ds = small()
    rows = rows_of(ds, ROWS)
    stream = ds.batches(8, packing=mode, seq_len=128, shuffle=True)
    given: dict[int, int] = {}
    for batch in all_of(stream):
        for line in batch["index"]:
            for i in line:
                given[i] = given.get(i, 0) + 1
    given.pop(-1, None)
    assert sorted(given) == list(range(ROWS))
    lengths = {i: len(ids) for i, ids, _ in rows}
    cut = sum(lengths[i] - n for i, n in given.items())
    assert stream.stats()["truncated_tokens"] == cut
    if mode == "concat":
        assert cut == 0
    if mode == "best-fit":
        assert cut == sum(max(0, n - 128) for n in lengths.values())


def endless_lanes(ds: Any, rows: list[plain.Row], mode: str, seq_len: int, lanes: int, order: Any, windows: int) -> Any:
    """The first windows of each packing lane, by the plain-Python reference."""
    count = len(rows)

    def lane(k: int) -> Any:
        epoch = 0
        while True:
            listed = order(epoch)
            for p in range(k, count, lanes):
                yield rows[listed[p]]
            epoch += 1

    return [
        [plain.tensors_of(pieces, seq_len, 0) for pieces in islice(plain.windows(mode, seq_len, lane(k)), windows)]
        for k in range(lanes)
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world_size", [1, 2])
def test_endless_packing_follows_lanes_into_their_next_epochs(mode: str, shuffle: bool, world_size: int) -> None:
    count, lanes = 2500, 2  # at least 1,024 rows a lane, so that there are lanes
    ds = small(count, "mano-10", L=3)
    rows = rows_of(ds, count)
    orders = [plain.order(ds.fingerprint, count, 0, e, lanes) if shuffle else range(count) for e in range(3)]
    expected = endless_lanes(ds, rows, mode, 200, lanes, lambda e: orders[e], 150)
    stream_options = {"packing": mode, "seq_len": 200, "repeat": True, "shuffle": shuffle, "world_size": world_size}
    parts = [some_of(ds.batches(2, rank=rank, **stream_options), 150) for rank in range(world_size)]
    assert len({i for line in expected[0] for i in line["index"]} - {-1}) >= 1250, "more than one epoch of the lane"
    for g, batch in enumerate(joined(parts)):
        for v in range(lanes):
            assert {name: value[v] for name, value in batch.items()} == expected[v][g]


@pytest.mark.parametrize("mode", MODES)
def test_few_rows_repeat_over_one_lane(mode: str) -> None:
    ds = small(50)
    rows = rows_of(ds, 50) * 20
    found = some_of(ds.batches(4, packing=mode, seq_len=100, repeat=True), 30)
    assert found == packed(iter(rows), mode, 100, 4)[:30]


@pytest.mark.parametrize("mode", MODES)
def test_an_endless_dataset_is_packed_over_lanes(mode: str) -> None:
    ds = small(None)
    rows = rows_of(ds, 4000)
    found = some_of(ds.batches(8, packing=mode, seq_len=100, lanes=4), 20)
    for v in range(4):
        lane = [plain.tensors_of(p, 100, 0) for p in islice(plain.windows(mode, 100, iter(rows[v::4])), 40)]
        given = [{name: value[w] for name, value in batch.items()} for batch in found for w in range(v, 8, 4)]
        assert given == lane


def test_waste_is_what_the_prose_says() -> None:
    ds = small(20_000, "depo1-225", K=8)
    waste = {}
    for mode in MODES:
        stream = ds.batches(16, packing=mode, seq_len=2048)
        for _ in stream:
            pass
        found = stream.stats()
        waste[mode] = found["pad_tokens"] / (found["pad_tokens"] + found["tokens"])
        if mode != "paper":
            assert found["truncated_tokens"] == 0
    assert waste["concat"] < 0.002
    assert 0.004 < waste["best-fit"] < 0.008


def test_the_wide_ids_of_depo_fit() -> None:
    ds = small(40, "depo", N=20, query_token_base=100_000)
    assert ds.task.batch(0, "train", 0, 1).input_ids.dtype == "uint32"
    assert all_of(ds.batches(4, packing="concat", seq_len=64)) == packed(iter(rows_of(ds, 40)), "concat", 64, 4)


def test_tensors_are_never_written_again_while_they_are_held() -> None:
    stream = small(2000).batches(8, packing="concat", seq_len=64)
    held = [(batch["input_ids"][2:3], batch["labels"].numpy(), lists(batch)) for batch in stream]
    assert len(held) > 100
    for view, array, copy in held:
        assert view.tolist() == copy["input_ids"][2:3]
        assert array.tolist() == copy["labels"]


def test_every_mode_is_named_once_and_told_of() -> None:
    assert tuple(PACKINGS) == get_args(Packing) == ("pad", *MODES)
    page = (Path(__file__).parents[2] / "docs/loading.md").read_text()
    assert [mode for mode in MODES if f'\n- **`"{mode}"`**' not in page] == []
