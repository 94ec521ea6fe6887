"""S3: keys, uploads that fail or are interrupted, credentials, endpoints and forks."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import uuid
from textwrap import dedent
from typing import Any

import pyarrow as pa
import pytest
from helpers import fails, python
from s3 import Server

from synthshards.errors import StorageError, UsageError
from synthshards.storage import s3 as storage_s3
from synthshards.storage.folder import SCRATCH, Folder
from synthshards.storage.open import open_folder, split_url


def test_s3_keys_are_the_url(s3_server: Server, s3_bucket: str) -> None:
    """No decoding, no encoding, no marker objects, and a dataset may fill a bucket."""
    open_folder(f"s3://{s3_bucket}").write("x%20y é", b"abc")
    open_folder(f"s3://{s3_bucket}/a b%/c#d+e/").write(f"{SCRATCH}/f", b"")
    assert s3_server.objects(s3_bucket) == {"x%20y é": 3, f"a b%/c#d+e/{SCRATCH}/f": 0}
    folder = open_folder(f"s3://{s3_bucket}/")
    assert (folder.list(), folder.subfolders()) == ({"x%20y é": 3}, ["a b%"])


@pytest.mark.parametrize("size", [9_000_000, 25_000_000])
def test_s3_large_objects(s3_proxy: Server, s3_url: str, size: int) -> None:
    """One request up to 10 MB; parts beyond."""
    folder, data = open_folder(s3_url), os.urandom(1000) * (size // 1000)
    folder.write("x", pa.py_buffer(data))
    assert len(s3_proxy.seen()) == (1 if size < 10_000_000 else 5)
    assert folder.read("x").equals(pa.py_buffer(data))
    assert len(s3_proxy.seen()) == 2  # the size, the bytes


def test_s3_listing_by_the_page(s3_server: Server, s3_proxy: Server, s3_bucket: str) -> None:
    names = [f"train-{shard:05}.parquet" for shard in range(2500)]
    s3_server.put_many(s3_bucket, [f"p/{name}" for name in names] + ["p/sub/x", "p.json"])
    folder = open_folder(f"s3://{s3_bucket}/p")
    s3_proxy.seen()
    assert folder.list() == dict.fromkeys(names, 1)
    requests = s3_proxy.seen()
    assert len(requests) == 3
    assert all("delimiter=" in request for request in requests)
    assert folder.subfolders() == ["sub"]


def test_s3_markers_of_other_tools(s3_server: Server, s3_bucket: str) -> None:
    for marker in ("p", "p/sub"):
        s3_server.put_marker(s3_bucket, marker)
    assert open_folder(f"s3://{s3_bucket}/p/sub").list() == {}
    assert not open_folder(f"s3://{s3_bucket}/p/sub").exists()
    folder = open_folder(f"s3://{s3_bucket}/p")
    assert (folder.list(), folder.subfolders()) == ({}, ["sub"])
    folder.write("x", b"abc")
    assert (folder.list(), folder.subfolders()) == ({"x": 3}, ["sub"])


def test_s3_without_botocore(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage_s3._botocore.cache_clear()
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    folder = open_folder(s3_url)
    for name in ("x", f"{SCRATCH}/y"):
        folder.write(name, b"")
    folder.delete("x")
    folder.delete_tree(SCRATCH)
    assert not folder.exists()


def test_s3_bucket_that_does_not_exist(s3_env: Server) -> None:
    """Every verb says so, and none creates it."""
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    folder = open_folder(f"s3://{missing}/prefix")
    why = "The specified bucket does not exist"
    assert fails(folder.make) == f"cannot reach s3://{missing}/prefix: {why}"
    assert fails(folder.list) == f"cannot list s3://{missing}/prefix: {why}"
    assert fails(folder.exists) == f"cannot list s3://{missing}/prefix: {why}"
    assert fails(lambda: folder.write("x", b"abc")) == f"cannot write s3://{missing}/prefix/x: {why}"
    assert fails(lambda: folder.read("x")) == f"cannot reach s3://{missing}/prefix: {why}"
    fails(lambda: folder.delete_tree("x"), f"cannot delete s3://{missing}/prefix/x: ")
    assert missing not in s3_env.buckets()


def test_s3_closed_door(s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port where nobody listens: refused in time, with the reason."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    folder, start = open_folder("s3://bucket/prefix"), time.monotonic()
    fails(folder.make, "cannot reach s3://bucket/prefix: ", "connect")
    assert time.monotonic() - start < 12


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", "Access Denied by policy"),
        ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records"),
        ("SignatureDoesNotMatch", "The request signature we calculated does not match"),
    ],
)
def test_s3_bad_credentials(s3_proxy: Server, s3_url: str, code: str, message: str) -> None:
    s3_proxy.refuse(".", 403, code, message)
    folder = open_folder(s3_url)
    assert fails(folder.make) == f"cannot reach {s3_url}: {message}"
    assert fails(folder.list) == f"cannot list {s3_url}: {message}"
    assert fails(lambda: folder.write("x", b"")) == f"cannot write {s3_url}/x: {message}"
    assert fails(lambda: folder.read("x")) == f"cannot read {s3_url}/x: access denied"  # HEAD: no body, no reason


def test_s3_endpoints(s3_env: Server, s3_proxy_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL goes before AWS_ENDPOINT_URL_S3, that before AWS_ENDPOINT_URL; and amazonaws.com is never asked."""
    import pyarrow.fs

    def resolve(bucket: str) -> str:
        raise AssertionError("asked amazonaws.com for a region")

    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", resolve)
    monkeypatch.delenv("AWS_REGION")
    moto, nowhere = s3_env.endpoint, "http://127.0.0.1:9"
    open_folder(f"s3://{s3_bucket}/p").write("x", b"abc")  # by AWS_ENDPOINT_URL
    monkeypatch.setenv("AWS_ENDPOINT_URL", nowhere)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto + "/")
    assert open_folder(f"s3://{s3_bucket}/p").list() == {"x": 3}
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", nowhere)
    host = moto.removeprefix("http://")
    for query in (f"endpoint_override={moto}", f"endpoint_override={host}&scheme=http&allow_bucket_creation=true"):
        folder, name = split_url(f"s3://{s3_bucket}/p/x?{query}")
        assert pickle.loads(pickle.dumps(folder)).read(name).to_pybytes() == b"abc"
        folder.write(f"{SCRATCH}/y", b"")
        folder.delete_tree(SCRATCH)
    assert s3_env.objects(s3_bucket) == {"p/x": 3}


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("http://h:9000/", "http://h:9000"),
        ("HTTPS://h.example.com/s3", "https://h.example.com/s3"),
        ("h:9000", "h:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_s3_endpoints_are_taken_as_written(written: str, taken: str) -> None:
    assert storage_s3.settle("bucket", {"endpoint_override": written, "region": "r"})["endpoint_override"] == taken


@pytest.mark.parametrize(
    "endpoint",
    ["http:/h:1", "http//h:1", "htp://h:1", "http://", "http://h:99999", "http://h:0", "http://h:", "h?x=1",
     "http://é", "'http://h'", "http://user:secret@h", "http://[::1"],
)  # fmt: skip
def test_s3_endpoints_that_pyarrow_would_take_for_others(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(UsageError, match="is no address; legal: http://host:port, https://host") as caught:
        open_folder("s3://bucket/x").list()
    assert "secret" not in str(caught.value)


def test_s3_endpoint_without_http(s3_env: Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for TLS, as pyarrow takes it; what is missing is said."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_env.endpoint.removeprefix("http://"))
    fails(open_folder(s3_url).list, f"cannot list {s3_url}: ", "needs http:// before it", "TLS")


def test_s3_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given, or looked up once where there is no endpoint."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    import pyarrow.fs

    asked = []

    def resolve(bucket: str) -> str:
        asked.append(bucket)
        return "eu-north-1"

    monkeypatch.setattr(pyarrow.fs, "resolve_s3_region", resolve)
    bucket = uuid.uuid4().hex
    assert [storage_s3.settle(bucket, {})["region"] for _ in range(2)] == ["eu-north-1"] * 2
    assert storage_s3.settle(bucket, {"endpoint_override": "h"}) == {"endpoint_override": "h", "region": "us-east-1"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert storage_s3.settle(bucket, {})["region"] == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert storage_s3.settle(bucket, {})["region"] == "eu-west-2"
    assert storage_s3.settle(bucket, {"region": "eu-west-3"})["region"] == "eu-west-3"
    assert asked == [bucket]


REFUSALS = {
    "the only request": ("PUT", 1000),
    "opening in parts": ("POST .*uploads", 25_000_000),
    "first part": ("partNumber=1&", 25_000_000),
    "last part": ("partNumber=3&", 25_000_000),
    "completion": ("POST .*uploadId", 25_000_000),
}


@pytest.mark.parametrize("refused", REFUSALS)
def test_s3_failed_upload_leaves_no_object(s3_proxy: Server, s3_server: Server, s3_bucket: str, refused: str) -> None:
    """Neither at once, nor when the stream is collected, nor when the interpreter ends; an old object stays."""
    requests, size = REFUSALS[refused]
    s3_server.put(s3_bucket, "p/old", b"old")
    s3_proxy.refuse(requests, 403, "AccessDenied", "Not you")
    done = python(
        "-c",
        dedent("""
        import gc, sys
        from synthshards.storage.open import open_folder
        folder = open_folder(sys.argv[1])
        for name in ("old", "new"):
            try:
                folder.write(name, bytes(int(sys.argv[2])))
            except Exception as error:
                print(type(error).__name__, error)
        gc.collect()
        """),
        f"s3://{s3_bucket}/p",
        str(size),
    )
    assert done.stdout.splitlines() == [
        f"StorageError cannot write s3://{s3_bucket}/p/{name}: Not you" for name in ("old", "new")
    ]
    assert done.stderr == ""
    assert s3_server.objects(s3_bucket) == {"p/old": 3}
    assert s3_server.get(s3_bucket, "p/old") == b"old"


def test_s3_parts_go_up_together(s3_proxy: Server, s3_url: str) -> None:
    s3_proxy.delay("partNumber=", 0.8)
    start = time.monotonic()
    open_folder(s3_url).write("x", bytes(25_000_000))
    assert time.monotonic() - start < 2.4  # three parts, one after another


class HalfStream:
    """A pyarrow stream that takes half of what it is given and then fails."""

    def __init__(self, stream: Any, error: BaseException) -> None:
        self.stream, self.error = stream, error

    def write(self, data: pa.Buffer) -> None:
        self.stream.write(data.slice(0, data.size // 2))
        raise self.error

    def close(self) -> None:
        self.stream.close()


@pytest.mark.parametrize("error", [OSError("connection reset"), MemoryError(), KeyboardInterrupt()])
def test_s3_half_an_upload_is_never_committed(
    s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class HalfStore:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def open_output_stream(self, path: str, compression: None) -> HalfStream:
            return HalfStream(self.inner.open_output_stream(path, compression=compression), error)

    connect = storage_s3.connect
    monkeypatch.setattr(storage_s3, "connect", lambda *arguments: HalfStore(connect(*arguments)))
    with pytest.raises(StorageError if isinstance(error, Exception) else KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", b"abcdef")
    gc.collect()
    assert s3_server.objects(s3_bucket) == {}


def test_s3_interrupt_as_the_stream_opens(s3_server: Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main thread this would drop the new stream, and so commit an empty object over a good one."""

    class Store:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def open_output_stream(self, path: str, compression: None) -> Any:
            stream = self.inner.open_output_stream(path, compression=compression)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            return stream

    connect = storage_s3.connect
    monkeypatch.setattr(storage_s3, "connect", lambda *arguments: Store(connect(*arguments)))
    with pytest.raises(KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", b"abcdef")
    assert s3_server.objects(s3_bucket) == {"p/x": 6}


def test_s3_interrupt_waits_for_the_object(s3_proxy: Server, s3_server: Server, s3_bucket: str) -> None:
    """Ctrl-C during an upload: raised, and the object is whole."""
    s3_proxy.delay("partNumber=1&", 1.5)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_folder(f"s3://{s3_bucket}/p").write("x", bytes(12_000_000))
    timer.join()
    assert s3_server.objects(s3_bucket) == {"p/x": 12_000_000}


def read_again(folder: Folder, name: str, answers: Any) -> None:
    wrong = sum(folder.read(name).to_pybytes() != name.encode() * 50_000 for _ in range(60))
    answers.put(wrong)


def test_s3_survives_a_fork(s3_proxy: Server, s3_url: str) -> None:
    """Forked workers (a DataLoader's) that use their parent's folder get their own bytes, not each other's."""
    folder = open_folder(s3_url)
    for name in "ABCDEF":
        folder.write(name, name.encode() * 50_000)
    folder.read("A")  # leaves an open connection in the parent
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=read_again, args=(folder, name, answers)) for name in "ABCDEF"]
    for worker in workers:
        worker.start()
    wrong = [answers.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join()
    assert wrong == [0] * len(workers)
    assert folder.read("B").to_pybytes() == b"B" * 50_000
