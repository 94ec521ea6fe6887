"""What builds refuse: a line that says what to do, and nothing touched. And what --overwrite replaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from folders import SMALL, files, names, picture, small, unfinished

from synthshards.errors import ManifestError, UsageError
from synthshards.pipelines.build import build
from synthshards.storage.folder import SCRATCH

# Refusals: a line that says what to do, and nothing touched.

REFUSED = {
    "fewer shards": (["--shards", "2"], "holds 3 shards (192 rows), more than 2 (128 rows)"),
    "fewer rows": (["--examples", "100"], "holds 3 shards (192 rows), more than 2 (100 rows)"),
    "other rows a shard": (["--shards", "3", "--shard-examples", "32"], "shard_examples is 64 there, 32 here"),
    "shards and examples": (["--shards", "4", "--examples", "192"], "--shards 4 makes shards of 48 rows"),
    "other format": (["--shards", "3", "--format", "arrow"], "format is 'parquet' there, 'arrow' here"),
    "other compression": (["--shards", "3", "--compression", "none"], "compression is 'zstd' there, 'none' here"),
    "other seed": (["--shards", "3", "--seed", "1"], "seed is 0 there, 1 here"),
    "other split": (["--shards", "3", "--split", "eval"], "split is 'train' there, 'eval' here"),
    "other parameter": (["--shards", "3", "K=4"], "K is 8 there, 4 here"),
    "part of another": (["--shards", "3", "--seed", "1", "--only-shards", "0-1"], "seed is 0 there, 1 here"),
    "overwriting a part": (["--shards", "3", "--only-shards", "0", "--overwrite"], "--overwrite goes with"),
}


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_belong_together_is_refused_and_the_folder_stays_as_it_was(
    case: str, state: str, tmp_path: Path, cli: Any
) -> None:
    out = tmp_path / "x"
    build(small(3), str(out)) if state == "finished" else unfinished(out, 3)
    before = picture(out)
    options, line = REFUSED[case]
    ended = cli("build", *SMALL, "--out", out, *options)
    assert ended.code == 2
    assert line.replace("holds 3", "holds 3" if state == "finished" else "holds an unfinished build of 3") in ended.err
    assert ended.err.count("\n") == 1
    assert any(word in ended.err for word in ("legal:", "leave one"))
    assert ended.out == ""
    after = picture(out)
    if state == "unfinished":  # the lock came and went
        for each in (before, after):
            each.pop(str(out / SCRATCH))
    assert after == before


def test_growth_past_a_short_last_shard_is_refused(tmp_path: Path, cli: Any) -> None:
    build(small(None, examples=100), str(tmp_path))
    before = picture(tmp_path)
    for options in (["--shards", "3"], ["--examples", "101"], ["--shards", "2"]):
        ended = cli("build", *SMALL, "--out", tmp_path, *options)
        assert ended.code == 2
        assert "its last shard is short (36 of 64 rows), so it cannot grow; legal: another --out" in ended.err
    assert picture(tmp_path) == before


WRONG = [
    ["depo", "N=2", "--shards", "1"],
    ["depo", "N=20", "N=30", "--shards", "1"],
    ["depo", "X=20", "--shards", "1"],
    ["dep0", "--shards", "1"],
    ["depo"],
    ["depo", "--shards", "0"],
    ["depo", "--shards", "x"],
    ["depo", "--shards", "100001"],
    ["depo", "--shards", "2", "--examples", "all"],
    ["depo", "--shards", "2", "--examples", "x"],
    ["depo", "--shards", "2", "--examples", "1"],
    ["depo", "--shards", "2", "--seed", "-1"],
    ["depo", "--shards", "2", "--seed", str(2**64)],
    ["depo", "--shards", "2", "--split", "Train"],
    ["depo", "--shards", "2", "--split", ""],
    ["depo", "--shards", "2", "--format", "csv"],
    ["depo", "--shards", "2", "--format", "webdataset", "--compression", "zstd"],
    ["depo", "--shards", "2", "--workers", "0"],
    ["depo", "--shards", "2", "--executor", "ray"],
    ["depo", "--shards", "2", "--executor", "slurm"],
    ["depo", "--shards", "2", "--only-shards", "1-2"],
    ["depo", "--shards", "2", "--only-shards", ""],
    ["depo", "--shards", "2", "--only-shards", "0", "--overwrite"],
    ["depo", "--shards", "2", "--out", ""],
    ["depo", "--shards", "2", "--out", "s4://bucket/prefix"],
    ["depo", "--shards", "2", "--no-such-option"],
    ["depo", "--shards", "2", "--out", "s3:/bucket/prefix"],
    ["depo", "--shards", "2", "--out", "file:/x"],
    ["depo", "--shards", "2", "--out", "GS:x"],
    ["depo", "--shards", "2", "--split", "a" * 300],
    ["depo", "--shards", "2", "--workers", "9" * 30],
    ["depo", "--shards", "2", "--workers", "5000"],
    *(
        ["depo", "--shards", "2", option, number]
        for option in ("--shards", "--examples", "--shard-examples", "--seed", "--workers")
        for number in ("1_0", "٣", " 2 ", "+1", "1e1", "1.0")
    ),
    *(["depo", "--shards", "2", f"N={number}"] for number in ("1_0", "٣٣", " 20 ", "9" * 5000)),
]


@pytest.mark.parametrize("args", WRONG, ids=lambda args: " ".join(args)[:60])
def test_wrong_usage_is_one_line_and_leaves_nothing_on_disk(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli("build", *args, *([] if "--out" in args else ["--out", "a/b"]))
    assert ended.code == 2, ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 1200  # no value is repeated whole
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_seal_is_said_and_leaves_nothing_on_disk(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "empty").mkdir()
    before = picture(tmp_path)
    for out in (tmp_path / "absent", tmp_path / "empty"):
        ended = cli("seal", out)
        assert (ended.code, ended.out) == (2, "")
        assert "nothing to seal" in ended.err
    assert picture(tmp_path) == before


def test_a_file_in_the_way_and_unknown_shards_are_refused(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train-00000.parquet").write_bytes(b"theirs")
    before = picture(tmp_path)
    for overwrite in ([], ["--overwrite"]):
        ended = cli("build", *SMALL, "--shards", "2", "--out", tmp_path / "file", *overwrite)
        assert (ended.code, ended.err) == (
            2,
            f"error: {tmp_path}/file: is a file; legal: a folder, or a name that is free\n",
        )
        ended = cli("build", *SMALL, "--shards", "2", "--out", tmp_path / "theirs", *overwrite)
        assert ended.code == 2
        assert "holds 1 shard files that no manifest, plan or record there names (train-00000.parquet)" in ended.err
        assert "--overwrite" not in ended.err
    assert picture(tmp_path) == before


@pytest.mark.parametrize("command", ["overwrite", "build", "parts", "grow", "reproduce", "seal"])
@pytest.mark.parametrize("link", ["folder", "nowhere"])
def test_a_scratch_folder_that_is_a_link_is_refused_and_what_lies_behind_it_stays(
    command: str, link: str, tmp_path: Path, cli: Any
) -> None:
    out, target = tmp_path / "x", tmp_path / "target"
    build(small(3), str(out))
    build(small(3), str(tmp_path / "source"))
    if link == "folder":
        target.mkdir()
        for name in ("plan-0123456789abcdef.json", "records-1.jsonl", "half.tmp", "lock", "mine"):
            (target / name).write_bytes(b"{}")
    (out / SCRATCH).symlink_to(target)
    before = files(tmp_path)
    shards = ["build", *SMALL, "--out", out, "--shards"]
    ended = cli(*{
        "overwrite": [*shards, "3", "--overwrite"],
        "build": [*shards, "3"],
        "parts": [*shards, "3", "--only-shards", "0"],
        "grow": [*shards, "4"],
        "reproduce": ["reproduce", tmp_path / "source", "--out", out],
        "seal": ["seal", out],
    }[command])  # fmt: skip
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{out}/{SCRATCH}: is a symbolic link" in ended.err
    assert files(tmp_path) == before


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_overwriting_deletes_nothing_that_is_merely_named_like_a_shard(state: str, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "x"
    build(small(3), str(out)) if state == "finished" else unfinished(out, 3)
    (out / "backup-00007.tar").write_bytes(b"theirs")
    (out / "train-00003.parquet").write_bytes(b"theirs")
    before = files(out)
    ended = cli("build", *SMALL, "--shards", "3", "--overwrite", "--out", out)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "names (backup-00007.tar, train-00003.parquet)" in ended.err
    assert {name: data for name, data in files(out).items() if "lock" not in name} == before
    ended = cli("build", *SMALL, "--shards", "4", "--out", out)  # nor does growing replace it
    assert (ended.code, "names (train-00003.parquet)" in ended.err) == (2, True)
    assert {name: data for name, data in files(out).items() if "lock" not in name} == before


def test_what_others_put_into_the_scratch_folder_stays_there(tmp_path: Path) -> None:
    unfinished(tmp_path / "x", 2)
    (tmp_path / "x" / SCRATCH / "notes.txt").write_bytes(b"mine")
    build(small(2), str(tmp_path / "x"))
    build(small(2), str(tmp_path / "x"), overwrite=True)
    assert set(files(tmp_path / "x")) == {*names(2), SCRATCH, f"{SCRATCH}/notes.txt"}


def test_an_unfinished_build_is_not_mixed_with_a_smaller_one_or_one_past_its_short_end(tmp_path: Path) -> None:
    unfinished(tmp_path / "large", 4)
    with pytest.raises(UsageError, match="an unfinished build of 4 shards"):
        build(small(2), str(tmp_path / "large"))
    build(small(None, examples=100), str(tmp_path / "short"), only_shards="0")
    with pytest.raises(UsageError, match="last shard is short"):
        build(small(2), str(tmp_path / "short"))


def test_a_killed_growth_is_finished_by_the_larger_command_and_grows_on(tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "x"))
    build(small(4), str(tmp_path / "x"), only_shards="2")
    with pytest.raises(UsageError, match="an unfinished build of 4 shards"):
        build(small(2), str(tmp_path / "x"))
    assert build(small(6), str(tmp_path / "x")).made == 3
    build(small(6), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == files(tmp_path / "whole")


def test_a_plan_that_cannot_be_read_is_named_and_overwritten(tmp_path: Path) -> None:
    unfinished(tmp_path / "x", 2)
    (plan,) = (tmp_path / "x" / SCRATCH).glob("plan-*")
    plan.write_bytes(b"{")
    with pytest.raises(ManifestError, match=r"plan-\w+\.json: not a plan .*--overwrite"):
        build(small(2), str(tmp_path / "x"))
    build(small(2), str(tmp_path / "x"), overwrite=True)
    assert set(files(tmp_path / "x")) == names(2)


# Overwriting.


def test_overwriting_replaces_a_dataset_and_leaves_other_files(tmp_path: Path) -> None:
    build(small(5, seed=1, format="arrow"), str(tmp_path / "x"))
    unfinished(tmp_path / "x", 7, seed=1, format="arrow")
    kept = {"README.md": b"mine", "train-00000-of-00001.parquet": b"of HF datasets", "train.parquet": b"mine"}
    for name, data in kept.items():
        (tmp_path / "x" / name).write_bytes(data)
    report = build(small(2), str(tmp_path / "x"), overwrite=True)
    assert (report.made, report.kept) == (2, 0)
    build(small(2), str(tmp_path / "whole"))
    assert files(tmp_path / "x") == {**files(tmp_path / "whole"), **kept}


def test_overwriting_makes_every_shard_anew_and_works_where_nothing_is(tmp_path: Path) -> None:
    for expected in (3, 3):
        assert build(small(3), str(tmp_path / "x"), overwrite=True).made == expected
    assert set(files(tmp_path / "x")) == names(3)


def test_overwriting_a_damaged_manifest_works_but_never_another_programs(tmp_path: Path) -> None:
    build(small(2), str(tmp_path / "x"))
    whole, manifest = files(tmp_path / "x"), tmp_path / "x" / "_manifest"
    os.truncate(manifest, 500)
    with pytest.raises(ManifestError):
        build(small(2), str(tmp_path / "x"))
    with pytest.raises(UsageError, match=r"names \(train-00000.parquet, train-00001.parquet\)"):
        build(small(2), str(tmp_path / "x"), overwrite=True)  # it no longer tells which files are its own
    for shard in (tmp_path / "x").glob("train-*"):
        shard.unlink()
    build(small(2), str(tmp_path / "x"), overwrite=True)
    assert files(tmp_path / "x") == whole
    manifest.write_text('{"name": "my web app"}')
    before = picture(tmp_path)
    with pytest.raises(UsageError, match="not a manifest of synthshards; legal: another --out"):
        build(small(2), str(tmp_path / "x"), overwrite=True)
    assert picture(tmp_path) == before
