"""The same rows again, from a manifest alone, proved by their content digests."""

from __future__ import annotations

from contextlib import suppress

from synthshards.dataset.manifest_parser import load
from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.errors import DataError, UsageError
from synthshards.storage.folder import Folder
from synthshards.storage.open import open_folder

from .build import Report, build
from .execution.executor import Executor
from .execution.threads import run_in_threads
from .folder.scratch import delete_dataset
from .plan import BuildPlan, plan_of
from .verify import check


def reproduce(
    manifest: str,
    out: str,
    *,
    format: str | None = None,
    only_shards: str | None = None,
    workers: int = 1,
    quiet: bool = True,
    executor: Executor = run_in_threads,
) -> Report:
    """Generate a manifest's rows into `out`, each shard compared with the content digest that the manifest promises.

    What stands in `out` already is checked, and made again where it is damaged.

    Args:
        manifest: path or URI of a manifest (of any name) or of a folder that has one.
        out: where to; with the same format and library versions its bytes are those of the original.
        format: another format than the manifest's.
        only_shards: "A-B": these alone, to be joined by `seal`.
        workers: how many shards to work on at once.
        executor: who makes and checks the shards; by default threads of this process.

    Raises:
        DataError: a shard's rows are not what the manifest promises (nothing new is left in an empty `out`).
        VersionError: the rows are of a task version that this package does not generate.
        UsageError: `out` holds something else.
    """
    source = open_stored(manifest).manifest
    plan = plan_of(source, format=format)
    expect = {i: entry.content for i, entry in enumerate(source.shards)}
    folder = open_folder(out)
    fresh = not folder.exists()
    if not fresh:
        _drop_damaged(folder, plan, workers, executor)
    try:
        return build(plan, out, workers=workers, only_shards=only_shards, expect=expect, quiet=quiet, executor=executor)
    except DataError:
        if fresh and only_shards is None:
            delete_dataset(folder)
            if folder.path is not None:
                with suppress(OSError):
                    folder.path.rmdir()
        raise


def _drop_damaged(folder: Folder, plan: BuildPlan, workers: int, executor: Executor) -> None:
    """Delete the damaged shards of a finished dataset of this plan, so that the build makes them again."""
    with suppress(UsageError):  # no finished dataset
        stored = StoredDataset(folder, load(folder))
        if stored.manifest.identity == plan.identity and stored.manifest.layout == plan.layout:
            known = {entry.path for entry in stored.manifest.shards}
            for name, _ in check(stored, workers=workers, executor=executor).problems:
                if name in known:
                    folder.delete(name)
