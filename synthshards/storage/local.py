"""A folder on a local disk: memory-mapped reads, and writes that survive kill -9 and power failure."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ..errors import StorageError, UsageError
from .folder import SCRATCH, Folder

#: How often we try again what another process has spoiled.
_TRIES = 100


class LocalFolder(Folder):
    """See `Folder`.

    Args:
        url: as the user wrote it.
        path: absolute.
        shown: the path as the user wrote it, for messages.
    """

    path: Path

    def __init__(self, url: str, path: Path, shown: Path) -> None:
        self.url, self.path, self._shown = url, path, shown

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalFolder, (self.url, self.path, self._shown)

    def where(self, name: str) -> str:
        return str(self._shown / name)

    def _at(self, name: str) -> Path:
        """The path of a name. What is unfinished is written and deleted without asking: never behind a link."""
        if name.partition("/")[0] == SCRATCH:
            refuse_link(self.path / SCRATCH)
        return self.path / self._inside(name)

    def read(self, name: str) -> pa.Buffer:
        target = self._at(name)
        with self._explained("read", name):
            try:
                kind = target.stat().st_mode
                if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # to open a pipe would wait for its writer
                    raise StorageError(f"cannot read {target}: neither a file nor a folder (a pipe, socket or device)")
                return pa.memory_map(str(target)).read_buffer()
            except FileNotFoundError:
                pass
        raise self._absent(name)

    def write(self, name: str, data: bytes | pa.Buffer) -> None:
        target = self._at(name)
        # Unique among the threads and processes of all machines that share the disk.
        unique = f"{os.getpid()}-{threading.get_native_id()}-{secrets.token_hex(4)}"
        temporary = self._at(f"{SCRATCH}/{target.name}.{unique}.tmp")
        with self._explained("write", name):
            scratch_is_new = not temporary.parent.exists()
            try:
                make_folders(target.parent)
                with replacing(target, temporary) as file:
                    file.write(memoryview(data))
            finally:
                if scratch_is_new:  # so that a healed shard leaves no empty folder in a finished dataset
                    with suppress(OSError):
                        temporary.parent.rmdir()

    def delete(self, name: str) -> None:
        with self._explained("delete", name):
            self._at(name).unlink(missing_ok=True)

    def delete_tree(self, sub: str) -> None:
        tree = self._at(sub)
        with self._explained("delete", sub):
            for _ in range(_TRIES):  # again, if another process deletes in it at the same time
                if not os.path.lexists(tree):
                    return
                with suppress(FileNotFoundError):
                    shutil.rmtree(tree)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(tree))

    def make(self) -> None:
        with self._explained("create the folder"):
            try:
                make_folders(self.path)
            except FileExistsError as error:
                raise StorageError(f"cannot create the folder {self.where('')}: {error.filename} is a file") from error

    def _scan(self, sub: str) -> tuple[dict[str, int], list[str]]:
        files: dict[str, int] = {}
        folders: list[str] = []
        folder = self._at(sub) if sub else self.path
        with self._explained("list", sub), suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # deleted since the folder was opened
                    if entry.is_dir():
                        folders.append(entry.name)
                    else:  # a pipe or a dangling link is named, too: it has the name of a file that may be wanted
                        files[entry.name] = entry.stat().st_size if entry.is_file() else 0
        return files, folders


def refuse_link(scratch: Path) -> None:
    """Raise `UsageError` where the scratch folder is a symbolic link."""
    if scratch.is_symlink():
        raise UsageError(f"{scratch}: is a symbolic link, and none is followed there; legal: a folder of that name")


@contextmanager
def replacing(target: Path, temporary: Path | None = None, *, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `target` when the block ends; if that raises, nothing has changed.

    Args:
        temporary: its name until then, on the same disk; by default ``.NAME.tmp`` beside `target`, which two writers
            at a time must not share.
        sync: whether it must survive a power failure.

    Raises:
        OSError: it cannot be written.
    """
    temporary = temporary or target.with_name(f".{target.name}.tmp")
    try:
        with _create(temporary) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
        if sync:
            _sync(target.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def make_folders(folder: Path) -> None:
    """Create `folder` and its parents so that they last.

    Raises FileExistsError, with the name of the culprit, where a file is in the way, and OSError.
    """
    absent = list(takewhile(lambda each: not each.is_dir(), (folder, *folder.parents)))
    for each in reversed(absent):
        try:
            each.mkdir()
        except FileExistsError:
            if not each.is_dir():  # else another process was faster
                raise
        _sync(each.parent)


def _create(temporary: Path) -> BinaryIO:
    """Open a file to write and create its folder where that is absent."""
    for _ in range(_TRIES):
        make_folders(temporary.parent)
        with suppress(FileNotFoundError):  # another writer has just removed the folder that it had made
            return temporary.open("wb")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(temporary))


def _sync(folder: Path) -> None:
    """Make the names in `folder` last through a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)
