"""The same rows again, from a manifest alone, proved by their content digests."""

from __future__ import annotations

from synthshards.dataset import open_stored
from synthshards.errors import DataError
from synthshards.storage import open_folder

from .build import Report, build, clear
from .plan import plan_of


def reproduce(
    manifest: str,
    out: str,
    *,
    format: str | None = None,
    only_shards: str | None = None,
    workers: int = 1,
    quiet: bool = True,
) -> Report:
    """Generate a manifest's rows into `out`, each shard compared with the content digest that the manifest promises.

    Args:
        manifest: path or URI of a manifest (any file name ending in .json) or of a folder that has one.
        out: where to; with the same format and library versions its bytes are those of the original.
        format: another format than the manifest's.
        only_shards: "A-B": these alone, to be joined by `seal`.
        workers: threads.

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
    try:
        return build(plan, out, workers=workers, only_shards=only_shards, expect=expect, quiet=quiet)
    except DataError:
        if fresh:
            clear(folder)
        raise
