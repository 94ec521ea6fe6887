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

from ..errors import StorageError, UsageError, cut
from .folder import SCRATCH, Folder, reason

#: What network and FUSE file systems answer that cannot sync (a folder, most often), and need not.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)

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

    def is_file(self) -> bool:
        with self._explained("read"), suppress(FileNotFoundError, NotADirectoryError):
            return stat.S_ISREG(self.path.stat().st_mode)
        return False

    def read(self, name: str) -> pa.Buffer:
        target = self._at(name)
        with self._explained("read", name):
            try:
                return read_file(target)
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


def read_file(path: Path, *, mapped: bool = True) -> pa.Buffer:
    """The bytes of a file, by a memory map where its file system has maps (FUSE and some network disks have none).

    Args:
        mapped: False for bytes that shall not change with the file.

    Raises:
        OSError: it cannot be read.
    """
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # to open a pipe would wait for its writer
        raise OSError("neither a file nor a folder (a pipe, socket or device)")
    name = os.fsencode(path)  # pyarrow takes no text that is not UTF-8
    if mapped:
        with suppress(OSError):  # whatever it is, reading works or says it better
            return pa.memory_map(name).read_buffer()
    with pa.OSFile(name) as file:
        return file.read_buffer()


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
                to_disk(file.fileno())
        temporary.replace(target)
        if sync:
            _sync(target.parent)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # writing names no file
            error.filename = str(target)
        with suppress(OSError):
            temporary.unlink()
        raise


def local_path(text: str) -> Path:
    """A path as a user writes it: "~" is a home.

    Raises:
        UsageError: that home is unknown.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~nobody"
        raise UsageError(f"cannot expand {cut(repr(text))}: {reason(error)}") from error


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


def to_disk(descriptor: int) -> None:
    """Make a file or the names in a folder last through a power failure, as far as their file system knows of that."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        to_disk(descriptor)
    finally:
        os.close(descriptor)
