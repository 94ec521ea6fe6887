"""Endpoint and region of S3 from the environment and the config files of AWS: what botocore says, where it is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from s3 import Server

from synthshards.errors import UsageError
from synthshards.storage import aws_config
from synthshards.storage.open import open_folder

CONFIG = """
    [default]
    region = eu-west-3
    endpoint_url = http://all:1

    [profile bare]
    output = json

    [profile own]
    region = garage
    endpoint_url = http://all:2
    services = lab

    [profile other]
    endpoint_url = http://all:4
    services = compute

    [profile amazon]
    endpoint_url = http://all:3
    ignore_configured_endpoint_urls = true

    [profile broken]
    services = absent

    [services lab]
    s3 =
      endpoint_url = http://s3:2
    dynamodb =
      endpoint_url = http://db:2

    [services compute]
    ec2 =
      endpoint_url = http://ec2:4
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file, and nothing else that says where S3 is."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "config"
    path.write_text(dedent(CONFIG))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


def settings() -> tuple[str | None, str | None]:
    return aws_config.endpoint(), aws_config.region()


def test_environment_alone(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.unlink()
    monkeypatch.setitem(sys.modules, "botocore.session", None)  # it is not needed
    assert settings() == (None, None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "a")
    assert settings() == ("http://env:1", "a")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://env:2")
    monkeypatch.setenv("AWS_REGION", "b")
    assert settings() == ("http://env:2", "b")
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")
    assert settings() == (None, "b")


@pytest.mark.parametrize(
    ("profile", "endpoint", "region"),
    [
        ("", "http://all:1", "eu-west-3"),
        ("bare", None, None),
        ("own", "http://s3:2", "garage"),
        ("other", "http://all:4", None),
        ("amazon", None, None),
    ],
)
def test_profiles(
    config: Path, monkeypatch: pytest.MonkeyPatch, profile: str, endpoint: str | None, region: str | None
) -> None:
    session = pytest.importorskip("botocore.session")
    monkeypatch.setenv("AWS_PROFILE", profile) if profile else None
    assert settings() == (endpoint, region)
    client = session.Session().create_client(
        "s3", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    assert client.meta.endpoint_url == (endpoint or "https://s3.amazonaws.com")


def test_the_environment_goes_before_the_files(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://env:1")
    monkeypatch.setenv("AWS_REGION", "a")
    assert settings() == ("http://env:1", "a")
    monkeypatch.setenv("AWS_PROFILE", "amazon")
    assert settings() == (None, "a")  # the profile ignores the variable, too
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")
    assert settings() == ("http://env:1", "a")


def test_an_endpoint_of_the_credentials_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    credentials = config.with_name("credentials")
    credentials.write_text("[default]\nendpoint_url = http://all:5\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    config.unlink()
    assert settings() == ("http://all:5", None)


@pytest.mark.parametrize(
    ("profile", "text", "message"),
    [
        ("absent", CONFIG, r"config\): The config profile \(absent\) could not be found"),
        ("broken", CONFIG, r"names the section \[services absent\], which is not there"),
        ("", "[default\nendpoint_url = x", "Unable to parse config file"),
    ],
)
def test_files_that_cannot_be_used(
    config: Path, monkeypatch: pytest.MonkeyPatch, profile: str, text: str, message: str
) -> None:
    pytest.importorskip("botocore")
    config.write_text(dedent(text))
    monkeypatch.setenv("AWS_PROFILE", profile) if profile else None
    with pytest.raises(UsageError, match=message) as caught:
        aws_config.endpoint()
    assert "\n" not in str(caught.value)


def test_without_botocore(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never Amazon's store in place of the one that is meant."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    wanted = "config sets .*, which only botocore can read: pip install 'synthshards\\[remote\\]'"
    with pytest.raises(UsageError, match=wanted):
        open_folder("s3://bucket/x").list()
    config.write_text("[default]\nregion = eu-west-3\n")
    assert aws_config.endpoint() is None
    assert aws_config.region()  # by pyarrow, which has perhaps read another file before


def test_the_store_of_the_config_file(config: Path, s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    config.write_text(f"[profile lab]\nregion = us-east-1\nendpoint_url = {s3_server.endpoint}\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    s3_server.make_bucket("config-file")
    folder = open_folder("s3://config-file/x")
    folder.write("a", b"abc")
    folder.delete("a")
    folder.write("b", b"abc")
    assert s3_server.objects("config-file") == {"x/b": 3}
