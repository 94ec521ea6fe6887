"""Healing: a shard that cannot be read is generated, proved by the manifest; or refused; or also written again."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from folders import picture
from shard_parts import DAMAGES, ROWS, build, opened, right, same, spoil, wanted
from small_datasets import FORMATS, edit_manifest, rewrite_shard, rows_of_shard, run, shard_bytes

from synthshards.catalog import TASKS
from synthshards.dataset.stored import open_stored
from synthshards.errors import DataError, HealWarning, StorageError, VersionError
from synthshards.formats.parquet import compression
from synthshards.loaders.open_dataset import open_dataset
from synthshards.loaders.shards.healing import RegeneratedShard
from synthshards.pipelines.verify import verify
from synthshards.storage.local import LocalFolder

MIDDLE = "train-00001.parquet"


@pytest.fixture
def out(tmp_path: Path) -> str:
    return build(tmp_path / "set")


def files(out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).iterdir()}


def one_warning(caught: list[warnings.WarningMessage]) -> str:
    found = [str(each.message) for each in caught if each.category is HealWarning]
    assert len(found) == 1, found
    assert "\n" not in found[0]
    return found[0]


@pytest.mark.parametrize("how", DAMAGES)
def test_rows_are_the_same_with_one_warning_and_nothing_is_written(how: str, out: str) -> None:
    spoil(Path(out) / MIDDLE, how)
    before = picture(Path(out))
    shards, tally = opened(out, keep=1)
    with pytest.warns(HealWarning) as caught:
        assert all(right(shards) for _ in range(2))
    assert MIDDLE in one_warning(list(caught))
    assert picture(Path(out)) == before
    assert (tally["shards_healed"], tally["shards_opened"]) == (1, 4)


@pytest.mark.parametrize("how", DAMAGES)
def test_raise_names_the_file(how: str, out: str) -> None:
    spoil(Path(out) / MIDDLE, how)
    shards, tally = opened(out, heal="raise")
    for _ in range(2):
        with pytest.raises((DataError, StorageError)) as caught:
            shards.read(1, 0, 1)
        assert str(caught.value).replace("cannot read ", "").startswith(f"{Path(out) / MIDDLE}: ")
    assert right(shards, 0, 2)
    assert tally["shards_healed"] == 0


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "folder"])
def test_rewrite_puts_the_file_in_its_place(how: str, out: str) -> None:
    before = files(out)
    spoil(Path(out) / MIDDLE, how)
    shards, tally = opened(out, heal="rewrite")
    with pytest.warns(HealWarning) as caught:
        assert right(shards)
    assert one_warning(list(caught)).endswith("the file was written again")
    assert files(out) == before
    assert verify(out).ok
    assert (tally["shards_healed"], tally["shards_opened"]) == (1, 3)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_heals_and_is_rewritten(format: str, tmp_path: Path) -> None:
    out = build(tmp_path / "set", format=format)
    before = files(out)
    spoil(next(Path(out).glob("train-00002.*")), "flipped")
    with pytest.warns(HealWarning, match="train-00002"):
        assert right(opened(out)[0])
    with pytest.warns(HealWarning, match="train-00002"):
        assert right(opened(out, heal="rewrite")[0])
    assert files(out) == before


def test_a_folder_that_takes_no_file_costs_the_repair_not_the_rows(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(Path(out) / MIDDLE, "flipped")

    def refuse(self: LocalFolder, name: str, data: Any) -> None:
        raise StorageError(f"cannot write {name}: Read-only file system")

    monkeypatch.setattr(LocalFolder, "write", refuse)
    with pytest.warns(HealWarning, match=r"left as it is \(cannot write .*: Read-only file system\)"):
        assert right(opened(out, heal="rewrite")[0])


def test_what_stands_in_the_place_of_a_file_is_no_obstacle_to_rows(out: str) -> None:
    spoil(Path(out) / MIDDLE, "folder")
    with pytest.warns(HealWarning, match="left as it is"):
        assert right(opened(out, heal="rewrite")[0])
    assert {path.name for path in Path(out).iterdir()} == {
        "_manifest",
        *(f"train-0000{i}.parquet" for i in range(3)),
    }


def test_a_folder_of_the_first_layout_is_healed_and_keeps_its_names(out: str) -> None:
    (Path(out) / "_manifest").rename(Path(out) / "manifest.json")
    before = files(out)
    spoil(Path(out) / MIDDLE, "truncated")
    with pytest.warns(HealWarning):
        assert right(opened(out, heal="rewrite")[0])
    assert files(out) == before


def test_other_bytes_for_the_same_rows_are_not_written(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another version of the compressor would make them; the advice that the warning gives is good."""
    spoil(Path(out) / MIDDLE, "truncated")
    before = files(out)
    monkeypatch.setattr(compression, "_ZSTD_LEVEL", 7)
    with pytest.warns(HealWarning) as caught:
        assert right(opened(out, heal="rewrite")[0])
    line = one_warning(list(caught))
    assert files(out) == before
    advice = f"synthshards reproduce {out} --out {out}"
    assert advice in line
    assert run(*advice.split()[1:]).code == 0
    assert verify(out).ok
    assert right(opened(out, heal="raise")[0])


