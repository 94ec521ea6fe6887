"""The build lock of a local folder: held by the kernel for a living process, so no leftover ever blocks a build.

Full builds and `seal` take it alone, `--only-shards` runs share it. Object stores need none: builds of one identity
into one prefix write the same objects, and another identity is refused by the plan that stands there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from synthshards.errors import StorageError, UsageError
from synthshards.storage.folder import SCRATCH, Folder, reason

#: Name of the lock file in the scratch folder.
LOCK = "lock"


@contextlib.contextmanager
def locked(folder: Folder, *, shared: bool) -> Iterator[None]:
    """Hold the folder's lock. Its last holder deletes the file, and the scratch folder when nothing is left in it.

    Raises:
        UsageError: another build holds it.
        StorageError: the lock file cannot be made.
    """
    if folder.path is None:
        yield
        return
    path = folder.path / SCRATCH / LOCK
    handle = _take(folder, path, shared)
    try:
        yield
    finally:
        _let_go(handle, path)


def _take(folder: Folder, path: Path, shared: bool) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if isinstance(error, FileNotFoundError | FileExistsError) and not _in_the_way(path.parent):
                continue  # others delete and make the scratch folder while we look
            raise StorageError(f"cannot write {path}: {reason(error)}") from None
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            guards = _is_at(handle, path)
        except BaseException as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise UsageError(
                    f"{folder.url}: another build is at work there; wait for it, or stop it "
                    "(runs with --only-shards may work side by side)"
                ) from None
            if isinstance(error, OSError):
                raise StorageError(f"cannot lock {path}: {reason(error)}") from None
            raise
        if guards:
            return handle
        os.close(handle)  # the holder before us deleted the file that we opened: this lock would guard nothing


def _in_the_way(scratch: Path) -> bool:
    """Whether something else has the name of the scratch folder."""
    try:
        return not stat.S_ISDIR(scratch.lstat().st_mode)
    except FileNotFoundError:
        return False


def _let_go(handle: int, path: Path) -> None:
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where others share it
            if _is_at(handle, path):
                path.unlink()  # under the lock: whoever has opened the file finds out that it is gone
    finally:
        os.close(handle)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # fails where it holds an unfinished build, or the lock of the next one


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
