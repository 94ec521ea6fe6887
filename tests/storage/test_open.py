"""Where a folder is: paths and URLs, right and wrong, and what opening them loads."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from textwrap import dedent

import pytest
from helpers import fails, python

from synthshards.errors import UsageError
from synthshards.storage.open import open_folder, split_url

MANIFEST = "_manifest"


def test_local_paths_stay_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    relative = open_folder("data/x/")
    assert (relative.url, relative.where("f"), relative.path) == ("data/x", "data/x/f", tmp_path / "data" / "x")
    assert open_folder(".").where(MANIFEST) == MANIFEST
    assert open_folder("/").url == "/"
    home = open_folder("~/x")
    assert (home.url, home.path) == ("~/x", tmp_path / "home" / "x")
    assert open_folder(Path("a%20b")).path == tmp_path / "a%20b"
    decoded = open_folder("file:///tmp/a%20b/")
    assert (decoded.url, decoded.path, decoded.is_local) == ("file:///tmp/a%20b", Path("/tmp/a b"), True)
    (tmp_path / "data").write_bytes(b"")
    fails(relative.make, f"cannot create the folder data/x: {tmp_path}/data is a file")


def test_a_relative_folder_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in pickles; messages show it as it was written."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    folders = [open_folder("data"), split_url("data/_manifest")[0], open_folder(Path("data"))]
    monkeypatch.chdir(tmp_path / "elsewhere")
    for folder in (*folders, *pickle.loads(pickle.dumps(folders))):
        folder.write("x", b"abc")
        assert (tmp_path / "data" / "x").read_bytes() == b"abc"
        assert (folder.list(), folder.url, folder.where("x")) == ({"x": 3}, "data", "data/x")
        folder.delete("x")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_current_folder_that_is_gone_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for location in (".", "data"):
        fails(lambda location=location: open_folder(location), f"cannot open {location!r}: the current folder is gone")
    assert open_folder(tmp_path).list() == {}


def test_urls_keep_their_query() -> None:
    folder = open_folder("s3://bucket/some/prefix/?region=eu-west-1&scheme=http")
    assert folder.url == "s3://bucket/some/prefix?region=eu-west-1&scheme=http"
    assert folder.where("train-00000.parquet") == "s3://bucket/some/prefix/train-00000.parquet"
    assert (folder.path, folder.is_local) == (None, False)
    assert open_folder("S3://bucket").where("x") == "S3://bucket/x"


@pytest.mark.parametrize(
    ("location", "url", "name"),
    [
        ("data/x/_manifest", "data/x", MANIFEST),
        ("_manifest", ".", MANIFEST),
        ("/_manifest", "/", MANIFEST),
        ("a%20b/c%20d", "a%20b", "c%20d"),
        ("why?x=1/f", "why?x=1", "f"),
        (Path("data/x/_manifest"), "data/x", MANIFEST),
        ("file:///a%20b/c%20d", "file:///a%20b", "c d"),
        ("file:///_manifest", "file:///", MANIFEST),
        ("s3://bucket/_manifest", "s3://bucket", MANIFEST),
        ("s3://bucket/p/c%20d?region=x", "s3://bucket/p?region=x", "c%20d"),
        ("s3://bucket/p/m?endpoint_override=http://h:1", "s3://bucket/p?endpoint_override=http://h:1", "m"),
        ("memory://x/_manifest", "memory://x", MANIFEST),
    ],
)
def test_split_url(location: str | Path, url: str, name: str) -> None:
    folder, found = split_url(location)
    assert (folder.url.rstrip("/"), found) == (url.rstrip("/"), name)


@pytest.mark.parametrize("location", ["", "data/", "..", ".", "s3://bucket", "s3://bucket/p/", "s3://bucket/?region=x"])
def test_split_url_needs_a_name(location: str) -> None:
    with pytest.raises(UsageError, match="names no file"):
        split_url(location)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "names no folder"),
        ("nul\0", "names no folder"),
        ("~no-such-user-at-all/x", "cannot expand"),
        ("s4://bucket/x", "unknown scheme 's4' .*a local path, file://, s3://, gs://"),
        ("gsx://bucket/x", "unknown scheme 'gsx' .*did you mean 'gs'"),
        ("file://host/x", "file:///absolute/path"),
        ("s3://", "must be s3://bucket/prefix"),
        ("s3:///x", "must be s3://bucket/prefix"),
        ("s3://bucket/a//b", "must be s3://bucket/prefix"),
        ("s3://bucket/a/../b", "must be s3://bucket/prefix"),
        ("s3://bucket/x?regoin=x", "unknown option 'regoin' .*region, scheme.*did you mean 'region'"),
        ("s3://bucket/x?anonymous=yes", "must be true or false"),
        ("gs://bucket/x?colour=red", "cannot use gs://bucket.*colour"),
        ("s3://bucket/x?scheme=ftp", "must be http or https"),
        ("s3://bucket/a\nb", r"'s3://bucket/a\\nb' holds a control character"),
        ("s3://bucket/\udcff", r"not UTF-8, as no name in s3:// may"),
        ("memory://", "'memory://' names no folder"),
        ("abfss://nothing", "cannot use abfss://nothing.*account name"),
    ],
)
def test_wrong_locations(location: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_folder(location)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as caught:
        open_folder("s3://AKIAEXAMPLE:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError, match="AWS_ACCESS_KEY_ID") as caught:
        open_folder("s3://AKIAEXAMPLE:hunter2@bucket/a//b")
    assert "hunter2" not in str(caught.value)


def test_file_urls_name_any_file() -> None:
    """Also one whose name is not UTF-8, encoded or not."""
    name = os.fsdecode(b"a\xff")
    for url in ("file:///tmp/a%FF", f"file:///tmp/{name}"):
        assert open_folder(url).path == Path("/tmp", name)
        assert split_url(f"{url}/b%FF")[1] == os.fsdecode(b"b\xff")


def test_local_work_loads_no_file_system_library() -> None:
    done = python(
        "-c",
        dedent("""
        import sys
        from synthshards.storage.open import open_folder
        open_folder("data").list()
        print([name for name in ("pyarrow.fs", "fsspec", "botocore") if name in sys.modules])
        """),
    )
    assert done.stdout == "[]\n", done.stderr
    assert not re.search("Warning", done.stderr)
