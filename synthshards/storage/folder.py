"""One folder of a dataset, on a local disk or in an object store, behind eight verbs.

Local folders (`local`) are read by memory map and written by temporary file, fsync and rename. All others (`remote`)
go through pyarrow.fs, and through fsspec for the schemes that pyarrow lacks. An object store cannot rename: there the
data are complete before their upload starts, and an upload that fails leaves no object. `open` tells which is meant.
"""

from __future__ import annotations

import builtins
import errno
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import StorageError, SynthshardsError

SCRATCH = ".building"  # sub-folder that holds everything unfinished (records, plan, lock, temporary files)


class Folder(ABC):
    """A folder of files, made by `open.open_folder`. Names are relative: "_manifest", ".building/plan.json".

    Every method raises `StorageError`, one line of what, where and why, when the disk or the store refuses.
    A Folder may be pickled, shared between threads and carried over a fork.
    """

    url: str  # as the user wrote it, without trailing slash: for messages and --json
    path: Path | None  # None on an object store
    _refusals: tuple[type[Exception], ...] = (OSError,)  # what the system raises when it refuses

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of the file system, so that `path` is set."""
        return self.path is not None

    @abstractmethod
    def where(self, name: str) -> str:
        """`name` in this folder as messages show it: a path, or a URL without its query."""

    def exists(self) -> bool:
        """Whether the folder holds any file or sub-folder."""
        return any(self._scan(""))

    def is_file(self) -> bool:
        """Whether a file has the name of the folder; False in an object store, where both may be."""
        return False

    def list(self, sub: str = "") -> dict[str, int]:
        """Name and size in bytes of each file directly in the folder or its sub-folder; empty when it is absent.

        All that is no folder counts; what is no file either (a pipe, a link to nothing) has 0 bytes.
        """
        return dict(sorted(self._scan(sub)[0].items()))

    def subfolders(self) -> builtins.list[str]:
        """Names of the folders directly in this one; `SCRATCH` may be among them."""
        return sorted(self._scan("")[1])

    @abstractmethod
    def read(self, name: str) -> pa.Buffer:
        """The whole file: a memory map of a local one, one read of a remote one. FileNotFoundError when it is absent.

        A map shows the file as it is: to shorten the file in place ends every process that reads past its new end.
        """

    @abstractmethod
    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        """Create or replace the file `name`: whole and lasting when this returns, untouched when it raises."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; an absent one is fine."""

    @abstractmethod
    def delete_tree(self, sub: str) -> None:
        """Delete a sub-folder with all that it holds; an absent one is fine."""

    @abstractmethod
    def make(self) -> None:
        """Create a local folder; of a remote one check that its bucket exists and lets us in. No bucket is created."""

    @abstractmethod
    def __reduce__(self) -> tuple[Any, ...]:
        """What makes it again in another process, without its connections."""

    @abstractmethod
    def _scan(self, sub: str) -> tuple[dict[str, int], builtins.list[str]]:
        """The files with their sizes and the names of the folders directly in `sub` ("" for this folder)."""

    def __repr__(self) -> str:
        return f"open_folder({self.url!r})"

    def _inside(self, name: str) -> str:
        """`name`, which must stay in this folder: the last guard against a manifest that points elsewhere."""
        if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            raise StorageError(f"{name!r} does not name a file within {self.url}")
        return name

    @contextmanager
    def _explained(self, action: str, name: str = "") -> Iterator[None]:
        """Turn what the system says into one line."""
        try:
            yield
        except SynthshardsError:
            raise
        except self._refusals as error:
            raise StorageError(f"cannot {action} {self.where(name)}: {reason(error)}") from error

    def _absent(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.where(name))


def reason(error: BaseException) -> str:
    """The essence of an error in one line.

    >>> reason(OSError("When listing objects in bucket 'b': AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: "
    ...                "The specified bucket does not exist (Request ID: 4QDY)"))
    'The specified bucket does not exist'
    """
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error).strip().split("\n")[0]) or type(error).__name__
    aws = re.search(r"AWS Error (\w+|\[code \d+\])(.*?) during \w+ operation: ?(.*)", text)
    google = re.search(r"last message of (.*?)(?: error_info=|$)", text)
    if aws:
        if "HTTP status 301" in aws[2]:
            return "the bucket is in another region; set AWS_REGION"
        text = re.sub(r" \(Request ID: .*", "", aws[3]).rpartition("; Details: ")[2]
        if not text or text.startswith("No response body"):  # the answer to a HEAD request has none
            status = re.search(r"HTTP status \d+", aws[2])
            text = status[0] if status and aws[1] == "UNKNOWN" else aws[1].replace("_", " ").lower()
        text = re.sub(r"^Unable to parse ExceptionName: (\S+) Message:", r"\1:", text)
    elif google:
        text = google[1]
    if re.search("(TLS|SSL) connect error", text):
        text = f"no TLS is spoken there; an endpoint without it needs http:// before it ({text})"
    return " ".join(text.split()).rstrip(".")
