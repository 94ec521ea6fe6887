"""`reproduce`: from the few kilobytes of a manifest the same rows again, in any format; in its own, the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from s3 import Server
from small_datasets import FORMATS, SMALL, edit_manifest, make, run

from synthshards.catalog import make_task
from synthshards.dataset.manifest import NAMES
from synthshards.dataset.stored import open_stored
from synthshards.errors import DataError, UsageError
from synthshards.pipelines import reproduce as reproducing
from synthshards.pipelines.build import seal
from synthshards.pipelines.reproduce import reproduce
from synthshards.pipelines.verify import verify


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, at any depth."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def forget_files(document: Any) -> None:
    """What a training run writes of an eval set: the manifest of rows that no file holds."""
    document["totals"]["bytes"] = None
    for entry in document["shards"]:
        entry["bytes"] = entry["sha256"] = None


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_bytes_manifest_included(tmp_path: Path, format: str) -> None:
    source = Path(make(tmp_path / "source", format=format, seed=5, split="eval"))
    alone = tmp_path / "alone" / "_manifest"
    alone.parent.mkdir()
    (source / "_manifest").rename(alone)
    report = reproduce(str(alone), str(tmp_path / "again"), workers=2)
    assert report.made == 3
    (source / "_manifest").write_bytes(alone.read_bytes())
    assert contents(tmp_path / "again") == contents(source)


def test_an_eval_set_of_5000_rows_is_a_few_kilobytes(tmp_path: Path) -> None:
    source = Path(make(tmp_path / "source", split="eval", examples=5000, shard_examples=16384))
    manifest = shutil.copy(source / "_manifest", tmp_path / "eval-set")
    assert Path(manifest).stat().st_size < 3000
    reproduce(str(manifest), str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(source)


@pytest.mark.parametrize("format", FORMATS)
def test_another_format_has_the_same_rows(tmp_path: Path, format: str) -> None:
    source = make(tmp_path / "source", format="arrow", compression="zstd")
    outcome = run("reproduce", source, "--out", tmp_path / "again", "--format", format)
    assert outcome.code == 0, outcome
    old, new = open_stored(source).manifest, open_stored(str(tmp_path / "again")).manifest
    assert new.layout.format == format
    assert new.layout.compression == ("zstd" if format != "webdataset" else "none")
    assert [entry.content for entry in new.shards] == [entry.content for entry in old.shards]
    assert new.identity == old.identity
    assert verify(str(tmp_path / "again"), rederive=True).ok


@pytest.mark.parametrize("name", ["_manifest", "manifest.json", "eval.json", "eval-set", "Eval of run 7.manifest"])
def test_whatever_the_name_of_the_manifest(tmp_path: Path, name: str) -> None:
    source = Path(make(tmp_path / "source"))
    manifest = shutil.copy(source / "_manifest", tmp_path / name)
    outcome = run("reproduce", manifest, "--out", tmp_path / "again")
    assert outcome.code == 0, outcome
    assert contents(tmp_path / "again") == contents(source)
    assert run("reproduce", f"file://{manifest}", "--out", tmp_path / "again").code == 0


def test_a_manifest_without_files(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    want = contents(Path(source))
    edit_manifest(source, forget_files)
    again = tmp_path / "again"
    reproduce(source, str(again))
    assert contents(again) == want


def test_a_manifest_without_files_becomes_a_dataset_where_it_lies(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    want = contents(Path(source))
    edit_manifest(source, forget_files)
    for path in Path(source).glob("*.parquet"):
        path.unlink()
    assert reproduce(source, source).made == 3
    assert contents(Path(source)) == want


def test_in_parts(tmp_path: Path) -> None:
    source, again = make(tmp_path / "source"), str(tmp_path / "again")
    outcome = run("reproduce", source, "--out", again, "--only-shards", "0-1")
    assert outcome.code == 0, outcome
    assert f"when all shards are made: synthshards seal {again}" in outcome.out
    assert run("reproduce", source, "--out", again, "--only-shards", "2").code == 0
    seal(again)
    assert contents(Path(again)) == contents(Path(source))


def test_what_the_manifest_promises_is_compared(tmp_path: Path) -> None:
    """The fingerprint is right, the rows are not: what a changed generator under an old version would look like."""
    source = make(tmp_path / "source")
    edit_manifest(source, lambda document: document["shards"][1].update(content="sha256:" + 64 * "0"))
    outcome = run("reproduce", source, "--out", tmp_path / "again")
    assert outcome.code == 1
    assert "train-00001.parquet: rows generated now have content sha256:" in outcome.line
    assert outcome.line.endswith("the manifest says sha256:" + 64 * "0")
    assert contents(tmp_path / "again") == {}


def test_after_a_failure_what_stood_before_is_still_there(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    edit_manifest(source, lambda document: document["shards"][1].update(content="sha256:" + 64 * "0"))
    with pytest.raises(DataError):
        reproduce(source, str(out))
    assert contents(out) == {"notes.txt": b"mine"}  # no plan, either, which would keep other builds away
    with pytest.raises(DataError):
        reproduce(source, str(out), only_shards="1")
    assert contents(out) == {"notes.txt": b"mine"}


def test_in_parts_a_failure_leaves_the_other_parts(tmp_path: Path) -> None:
    source, again = make(tmp_path / "source"), tmp_path / "again"
    edit_manifest(source, lambda document: document["shards"][1].update(content="sha256:" + 64 * "0"))
    reproduce(source, str(again), only_shards="0")
    with pytest.raises(DataError):
        reproduce(source, str(again), only_shards="1-2")
    assert (again / "train-00000.parquet").exists()


def test_a_failure_of_one_part_leaves_what_another_machine_made_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began in the same empty place."""
    source, again = make(tmp_path / "source"), tmp_path / "again"
    edit_manifest(source, lambda document: document["shards"][1].update(content="sha256:" + 64 * "0"))
    build = reproducing.build

    def build_beside_another(*args: Any, only_shards: str, **options: Any) -> Any:
        build(*args, only_shards="0", **options)
        return build(*args, only_shards=only_shards, **options)

    monkeypatch.setattr(reproducing, "build", build_beside_another)
    with pytest.raises(DataError):
        reproduce(source, str(again), only_shards="1-2")
    assert (again / "train-00000.parquet").exists()


