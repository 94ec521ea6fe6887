"""`verify` finds every kind of damage and names the file; `--rederive` finds what an honest-looking manifest hides."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3 import Server
from small_datasets import FORMATS, edit_manifest, make, rewrite_shard, rows_of_shard, run, shard_bytes

from synthshards.catalog import make_task
from synthshards.dataset.manifest import Manifest
from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.digest import sha256_of
from synthshards.errors import VersionError
from synthshards.identity import Identity
from synthshards.pipelines.verify import check, chosen_rows, verify
from synthshards.ragged import Column, RaggedBatch
from synthshards.storage.open import open_folder
from synthshards.tasks.depo import DepoTask


@pytest.fixture(scope="module", params=FORMATS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one format: 100 rows in shards of 40."""
    return Path(make(tmp_path_factory.mktemp("verify") / "whole", format=request.param))


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "out"))


def shard(out: Path, index: int) -> Path:
    return out / open_stored(str(out)).manifest.shards[index].path


def problems(out: Path | str, **options: Any) -> dict[str, str]:
    findings = verify(str(out), **options)
    assert findings.ok == (not findings.problems)
    named = dict(findings.problems)
    assert len(named) == len(findings.problems), "a file is named twice"
    return named


def test_a_whole_dataset_is_ok(out: Path) -> None:
    assert problems(out) == {}
    findings = verify(str(out), rederive=True, workers=3)
    assert findings.ok
    assert findings.rederived == 100
    assert findings.shards == 3
    assert findings.notes == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped at the start": (lambda path: flip(path, 0), "sha256 of the file differs"),
    "flipped at the end": (lambda path: flip(path, -1), "sha256 of the file differs"),
    "flipped in the middle": (lambda path: flip(path, path.stat().st_size // 2), "sha256 of the file differs"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "(truncated or replaced)"),
    "emptied": (lambda path: path.write_bytes(b""), "0 bytes; the manifest says"),
    "extended": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "(truncated or replaced)"),
    "deleted": (lambda path: path.unlink(), "the file is absent"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot read"),
    "another shard's": (lambda path: path.write_bytes(path.with_stem("train-00000").read_bytes()), ""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_found_and_named(out: Path, damage: str) -> None:
    change, words = DAMAGE[damage]
    change(shard(out, 1))
    found = problems(out, workers=2)
    assert list(found) == [shard(out, 1).name]
    assert words in found[shard(out, 1).name]


def test_every_damaged_shard_is_named(out: Path) -> None:
    a, b, c = (shard(out, i) for i in range(3))
    whole = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(whole)
    c.unlink()
    outcome = run("verify", out)
    assert outcome.code == 1
    lines = outcome.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [a.name, b.name, c.name]
    assert outcome.line == f"error: {out}: 3 bad files: {a.name}, {b.name}, {c.name}"


def test_json(out: Path) -> None:
    whole = run("verify", out, "--json")
    assert whole.code == 0
    assert whole.err == ""
    assert json.loads(whole.out) == {"ok": True, "shards": [], "notes": [], "checked": 3, "rederived": 0}
    shard(out, 2).unlink()
    (out / "README.md").write_text("mine")
    outcome = run("verify", out, "--json", "--rederive")
    assert outcome.code == 1
    document = json.loads(outcome.out)
    assert document["ok"] is False
    assert document["shards"] == [{"path": shard(out, 2).name, "problem": "the file is absent"}]
    assert document["rederived"] == 80
    assert document["notes"] == ["README.md"]


@pytest.mark.parametrize("name", ["train-00003.parquet", "train-99999.tar", "eval-00000.arrow"])
def test_a_stray_shard_is_a_fault(out: Path, name: str) -> None:
    shutil.copy(shard(out, 0), out / name)
    assert problems(out) == {name: "not in the manifest, though named like a shard"}


def test_other_files_are_noted(out: Path) -> None:
    names = [
        ".hidden",
        "README.md",
        "train-0.parquet",
        "train-00000.parquet.bak",
        "train-000000.tar",
        "train-00001.txt",
    ]
    for name in names:
        (out / name).write_text("mine")
    for name in (".building", "cache", "zoo"):
        (out / name).mkdir()
    findings = verify(str(out))
    assert findings.ok
    assert findings.notes == [*names, ".building/ (of an unfinished build)", "cache/", "zoo/"]
    outcome = run("verify", out)
    assert outcome.code == 0
    assert outcome.out.startswith("note: .hidden is no part of the dataset\n")
    assert "note: nor are 4 others\n" in outcome.out


def test_a_manifest_of_another_name(out: Path) -> None:
    """The shards are looked for beside it, and it is no note."""
    (out / "_manifest").rename(out / "depo.description")
    findings = verify(str(out / "depo.description"))
    assert findings.ok
    assert findings.notes == []


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_text(tmp_path: Path, format: str) -> None:
    out = make(tmp_path / "out", task="capo", params={"num_people": 30, "exposures": 3}, examples="all", format=format)
    findings = verify(out, rederive=True)
    assert findings.ok
    assert findings.rederived == 90
    dataset = open_stored(out)
    edited = change_row(rows_of_shard(out, 1), "text", 3)
    rewrite_shard(dataset, 1, shard_bytes(dataset.manifest, edited, 40, 80), edited)
    (problem,) = problems(out, rederive=True).values()
    assert problem.startswith("row 43 differs from the row generated again: text is ")
    assert problems(out) == {}


# What a manifest hides that claims the damaged bytes to be right ---------------------------------------------------


def change_row(batch: RaggedBatch, column: str, row: int) -> RaggedBatch:
    """The batch with one value of a row changed."""
    columns = dict(batch.columns)
    old = columns[column]
    values = old.values.copy()
    at = row if old.offsets is None else old.offsets[row]
    values[at] = not values[at] if values.dtype == np.bool_ else values[at] ^ 1
    columns[column] = Column(old.kind, values, old.offsets)
    return RaggedBatch(columns)


def test_rows_edited_and_the_file_hashed_again(out: Path) -> None:
    dataset = open_stored(str(out))
    edited = change_row(rows_of_shard(str(out), 1), "ks", 7)
    rewrite_shard(dataset, 1, shard_bytes(dataset.manifest, edited, 40, 80))
    (problem,) = problems(out).values()
    assert "its rows have content sha256:" in problem


@pytest.mark.parametrize("column", ["input_ids", "loss_mask", "n", "queries", "ks"])
def test_rows_edited_and_all_digests_made_again(out: Path, column: str) -> None:
    """Nothing in the folder contradicts them: only the generator does."""
    dataset = open_stored(str(out))
    edited = change_row(rows_of_shard(str(out), 1), column, 7)
    rewrite_shard(dataset, 1, shard_bytes(dataset.manifest, edited, 40, 80), edited)
    if column == "loss_mask":
        more = int(edited.loss_mask.sum()) - dataset.manifest.shards[1].counts()["loss_tokens"]

        def change(document: Any) -> None:
            document["shards"][1]["loss_tokens"] += more
            document["totals"]["loss_tokens"] += more

        edit_manifest(str(out), change)
    assert problems(out) == {}
    found = problems(out, rederive=True, workers=2)
    assert list(found) == [dataset.manifest.shards[1].path]
    assert f"row 47 differs from the row generated again: {column} is " in found[dataset.manifest.shards[1].path]


def test_a_row_longer_than_generated(out: Path) -> None:
    dataset = open_stored(str(out))
    batch = rows_of_shard(str(out), 2)
    ks = batch.columns["ks"]
    assert ks.offsets is not None
    last = ks.offsets.copy()
    last[-1] += 1
    edited = RaggedBatch({**batch.columns, "ks": Column(ks.kind, np.append(ks.values, ks.values[-1]), last)})
    rewrite_shard(dataset, 2, shard_bytes(dataset.manifest, edited, 80, 100), edited)
    (problem,) = problems(out, rederive=True).values()
    count = int(ks.lengths()[-1])
    assert problem == f"row 99 differs from the row generated again: ks has {count + 1} entries, not {count}"


def test_a_boundary_between_rows_moved(out: Path) -> None:
    """All values are right, but one of them stands in the row after its own."""
    dataset = open_stored(str(out))
    batch = rows_of_shard(str(out), 2)
    ks = batch.columns["ks"]
    assert ks.offsets is not None
    moved = ks.offsets.copy()
    moved[6] -= 1
    edited = RaggedBatch({**batch.columns, "ks": Column(ks.kind, ks.values, moved)})
    rewrite_shard(dataset, 2, shard_bytes(dataset.manifest, edited, 80, 100), edited)
    assert problems(out) == {}
    (problem,) = problems(out, rederive=True).values()
    assert problem.startswith("row 85 differs from the row generated again: ks has ")


def test_counts_that_are_not_those_of_the_rows(out: Path) -> None:
    def change(document: Any) -> None:
        document["shards"][0]["tokens"] += 1
        document["totals"]["tokens"] += 1

    edit_manifest(str(out), change)
    (problem,) = problems(out).values()
    assert problem.startswith("its rows count {'tokens': ")


def test_a_file_that_claims_another_range(out: Path) -> None:
    dataset = open_stored(str(out))
    batch = rows_of_shard(str(out), 0)
    rewrite_shard(dataset, 0, shard_bytes(dataset.manifest, batch, 40, 80), batch)
    (problem,) = problems(out).values()
    assert problem == "the file says start='40'; the manifest says '0'"


def test_a_file_of_another_seed(out: Path, tmp_path: Path) -> None:
    """The rows of seed 1 in full, file and metadata, under the manifest of seed 0."""
    dataset = open_stored(str(out))
    other = open_stored(make(tmp_path / "other", seed=1, format=dataset.manifest.layout.format))
    batch = rows_of_shard(other.folder.url, 0)
    rewrite_shard(dataset, 0, shard_bytes(other.manifest, batch, 0, 40), batch)
    edit_manifest(str(out), lambda document: copy_counts(document, other.manifest))
    (problem,) = problems(out).values()
    assert problem.startswith("the file says identity=")


def copy_counts(document: Any, other: Manifest) -> None:
    for name, value in other.shards[0].counts().items():
        document["totals"][name] += value - document["shards"][0][name]
        document["shards"][0][name] = value


def test_other_columns(out: Path) -> None:
    dataset = open_stored(str(out))
    batch = rows_of_shard(str(out), 0)
    fewer = RaggedBatch({name: column for name, column in batch.columns.items() if name != "n"})
    manifest = dataclasses.replace(dataset.manifest, columns=fewer.kinds)
    rewrite_shard(dataset, 0, shard_bytes(manifest, fewer, 0, 40))
    assert list(problems(out)) == [dataset.manifest.shards[0].path]


def test_fewer_rows(out: Path) -> None:
    dataset = open_stored(str(out))
    batch = rows_of_shard(str(out), 0).slice(0, 39)
    rewrite_shard(dataset, 0, shard_bytes(dataset.manifest, batch, 0, 40), batch)
    (problem,) = problems(out).values()
    assert problem == "39 rows; the manifest says 40"


def test_any_flipped_byte_under_a_manifest_that_vouches_for_it(whole: Path, tmp_path: Path) -> None:
    """Either the rows are still the same, or verify says so; nothing else happens, in any format."""
    dataset = open_stored(str(whole))
    entry = dataset.manifest.shards[2]
    data = (whole / entry.path).read_bytes()
    folder = tmp_path / "flipped"
    folder.mkdir()
    found = 0
    for at in range(0, len(data), max(1, len(data) // 400)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        (folder / entry.path).write_bytes(damaged)
        vouched = vouch(dataclasses.replace(dataset, folder=open_folder(folder)), 2, bytes(damaged))
        findings = check(vouched)
        named = {path for path, _ in findings.problems if path == entry.path}
        found += len(named)
        if not named:
            batch = vouched.open_shard(2).read(0, 20)
            again = make_task("depo", {"N": 9, "K": 3}).batch(0, "train", 80, 20)
            assert all(np.array_equal(batch.columns[n].values, c.values) for n, c in again.columns.items())
    assert found > 200


def vouch(dataset: StoredDataset, index: int, data: bytes) -> StoredDataset:
    shards = list(dataset.manifest.shards)
    old = shards[index].as_dict()
    shards[index] = type(shards[index])(**{**old, "bytes": len(data), "sha256": sha256_of(data)})
    return dataclasses.replace(dataset, manifest=dataclasses.replace(dataset.manifest, shards=shards))


# --sample ----------------------------------------------------------------------------------------------------------


def test_the_sample_is_a_fixed_share_whatever_the_layout(tmp_path: Path) -> None:
    counts = set()
    for format, rows in (("parquet", 4096), ("arrow", 1000), ("webdataset", 333)):
        out = make(tmp_path / format, examples=4096, shard_examples=rows, format=format)
        counts.add(verify(out, rederive=True, sample=0.1).rederived)
    assert len(counts) == 1
    assert 300 < counts.pop() < 520  # 410 expected, standard deviation 19


def test_the_choice(tmp_path: Path) -> None:
    key = make_task("depo").key(0, "train")
    chosen = chosen_rows(key, 0, 100_000, 0.05)
    parts = [chosen_rows(key, at, count, 0.05) for at, count in ((0, 1), (1, 998), (999, 99_001))]
    assert np.array_equal(np.concatenate(parts), chosen)
    assert 4700 < chosen.sum() < 5300
    assert not (chosen & ~chosen_rows(key, 0, 100_000, 0.06)).any(), "a larger share holds the smaller one"
    other = chosen_rows(make_task("depo").key(1, "train"), 0, 100_000, 0.05)
    assert (chosen & other).sum() < 400, "another dataset, another choice: 250 in common expected"
    gaps = np.diff(np.flatnonzero(chosen))
    assert gaps.max() < 400  # geometric, mean 20
    assert len(set(gaps.tolist())) > 60


def test_only_the_sampled_rows_are_compared(tmp_path: Path) -> None:
    """One edited row is found by exactly those samples that hold it."""
    out = Path(make(tmp_path / "out"))
    dataset = open_stored(str(out))
    key = make_task("depo", {"N": 9, "K": 3}).key(0, "train")
    hits = 0
    for row in range(40, 80, 3):
        shutil.copytree(out, tmp_path / "edited", dirs_exist_ok=True)
        edited = change_row(rows_of_shard(str(out), 1), "ks", row - 40)
        rewrite_shard(open_stored(str(tmp_path / "edited")), 1, shard_bytes(dataset.manifest, edited, 40, 80), edited)
        held = bool(chosen_rows(key, row, 1, 0.3)[0])
        hits += held
        assert bool(problems(tmp_path / "edited", rederive=True, sample=0.3)) == held, row
    assert 0 < hits < 14


@pytest.mark.parametrize("share", ["0", "-0.1", "1.01", "nan", "inf"])
def test_an_illegal_share(tmp_path: Path, share: str) -> None:
    outcome = run("verify", tmp_path, "--sample", share)
    assert outcome.code == 2
    assert "legal: above 0, at most 1" in outcome.line


def test_what_was_rederived_is_said(tmp_path: Path) -> None:
    out = make(tmp_path / "out")
    assert run("verify", out).out.startswith(f"{out}: ok, 3 shards; 100 rows, ")
    assert "generated again" not in run("verify", out).out
    assert run("verify", out, "--rederive").out.endswith("; 100 rows generated again and equal\n")
    assert run("verify", out, "--sample", "1").out.endswith("; 100 rows generated again and equal\n")
    # A share of a small dataset may be no row: that must not read like a proof.
    assert run("verify", out, "--sample", "0.0001").out.endswith("; 0 rows generated again and equal\n")


# Manifests without files, other versions, other places ---------------------------------------------------------------


def test_a_manifest_of_rows_that_no_file_holds(tmp_path: Path) -> None:
    out = Path(make(tmp_path / "out"))

    def forget(document: Any) -> None:
        document["totals"]["bytes"] = None
        for entry in document["shards"]:
            entry["bytes"] = entry["sha256"] = None

    edit_manifest(str(out), forget)
    alone = tmp_path / "eval.json"
    (out / "_manifest").rename(alone)
    found = problems(alone)
    assert list(found) == ["train-00000.parquet", "train-00001.parquet", "train-00002.parquet"]
    assert set(found.values()) == {
        "the file is absent: the manifest describes rows that were not written; reproduce makes them"
    }
    assert run("verify", alone).code == 1
    assert "no file" in run("info", alone).out


@pytest.fixture
def old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rows of version 7 of Depo, which this package no longer generates."""
    with monkeypatch.context() as patch:
        patch.setattr(DepoTask, "version", 7)
        return make(tmp_path / "old")


def test_rows_of_another_version_can_be_read(old_version: str) -> None:
    assert problems(old_version) == {}
    assert run("verify", old_version).code == 0
    assert "depo version 7 (this package makes version 1: these rows can only be read)" in run("info", old_version).out
    shown = run("inspect", old_version, "--show", "1")
    assert shown.code == 0
    assert "not checked (another version of the task)" in shown.out
    assert run("overlap", old_version, old_version).code == 1
    shard(Path(old_version), 0).unlink()
    assert list(problems(old_version)) == ["train-00000.parquet"]


def test_but_not_generated_again(old_version: str, tmp_path: Path) -> None:
    with pytest.raises(VersionError):
        verify(old_version, rederive=True)
    for command in (["verify", old_version, "--rederive"], ["reproduce", old_version, "--out", tmp_path / "again"]):
        outcome = run(*command)
        assert outcome.code == 1
        assert "rows are depo version 7, this package generates version 1" in outcome.line
        assert outcome.out == ""
    assert not (tmp_path / "again").exists()


def test_the_version_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    """A manifest cannot be passed off as one of the current version."""
    out = make(tmp_path / "out")
    identity = open_stored(out).manifest.identity
    other = Identity(identity.task, 7, identity.params, identity.seed, identity.split)
    assert other.fingerprint != identity.fingerprint


def test_damage_in_an_object_store(s3_env: Server, s3_bucket: str) -> None:
    url = f"s3://{s3_bucket}/prefix"
    make(url)
    assert run("verify", url, "--rederive").code == 0
    data = bytearray(s3_env.get(s3_bucket, "prefix/train-00001.parquet"))
    data[len(data) // 2] ^= 1
    s3_env.put(s3_bucket, "prefix/train-00001.parquet", bytes(data))
    s3_env.put(s3_bucket, "prefix/train-00003.parquet", b"stray")
    s3_env.put(s3_bucket, "prefix/notes.txt", b"mine")
    outcome = run("verify", url, "--json")
    assert outcome.code == 1
    document = json.loads(outcome.out)
    assert [entry["path"] for entry in document["shards"]] == ["train-00001.parquet", "train-00003.parquet"]
    assert document["notes"] == ["notes.txt"]


def test_wrong_usage(tmp_path: Path) -> None:
    for args, words in (
        (["verify"], "Missing argument 'OUT'"),
        (["verify", tmp_path / "absent"], "nothing there; legal: a dataset"),
        (["verify", tmp_path], "nothing there; legal: a dataset"),
        (["verify", "depo"], "'depo' is a task, not a dataset; write ./depo"),
        (["verify", "nowhere://bucket/x"], "unknown scheme 'nowhere'"),
        (["verify", tmp_path, "--workers", "0"], "Invalid value for '--workers'"),
    ):
        outcome = run(*args)
        assert outcome.code == 2, outcome
        assert words in outcome.line, outcome
