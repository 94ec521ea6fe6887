"""Builds in an object store (moto): as on a disk, but without a lock and without a rename."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SMALL, files, names, small
from helpers import SUPPORT, python
from s3 import Server

from synthshards.errors import StorageError, UsageError
from synthshards.pipelines.build import build, seal
from synthshards.pipelines.folder.journal import Journal
from synthshards.pipelines.folder.preflight import declare, look
from synthshards.pipelines.folder.scratch import clear_dataset
from synthshards.storage.folder import SCRATCH
from synthshards.storage.open import open_folder
from synthshards.storage.remote import RemoteFolder

CLI = [sys.executable, "-m", "synthshards"]


@pytest.fixture
def objects(s3_bucket: str, s3_env: Server) -> Callable[[], dict[str, bytes]]:
    """Every object of the bucket with its bytes, "prefix/" left out of the names."""

    def fetch() -> dict[str, bytes]:
        return {key.removeprefix("prefix/"): s3_env.get(s3_bucket, key) for key in s3_env.objects(s3_bucket)}

    return fetch


def local(folder: Path, shards: int, **options: Any) -> dict[str, bytes]:
    build(small(shards, **options), str(folder))
    return files(folder)


def test_a_prefix_holds_what_a_folder_holds_finished_grown_and_overwritten(
    s3_url: str, objects: Any, tmp_path: Path, cli: Any
) -> None:
    assert cli("build", *SMALL, "--shards", "2", "--out", s3_url).code == 0
    assert objects() == local(tmp_path / "2", 2)
    assert cli("build", *SMALL, "--shards", "4", "--out", s3_url).code == 0
    assert objects() == local(tmp_path / "4", 4)
    again = cli("build", *SMALL, "--shards", "4", "--out", s3_url)
    assert (again.code, "0 shards made, 4 kept" in again.out) == (0, True)
    options = ["--shards", "1", "--format", "webdataset", "--seed", "1", "--overwrite"]
    assert cli("build", *SMALL, *options, "--out", s3_url).code == 0
    assert objects() == local(tmp_path / "1", 1, format="webdataset", seed=1)


def test_a_prefix_of_the_first_layout_grows_under_the_name_that_it_has(
    s3_url: str, s3_bucket: str, s3_env: Server, objects: Any, tmp_path: Path, cli: Any
) -> None:
    build(small(2), s3_url)
    s3_env.put(s3_bucket, "prefix/manifest.json", objects()["_manifest"])
    for command in (["verify"], ["build", *SMALL, "--shards", "4", "--out"]):
        ended = cli(*command, s3_url)
        assert ended.code == 1
        assert "holds _manifest and manifest.json; legal: one of them" in ended.err
    open_folder(s3_url).delete("_manifest")
    assert cli("verify", s3_url).code == 0
    build(small(4), s3_url)
    found = local(tmp_path / "4", 4)
    assert objects() == {"manifest.json": found.pop("_manifest"), **found}


def test_parts_of_two_machines_are_sealed(s3_url: str, objects: Any, tmp_path: Path, cli: Any) -> None:
    for part in ("2-2", "0-1"):
        ended = cli("build", *SMALL, "--shards", "4", "--out", s3_url, "--only-shards", part)
        assert (ended.code, "synthshards seal s3://" in ended.out) == (0, True)
    ended = cli("seal", s3_url)
    assert ended.code == 2
    assert "1 of 4 shards are missing; make them with the same build command and --only-shards 3-3" in ended.err
    build(small(4), s3_url, only_shards="3")
    assert "_manifest" not in objects()
    assert cli("seal", s3_url).code == 0
    assert objects() == local(tmp_path / "x", 4)


@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_what_does_not_belong_there_is_refused_and_nothing_changes(
    state: str, s3_url: str, objects: Any, cli: Any
) -> None:
    build(small(3), s3_url, only_shards=None if state == "finished" else "0-1")
    before = objects()
    for options in (["--shards", "3", "--seed", "1"], ["--shards", "2"], ["--shards", "3", "--format", "arrow"]):
        ended = cli("build", *SMALL, "--out", s3_url, *options)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert "legal:" in ended.err
    assert objects() == before


def test_a_bucket_that_is_not_there_is_said_in_one_line(s3_env: Server, cli: Any) -> None:
    ended = cli("build", *SMALL, "--shards", "1", "--out", "s3://no-such-bucket/prefix")
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "no-such-bucket" in ended.err
    assert "no-such-bucket" not in s3_env.buckets()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["build", "seal"])
def test_killed_before_and_after_every_change_the_same_command_gives_the_same_objects(
    case: str, s3_bucket: str
) -> None:
    ended = python(str(SUPPORT / "kill_every_s3.py"), s3_bucket, case)
    ((steps, problems),) = json.loads(ended.stdout).values()
    assert problems == []
    assert steps >= 4


@pytest.mark.parametrize("moment", ["while a shard is on its way", "while the manifest is on its way"])
def test_killed_in_an_upload_no_object_is_half_there_and_the_next_run_goes_on(
    moment: str, s3_url: str, s3_proxy: Server, objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = local(tmp_path / "x", 4)
    wanted = "PUT .*train-00002" if "shard" in moment else "PUT .*_manifest"
    s3_proxy.delay(wanted, 3)
    process = subprocess.Popen([*CLI, "build", *SMALL, "--shards", "4", "--workers", "1", "--out", s3_url])
    seen: list[str] = []
    while not any(wanted.split("*")[1] in request for request in seen):
        time.sleep(0.05)
        seen += s3_proxy.seen()
        assert process.poll() is None
    process.kill()
    process.wait()
    s3_proxy.refuse("")
    assert "_manifest" not in objects()
    time.sleep(3.2)  # what the proxy holds arrives: whole, as a store takes no less
    for name, data in objects().items():
        assert name.startswith(SCRATCH) or data == whole[name]
    subprocess.run([*CLI, "build", *SMALL, "--shards", "4", "--out", s3_url], check=True, capture_output=True)
    assert objects() == whole


def test_a_store_that_refuses_is_one_line_and_what_was_done_is_kept(
    s3_url: str, s3_proxy: Server, objects: Any, tmp_path: Path, cli: Any
) -> None:
    s3_proxy.refuse("PUT .*train-00002", 403, "AccessDenied", "Quota exceeded")
    command = ["build", *SMALL, "--shards", "4", "--workers", "1", "--out", s3_url]
    ended = cli(*command)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert f"cannot write {s3_url}/train-00002.parquet: Quota exceeded" in ended.err
    assert {"_manifest", "train-00002.parquet"}.isdisjoint(objects())
    s3_proxy.refuse("")
    ended = cli(*command)
    assert ended.code == 0
    assert int(ended.out.split(" kept")[0].split()[-1]) >= 2
    assert objects() == local(tmp_path / "x", 4)


def test_the_first_refusal_is_the_one_to_report(s3_url: str, s3_proxy: Server, cli: Any) -> None:
    """Records that can then not be written either are no news."""
    s3_proxy.refuse("PUT .*(train-00002|records)")
    ended = cli("build", *SMALL, "--shards", "4", "--workers", "1", "--out", s3_url)
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert f"cannot write {s3_url}/train-00002.parquet" in ended.err


def test_ctrl_c_does_not_wait_for_a_slow_upload(s3_url: str, s3_proxy: Server, objects: Any, tmp_path: Path) -> None:
    s3_proxy.delay("PUT .*train-", 8)
    process = subprocess.Popen(
        [*CLI, "build", *SMALL, "--shards", "4", "--out", s3_url], stderr=subprocess.PIPE, text=True
    )
    while not any("train-" in request for request in s3_proxy.seen()):
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "stopped; the same command goes on\n")
    assert time.monotonic() - began < 5
    s3_proxy.refuse("")
    build(small(4), s3_url)
    assert set(objects()) == names(4)


# Without a lock.


@pytest.mark.parametrize("code", ["NoSuchKey", "ResourceNotFound"])
def test_a_plan_that_is_deleted_while_we_look_is_no_plan(code: str, s3_url: str, s3_proxy: Server) -> None:
    """Between pyarrow's HEAD and its GET: the build that declared it has just finished."""
    build(small(2, seed=1), s3_url, only_shards="0")
    s3_proxy.refuse("GET .*plan-", 404, code)
    assert look(open_folder(s3_url)).plans == {}


