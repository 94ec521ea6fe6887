"""Builds in a local folder: what they leave, how they continue and grow, and what they refuse."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.ipc
import pyarrow.parquet
import pytest
from folders import SMALL, files, names, picture, small, unfinished
from helpers import python

from synthshards import make_task
from synthshards.dataset.manifest import Manifest
from synthshards.dataset.manifest_parser import load
from synthshards.errors import UsageError
from synthshards.formats import FORMATS, get_format
from synthshards.pipelines.build import build, seal
from synthshards.pipelines.execution.executor import Executor
from synthshards.pipelines.folder.journal import Journal
from synthshards.pipelines.plan import make_plan
from synthshards.storage.folder import SCRATCH
from synthshards.storage.local import LocalFolder
from synthshards.storage.open import open_folder

# What stands there when a build is done.


@pytest.mark.parametrize("name", FORMATS)
def test_a_finished_folder_holds_shards_and_manifest_whose_bytes_do_not_depend_on_workers(
    name: str, tmp_path: Path, executor: Executor
) -> None:
    for workers in (1, 2, 5):
        report = build(small(5, format=name), str(tmp_path / str(workers)), workers=workers, executor=executor)
        assert (report.made, report.kept) == (5, 0)
    one = files(tmp_path / "1")
    assert set(one) == names(5, FORMATS[name].suffix)
    assert one == files(tmp_path / "2") == files(tmp_path / "5")


@pytest.mark.parametrize("name", FORMATS)
def test_growth_leaves_the_first_shards_untouched_and_gives_what_all_at_once_gives(
    name: str, tmp_path: Path, executor: Executor
) -> None:
    grown, at_once = tmp_path / "grown", tmp_path / "at once"
    build(small(3, format=name), str(grown))
    before = {path: value for path, value in picture(grown).items() if "train-" in path}
    report = build(small(7, format=name), str(grown), workers=2, executor=executor)
    assert (report.made, report.kept) == (4, 3)
    assert before.items() <= picture(grown).items()
    build(small(7, format=name), str(at_once))
    assert files(grown) == files(at_once)


def test_a_folder_of_the_first_layout_keeps_the_name_of_its_manifest_until_it_is_overwritten(
    tmp_path: Path, cli: Any
) -> None:
    folder = tmp_path / "x"

    def first_layout(shards: int) -> dict[str, bytes]:
        build(small(shards), str(tmp_path / str(shards)))
        found = files(tmp_path / str(shards))
        return {"manifest.json": found.pop("_manifest"), **found}

    build(small(2), str(folder))
    (folder / "_manifest").rename(folder / "manifest.json")
    before = picture(folder)
    assert build(small(2), str(folder)).made == 0
    assert picture(folder) == before
    assert build(small(3), str(folder)).made == 1
    assert files(folder) == first_layout(3)
    build(small(4), str(folder), only_shards="3")
    assert seal(str(folder)).examples == 256
    assert files(folder) == first_layout(4)
    assert cli("verify", folder, "--rederive").code == 0
    build(small(2), str(folder), overwrite=True)
    assert set(files(folder)) == names(2)


def test_growth_may_end_with_a_short_shard(tmp_path: Path, executor: Executor) -> None:
    build(small(2), str(tmp_path / "grown"), executor=executor)
    build(small(None, examples=150), str(tmp_path / "grown"), executor=executor)
    build(small(None, examples=150), str(tmp_path / "at once"))
    assert files(tmp_path / "grown") == files(tmp_path / "at once")
    assert load(open_folder(tmp_path / "grown")).shards[-1].stop == 150


@pytest.mark.parametrize("name", FORMATS)
def test_each_file_says_its_identity_and_seed_range(name: str, tmp_path: Path) -> None:
    plan = small(None, format=name, examples=100, seed=5, split="eval")
    build(plan, str(tmp_path))
    manifest = load(open_folder(tmp_path))
    for entry, (start, stop) in zip(manifest.shards, [(0, 64), (64, 100)], strict=True):
        data = open_folder(tmp_path).read(entry.path)
        metadata = get_format(name).reader(data, manifest.columns).metadata
        assert json.loads(metadata["identity"]) == plan.identity.as_dict()
        assert metadata["fingerprint"] == plan.identity.fingerprint == manifest.identity.fingerprint
        assert (int(metadata["start"]), int(metadata["stop"])) == (start, stop) == (entry.start, entry.stop)


def test_other_libraries_see_that_metadata_too(tmp_path: Path) -> None:
    build(small(1), str(tmp_path / "p"))
    build(small(1, format="arrow"), str(tmp_path / "a"))
    parquet = pyarrow.parquet.read_schema(tmp_path / "p" / "train-00000.parquet").metadata
    with pyarrow.ipc.open_file(tmp_path / "a" / "train-00000.arrow") as reader:
        arrow = reader.schema.metadata
    for metadata, prefix in ((parquet, b"synthshards."), (arrow, b"")):
        assert metadata.keys() == {prefix + name for name in (b"identity", b"fingerprint", b"start", b"stop")}
        assert (metadata[prefix + b"start"], metadata[prefix + b"stop"]) == (b"0", b"64")


@pytest.mark.parametrize(
    ("name", "compression"), [(name, each) for name, module in FORMATS.items() for each in module.compressions]
)
def test_compression_is_layout_it_changes_files_and_never_rows(name: str, compression: str, tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "default"))
    build(small(2, format=name, compression=compression), str(tmp_path / "other"))
    default, other = (load(open_folder(tmp_path / each)) for each in ("default", "other"))
    assert other.layout.compression == compression
    assert [entry.content for entry in other.shards] == [entry.content for entry in default.shards]
    assert other.identity.fingerprint == default.identity.fingerprint
    if (name, compression) != ("parquet", "zstd"):
        assert [entry.sha256 for entry in other.shards] != [entry.sha256 for entry in default.shards]


# Continuing.


def test_the_same_command_again_changes_nothing(tmp_path: Path, cli: Any) -> None:
    assert cli("build", *SMALL, "--shards", "3", "--out", tmp_path / "x").code == 0
    before = picture(tmp_path / "x")
    ended = cli("build", *SMALL, "--shards", "3", "--out", tmp_path / "x")
    assert (ended.code, ended.err) == (0, "")
    assert "0 shards made, 3 kept" in ended.out
    assert picture(tmp_path / "x") == before


def test_a_finished_folder_needs_no_permission_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(small(), str(tmp_path))
    for name in ("make", "write", "delete", "delete_tree"):
        monkeypatch.setattr(LocalFolder, name, lambda *_: pytest.fail("wrote"))
    assert build(small(), str(tmp_path)).kept == 4


@pytest.mark.parametrize("damage", ["deleted", "shortened"])
def test_a_missing_shard_of_a_finished_folder_is_made_again(damage: str, tmp_path: Path, executor: Executor) -> None:
    build(small(), str(tmp_path))
    before, shard = files(tmp_path), tmp_path / "train-00002.parquet"
    untouched = {path: value for path, value in picture(tmp_path).items() if path.endswith((".json", "1.parquet"))}
    shard.unlink() if damage == "deleted" else os.truncate(shard, 100)
    report = build(small(), str(tmp_path), executor=executor)
    assert (report.made, report.kept) == (1, 3)
    assert files(tmp_path) == before
    assert untouched.items() <= picture(tmp_path).items()


def test_growth_makes_again_what_is_missing_of_the_old_shards(tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "grown"))
    (tmp_path / "grown" / "train-00000.parquet").unlink()
    assert build(small(3), str(tmp_path / "grown")).made == 2
    build(small(3), str(tmp_path / "at once"))
    assert files(tmp_path / "grown") == files(tmp_path / "at once")


def test_shards_with_a_record_are_kept_whatever_versions_wrote_them(tmp_path: Path) -> None:
    log = unfinished(tmp_path, 3)
    shard = tmp_path / "train-00001.parquet"
    shard.write_bytes(shard.read_bytes() + b"another pyarrow")
    log.write_text(log.read_text().replace(f'"bytes": {shard.stat().st_size - 15}', f'"bytes": {shard.stat().st_size}'))
    report = build(small(3), str(tmp_path))
    assert (report.made, report.kept) == (0, 3)
    assert shard.read_bytes().endswith(b"another pyarrow")


@pytest.mark.parametrize("cut", [2, 40, 300])
def test_a_torn_record_does_not_count(cut: int, tmp_path: Path) -> None:
    log = unfinished(tmp_path / "x", 3)
    os.truncate(log, log.stat().st_size - cut)
    assert build(small(3), str(tmp_path / "x")).made == 1
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_a_file_without_a_record_and_a_record_without_its_file_do_not_count(tmp_path: Path) -> None:
    log = unfinished(tmp_path / "x", 3)
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
    (tmp_path / "x" / "train-00000.parquet").write_bytes(b"what a crash of the machine may leave")
    os.truncate(tmp_path / "x" / "train-00002.parquet", 10)
    assert build(small(3), str(tmp_path / "x")).made == 2
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


@pytest.mark.parametrize("other", [{"shard_examples": 32}, {"seed": 1}, {"format": "arrow"}, {"compression": "none"}])
def test_a_record_of_another_plan_does_not_count_though_all_else_is_right(
    other: dict[str, Any], tmp_path: Path
) -> None:
    log = unfinished(tmp_path, 3)
    assert small(3).shard_key in log.read_text()
    log.write_text(log.read_text().replace(small(3).shard_key, small(3, **other).shard_key))
    assert build(small(3), str(tmp_path)).made == 3


def test_a_record_of_another_range_does_not_count(tmp_path: Path) -> None:
    log = unfinished(tmp_path, 3)
    log.write_text(log.read_text().replace('"stop": 192', '"stop": 190'))
    assert build(small(3), str(tmp_path)).made == 1


def test_a_record_that_the_system_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    unfinished(tmp_path, 3)
    monkeypatch.undo()
    assert build(small(3), str(tmp_path)).kept == 3


def test_of_two_records_of_a_shard_the_later_counts(tmp_path: Path) -> None:
    build(small(1), str(tmp_path), only_shards="0")
    build(small(1), str(tmp_path / "other"))
    entry = load(open_folder(tmp_path / "other")).shards[0]
    digests = [f"sha256:{digit * 64}" for digit in "9135"]
    for digest in digests:
        with Journal(open_folder(tmp_path), small(1)) as journal:
            journal.append(type(entry)(**{**entry.as_dict(), "sha256": digest}))
    manifest = build(small(1), str(tmp_path)).manifest
    assert manifest is not None
    assert manifest.shards[0].sha256 == digests[-1]


def test_temporary_files_of_killed_builds_are_deleted_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished(tmp_path, 2)
    (tmp_path / SCRATCH / "train-00000.parquet.1-1-abcd.tmp").write_bytes(b"half")
    seen = []
    real = LocalFolder.write

    def write(self: LocalFolder, name: str, data: Any) -> None:
        seen.append([each.name for each in (tmp_path / SCRATCH).glob("*.tmp")])
        real(self, name, data)

    monkeypatch.setattr(LocalFolder, "write", write)
    build(small(3), str(tmp_path))
    assert seen
    assert seen == [[]] * len(seen)


def test_a_manifest_of_rows_without_files_makes_no_shard_pass_for_standing(tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "whole"))
    whole = load(open_folder(tmp_path / "whole"))
    bare = [type(entry)(**{**entry.as_dict(), "bytes": None, "sha256": None}) for entry in whole.shards]
    manifest = Manifest(whole.identity, whole.layout, whole.columns, bare)
    open_folder(tmp_path / "x").write("_manifest", manifest.to_json())
    assert build(small(2), str(tmp_path / "x")).made == 2
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_looking_at_many_shards_takes_as_few_calls_as_at_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    for name in ("_scan", "read", "write", "delete"):
        real = getattr(LocalFolder, name)

        def counted(self: LocalFolder, *args: Any, name: str = name, real: Any = real) -> Any:
            calls[name] += 1
            return real(self, *args)

        monkeypatch.setattr(LocalFolder, name, counted)
    counts = []
    for shards in (3, 60):
        folder = tmp_path / str(shards)
        unfinished(folder, shards)
        (folder / f"train-{shards - 1:05d}.parquet").unlink()
        calls.clear()
        assert build(small(shards), str(folder)).made == 1
        counts.append(dict(calls))
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) < 20


# Parts, and sealing them.


def test_parts_made_anywhere_and_sealed_are_what_one_build_gives(tmp_path: Path, cli: Any) -> None:
    command = ["build", *SMALL, "--shards", "5", "--out", tmp_path / "x"]
    for part in ("3-4", "0-1", "2"):
        ended = cli(*command, "--only-shards", part)
        assert ended.code == 0
        assert "synthshards seal" in ended.out
        assert not (tmp_path / "x" / "_manifest").exists()
    ended = cli("seal", tmp_path / "x")
    assert ended.code == 0
    assert "5 shards, 320 rows; sealed" in ended.out
    build(small(5), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")
    before = picture(tmp_path / "x")
    assert cli("seal", tmp_path / "x").code == 0
    assert picture(tmp_path / "x") == before


def test_a_whole_build_finishes_what_parts_began(tmp_path: Path) -> None:
    build(small(3), str(tmp_path / "x"), only_shards="1")
    report = build(small(3), str(tmp_path / "x"))
    assert (report.made, report.kept) == (2, 1)
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_sealing_names_the_shards_that_are_missing(tmp_path: Path, cli: Any) -> None:
    build(small(9), str(tmp_path), only_shards="0-1")
    build(small(9), str(tmp_path), only_shards="6")
    ended = cli("seal", tmp_path)
    assert ended.code == 2
    assert "6 of 9 shards are missing; make them with the same build command and --only-shards 2-5" in ended.err
    (tmp_path / "train-00001.parquet").unlink()
    assert "7 of 9 shards are missing" in cli("seal", tmp_path).err
    build(small(9), str(tmp_path))
    assert set(files(tmp_path)) == names(9)


def test_the_largest_plan_is_sealed(tmp_path: Path, executor: Executor) -> None:
    build(small(2), str(tmp_path / "x"), only_shards="0-1", executor=executor)
    build(small(3), str(tmp_path / "x"), only_shards="2", executor=executor)
    assert len(list((tmp_path / "x" / SCRATCH).glob("plan-*"))) == 2
    assert seal(str(tmp_path / "x")).layout.num_shards == 3
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_sealing_vouches_for_no_shard_whose_file_is_gone_though_an_old_manifest_has_it(tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "x"))
    build(small(3), str(tmp_path / "x"), only_shards="2")
    (tmp_path / "x" / "train-00000.parquet").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 shards are missing.*--only-shards 0-0"):
        seal(str(tmp_path / "x"))
    build(small(3), str(tmp_path / "x"), only_shards="0")
    seal(str(tmp_path / "x"))
    build(small(3), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_a_part_of_a_finished_folder_is_done_already_or_made_again_and_sealed(tmp_path: Path) -> None:
    build(small(3), str(tmp_path))
    whole, before = files(tmp_path), picture(tmp_path)
    assert build(small(3), str(tmp_path), only_shards="1-2").made == 0
    assert picture(tmp_path) == before
    (tmp_path / "train-00001.parquet").unlink()
    assert build(small(3), str(tmp_path), only_shards="0-1").made == 1
    seal(str(tmp_path))
    assert files(tmp_path) == whole


def test_a_newer_pyarrow_does_not_rewrite_the_manifest_of_unchanged_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small(2), str(tmp_path))
    whole = files(tmp_path)
    (tmp_path / "train-00001.parquet").unlink()
    monkeypatch.setattr("pyarrow.__version__", "99.0.0")
    build(small(2), str(tmp_path))
    assert files(tmp_path) == whole
    build(small(3), str(tmp_path))
    assert load(open_folder(tmp_path)).generator["pyarrow"] == "99.0.0"


# Rates, memory, and the default folder.


def test_rates_do_not_count_the_time_of_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[bool] = []
    monkeypatch.setattr("synthshards.pipelines.build.warm_up", lambda plan, tick: slept.append(time.sleep(1.5) is None))
    summary = build(small(1), str(tmp_path)).summary
    assert slept
    assert float(summary.split(" in ")[1].split(" s ")[0]) < 1.4


PEAK = """
import resource, sys
from folders import SMALL, files, names, picture, small, unfinished
from synthshards.pipelines.build import build
build(small(int(sys.argv[1])), sys.argv[2], workers=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    few, many = (int(python("-c", PEAK, str(shards), str(tmp_path / str(shards))).stdout) for shards in (20, 600))
    assert many - few < 12, f"{few} MB at 20 shards, {many} MB at 600"


def test_the_default_folder_takes_the_task_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["N=20", "--examples", "10", "--split", "eval"]
    assert cli("build", "depo1-300", *args).code == 0
    assert (tmp_path / "data" / "depo1-300" / "eval" / "_manifest").is_file()
    assert (
        load(open_folder("data/depo1-300/eval")).identity
        == make_plan(make_task("depo1-300", N=20), examples=10, split="eval").identity
    )