def test_an_unfinished_shard_of_another_digest_is_made_again(tmp_path: Path) -> None:
    """Begun from one manifest, finished from another that promises other rows: nothing is taken on trust."""
    source, again = make(tmp_path / "source"), tmp_path / "again"
    reproduce(source, str(again), only_shards="0")
    edit_manifest(source, lambda document: document["shards"][0].update(content="sha256:" + 64 * "0"))
    with pytest.raises(DataError, match=r"train-00000.parquet: rows generated now have content"):
        reproduce(source, str(again))


def test_a_stray_shard_is_not_ours_to_delete(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    (Path(source) / "train-00009.parquet").write_bytes(b"mine")
    reproduce(source, source)
    assert (Path(source) / "train-00009.parquet").read_bytes() == b"mine"


def test_what_stands_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "source")
    again = tmp_path / "again"
    reproduce(source, str(again))
    monkeypatch.setattr("synthshards.pipelines.shard.make_shard", None)  # nothing is made
    outcome = run("reproduce", source, "--out", again)
    assert outcome.code == 0, outcome
    assert "3 shards (3 of them stood already)" in outcome.out


def test_what_stands_is_checked_and_mended(tmp_path: Path) -> None:
    """Damage that leaves the size alone, which a build would not see."""
    source = make(tmp_path / "source")
    again = tmp_path / "again"
    reproduce(source, str(again))
    want = contents(again)
    path = again / "train-00001.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    report = reproduce(source, str(again))
    assert (report.made, report.kept) == (1, 2)
    assert contents(again) == want