@pytest.mark.parametrize("heal", ["regenerate", "rewrite"])
def test_rows_that_are_not_those_of_the_manifest_are_never_handed_out(heal: str, out: str) -> None:
    spoil(Path(out) / MIDDLE, "absent")
    edit_manifest(out, lambda document: document["shards"][1].update(content="sha256:" + "0" * 64))
    shards, before = opened(out, heal=heal)[0], files(out)
    for _ in range(2):
        with pytest.raises(DataError, match=r"train-00001\.parquet: the file is absent; generated again, its rows are"):
            shards.read(1, 0, 1)
    assert right(shards, 0, 2)
    assert files(out) == before


@pytest.mark.parametrize("heal", ["regenerate", "rewrite"])
def test_rows_of_another_task_version_are_read_and_not_generated(
    heal: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = wanted(1, 0, 10)
    monkeypatch.setattr(TASKS["depo"][0], "version", 2)
    shards, _ = opened(out, heal=heal)
    assert same(shards.read(1, 0, 10), law)
    spoil(Path(out) / MIDDLE, "flipped")
    before = files(out)
    with pytest.raises(VersionError) as caught:
        shards.read(1, 0, 10)
    line = str(caught.value)
    assert MIDDLE in line
    assert "depo version 1, this package generates version 2" in line
    assert "install a release" in line
    assert line.endswith("or restore the file")
    assert files(out) == before


def unwritten(document: Any) -> None:
    document["totals"]["bytes"] = None
    for shard in document["shards"]:
        shard["bytes"] = shard["sha256"] = None


@pytest.mark.parametrize("heal", ["regenerate", "rewrite", "raise"])
def test_rows_that_no_file_holds_are_generated_in_silence(heal: str, out: str) -> None:
    edit_manifest(out, unwritten)
    for name in list(files(out)):
        if name != "_manifest":
            (Path(out) / name).unlink()
    shards, tally = opened(out, heal=heal)
    assert right(shards)
    assert tally.counts == {}
    assert list(files(out)) == ["_manifest"]


def test_such_rows_are_proved_too(out: str) -> None:
    edit_manifest(out, unwritten)
    edit_manifest(out, lambda document: document["shards"][1].update(content="sha256:" + "0" * 64))
    shards = opened(out)[0]
    assert right(shards, 0)
    with pytest.raises(DataError, match="not those that the manifest promises"):
        shards.read(1, 0, 1)


@pytest.fixture
def alone(out: str, tmp_path: Path) -> Path:
    """A manifest far from its shards."""
    (tmp_path / "elsewhere").mkdir()
    return Path(shutil.copy(Path(out) / "_manifest", tmp_path / "elsewhere" / "_manifest"))


def test_a_manifest_that_stands_alone_needs_no_warning(alone: Path) -> None:
    shards, tally = opened(str(alone))
    assert right(shards)
    assert tally["shards_healed"] == 0


def test_a_folder_that_has_lost_all_its_shards_does(alone: Path) -> None:
    with pytest.warns(HealWarning) as caught:
        assert right(opened(str(alone.parent))[0])
    assert len(caught) == 3


def test_so_does_a_manifest_with_some_of_its_shards(alone: Path, out: str) -> None:
    shutil.copy(Path(out) / MIDDLE, alone.parent)
    with pytest.warns(HealWarning) as caught:
        assert right(opened(str(alone))[0])
    assert len(caught) == 2


def test_raise_means_it_also_for_a_manifest_alone(alone: Path) -> None:
    with pytest.raises(DataError, match=r"train-00000\.parquet: the file is absent"):
        opened(str(alone), heal="raise")[0].read(0, 0, 1)


def test_rewrite_fills_the_folder_of_a_manifest_alone(alone: Path, out: str) -> None:
    with pytest.warns(HealWarning):
        assert right(opened(str(alone), heal="rewrite")[0])
    assert files(str(alone.parent)) == files(out)


@pytest.mark.parametrize("content", [b"no shard at all", None])
def test_bytes_that_the_manifest_vouches_for_and_that_are_no_shard(content: bytes | None, out: str) -> None:
    """Found when the file is opened, or only when one of its pages is decoded."""
    data = bytearray((Path(out) / MIDDLE).read_bytes())
    page = data.rindex(b"\x28\xb5\x2f\xfd")  # what begins a zstd frame
    data[page : page + 40] = bytes(40)
    rewrite_shard(open_stored(out), 1, content or bytes(data))
    shards, tally = opened(out, keep=1)
    with pytest.warns(HealWarning, match=MIDDLE) as caught:
        assert all(right(shards) for _ in range(2))
    one_warning(list(caught))
    assert tally["shards_healed"] == 1
    with pytest.raises(DataError, match=MIDDLE):
        right(opened(out, heal="raise")[0])


def test_a_shard_with_too_few_rows_is_healed(tmp_path: Path) -> None:
    out = build(tmp_path / "set", examples=500, shard_examples=500)
    stored, rows = open_stored(out), rows_of_shard(out, 0)
    rewrite_shard(stored, 0, shard_bytes(stored.manifest, rows.slice(0, 499), 0, 500))
    with pytest.warns(HealWarning, match="499 rows; the manifest says 500"):
        assert same(opened(out)[0].read(0, 490, 500), wanted(0, 490, 500))


def test_whoever_makes_the_warning_an_error_gets_it_once(out: str) -> None:
    spoil(Path(out) / MIDDLE, "absent")
    shards, _ = opened(out)
    with warnings.catch_warnings():
        warnings.simplefilter("error", HealWarning)
        with pytest.raises(HealWarning, match=MIDDLE):
            shards.read(1, 0, 1)
        assert right(shards)


def test_the_proof_is_made_once(out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(Path(out) / MIDDLE, "absent")
    proofs, prove = [], RegeneratedShard.prove
    monkeypatch.setattr(RegeneratedShard, "prove", lambda self: (proofs.append(1), prove(self)))
    shards, _ = opened(out, keep=1)
    with pytest.warns(HealWarning):
        assert right(shards)
    assert right(shards)
    assert proofs == [1]


def test_generated_rows_are_memory_of_their_own(out: str) -> None:
    spoil(Path(out) / MIDDLE, "absent")
    shards, _ = opened(out)
    with pytest.warns(HealWarning):
        first = shards.read(1, 0, 50)
    shards.read(1, 1000, 1050)
    assert same(first, wanted(1, 0, 50))
    assert same(shards.read(1, 5, 5), wanted(1, 5, 5))
    assert len(shards.read(1, ROWS[1], ROWS[1])) == 0


def test_the_manifest_stays_valid_json_whatever_happens(out: str) -> None:
    spoil(Path(out) / MIDDLE, "absent")
    before = (Path(out) / "_manifest").read_bytes()
    with pytest.warns(HealWarning):
        assert right(opened(out, heal="rewrite")[0])
    assert (Path(out) / "_manifest").read_bytes() == before
    assert json.loads(before)["layout"]["num_shards"] == 3


@pytest.mark.parametrize("columns", [(), ("n",)])
def test_a_block_joins_a_healed_shard_s_rows_with_those_of_files(columns: tuple[str, ...], out: str) -> None:
    # Block 2 lies in two shards. A generated row has every column, one from a file those that are wanted.
    expected = [batch["index"].tolist() for batch in open_dataset(out).batches(8, columns=columns)]
    (Path(out) / "train-00000.parquet").unlink()
    stream = open_dataset(out).batches(8, columns=columns)
    with pytest.warns(HealWarning):
        batches = list(stream)
    assert [batch["index"].tolist() for batch in batches] == expected
    assert all(set(columns) <= batch.keys() for batch in batches)
