"""Deleting what is unfinished: leftovers of killed builds, the scratch folder, a whole dataset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from synthshards.digest import canonical_json
from synthshards.errors import StorageError
from synthshards.storage.folder import SCRATCH, Folder

from ..plan import PLAN_PREFIX, plan_file
from .journal import is_journal
from .lock import locked
from .preflight import look, written


def has_scratch(folder: Folder) -> bool:
    """Whether there is a scratch folder, be it empty: what a kill in the last moment of a build may leave."""
    return (folder.path / SCRATCH).is_dir() if folder.path is not None else SCRATCH in folder.subfolders()


def sweep(folder: Folder) -> None:
    """Delete the temporary files of killed builds; a disk that they filled up could not be written to."""
    for name in folder.list(SCRATCH):
        if name.endswith(".tmp"):
            folder.delete(f"{SCRATCH}/{name}")


def clear_scratch(folder: Folder) -> None:
    """Delete all that is unfinished. A lock stays while it is held: a second one would let a second build in."""
    names = folder.list(SCRATCH)
    ours = [name for name in names if name.startswith(PLAN_PREFIX) or is_journal(name) or name.endswith(".tmp")]
    if not folder.is_local and len(ours) == len(names):
        folder.delete_tree(SCRATCH)  # with the folder itself, where a store has such
    else:
        _delete(folder, [f"{SCRATCH}/{name}" for name in ours])


def clear_dataset(folder: Folder) -> None:
    """Delete a dataset whose lock is held: its manifest first, so that no moment shows one without its shards.

    What the manifest says goes on as a plan, so that after a kill each shard that is left has something to name it.
    """
    state = look(folder, damaged=True)
    names = written(folder, state)
    if state.manifest is not None:
        layout = state.manifest.layout.as_dict()
        plan = {"dataset": state.manifest.identity.as_dict(), "layout": layout, "examples": state.manifest.examples}
        with suppress(StorageError):  # on a full disk it goes without
            folder.write(f"{SCRATCH}/{plan_file(plan)}", canonical_json(plan))
    folder.delete(state.name)
    _delete(folder, names)
    clear_scratch(folder)


def delete_dataset(folder: Folder) -> None:
    """Take the lock and delete the dataset.

    Raises:
        UsageError: a build is at work there.
    """
    with locked(folder, shared=False):
        clear_dataset(folder)


def _delete(folder: Folder, names: list[str]) -> None:
    if folder.is_local:
        for name in names:
            folder.delete(name)
    else:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(folder.delete, names))
