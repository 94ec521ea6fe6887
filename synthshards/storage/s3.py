"""S3 through pyarrow, and remedies for what pyarrow does there unexpectedly.

All of it was measured against pyarrow 26. tests/storage/test_s3.py fails when one of the remedies is taken away.

* `S3FileSystem()` ignores AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_S3 (only `FileSystem.from_uri` reads them, and nothing
  reads an endpoint in a config file), and `from_uri` looks the bucket's region up at amazonaws.com. So the file system
  is built here, and `aws_config` reads all that.
* A stream cannot be aborted. Closing it, leaving its `with` block by an exception and garbage collection all commit
  what was written so far, and with `background_writes=False` `close()` even reports success after a failed part.
  So uploads keep the background writes, and a failed stream is abandoned: see `upload`.
* With `allow_delayed_open` an object up to 10 MB is one request instead of three, and leaves no open multipart upload.
* A connection used on both sides of a fork answers with the other process's bytes, without an error: `RemoteFolder`
  keeps one file system a process.
* Deleting a file writes an empty "directory marker" object for its parent: see `delete`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from ..errors import UsageError, nearest
from . import aws_config

S3Options = Mapping[str, Any]

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")

# The query parameters of an S3 URL that pyarrow knows, less the two about buckets, plus two of its constructor's.
_TEXT = ("region", "scheme", "endpoint_override", "tls_ca_file_path")
_FLAGS = ("anonymous", "force_virtual_addressing")
# pyarrow takes these; here buckets are neither created nor deleted, whatever they say.
_IGNORED = ("allow_bucket_creation", "allow_bucket_deletion")


def parse_query(query: str, url: str) -> dict[str, Any]:
    """The options in the query of an S3 URL.

    >>> parse_query("endpoint_override=localhost:9000&scheme=http", "s3://bucket")
    {'endpoint_override': 'localhost:9000', 'scheme': 'http'}

    Raises `UsageError` for an unknown option a scheme that is not HTTP's, or a flag that is neither true nor false.
    """
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "scheme" and value not in ("http", "https"):
            raise UsageError(f"scheme={value!r} in {url!r} must be http or https")
        if name in _TEXT:
            options[name] = value
        elif name in _FLAGS:
            if value not in ("true", "false"):
                raise UsageError(f"{name}={value!r} in {url!r} must be true or false")
            options[name] = value == "true"
        elif name not in _IGNORED:
            legal = _TEXT + _FLAGS
            raise UsageError(f"unknown option {name!r} in {url!r}; S3 takes {', '.join(legal)}{nearest(name, legal)}")
    return options


def settle(bucket: str, options: S3Options) -> dict[str, Any]:
    """`options` with endpoint and region filled in from the AWS configuration, or the region from the bucket.

    Raises:
        UsageError: the configuration cannot be read, or its endpoint is none.
        OSError: neither an endpoint nor a region is given, and the bucket's region cannot be looked up.
    """
    settled = dict(options)
    endpoint = options.get("endpoint_override") or aws_config.endpoint()
    if endpoint:
        settled["endpoint_override"] = _address(endpoint)
    # A store of one's own has no region; amazonaws.com must not be asked about it.
    settled["region"] = (
        options.get("region") or aws_config.region() or ("us-east-1" if endpoint else _region_of(bucket))
    )
    return settled


def _address(endpoint: str) -> str:
    """An endpoint as pyarrow takes it, which would go to another host or port where one is written badly."""
    with suppress(ValueError):  # no port, or no address
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        legal = parts.scheme in ("http", "https") or not (parts.scheme or parts.path.strip("/"))
        if legal and parts.port != 0 and _HOST.fullmatch(parts.netloc) and not parts.query and not parts.fragment:
            return parts.geturl().removeprefix("//").rstrip("/")
    shown = "" if "@" in endpoint else f" {endpoint!r}"  # it may hold a password
    raise UsageError(f"the S3 endpoint{shown} is no address; legal: http://host:port, https://host")


@functools.lru_cache(maxsize=64)
def _region_of(bucket: str) -> str:
    from pyarrow.fs import resolve_s3_region

    return str(resolve_s3_region(bucket))


def connect(bucket: str, options: S3Options) -> Any:
    """A pyarrow `S3FileSystem` for `bucket`; OSError as for `settle`."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    # Older releases open a multipart upload for every object: slower, as safe.
    delayed = {"allow_delayed_open": True} if int(pa.__version__.split(".")[0]) >= 21 else {}
    retries = AwsStandardS3RetryStrategy(max_attempts=4)  # a closed port then fails in 2 to 7 s
    return S3FileSystem(**settle(bucket, options), **delayed, background_writes=True, retry_strategy=retries)


def is_absent(error: OSError) -> bool:
    """Whether a read failed because the object was deleted between pyarrow's HEAD request and its GET."""
    return re.search(r"AWS Error (NO_SUCH_KEY|RESOURCE_NOT_FOUND) during GetObject", str(error)) is not None


def upload(filesystem: Any, path: str, data: pa.Buffer) -> None:
    """Store `data` as the object `path`: the whole of it, or nothing and an OSError.

    Runs in a thread of its own because signal handlers run in the main thread only: no Ctrl-C can fall between
    opening and closing, which would commit an empty object. A KeyboardInterrupt is raised when the upload has ended.
    """
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            _upload(filesystem, path, data)
            outcome.set_result(None)
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="upload")
    try:
        thread.start()  # a Ctrl-C in here, too, leaves a thread that runs
        outcome.result()
    except KeyboardInterrupt:
        if thread.ident is not None:
            wait([outcome])
        raise


def _upload(filesystem: Any, path: str, data: pa.Buffer) -> None:
    stream = filesystem.open_output_stream(path, compression=None)
    try:
        stream.write(data)
        stream.close()
    except BaseException:
        # Neither closed nor destroyed, or half the object would be committed: one more reference, never given back,
        # keeps the stream alive, also past the end of the interpreter. What remains in the store is an unfinished
        # multipart upload, which only a lifecycle rule of the bucket removes.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))
        raise


def delete(bucket: str, keys: list[str], options: S3Options) -> bool:
    """Delete objects by botocore where it is installed; whether that was done.

    pyarrow writes an empty object "folder/" when it has deleted something in a folder, and cannot name that object to
    delete it. So where botocore is absent, or fails, such markers stay: they mean "folder", as those that the S3
    console makes, and `list` leaves them out.
    """
    try:
        client = _botocore(os.getpid(), tuple(settle(bucket, options).items()))
        for key in keys:
            client.delete_object(Bucket=bucket, Key=key)
    except Exception:  # pyarrow then says what is wrong
        return False
    return True


@functools.lru_cache(maxsize=8)
def _botocore(pid: int, settled: tuple[tuple[str, Any], ...]) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    options = dict(settled)
    endpoint = options.get("endpoint_override")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    virtual = options.get("force_virtual_addressing") or not endpoint
    config = Config(
        s3={"addressing_style": "virtual" if virtual else "path"},
        signature_version=UNSIGNED if options.get("anonymous") else None,
        retries={"max_attempts": 2},
    )
    return botocore.session.get_session().create_client(
        "s3",
        region_name=options["region"],
        endpoint_url=endpoint,
        verify=options.get("tls_ca_file_path"),
        config=config,
    )