@pytest.mark.slow
def test_two_builds_of_one_identity_at_once_are_harmless(s3_url: str, objects: Any, tmp_path: Path) -> None:
    args = [*CLI, "build", *SMALL, "--shards", "6", "--out", s3_url]
    both = [subprocess.Popen(args, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ended = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    assert objects() == local(tmp_path / "x", 6)


def test_a_build_that_another_one_overtakes_ends_well_and_leaves_nothing(
    s3_url: str, objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other comes and finishes while this one is about to write its second shard; then the same for a part."""
    monkeypatch.setattr("synthshards.pipelines.folder.journal.FLUSH_SECONDS", 0.0)
    real = RemoteFolder.write

    def write(self: RemoteFolder, name: str, data: Any) -> None:
        if name == "train-00001.parquet":
            monkeypatch.setattr(RemoteFolder, "write", real)
            build(small(3), s3_url)
        real(self, name, data)

    for part in (None, "1-2"):
        monkeypatch.setattr(RemoteFolder, "write", write)
        build(small(3), s3_url, only_shards=part)
        assert objects() == local(tmp_path / "x", 3)
        for name in files(tmp_path / "x"):
            open_folder(s3_url).delete(name)


def test_a_larger_build_that_finishes_first_keeps_its_manifest(
    s3_url: str, objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RemoteFolder.write

    def write(self: RemoteFolder, name: str, data: Any) -> None:
        real(self, name, data)
        if name == "train-00001.parquet":
            monkeypatch.setattr(RemoteFolder, "write", real)
            build(small(5), s3_url)

    monkeypatch.setattr(RemoteFolder, "write", write)
    with pytest.raises(UsageError, match="holds 5 shards"):
        build(small(2), s3_url)
    assert {name for name in objects() if not name.startswith(SCRATCH)} == names(5)
    build(small(5), s3_url)
    assert objects() == local(tmp_path / "x", 5)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_manifest_vouches_for_no_shard_that_another_build_deleted_meanwhile(
    goes_on: bool, s3_url: str, objects: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RemoteFolder.write

    def write(self: RemoteFolder, name: str, data: Any) -> None:
        if name == "train-00001.parquet":
            monkeypatch.setattr(RemoteFolder, "write", real)
            clear_dataset(open_folder(s3_url))  # another build, with --overwrite
            if goes_on:
                declare(open_folder(s3_url), small(3), None, alone=False)
        real(self, name, data)

    monkeypatch.setattr(RemoteFolder, "write", write)
    with pytest.raises(StorageError, match=r"1 shards are no longer what was written \(such as train-00000"):
        build(small(3), s3_url, workers=1)
    assert "_manifest" not in objects()
    build(small(3), s3_url)  # the same again, as the error says
    assert objects() == local(tmp_path / "x", 3)


@pytest.mark.parametrize("moment", ["before we declare", "before we look again", "at the end"])
def test_of_two_identities_that_come_at_once_at_most_one_goes_on(
    moment: str, s3_url: str, objects: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RemoteFolder.write
    other: list[str] = []

    def come() -> None:
        monkeypatch.setattr(RemoteFolder, "write", real)
        try:
            declare(open_folder(s3_url), small(seed=1), None, alone=False)
        except UsageError as error:
            other.append(str(error))

    def write(self: RemoteFolder, name: str, data: Any) -> None:
        if moment == "before we declare":
            come()
        if moment != "at the end" or name == "train-00003.parquet":
            real(self, name, data)
            come()
        else:
            real(self, name, data)

    monkeypatch.setattr(RemoteFolder, "write", write)
    if moment == "before we declare":
        with pytest.raises(UsageError, match="seed is 1 there, 0 here"):
            build(small(), s3_url)
        assert set(objects()) == {f"{SCRATCH}/{small(seed=1).file}"}
    else:
        build(small(), s3_url)
        assert "seed is 0 there, 1 here" in other[0]
        assert set(objects()) == names(4)


@pytest.mark.slow
def test_two_identities_at_once_leave_one_or_none_but_never_a_mixture(
    s3_url: str, objects: Any, tmp_path: Path
) -> None:
    args = [[*CLI, "build", *SMALL, "--shards", "4", "--seed", seed, "--out", s3_url] for seed in "01"]
    both = [subprocess.Popen(each, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in args]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) in ([0, 2], [2, 2]), errors
    left = objects()
    for seed, code in enumerate(codes):
        if code == 0:
            assert left == local(tmp_path / str(seed), 4, seed=seed)
    if codes == [2, 2]:
        assert left == {}


# Requests.


def test_records_gather_in_few_objects(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A log flushes after a second at first, then after a hundredth of the time that it has run."""
    clock = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    written: list[str] = []
    monkeypatch.setattr(RemoteFolder, "write", lambda self, name, data: written.append(name))
    entry = build(small(1), str(tmp_path)).manifest.shards[0]  # type: ignore[union-attr]
    with Journal(open_folder(s3_url), small(1)) as journal:
        for _ in range(36_000):
            clock += 1.0  # ten hours, a shard a second
            journal.append(entry)
            if clock == 100:
                assert len(written) >= 99
    assert len(written) < 1000


def test_a_finished_prefix_is_recognized_by_a_few_requests_that_only_read(
    s3_url: str, s3_proxy: Server, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(small(3), s3_url)
    s3_proxy.seen()
    build(small(3), s3_url)
    requests = s3_proxy.seen()
    assert len(requests) <= 7, requests
    assert {request.split()[0] for request in requests} <= {"GET", "HEAD"}


def test_sealing_what_is_sealed_changes_nothing(s3_url: str, objects: Any) -> None:
    build(small(2), s3_url, only_shards="0-1")
    seal(s3_url)
    before = objects()
    assert seal(s3_url).layout.num_shards == 2
    assert objects() == before
