"""The build lock of a local folder: held by the kernel for a living process, so no leftover ever blocks a build.

Full builds and `seal` take it alone, `--only-shards` runs share it. Object stores need none: builds of one identity
into one prefix write the same objects, and another identity is refused by the plan that stands there. A file system
that has no locks (Lustre, as it is often mounted) is treated as they are.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from synthshards.errors import StorageError, UsageError, say
from synthshards.storage.folder import SCRATCH, Folder, reason
from synthshards.storage.local import refuse_link

#: Name of the lock file in the scratch folder.
LOCK = "lock"

#: What a file system without locks answers.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
#: How often the scratch folder may vanish before we have our lock in it.
_TRIES = 100


@contextlib.contextmanager
def locked(folder: Folder, *, shared: bool) -> Iterator[bool]:
    """Hold the folder's lock. Its last holder deletes the file, and the scratch folder when nothing is left in it.

    Yields whether all others are kept out: not where the lock is shared, nor in an object store, nor, after a warning,
    on a file system without locks.

    Raises:
        UsageError: another build holds it, or the scratch folder is a symbolic link.
        StorageError: the lock file cannot be made.
    """
    if folder.path is None:
        yield False
        return
    path = folder.path / SCRATCH / LOCK
    handle, locks = _take(folder, path, shared)
    if not locks:
        _warn(folder.url)
    try:
        yield locks and not shared
    finally:
        _let_go(handle, path, locks)


@functools.cache
def _warn(url: str) -> None:
    """Once a process and folder."""
    what = "its file system has no locks; let no --overwrite, and no build of other rows, work there at the same time"
    say(f"warning: {url}: {what}", err=True)


def _take(folder: Folder, path: Path, shared: bool) -> tuple[int, bool]:
    """The open lock file, and whether it is locked (False: the file system cannot)."""
    refuse_link(path.parent)
    for left in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if left and isinstance(error, FileNotFoundError | FileExistsError) and not _in_the_way(path.parent):
                continue  # others delete and make the scratch folder while we look
            raise StorageError(f"cannot write {path}: {reason(error)}") from None
        locks = True
        try:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                locks = False
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
            return handle, locks
        os.close(handle)  # the holder before us deleted the file that we opened: this lock would guard nothing
    raise StorageError(f"cannot lock {path}: it is deleted again and again")


def _in_the_way(scratch: Path) -> bool:
    """Whether something else has the name of the scratch folder."""
    try:
        return not stat.S_ISDIR(scratch.lstat().st_mode)
    except FileNotFoundError:
        return False


def _let_go(handle: int, path: Path, locks: bool) -> None:
    try:
        with contextlib.suppress(OSError):
            if locks:
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
