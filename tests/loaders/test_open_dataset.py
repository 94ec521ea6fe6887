"""`open_dataset`: what it takes, and that shards, manifests and generation give equal rows in equal order."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loading import all_of, some_of
from small_datasets import FORMATS, SMALL, make

import synthshards
from synthshards import UsageError, make_task, open_dataset
from synthshards.loaders.batching.packing import PACKINGS

ROWS = 2500


def on_the_fly(rows: int | None = ROWS, **options: Any) -> Any:
    return open_dataset("depo", num_examples=rows, **{**SMALL, **options})


@pytest.fixture(scope="module", params=[*((f, 1024) for f in FORMATS), ("parquet", 700), ("arrow", 2500)], ids=str)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    kind, shard = request.param
    return make(tmp_path_factory.mktemp("stored") / "out", examples=ROWS, shard_examples=shard, format=kind)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("repeat", [False, True])
def test_shards_stream_what_generation_streams(folder: str, packing: str, shuffle: bool, repeat: bool) -> None:
    options = {"packing": packing, "seq_len": None if packing == "pad" else 200, "shuffle": shuffle, "repeat": repeat}
    count = 40
    expected = some_of(on_the_fly().batches(96, lanes=4, **options), count)
    assert some_of(open_dataset(folder).batches(96, lanes=4, **options), count) == expected
    loader = open_dataset(folder).batches(96, lanes=4, **options).loader(num_workers=2)
    assert some_of(loader, count) == expected


def test_rows_by_index_are_equal(folder: str) -> None:
    ds, other = open_dataset(folder), on_the_fly()
    assert len(ds) == len(other) == ROWS
    task = make_task("depo", SMALL)
    for i in (0, 1, 699, 700, 1023, 1024, 2499, -1):
        for row in (ds[i], other[i]):
            expected = task.example(0, "train", i % ROWS)
            assert row.keys() == expected.keys()
            for name, value in expected.items():
                assert np.array_equal(row[name], value), name
    for i in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError, match=f"row {i} of 2500"):
            ds[i]


def test_a_row_is_asked_for_by_an_integer(folder: str) -> None:
    for ds in (open_dataset(folder), open_dataset({folder: 1})):
        for i in (np.int64(3), np.uint8(3), torch.tensor(3)):
            assert ds[i]["input_ids"].tolist() == on_the_fly()[3]["input_ids"].tolist()
        for wrong in (slice(1, 3), 1.0, "n", [1, 2]):
            with pytest.raises(TypeError, match=r"legal: an integer, as in \[ds\[i\] for i in range"):
                ds[wrong]
    for i in (-1, 1 << 63):
        with pytest.raises(IndexError, match=f"row {i} of endlessly many"):
            on_the_fly(None)[i]


def test_a_manifest_alone_will_do(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "evals.json"
    shutil.copy(f"{folder}/_manifest", path)
    ds = open_dataset(path)
    assert all_of(ds.batches(96, shuffle=True)) == all_of(on_the_fly().batches(96, shuffle=True))
    assert ds[2321]["input_ids"].tolist() == on_the_fly()[2321]["input_ids"].tolist()


def test_a_manifest_of_rows_that_no_file_holds_is_generated(folder: str, tmp_path: Path) -> None:
    manifest = json.loads(Path(f"{folder}/_manifest").read_text())
    for entry in manifest["shards"]:
        entry["sha256"] = entry["bytes"] = None
    manifest["totals"]["bytes"] = None
    (tmp_path / "hop_8.manifest.json").write_text(json.dumps(manifest))
    ds = open_dataset(str(tmp_path / "hop_8.manifest.json"))
    assert all_of(ds.batches(96)) == all_of(on_the_fly().batches(96))
    assert len(open_dataset(str(tmp_path / "hop_8.manifest.json"), num_examples=7)) == 7


def test_one_string_changes_and_nothing_else(folder: str) -> None:
    for location in ("depo", folder, f"{folder}/_manifest", Path(folder), make_task("depo", SMALL)):
        ds = open_dataset(location, seed=0, split="train", num_examples=100, **SMALL)
        assert [row for batch in all_of(ds.batches(10)) for row in batch["index"]] == list(range(100))
        assert ds[99]["input_ids"].tolist() == on_the_fly()[99]["input_ids"].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "seed=1, and .* has 0; legal: that, or leave it out"),
        ({"split": "eval"}, "split='eval', and .* has 'train'"),
        ({"N": 10}, "N=10, and .* has 9"),
        ({"M": 10, "K": 5}, "K=5, and .* has 3"),
        ({"num_examples": 2501}, r"num_examples=2501; legal: 0\.\.2500"),
        ({"num_examples": -1}, "num_examples=-1; legal: an integer of at least 0"),
        ({"tokenizer": "x"}, "rows of depo are token ids"),
    ],
)
def test_what_differs_from_the_manifest_is_refused(folder: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(folder, **options)


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        ("dep0", {}, "dep0"),
        ("/nowhere/at/all", {}, "nowhere"),
        (7, {}, "open_dataset takes no int; legal: a folder, a URI"),
        (b"depo", {}, "open_dataset takes no bytes; legal: a folder, a URI"),
        (["depo", "mano"], {}, "'depo' in a mixture; legal: pairs of a dataset and its weight"),
        ([("depo", 1, 2)], {}, r"\('depo', 1, 2\) in a mixture; legal: pairs"),
        ("depo", {"n": 3}, "no parameter 'n'"),
        ("depo", {"seed": -1}, "seed=-1 is not legal"),
        ("depo", {"split": "Train"}, "split='Train' is not legal"),
        ("capo-50k", {"num_examples": 6_000_000}, r"legal: 0\.\.5000000"),
        ("capo-50k", {}, None),
    ],
)
def test_what_does_not_exist_is_refused(location: Any, options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert len(open_dataset(location, **options)) == 5_000_000
        with pytest.raises(UsageError, match="rows of capo are text: batches want a tokenizer="):
            open_dataset(location).batches(4)
        return
    with pytest.raises(UsageError, match=message):
        open_dataset(location, **options)


def test_shards_are_read_by_those_who_need_them(tmp_path: Path) -> None:
    rows, shard = 64 * 1024, 4096
    out = make(tmp_path / "out", examples=rows, shard_examples=shard)
    for shuffle, most in ((True, 1.01), (False, 8.01)):
        for rank in (0, 7):
            stream = open_dataset(out).batches(64, shuffle=shuffle, rank=rank, world_size=8)
            for _ in stream:
                pass
            found = stream.stats()
            assert found["blocks_opened"] * 8 / (rows / 1024) <= most
            assert found["shards_opened"] * 8 / (rows / shard) <= max(4.0, most)
    whole = open_dataset(out).batches(64, shuffle=True)
    assert len(all_of(whole)) == 1024
    assert whole.stats()["blocks_opened"] == 64
    assert whole.stats()["bytes_read"] == sum(path.stat().st_size for path in Path(out).glob("*.parquet"))


def test_streams_can_be_pickled_midway(folder: str) -> None:
    stream = open_dataset(folder).batches(96, packing="concat", seq_len=100, shuffle=True)
    some_of(stream, 3)
    copy = pickle.loads(pickle.dumps(stream))
    assert all_of(copy) == all_of(stream)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_dataset_can_be_pickled_after_its_rows_were_looked_at(folder: str, mixed: bool) -> None:
    for ds in (open_dataset(folder), open_dataset("depo", num_examples=100, **SMALL)):
        whole = open_dataset([(ds, 1)]) if mixed else ds
        row = whole[70]
        copy = pickle.loads(pickle.dumps(whole))
        assert copy[70]["input_ids"].tolist() == row["input_ids"].tolist()
        assert all_of(copy.batches(10)) == all_of(whole.batches(10))


def test_a_dataset_of_a_relative_path_is_the_same_after_chdir(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = all_of(open_dataset(folder).batches(10))
    monkeypatch.chdir(Path(folder).parent)
    opened = [open_dataset(Path(folder).name), open_dataset(f"{Path(folder).name}/_manifest")]
    monkeypatch.chdir(tmp_path)
    for ds in (*opened, *pickle.loads(pickle.dumps(opened))):
        assert all_of(ds.batches(10, heal="rewrite")) == right
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_has_no_batches() -> None:
    ds = on_the_fly(0)
    assert all_of(ds.batches(4)) == all_of(ds.batches(4, packing="concat", seq_len=8)) == []
    with pytest.raises(UsageError, match="repeat=True of a dataset of 0 rows"):
        ds.batches(4, repeat=True)


def test_without_torch_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "try:\n    from synthshards import open_dataset\n"
        "except ImportError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "open_dataset needs torch; install it with: pip install 'synthshards[torch]'\n"
    assert "open_dataset" in synthshards.__all__
