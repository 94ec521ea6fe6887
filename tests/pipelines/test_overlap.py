"""`overlap` counts what Python sets count: across formats, stores, layouts, repeats and any number of passes."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_datasets import FORMATS, make, run

from synthshards.dataset.stored import open_stored
from synthshards.errors import DataError
from synthshards.pipelines import overlap as module
from synthshards.pipelines.overlap import Overlap, overlap, row_hashes
from synthshards.ragged import Column, RaggedBatch, offsets_of
from synthshards.tasks.depo import DepoTask

#: 3 nodes named by one of 3 tokens each, one step: 72 different rows.
TINY: dict[str, Any] = {"N": 3, "K": 1, "mini_vocab": 3, "max_tlen": 1}
#: n is 3 or 4: a few thousand different rows.
MEDIUM: dict[str, Any] = {"N": 4, "K": 1, "mini_vocab": 4, "max_tlen": 1}


def rows_of(location: str) -> list[tuple[int, ...]]:
    dataset = open_stored(location)
    batches = [batch for i in range(len(dataset.manifest.shards)) for batch in dataset.blocks(i)]
    return [tuple(row["input_ids"].tolist()) for batch in batches for row in batch.rows()]


def by_sets(a: str, b: str) -> dict[str, Any]:
    """The slow and obvious count."""
    left, right = rows_of(a), rows_of(b)
    shared = set(left) & set(right)
    sizes = Counter(size_of(row) for row in shared)
    return {
        "rows_a": len(left),
        "rows_b": len(right),
        "shared": len(shared),
        "shared_in_a": sum(row in shared for row in left),
        "shared_in_b": sum(row in shared for row in right),
        "by_size": dict(sorted(sizes.items())),
    }


def size_of(row: tuple[int, ...]) -> int:
    """Nodes of a row whose words have one token: every query has one token, node, <ans>, answer."""
    queries = sum(token == 9500 for token in row)
    return (len(row) - 1 - 4 * queries) // 2


def assert_exact(a: str, b: str, **options: Any) -> Overlap:
    found = overlap(a, b, **options)
    want = by_sets(a, b)
    assert {name: getattr(found, name) for name in want} == want
    return found


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two streams that share many rows of two sizes, in two formats and two shard sizes."""
    folder = tmp_path_factory.mktemp("overlap")
    a = make(folder / "a", params=MEDIUM, examples=5000, shard_examples=2048)
    b = make(folder / "b", params=MEDIUM, examples=3000, shard_examples=700, seed=1, format="arrow")
    return a, b


def test_as_sets_count(sides: tuple[str, str]) -> None:
    found = assert_exact(*sides)
    assert found.shared > 100
    assert found.shared < found.shared_in_a, "the sides hold repeats"
    assert list(found.by_size) == [3, 4]
    assert found.size == "n"
    assert not found.same_stream


def test_either_way_round(sides: tuple[str, str]) -> None:
    one, other = overlap(*sides), assert_exact(*sides[::-1])
    assert (one.shared, one.by_size) == (other.shared, other.by_size)
    assert (one.shared_in_a, one.shared_in_b) == (other.shared_in_b, other.shared_in_a)


