"""Regenerate a dataset from its manifest alone, and check the content digests."""

from __future__ import annotations

from contextlib import suppress

from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.errors import DataError, UsageError
from synthshards.storage.folder import Folder
from synthshards.storage.open import open_folder

from .build import Report, build
from .execution.executor import Executor
from .execution.threads import run_in_threads
from .folder.journal import recorded
from .folder.lock import locked
from .folder.preflight import look
from .folder.scratch import clear_scratch, delete_dataset
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
    """Generate a manifest's rows into `out`, and compare each shard with the content digest in the manifest.

    Shards that already exist in `out` are checked, and made again if damaged.

    Args:
        manifest: path or URI of a manifest (with any file name) or of a folder that contains one.
        out: folder or URI for the rows; with the same format and library versions, its bytes equal the original's.
        format: another format than the manifest's.
        only_shards: "A-B": only these; `seal` writes the manifest.
        workers: number of shards to work on at the same time.
        quiet: no progress on stderr.
        executor: who makes and checks the shards; by default threads of this process.

    Raises:
        DataError: a shard's rows are not those of the manifest (an empty `out` is left empty).
        VersionError: the rows are of a task version that this package cannot generate.
        UsageError: `out` contains something else.
    """
    source = open_stored(manifest).manifest
    plan = plan_of(source, format=format)
    expect = dict(enumerate(source.shards))
    folder = open_folder(out)
    before = look(folder)
    fresh = before.manifest is None and not before.plans
    if before.manifest is not None:
        _drop_damaged(StoredDataset(folder, before.manifest), plan, workers, executor)
    try:
        return build(plan, out, workers=workers, only_shards=only_shards, expect=expect, quiet=quiet, executor=executor)
    except DataError:
        if fresh:
            _withdraw(folder, part=only_shards is not None)
        raise


def _withdraw(folder: Folder, *, part: bool) -> None:
    """Delete what we made where nothing was. Of a part only the plan, where that is all: other parts may be at work."""
    with suppress(UsageError):  # another build is at work there
        if not part:
            delete_dataset(folder)
        elif folder.is_local:
            with locked(folder, shared=False) as alone:
                if alone and not recorded(folder):
                    clear_scratch(folder)
    if folder.path is not None:
        with suppress(OSError):  # other files stand there
            folder.path.rmdir()


def _drop_damaged(stored: StoredDataset, plan: BuildPlan, workers: int, executor: Executor) -> None:
    """Delete the damaged shards of a finished dataset of this plan, so that the build makes them again."""
    if stored.manifest.identity == plan.identity and stored.manifest.layout == plan.layout:
        known = {entry.path for entry in stored.manifest.shards}
        for name, _ in check(stored, workers=workers, executor=executor).problems:
            if name in known:
                stored.folder.delete(name)
