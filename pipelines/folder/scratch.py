"""Deleting what is unfinished: leftovers of killed builds, the scratch folder, a whole dataset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from synthshards.dataset.manifest import NAME
from synthshards.storage.folder import SCRATCH, Folder

from .lock import LOCK, locked
from .preflight import looks_like_shard


def has_scratch(folder: Folder) -> bool:
    """Whether there is a scratch folder, be it empty: what a kill in the last moment of a build may leave."""
    return (folder.path / SCRATCH).exists() if folder.path is not None else SCRATCH in folder.subfolders()


def sweep(folder: Folder) -> None:
    """Delete the temporary files of killed builds; a disk that they filled up could not be written to."""
    for name in folder.list(SCRATCH):
        if name.endswith(".tmp"):
            folder.delete(f"{SCRATCH}/{name}")


def clear_scratch(folder: Folder) -> None:
    """Delete all that is unfinished. The lock stays while it is held: a second one would let a second build in."""
    if folder.path is None:
        folder.delete_tree(SCRATCH)
        return
    for name in folder.list(SCRATCH):
        if name != LOCK:
            folder.delete(f"{SCRATCH}/{name}")


def clear_dataset(folder: Folder) -> None:
    """Delete a dataset whose lock is held: its manifest first, so that no moment shows one without its shards."""
    folder.delete(NAME)
    clear_scratch(folder)
    names = [name for name in folder.list() if looks_like_shard(name)]
    with ThreadPoolExecutor(1 if folder.is_local else 16) as threads:
        list(threads.map(folder.delete, names))


def delete_dataset(folder: Folder) -> None:
    """Take the lock and delete the dataset.

    Raises:
        UsageError: a build is at work there.
    """
    with locked(folder, shared=False):
        clear_dataset(folder)
