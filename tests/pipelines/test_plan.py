"""Plans: how many rows a command line means, which shards they make, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from synthshards import make_task
from synthshards.errors import ManifestError, UsageError, VersionError
from synthshards.pipelines.plan import BuildPlan, make_plan, parse_range, plan_from_record, plan_record
from synthshards.tasks.depo import DepoTask


class Finite(DepoTask):
    """Depo that ends after 5,000 rows."""

    @property
    def num_examples(self) -> int | None:
        return 5000


def plan(**options: object) -> BuildPlan:
    return make_plan(make_task("depo", N=20), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "shards", "rows", "examples"),
    [
        ({"shards": 64}, 64, 16384, 1048576),
        ({"shards": 3, "shard_examples": 100}, 3, 100, 300),
        ({"examples": 5000}, 1, 16384, 5000),
        ({"examples": 16385}, 2, 16384, 16385),
        ({"examples": 5000, "shard_examples": 1024}, 5, 1024, 5000),
        ({"examples": 5000, "shards": 4}, 4, 1250, 5000),
        ({"examples": 5000, "shards": 3}, 3, 1667, 5000),
        ({"examples": 5000, "shards": 3, "shard_examples": 1667}, 3, 1667, 5000),
        ({"examples": 1}, 1, 16384, 1),
        ({"shards": 100_000, "shard_examples": 1}, 100_000, 1, 100_000),
    ],
)
def test_shards_examples_and_shard_examples_together(
    options: dict[str, int], shards: int, rows: int, examples: int
) -> None:
    made = plan(**options)
    assert (made.layout.num_shards, made.layout.shard_examples, made.examples) == (shards, rows, examples)
    ranges = [made.range(index) for index in range(shards)]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == examples
    assert all(a < b for a, b in ranges)
    assert all(b == c for (_, b), (c, _) in pairwise(ranges))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("--shards", "--examples")),
        ({"shards": 0}, ("--shards 0", "from 1")),
        ({"examples": -5}, ("--examples -5", "from 1")),
        ({"shards": 1, "shard_examples": 0}, ("--shard-examples 0", "from 1")),
        ({"shards": 100_001}, ("--shards 100001", "100000", "--shard-examples")),
        ({"examples": 2_000_000_000}, ("--examples", "100000", "--shard-examples 20480")),
        ({"examples": 10, "shards": 6}, ("--examples 10", "--shards 5")),
        ({"examples": 10, "shards": 11}, ("--examples 10", "--shards 10")),
        ({"examples": 10, "shards": 2, "shard_examples": 6}, ("--shard-examples 6", "5 rows")),
        ({"examples": "all"}, ("all", "no end")),
        ({"examples": "some"}, ("'some'", "all")),
        ({"shards": 1, "seed": -1}, ("seed=-1", "0..2^64-1")),
        ({"shards": 1, "seed": 2**64}, ("seed", "0..2^64-1")),
        ({"shards": 1, "split": "Train"}, ("split='Train'", "lower-case")),
        ({"shards": 1, "split": "../x"}, ("split", "lower-case")),
        ({"shards": 1, "format": "parket"}, ("'parket'", "did you mean 'parquet'")),
        ({"shards": 1, "compression": "lz4"}, ("'lz4'", "zstd, snappy, none")),
        ({"shards": 1, "format": "webdataset", "compression": "zstd"}, ("'zstd'", "none")),
        ({"shards": 1, "shard_examples": 10**15}, ("--shard-examples", "legal: 1..")),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_says_what_is_legal(
    options: dict[str, object], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(**options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("examples", [100_000 * 16384 + 1, 2_000_000_000, 2_048_000_001])
def test_suggested_shard_examples_are_enough_and_read_best(examples: int) -> None:
    with pytest.raises(UsageError) as caught:
        plan(examples=examples)
    suggested = int(re.findall(r"--shard-examples (\d+)", str(caught.value))[0])
    assert plan(examples=examples, shard_examples=suggested).layout.num_shards <= 100_000
    assert suggested % 1024 == 0


def test_a_finite_task_is_built_whole_by_default_and_never_beyond_its_end() -> None:
    task = Finite(N=20)
    assert make_plan(task).examples == 5000
    assert make_plan(task, examples="all", shard_examples=1000).layout.num_shards == 5
    assert make_plan(task, shards=5, shard_examples=1000).examples == 5000
    for shards, examples in ((None, 5001), (1, None)):
        with pytest.raises(UsageError, match=r"has 5000 .*legal: 1\.\.5000"):
            make_plan(task, shards=shards, examples=examples)


@pytest.mark.parametrize(
    ("text", "expected"), [("0-15", range(16)), ("3-3", range(3, 4)), ("7", range(7, 8)), ("0-63", range(64))]
)
def test_a_range_of_shards_has_both_ends(text: str, expected: range) -> None:
    assert parse_range(text, 64) == expected


@pytest.mark.parametrize(
    "text", ["", "-", "1-", "-1", "5-3", "0-64", "64", "a-b", "1-2-3", "1,2", " 1-2", "²", "1\n", "9999999999"]
)
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--only-shards .*legal: A-B"):
        parse_range(text, 64)


def test_plans_have_one_file_name_if_and_only_if_they_are_equal() -> None:
    plans = [
        plan(shards=4),
        plan(shards=5),
        plan(shards=4, seed=1),
        plan(shards=4, split="eval"),
        plan(shards=4, compression="none"),
        plan(shards=4, format="arrow"),
        plan(examples=4 * 16384 - 1),
    ]
    assert len({each.file for each in plans}) == len(plans)
    assert plan(shards=4).file == plans[0].file


def test_shards_of_plans_with_one_key_are_the_same_and_growth_keeps_the_key() -> None:
    small, large = plan(shards=4), plan(shards=8)
    assert small.shard_key == large.shard_key
    assert [small.range(i) for i in range(4)] == [large.range(i) for i in range(4)]
    for other in (
        plan(shards=4, seed=1),
        plan(shards=4, shard_examples=8),
        plan(shards=4, compression="none"),
        plan(shards=4, format="arrow"),
        replace(small, identity=replace(small.identity, task_version=2)),
    ):
        assert other.shard_key != small.shard_key


@pytest.mark.parametrize(
    "options",
    [{"shards": 4, "seed": 2**64 - 1}, {"examples": 77, "shard_examples": 10}, {"examples": 10, "shards": 3}],
)
def test_a_declared_plan_is_read_back(options: dict[str, int]) -> None:
    made = plan(**options, format="webdataset", split="eval")
    again = plan_from_record(plan_record(json.dumps(made.as_dict()).encode(), "here"), "here")
    assert again.as_dict() == made.as_dict()
    assert again.shard_key == made.shard_key


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b'{"dataset": {}, "layout": {}, "examples": 1}',
        b'{"dataset": [], "layout": {"num_shards": 1}, "examples": 1}',
        b'{"dataset": {}, "layout": {"num_shards": "1"}, "examples": 1}',
        b'{"dataset": {}, "layout": {"num_shards": 1}, "examples": 1, "more": 1}',
    ],
)
def test_a_file_that_is_no_plan_is_named(raw: bytes) -> None:
    with pytest.raises(ManifestError, match=r"here: not a plan .*--overwrite"):
        plan_record(raw, "here")


def test_a_plan_that_contradicts_itself_or_is_of_another_version_is_not_taken() -> None:
    def changed(part: str, **values: object) -> dict[str, object]:
        record = plan(shards=4).as_dict()
        return {**record, part: {**record[part], **values}}

    for record in (changed("layout", num_shards=5), changed("dataset", params={"N": 20}), changed("dataset", odd=1)):
        with pytest.raises(ManifestError, match=r"^here: "):
            plan_from_record(record, "here")
    with pytest.raises(VersionError, match=r"^here: depo version 99"):
        plan_from_record(changed("dataset", task_version=99), "here")
    with pytest.raises(UsageError, match=r"^here: no task 'dep0'"):
        plan_from_record(changed("dataset", task="dep0"), "here")