@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_mends_itself_from_its_own_manifest(name: str, tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    (Path(source) / "_manifest").rename(Path(source) / name)
    want = contents(Path(source))
    for index in (0, 2):
        path = Path(source) / f"train-0000{index}.parquet"
        path.write_bytes(bytes(path.stat().st_size))
    outcome = run("reproduce", source, "--out", source)
    assert outcome.code == 0, outcome
    assert contents(Path(source)) == want


def test_rows_that_stand_there_under_another_digest_are_made_again(tmp_path: Path) -> None:
    """A folder whose manifest claims other contents for the same identity proves nothing."""
    source = make(tmp_path / "source")
    again = make(tmp_path / "again")
    edit_manifest(again, lambda document: document["shards"][1].update(content="sha256:" + 64 * "0"))
    reproduce(source, again)
    assert contents(Path(again)) == contents(Path(source))


def test_another_dataset_is_left_alone(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    other = make(tmp_path / "other", seed=1)
    path = Path(other) / "train-00000.parquet"
    path.write_bytes(bytes(path.stat().st_size))  # damaged, but not ours to mend
    before = contents(Path(other))
    outcome = run("reproduce", source, "--out", other)
    assert outcome.code == 2
    assert "holds another identity (seed is 1 there, 0 here)" in outcome.line
    assert contents(Path(other)) == before
    with pytest.raises(UsageError, match="holds another layout"):
        reproduce(source, make(tmp_path / "arrow", format="arrow"))


def test_wrong_usage_leaves_nothing(tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    again = tmp_path / "again"
    for args, words in (
        ([source], "Missing option '--out'"),
        ([source, "--out", again, "--format", "parket"], "did you mean 'parquet'"),
        ([source, "--out", again, "--only-shards", "2-3"], "legal: A-B with 0 ≤ A ≤ B ≤ 2"),
        ([tmp_path / "absent.json", "--out", again], "nothing there; legal: a dataset"),
        ([tmp_path, "--out", again], "no _manifest in it, but in folders below; legal: "),
        (["depo1-225", "--out", again], "'depo1-225' is a task, not a dataset"),
        ([source, "--out", "nowhere://x"], "unknown scheme 'nowhere'"),
    ):
        outcome = run("reproduce", *args)
        assert outcome.code == 2, outcome
        assert words in outcome.line, outcome
        assert not again.exists()


def test_in_an_object_store(s3_env: Server, s3_bucket: str, tmp_path: Path) -> None:
    """From there, to there, and from a manifest of any name there."""
    source = make(tmp_path / "source")
    want = contents(Path(source))
    url = f"s3://{s3_bucket}/deep/copy"
    assert run("reproduce", source, "--out", url).code == 0
    assert {key.removeprefix("deep/copy/"): s3_env.get(s3_bucket, key) for key in s3_env.objects(s3_bucket)} == want
    for name in ("eval.json", "eval-set"):
        s3_env.put(s3_bucket, f"manifests/{name}", want["_manifest"])
        outcome = run("reproduce", f"s3://{s3_bucket}/manifests/{name}", "--out", tmp_path / name)
        assert outcome.code == 0, outcome
        assert contents(tmp_path / name) == want
    s3_env.put(s3_bucket, "deep/copy/train-00001.parquet", bytes(len(want["train-00001.parquet"])))
    assert run("reproduce", url, "--out", url).code == 0
    assert s3_env.get(s3_bucket, "deep/copy/train-00001.parquet") == want["train-00001.parquet"]
    outcome = run("reproduce", f"s3://{s3_bucket}/manifests/absent", "--out", tmp_path / "absent")
    assert outcome.code == 2
    assert "nothing there" in outcome.line


def test_the_rows_are_those_of_the_task(tmp_path: Path) -> None:
    """From the manifest to rows without the package's help: the digests are those of make_task's rows."""
    source = make(tmp_path / "source", seed=3)
    alone = tmp_path / "m.json"
    alone.write_bytes((Path(source) / "_manifest").read_bytes())
    out = str(tmp_path / "again")
    reproduce(str(alone), out)
    data = json.loads(alone.read_text())["dataset"]
    task = make_task(data["task"], data["params"])
    assert data["params"]["N"] == SMALL["N"]
    found = [row["input_ids"].tolist() for i in range(3) for b in open_stored(out).blocks(i) for row in b.rows()]
    assert found == [task.example(3, "train", i)["input_ids"].tolist() for i in range(100)]