@pytest.mark.parametrize("rows", [2999, 1000, 37])
@pytest.mark.parametrize("workers", [1, 3])
def test_in_several_passes(sides: tuple[str, str], rows: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []

    class Table(module._HashTable):
        def __init__(self, room: int) -> None:
            super().__init__(room)
            tables.append(self)

    monkeypatch.setattr(module, "_HashTable", Table)
    monkeypatch.setattr(module, "_PASS_ROWS", rows)
    assert_exact(*sides, workers=workers)
    assert len(tables) == -(-3000 // rows)
    held = [int(table.counts.sum()) for table in tables]
    assert sum(held) == 3000
    assert max(held) < 3 * rows + 100, "the passes share the rows evenly"


def test_a_tiny_space_is_shared_whole(tmp_path: Path) -> None:
    """Disjoint streams, and yet every row of one stands in the other."""
    a, b = make(tmp_path / "a", params=TINY, examples=2000), make(tmp_path / "b", params=TINY, split="eval")
    found = assert_exact(a, b)
    assert found.shared_in_b == 100
    outcome = run("overlap", a, b)
    assert outcome.code == 1
    assert "disjoint random streams, by construction; small spaces share rows all the same" in outcome.out
    assert outcome.line == f"error: {found.shared} different rows in both {a} and {b}"


def test_disjoint_sides(tmp_path: Path) -> None:
    a = make(tmp_path / "a", params={"N": 60})
    b = make(tmp_path / "b", params={"N": 60}, seed=1)
    found = assert_exact(a, b)
    assert (found.shared, found.shared_in_a, found.shared_in_b, found.by_size) == (0, 0, 0, {})
    outcome = run("overlap", a, b)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "shared: 0 different rows"


def test_a_dataset_and_itself(tmp_path: Path) -> None:
    """Across layouts and formats: one stream, of which the shorter side lies in the longer one."""
    a = make(tmp_path / "a", examples=100)
    for format in FORMATS:
        b = make(tmp_path / format, examples=70, shard_examples=33, format=format)
        found = overlap(a, b)
        assert found.same_stream
        assert found.shared_in_b == 70
    outcome = run("overlap", a, b)
    assert outcome.code == 1
    assert "A and B are one random stream: rows of equal index are equal" in outcome.out


def test_ids_of_another_width(tmp_path: Path) -> None:
    """uint16 and uint32 ids are the same ids."""
    a = make(tmp_path / "a", params=TINY, examples=200)
    b = make(tmp_path / "b", params={**TINY, "separator_token_id": 70_000}, examples=200)
    kinds = [open_stored(side).manifest.columns["input_ids"] for side in (a, b)]
    assert kinds == ["list<uint16>", "list<uint32>"]
    assert assert_exact(a, b).shared > 50


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_text(tmp_path: Path, format: str) -> None:
    """Two worlds of one person who has few different biographies."""
    params = {"num_people": 2, "exposures": 40, "fresh": 1, "permute": False}
    a = make(tmp_path / "a", task="capo", params=params, examples=80, format=format)
    b = make(tmp_path / "b", task="capo", params=params, examples=50)
    texts = [
        {row["text"] for i in range(2) for x in open_stored(side).blocks(i) for row in x.rows()} for side in (a, b)
    ]
    found = overlap(a, b)
    assert found.shared == len(texts[0] & texts[1]) > 0
    assert found.shared_in_b == 50
    assert overlap(a, make(tmp_path / "c")).shared == 0, "text and tokens have no row in common"


def test_local_and_in_an_object_store(s3_url: str, tmp_path: Path) -> None:
    a = make(tmp_path / "a", params=MEDIUM, examples=500)
    make(s3_url, params=MEDIUM, examples=400, split="eval", format="webdataset")
    assert_exact(a, s3_url)
    assert_exact(s3_url, a)


def test_json(sides: tuple[str, str]) -> None:
    outcome = run("overlap", *sides, "--json")
    assert outcome.code == 1
    document = json.loads(outcome.out)
    want = by_sets(*sides)
    want["by_size"] = {str(size): count for size, count in want["by_size"].items()}
    assert document == {**want, "size": "n", "same_stream": False}


def test_many_sizes_are_shown_in_ranges(tmp_path: Path) -> None:
    a = make(tmp_path / "a", params={"N": 60}, examples=400)
    lines = [line.strip() for line in run("overlap", a, a).out.splitlines() if line.startswith("  n=")]
    assert 10 <= len(lines) <= 16
    assert lines[0].startswith("n=3..6: ")
    assert sum(int(line.partition(": ")[2]) for line in lines) == 400


def test_a_damaged_side(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", seed=1)
    path = Path(b) / "train-00002.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError):
        overlap(a, b)
    for sides in ((a, b), (b, a)):
        outcome = run("overlap", *sides, "--json")
        assert outcome.code == 1
        assert outcome.out == ""
        assert f"{path}: " in outcome.line


def test_wrong_usage(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    for args, words in (
        ([a], "Missing argument 'OUT_B'"),
        ([a, tmp_path / "absent"], "nothing there"),
        ([a, "depo"], "'depo' is a task"),
    ):
        outcome = run("overlap", *args)
        assert outcome.code == 2, outcome
        assert words in outcome.line


# The hash ----------------------------------------------------------------------------------------------------------


def tokens(rows: list[list[int]], dtype: str = "<u2") -> RaggedBatch:
    offsets = offsets_of(np.array([len(row) for row in rows]))
    flat = np.array([token for row in rows for token in row], dtype)
    return RaggedBatch({"input_ids": Column("list<uint16>" if dtype == "<u2" else "list<uint32>", flat, offsets)})


def text(rows: list[bytes]) -> RaggedBatch:
    offsets = offsets_of(np.array([len(row) for row in rows]))
    return RaggedBatch({"text": Column("string", np.frombuffer(b"".join(rows), np.uint8), offsets)})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=60))
def test_equal_rows_and_no_others_have_equal_hashes(rows: list[list[int]]) -> None:
    hashes = [tuple(pair) for pair in row_hashes(tokens(rows)).tolist()]
    assert len(set(hashes)) == len({tuple(row) for row in rows})
    assert len(dict(zip(map(tuple, rows), hashes, strict=True))) == len(set(hashes))
    assert hashes == [tuple(pair) for pair in row_hashes(tokens(rows, "<u4")).tolist()]


def test_half_of_the_hash_has_no_collisions_either() -> None:
    """All rows of up to 3 tokens of 60: 219,661 different ones, of which 64 good bits tell every one."""
    rows = [list(row) for length in range(4) for row in itertools.product(range(60), repeat=length)]
    hashes = row_hashes(tokens(rows))
    for half in (0, 1):
        assert len(np.unique(hashes[:, half])) == len(rows)
        for shift in (0, 16, 32, 48):  # the bits are even wherever one looks
            counts = np.bincount((hashes[:, half] >> np.uint64(shift) & np.uint64(255)).astype(int), minlength=256)
            expected = len(rows) / 256
            assert ((counts - expected) ** 2 / expected).sum() < 360  # chi-squared, 255 degrees: p < 1e-5


def test_rows_that_agree_in_half_of_the_hash_or_in_their_place_are_not_the_same() -> None:
    table = module._HashTable(6)
    rows = np.array([[1, 2], [1, 2 + 64], [9, 2], [1, 2], [1, 3]], np.uint64)
    table.add(rows, np.array([5, 6, 7, 5, 8], np.uint32))
    assert sorted(table.counts[table.counts > 0].tolist()) == [1, 1, 1, 2]
    assert table.find(np.array([[9, 2 + 64], [1, 4], [1, 2 + 64], [1, 2 + 64]], np.uint64)) == 2
    assert table.sizes[table.found].tolist() == [6]


def test_text_and_tokens_are_never_the_same_row() -> None:
    a, b = row_hashes(text([b"abc"])), row_hashes(tokens([list(b"abc")]))
    assert not (a == b).any()
    assert (row_hashes(text([b"", b"abc", b"ab", b"c"]))[1] == a[0]).all()


def test_sides_without_a_size_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make(tmp_path / "a", params=TINY), make(tmp_path / "b", params=TINY, seed=1)
    for fact in ("length", "ks"):
        monkeypatch.setattr(DepoTask, "size_fact", fact)
        found = overlap(a, b)
        assert found.size is None
        assert found.by_size == {}
        assert found.shared > 0
