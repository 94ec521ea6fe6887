"""The build lock of a local folder: held by the kernel for a living process, so no leftover ever blocks a build.

Full builds and `seal` take it alone, `--only-shards` runs share it. Object stores need none: builds of one identity
into one prefix write the same objects, and another identity is refused by the plan that stands there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from synthshards.errors import StorageError, UsageError
from synthshards.storage import SCRATCH, Folder


@contextlib.contextmanager
def locked(folder: Folder, *, shared: bool) -> Iterator[None]:
    """Hold the folder's lock.

    Raises:
        UsageError: another build holds it.
        StorageError: the lock file cannot be made.
    """
    if folder.path is None:
        yield
        return
    path = folder.path / SCRATCH / "lock"
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{folder.url}: another build is at work there; wait for it, or stop it "
                    "(runs with --only-shards may work side by side)"
                ) from None
            # The holder before us may have finished and deleted the scratch folder: then this lock guards nothing.
            try:
                same = os.fstat(handle).st_ino == path.stat().st_ino
            except FileNotFoundError:
                same = False
            if same:
                yield
                return
        finally:
            os.close(handle)
