"""A folder in an object store, through pyarrow.fs, or through fsspec where pyarrow has no file system of its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem

from ..errors import UsageError, nearest
from . import fork_guard, s3
from .folder import SCRATCH, Folder, reason

_PYARROW = ("gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_USUAL = ("file", "s3", "gs", "abfss", "hf")


class RemoteFolder(Folder):
    path = None
    # fsspec passes on the exceptions of a dozen client libraries, and pyarrow has some outside of OSError.
    _refusals = (Exception,)

    def __init__(
        self, base: str, query: str, root: str, connect: Callable[[], Any], s3_options: s3.S3Options | None = None
    ) -> None:
        self.url = base + query
        self._base = base
        self._root = root  # the path that the file system takes: "bucket/prefix"
        self._connect = connect
        self._s3_options = s3_options  # None: another store
        self._connections: dict[int, Any] = {}
        self._found = False  # whether anything was read here: then the bucket is there

    def __reduce__(self) -> tuple[Any, ...]:
        return open_remote, (self._base, self.url[len(self._base) :])

    @property
    def _fs(self) -> Any:
        # One a process: after a fork both sides would share sockets and get each other's bytes. The parent's stays
        # referenced, since destroying it would close the sockets under the parent.
        pid = os.getpid()
        if pid not in self._connections:
            self._connections[pid] = self._connect()
        return self._connections[pid]

    @property
    def _fsspec(self) -> Any:
        """fsspec's file system, None where pyarrow has its own. Its one-call verbs are safer than its streams."""
        return getattr(getattr(self._fs, "handler", None), "fs", None)

    @contextmanager
    def _explained(self, action: str, name: str = "") -> Iterator[None]:
        with super()._explained(action, name), fork_guard.request():
            yield

    def where(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    def _at(self, name: str) -> str:
        return f"{self._root}/{self._inside(name)}"

    def read(self, name: str) -> pa.Buffer:
        target = self._at(name)
        with self._explained("read", name):
            try:
                if self._fsspec:
                    data = pa.py_buffer(self._fsspec.cat_file(target))
                else:
                    with self._fs.open_input_file(target) as file:
                        data = file.read_buffer()
                self._found = True
                return data
            except FileNotFoundError:
                pass
            except OSError as error:
                if not s3.is_absent(error):
                    raise
        if not self._found:
            self.make()  # in a bucket that does not exist nothing is found either: say so
        raise self._absent(name)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        target = self._at(name)
        with self._explained("write", name):
            if self._fsspec:
                self._fsspec.pipe_file(target, bytes(data))
            else:
                s3.upload(self._fs, target, data if isinstance(data, pa.Buffer) else pa.py_buffer(data))

    def delete(self, name: str) -> None:
        target = self._at(name)
        with self._explained("delete", name), suppress(FileNotFoundError):
            if not self._delete_objects([target]):
                self._fs.delete_file(target)

    def delete_tree(self, sub: str) -> None:
        target = self._at(sub)
        with self._explained("delete", sub), suppress(FileNotFoundError):
            infos = self._fs.get_file_info(FileSelector(target, recursive=True)) if self._s3_options is not None else []
            if not self._delete_objects([info.path for info in infos if info.type == FileType.File]):
                self._fs.delete_dir(target)

    def _delete_objects(self, paths: list[str]) -> bool:
        """Delete objects in S3 without pyarrow; whether that was done."""
        if self._s3_options is None:
            return False
        bucket = self._root.partition("/")[0]
        return s3.delete(bucket, [path.removeprefix(f"{bucket}/") for path in paths], self._s3_options)

    def make(self) -> None:
        with self._explained("reach"):
            self._infos(SCRATCH)  # a short listing: unlike a HEAD request it is answered with a reason

    def _scan(self, sub: str) -> tuple[dict[str, int], list[str]]:
        with self._explained("list", sub):
            infos = self._infos(sub)
        files = {info.base_name: info.size for info in infos if info.type == FileType.File}
        return files, [info.base_name for info in infos if info.type == FileType.Directory]

    def _infos(self, sub: str) -> list[Any]:
        if self._fsspec:
            self._fsspec.invalidate_cache()  # else what other processes wrote would not show
        try:
            # allow_not_found=True would take a missing bucket for an empty folder.
            where = FileSelector(self._at(sub) if sub else self._root, allow_not_found=False)
            infos: list[Any] = self._fs.get_file_info(where)
        except FileNotFoundError:
            return []
        return infos


def open_remote(base: str, query: str) -> RemoteFolder:
    """The folder at the URL `base` + `query`; `UsageError` as for `open.open_folder`."""
    scheme, url = base.partition("://")[0].lower(), base + query
    base = base.rstrip("/")
    if scheme != "s3" and scheme not in _PYARROW:
        if base == f"{scheme}:":
            raise UsageError(f"{url!r} names no folder; legal: a URL such as {scheme}://bucket/prefix")
        return RemoteFolder(base, query, *_fsspec(scheme, url))
    bucket, _, prefix = base[len(scheme) + len("://") :].partition("/")
    if scheme == "s3" and "@" in bucket:  # without repeating it
        raise UsageError("an s3:// URL may not hold credentials; use AWS_ACCESS_KEY_ID and the like")
    if not bucket or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise UsageError(f"{url!r} must be {scheme}://bucket/prefix, without empty, '.' or '..' parts")
    connect: Callable[[], Any]
    options: s3.S3Options | None = None
    if scheme == "s3":
        options = s3.parse_query(query[1:], base + query)
        root, connect = bucket, functools.partial(s3.connect, bucket, options)
    else:
        root, connect = _pyarrow(scheme, bucket, query)
    return RemoteFolder(base, query, f"{root}/{prefix}".rstrip("/"), connect, options)


def _pyarrow(scheme: str, netloc: str, query: str) -> tuple[str, Callable[[], Any]]:
    """The root of a store that pyarrow knows, and how to connect. No more than the root goes through URI parsing."""
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query or '?'}{'&' if query else ''}retry_limit_seconds=60"  # pyarrow's own limit is 15 minutes
    uri = f"{scheme}://{netloc}{query}"
    try:
        root = FileSystem.from_uri(uri)[1].rstrip("/")
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"cannot use {scheme}://{netloc}{query}: {reason(error)}") from error
    return root, lambda: FileSystem.from_uri(uri)[0]


def _fsspec(scheme: str, url: str) -> tuple[str, Callable[[], Any]]:
    """The path of `url` in its fsspec file system, and how to connect to that."""
    try:
        import fsspec
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs fsspec: pip install 'synthshards[remote]'") from error
    if scheme not in fsspec.available_protocols():
        usual = ", ".join(f"{name}://" for name in _USUAL)
        raise UsageError(f"unknown scheme {scheme!r} in {url!r}; use a local path, {usual}{nearest(scheme, _USUAL)}")
    try:
        root = fsspec.core.url_to_fs(url)[1].rstrip("/")
    except ImportError as error:
        raise UsageError(f"{scheme}:// needs another package: {reason(error)}") from error
    except Exception as error:
        raise UsageError(f"cannot use {url!r}: {reason(error)}") from error
    return root, lambda: PyFileSystem(FSSpecHandler(fsspec.core.url_to_fs(url)[0]))
