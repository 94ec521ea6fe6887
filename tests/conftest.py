"""Fixtures that more than one test file uses."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator

import pytest
from helpers import Ended
from processes import Processes
from s3 import Server

from synthshards.pipelines.execution.executor import Executor
from synthshards.pipelines.execution.threads import run_in_threads

# A shell's background jobs begin with Ctrl-C ignored, and so would all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process: ``cli("build", "depo", …)`` gives an `Ended`."""
    from synthshards.cli import main

    def run(*args: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["synthshards", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """An executor of two other processes, which import the package once a session."""
    executor = Processes()
    yield executor
    executor.close()


@pytest.fixture(params=["threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Executor:
    """Every executor in turn: what must not depend on who does the work."""
    return run_in_threads if request.param == "threads" else request.getfixturevalue("processes")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """An S3 server on 127.0.0.1 for the whole session."""
    pytest.importorskip("moto.server")
    with Server("moto") as server:
        yield server


@pytest.fixture
def s3_env(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and an environment (that of subprocesses, too) which leads to it and to no other."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    return s3_server


@pytest.fixture
def s3_bucket(s3_env: Server) -> str:
    """The name of a fresh, empty bucket."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_env.make_bucket(bucket)
    return bucket


@pytest.fixture
def s3_url(s3_bucket: str) -> str:
    """A fresh place for a dataset in an object store: "s3://bucket-…/prefix"."""
    return f"s3://{s3_bucket}/prefix"


@pytest.fixture(scope="session")
def s3_proxy_server(s3_server: Server) -> Iterator[Server]:
    with Server("proxy", s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_proxy(s3_env: Server, s3_proxy_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same store through a proxy that can refuse or delay requests; the environment leads to the proxy."""
    s3_proxy_server.refuse("")
    s3_proxy_server.seen()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy_server.endpoint)
    return s3_proxy_server


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread, afterwards on as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
