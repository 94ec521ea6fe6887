"""Build a folder of shards: continue what a kill left, grow what is there, refuse what does not belong together.

Order of events: look, lock, plan, shards (each: whole file under its final name, then its record), manifest, end of
the scratch folder. Whatever moment a kill takes, what stands under a final name and has a record is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from synthshards.dataset.manifest import NAME, Manifest, ShardEntry
from synthshards.errors import DataError, StorageError, UsageError
from synthshards.storage.folder import SCRATCH, Folder
from synthshards.storage.open import open_folder

from .execution.progress import Progress, waiting
from .execution.threads import check_stop, run_local
from .folder.journal import RecordLog, read_records, stands
from .folder.lock import clear_scratch, locked
from .folder.preflight import Found, admit, admit_overwriting, declare, has_scratch, look
from .folder.preflight import clear as clear_locked
from .plan import Plan, parse_range, plan_from_record
from .shard import make_shard, warm_up

Executor = Callable[..., Generator[ShardEntry, None, None]]


@dataclass(frozen=True)
class Report:
    """What a build did.

    Attributes:
        manifest: the finished manifest, or None after a run with `only_shards`.
        made, kept: shards written now, and shards that stood already.
        summary: rows, tokens, time and rates in one line.
    """

    manifest: Manifest | None
    made: int
    kept: int
    summary: str


def build(
    plan: Plan,
    out: str,
    *,
    workers: int = 1,
    only_shards: str | None = None,
    overwrite: bool = False,
    expect: Mapping[int, str] | None = None,
    quiet: bool = True,
    executor: Executor | None = None,
) -> Report:
    """Make the shards of `plan` in `out` (a local path or a URI).

    Args:
        workers: threads.
        only_shards: "A-B": make these alone and leave their records; `seal` makes the manifest.
        overwrite: delete what synthshards wrote there before.
        expect: shard index → content digest that it must have (`reproduce`).
        quiet: no progress on stderr.
        executor: runs the shards elsewhere; by default threads of this process.

    Raises:
        UsageError: the folder holds something else, or another build is at work there; it is left as it was.
        DataError: a shard's content is not the expected one.
        StorageError: writing failed; what was finished is kept for the next run.
    """
    part = only_shards is not None
    wanted = range(plan.layout.num_shards) if only_shards is None else parse_range(only_shards, plan.layout.num_shards)
    if part and overwrite:
        raise UsageError("--overwrite goes with a whole build; legal: without --only-shards")
    folder = open_folder(out)
    found = None
    if overwrite:
        admit_overwriting(folder)
    else:
        found = admit(folder, plan)
        if _same_size(found, plan) and not has_scratch(folder):
            kept = _standing(folder, plan, found, expect)
            if all(i in kept for i in wanted):
                return Report(found.manifest, 0, len(kept), "complete already")
    folder.make()
    with locked(folder, shared=part):
        if overwrite:
            clear_locked(folder)
        elif folder.is_local and not part:
            _sweep(folder)
        found = declare(folder, plan, found, alone=folder.is_local and not part)
        kept = _standing(folder, plan, found, expect)
        todo = [i for i in wanted if i not in kept]
        if _same_size(found, plan) and not todo:
            if not part:
                clear_scratch(folder)
            return Report(found.manifest, 0, len(kept), "complete already")
        progress, entries = _make(folder, plan, todo, workers, expect, quiet, executor)
        if part:
            if not folder.is_local and _same_size(look(folder), plan):
                clear_scratch(folder)  # sealed by now: our records would be left over
            return Report(None, len(todo), len(wanted) - len(todo), progress.summary())
        entries.update({index: entry for index, entry in kept.items() if index not in entries})
        if not folder.is_local:
            _check_again(folder, plan, entries)
        manifest = _finish(folder, plan, entries, found.manifest)
        return Report(manifest, len(todo), len(kept), progress.summary())


def seal(out: str) -> Manifest:
    """Join the shards that `only_shards` runs left into a manifest.

    Raises:
        UsageError: there is nothing to seal, or shards are missing (named, with the command that makes them).
    """
    folder = open_folder(out)
    found = look(folder)
    if found.plans or (found.manifest and has_scratch(folder)):
        with locked(folder, shared=False):
            found = look(folder, found)
            if found.plans:
                return _seal(folder, found)
            clear_scratch(folder)
    if found.manifest is None:
        raise UsageError(f"{folder.url}: nothing to seal; make shards first: build … --only-shards A-B")
    return found.manifest


def _seal(folder: Folder, found: Found) -> Manifest:
    name, record = max(found.plans.items(), key=lambda item: int(item[1]["examples"]))
    plan = plan_from_record(record, folder.where(f"{SCRATCH}/{name}"))
    found = admit(folder, plan, found)
    entries = _standing(folder, plan, found, None)
    missing = [i for i in range(plan.layout.num_shards) if i not in entries]
    if missing:
        raise UsageError(
            f"{folder.url}: {len(missing)} of {plan.layout.num_shards} shards are missing; "
            f"make them with the same build command and --only-shards {_first_run(missing)}"
        )
    return _finish(folder, plan, entries, found.manifest)


def clear(folder: Folder) -> None:
    """Delete a dataset.

    Raises:
        UsageError: a build is at work there.
    """
    with locked(folder, shared=False):
        clear_locked(folder)


def _same_size(found: Found, plan: Plan) -> bool:
    """Whether a manifest stands that has as many shards as the plan (`admit` saw to all else)."""
    return found.manifest is not None and found.manifest.examples == plan.examples


def _standing(folder: Folder, plan: Plan, found: Found, expect: Mapping[int, str] | None) -> dict[int, ShardEntry]:
    """The shards of the plan that are there: a manifest or a record has their entry, and the file its size."""
    files = folder.list()
    entries = found.manifest.shards if found.manifest else ()
    kept = {e.start // plan.layout.shard_examples: e for e in entries if stands(e, plan, files)}
    kept.update(read_records(folder, plan, files))
    return kept if expect is None else {i: e for i, e in kept.items() if e.content == expect[i]}


def _sweep(folder: Folder) -> None:
    """Delete the temporary files of killed builds; a disk that they filled up could not be written to."""
    for name in folder.list(SCRATCH):
        if name.endswith(".tmp"):
            folder.delete(f"{SCRATCH}/{name}")


def _make(
    folder: Folder,
    plan: Plan,
    todo: list[int],
    workers: int,
    expect: Mapping[int, str] | None,
    quiet: bool,
    executor: Executor | None,
) -> tuple[Progress, dict[int, ShardEntry]]:
    stop = threading.Event()

    def tick(counts: dict[str, int]) -> None:
        check_stop(stop)
        progress.tick(counts)

    def work(index: int) -> ShardEntry:
        check_stop(stop)
        shard = make_shard(plan, index, tick)
        if expect is not None and shard.entry.content != expect[index]:
            raise DataError(
                f"{shard.entry.path}: rows generated now have content {shard.entry.content}, "
                f"the manifest says {expect[index]}"
            )
        check_stop(stop)
        folder.write(shard.entry.path, shard.data)
        return shard.entry

    if todo and executor is None:
        # In a thread, because Ctrl-C in the middle of a compilation can get lost in LLVM's callbacks.
        list(run_local([plan], warm_up, 1, threading.Event(), waiting("compiling, once on this machine", quiet=quiet)))
    run: Any = executor or run_local
    rows = sum(stop - start for start, stop in map(plan.range, todo))
    entries: dict[int, ShardEntry] = {}
    with (
        Progress("building", rows, quiet=quiet) as progress,
        RecordLog(folder, plan) as log,
        closing(run(todo, work, workers, stop, progress.show)) as made,
    ):
        for entry in made:
            log.append(entry)
            entries[entry.start // plan.layout.shard_examples] = entry
    return progress, entries


def _check_again(folder: Folder, plan: Plan, entries: Mapping[int, ShardEntry]) -> None:
    """No lock held others off: does the folder still belong to this plan, and do all its shards stand?"""
    admit(folder, plan)
    files = folder.list()
    lost = sorted(entry.path for entry in entries.values() if not stands(entry, plan, files))
    if lost:
        raise StorageError(
            f"{folder.url}: {len(lost)} shards are no longer what was written (such as {lost[0]}); "
            "let no other build overwrite this folder, and run the same command again"
        )


def _finish(folder: Folder, plan: Plan, entries: dict[int, ShardEntry], old: Manifest | None) -> Manifest:
    shards = [entries[i] for i in range(plan.layout.num_shards)]
    if old is None or list(old.shards) != shards:  # else a newer pyarrow would only change its own version in there
        old = Manifest(plan.identity, plan.layout, plan.task.columns, shards)
        folder.write(NAME, old.to_json())
    clear_scratch(folder)
    return old


def _first_run(indices: list[int]) -> str:
    """The first run of consecutive numbers, as ``"3-7"``."""
    length = next((i for i, index in enumerate(indices) if index != indices[0] + i), len(indices))
    return f"{indices[0]}-{indices[length - 1]}"
