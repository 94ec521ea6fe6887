"""Padded streams: equal to a plain-Python loader, for every number of ranks, and at the end of an epoch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import reference_loading as plain
import torch
from loading import all_of, joined, padded, rows_of, some_of

from synthshards import UsageError, open_dataset

ROWS = 3000
SEQ = 800  # no row of this Depo is longer


def small(rows: int | None = ROWS, **options: Any) -> Any:
    return open_dataset("depo", N=40, num_examples=rows, **options)


@pytest.fixture(scope="module")
def rows() -> list[plain.Row]:
    return rows_of(small(), ROWS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_those_of_a_plain_loader(rows: list[plain.Row], shuffle: bool) -> None:
    ds = small()
    order = plain.order(ds.fingerprint, ROWS, 5, 2, 64) if shuffle else list(range(ROWS))
    found = all_of(ds.batches(64, shuffle=shuffle, seed=5, epoch=2, pad_id=3))
    assert len(found) == 47
    for g, batch in enumerate(found):
        expected = [rows[i] for i in order[64 * g : 64 * g + 64]]
        assert batch == padded(expected, max(len(row[1]) for row in expected), 3)


def test_dtypes_and_shapes_are_those_promised() -> None:
    batch = next(iter(small().batches(8, seq_len=SEQ)))
    assert list(batch) == ["input_ids", "labels", "attention_mask", "loss_mask", "index"]
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in batch.items()} == {
        "input_ids": (torch.int64, (8, SEQ)),
        "labels": (torch.int64, (8, SEQ)),
        "attention_mask": (torch.int64, (8, SEQ)),
        "loss_mask": (torch.bool, (8, SEQ)),
        "index": (torch.int64, (8,)),
    }


@pytest.mark.parametrize("world_size", [2, 3, 8])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_together_give_the_batches_of_one(world_size: int, shuffle: bool, drop_last: bool) -> None:
    options = {"batch_size": 24, "seq_len": SEQ, "shuffle": shuffle, "drop_last": drop_last}
    ds = small(1000)
    alone = all_of(ds.batches(**options))
    assert len(alone) == len(ds.batches(**options)) == (41 if drop_last else 42)
    assert [len(batch["index"]) for batch in alone[:41]] == [24] * 41
    parts = [all_of(ds.batches(**options, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert joined(parts) == alone


def test_a_short_last_batch_gives_every_rank_a_batch_be_it_empty() -> None:
    ds = small(26)
    sizes = [[len(batch["index"]) for batch in all_of(ds.batches(24, rank=rank, world_size=8))] for rank in range(8)]
    assert [some[0] for some in sizes] == [3] * 8
    assert sorted(some[1] for some in sizes) == [0, 0, 0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("shuffle", [False, True])
def test_repeating_batches_straddle_epochs(rows: list[plain.Row], shuffle: bool) -> None:
    ds = small(100)
    found = some_of(ds.batches(64, shuffle=shuffle, repeat=True, epoch=1), 10)
    orders = [plain.order(ds.fingerprint, 100, 0, e, 64) if shuffle else list(range(100)) for e in range(1, 8)]
    expected = [i for order in orders for i in order][:640]
    assert [i for batch in found for i in batch["index"]] == expected
    assert all(len(batch["index"]) == 64 for batch in found)


def test_an_endless_dataset_goes_on_and_has_no_len() -> None:
    ds = small(None)
    found = some_of(ds.batches(64), 40)
    assert [i for batch in found for i in batch["index"]] == list(range(64 * 40))
    for what in (ds, ds.batches(64), small(100).batches(64, repeat=True)):
        with pytest.raises(TypeError, match="no len"):
            len(what)
    with pytest.raises(UsageError, match=r"shuffle=True of an endless dataset; legal: give it num_examples"):
        ds.batches(64, shuffle=True)


def test_an_epoch_ends_and_the_next_begins() -> None:
    ds = small(300)
    stream = ds.batches(64, shuffle=True)
    first, second = all_of(stream), all_of(stream)
    assert first != second
    assert second == all_of(ds.batches(64, shuffle=True, epoch=1))
    stream.set_epoch(0)
    assert all_of(stream) == first


def test_a_row_longer_than_seq_len_is_named(rows: list[plain.Row]) -> None:
    longest = max(range(ROWS), key=lambda i: len(rows[i][1]))
    length = len(rows[longest][1])
    assert len(all_of(small().batches(64, seq_len=length))) == 47
    with pytest.raises(ValueError, match=rf"row \d+ has \d+ tokens; legal: seq_len of at least"):  # noqa: F541
        all_of(small().batches(64, seq_len=length - 1))
    with pytest.raises(ValueError, match=rf"row {longest} has {length} tokens; legal: seq_len of at least {length}"):
        all_of(small().batches(ROWS, seq_len=20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "world_size": 4}, "batch_size=10 is no multiple of world_size=4; legal: 8 or 12"),
        ({"batch_size": 2, "world_size": 4}, "batch_size=2 is no multiple of world_size=4; legal: 4"),
        ({"batch_size": 0}, "batch_size=0; legal: an integer of at least 1"),
        ({"batch_size": 8.0}, "batch_size=8.0; legal: an integer of at least 1"),
        ({"batch_size": 8, "rank": 1}, r"rank=1 of world_size=1; legal: 0\.\.0"),
        ({"batch_size": 8, "rank": -1}, "rank=-1; legal: an integer of at least 0"),
        (
            {"batch_size": 8, "packing": "bestfit"},
            "packing='bestfit'; did you mean 'best-fit'.*legal: pad, concat, paper",
        ),
        ({"batch_size": 8, "packing": "paper"}, "packing='paper' needs seq_len"),
        ({"batch_size": 8, "seq_len": 0}, "seq_len=0; legal: an integer of at least 1"),
        ({"batch_size": 8, "lanes": 0}, "lanes=0; legal: an integer of at least 1"),
        ({"batch_size": 8, "seed": -1}, "seed=-1; legal: an integer of at least 0"),
        ({"batch_size": 8, "epoch": -1}, "epoch=-1; legal: an integer of at least 0"),
        ({"batch_size": 8, "heal": "rewite"}, "heal='rewite'; legal: regenerate, raise, rewrite"),
        ({"batch_size": 8, "columns": ["m"]}, "columns: 'm' is no fact of depo; legal: .*n, queries"),
        ({"batch_size": 8, "columns": ["n"], "packing": "concat", "seq_len": 9}, "legal: with packing='pad'"),
        ({"batch_size": 8, "tokenizer": "x"}, "rows of depo are token ids"),
        ({"batch_size": 8, "columns": "ks"}, r"columns='ks'; legal: a list of names, \['ks'\]"),
        ({"batch_size": 8, "pad_id": None}, "pad_id=None; legal: an integer of 64 bits"),
        ({"batch_size": 8, "pad_id": 1 << 63}, "pad_id=9223372036854775808; legal: an integer of 64 bits"),
        *(
            ({"batch_size": 8, name: "no"}, f"{name}='no'; legal: True, False")
            for name in ("shuffle", "repeat", "drop_last", "pin_memory")
        ),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        small().batches(**options)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_are_numbers() -> None:
    names = ("batch_size", "seed", "epoch", "lanes", "rank", "world_size", "pad_id", "seq_len")
    given = {**dict.fromkeys(names, 1), "rank": 0, "seq_len": SEQ}
    expected = small(5).batches(**given, shuffle=True)
    stream = small(np.int64(5)).batches(**{name: np.int64(n) for name, n in given.items()}, shuffle=np.bool_(True))
    assert json.dumps(stream.state_dict()) == json.dumps(expected.state_dict())
    assert all_of(stream) == all_of(expected)
    stream.set_epoch(np.int64(3))
    assert json.loads(json.dumps(stream.state_dict()))["epoch"] == 3


def test_an_unknown_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="bath"):
        small().batches(8, bath=1)


def test_facts_come_along() -> None:
    ds = small(50)
    for batch in ds.batches(8, columns=["n", "ks"], shuffle=True):
        for r, i in enumerate(batch["index"].tolist()):
            assert batch["n"][r] == ds[i]["n"]
            ks = ds[i]["ks"]
            assert batch["ks"][r].tolist() == ks + [-1] * (batch["ks"].shape[1] - len(ks))


@pytest.mark.parametrize("task", ["depo", "mano"])
def test_every_tensor_lies_where_the_tokens_are(task: str) -> None:
    """Whatever PyTorch's default device is."""
    facts = ["n", "ks"] if task == "depo" else ["answer"]
    ds = open_dataset(task, num_examples=40)
    with torch.device("meta"):
        streams = [ds.batches(8, columns=facts), ds.batches(8, packing="concat", seq_len=64)]
        batches = [next(iter(s.loader(num_workers=workers))) for s in streams for workers in (0, 1)]
    assert {value.device.type for batch in batches for value in batch.values()} == {"cpu"}


def test_stats_count_what_was_given() -> None:
    ds = small(100)
    stream = ds.batches(8, seq_len=SEQ)
    batches = all_of(stream)
    found = stream.stats()
    tokens = sum(sum(row) for batch in batches for row in batch["attention_mask"])
    assert found["batches"] == 13
    assert found["rows"] == 100
    assert found["tokens"] == tokens
    assert found["pad_tokens"] == 100 * SEQ - tokens


@pytest.mark.parametrize("workers", [0, 2])
def test_what_comes_before_a_row_that_is_too_long_is_handed_out(workers: int) -> None:
    ds = open_dataset("depo", N=40, num_examples=400)
    lengths = [len(ds[i]["input_ids"]) for i in range(400)]
    seq_len = max(lengths[:90])
    first = next(i for i, length in enumerate(lengths) if length > seq_len)
    stream = ds.batches(4, seq_len=seq_len)
    loader = stream.loader(num_workers=workers)
    seen: list[int] = []

    def run() -> None:
        for batch in loader:
            seen.extend(batch["index"].tolist())

    with pytest.raises(UsageError, match=rf"^row {first} has {lengths[first]} tokens"):
        run()
    assert seen == list(range(first // 4 * 4))
    assert stream.state_dict()["unit"] == len(seen)
