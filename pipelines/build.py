"""Build a folder of shards: continue an interrupted build, grow a dataset, refuse what does not belong together.

Order of events: look, lock, plan, shards (each: whole file under its final name, then its record), manifest, end of
the scratch folder. Whatever moment a kill takes, what stands under a final name and has a record is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from synthshards.dataset.manifest import Manifest, ShardEntry
from synthshards.errors import StorageError, UsageError
from synthshards.storage.folder import SCRATCH, Folder
from synthshards.storage.open import open_folder

from .execution.executor import Executor
from .execution.progress import Progress, waiting
from .execution.threads import run_in_threads
from .folder.journal import Journal, read_journals, stands
from .folder.lock import locked
from .folder.preflight import FolderState, admit, admit_overwriting, declare, look
from .folder.scratch import clear_dataset, clear_scratch, has_scratch, sweep
from .plan import BuildPlan, parse_range, plan_from_record
from .shard import ShardJob, make_and_store, warm_up


@dataclass(frozen=True)
class Report:
    """What a build did.

    Attributes:
        manifest: the finished manifest, or None after a run with `only_shards`.
        made: number of shards written now.
        kept: number of shards that existed already.
        summary: rows, tokens, time and rates in one line.
    """

    manifest: Manifest | None
    made: int
    kept: int
    summary: str


def build(
    plan: BuildPlan,
    out: str,
    *,
    workers: int = 1,
    only_shards: str | None = None,
    overwrite: bool = False,
    expect: Mapping[int, ShardEntry] | None = None,
    quiet: bool = True,
    executor: Executor = run_in_threads,
) -> Report:
    """Make the shards of `plan` in `out` (a local path or a URI).

    Args:
        plan: what to make; see `synthshards.pipelines.plan.make_plan`.
        out: a local path or a URI.
        workers: number of shards to make at the same time.
        only_shards: "A-B": make only these and record them; `seal` writes the manifest.
        overwrite: delete what synthshards wrote there before.
        expect: shard index → what a manifest says of its rows (`reproduce`).
        quiet: no progress on stderr.
        executor: who makes the shards; by default threads of this process.

    Raises:
        UsageError: the folder contains something else, or another build is running there; it is left as it was.
        DataError: a shard's content is not the expected one.
        StorageError: writing failed; finished shards are kept for the next run.
    """
    part = only_shards is not None
    indices = range(plan.layout.num_shards) if only_shards is None else parse_range(only_shards, plan.layout.num_shards)
    if part and overwrite:
        raise UsageError("--overwrite goes with a whole build; legal: without --only-shards")
    folder = open_folder(out)
    state = None  # not looked at: what stands there will go
    if overwrite:
        admit_overwriting(folder)
    else:
        state = admit(folder, plan)
        if _same_size(state, plan) and not has_scratch(folder):
            standing = _standing(folder, plan, state, expect)
            if all(i in standing for i in indices):
                return Report(state.manifest, 0, len(standing), "complete already")
    folder.make()
    with locked(folder, shared=part) as alone:
        if overwrite:
            clear_dataset(folder)
        elif alone:
            sweep(folder)
        state = declare(folder, plan, state, alone=alone)
        standing = _standing(folder, plan, state, expect)
        todo = [i for i in indices if i not in standing]
        if _same_size(state, plan) and not todo:
            if not part:
                clear_scratch(folder)
            return Report(state.manifest, 0, len(standing), "complete already")
        jobs = [ShardJob(plan, folder, i, None if expect is None else expect[i]) for i in todo]
        summary, entries = _make(folder, plan, jobs, workers, executor, quiet)
        entries = {i: entry for i, entry in standing.items() if i in indices} | entries
        if not alone:  # what have others done meanwhile?
            state = look(folder, state) if part else admit(folder, plan, state)
        _check_again(folder, plan, entries)
        if part:
            if not folder.is_local and _same_size(state, plan):
                clear_scratch(folder)  # sealed by now: our records would be left over
            return Report(None, len(todo), len(indices) - len(todo), summary)
        manifest = _finish(folder, plan, entries, state)
        return Report(manifest, len(todo), len(standing), summary)


def seal(out: str) -> Manifest:
    """Write the manifest of a dataset whose shards were made by runs with `only_shards`.

    It takes no executor: it lists the folder and reads the journals, but no shard.

    Args:
        out: a local path or a URI.

    Raises:
        UsageError: there is nothing to seal, or shards are missing (named, with the command that makes them).
    """
    folder = open_folder(out)
    state = look(folder)
    if state.plans or (state.manifest and has_scratch(folder)):
        with locked(folder, shared=False):
            state = look(folder, state)
            if state.plans:
                return _seal(folder, state)
            clear_scratch(folder)
    if state.manifest is None:
        raise UsageError(f"{folder.url}: nothing to seal; make shards first: build … --only-shards A-B")
    return state.manifest


def _seal(folder: Folder, state: FolderState) -> Manifest:
    name, record = max(state.plans.items(), key=lambda item: int(item[1]["examples"]))
    plan = plan_from_record(record, folder.where(f"{SCRATCH}/{name}"))
    state = admit(folder, plan, state)
    entries = _standing(folder, plan, state, None)
    missing = [i for i in range(plan.layout.num_shards) if i not in entries]
    if missing:
        raise UsageError(
            f"{folder.url}: {len(missing)} of {plan.layout.num_shards} shards are missing; "
            f"make them with the same build command and --only-shards {_first_run(missing)}"
        )
    return _finish(folder, plan, entries, state)


def _same_size(state: FolderState, plan: BuildPlan) -> bool:
    """Whether a manifest stands that has as many shards as the plan (`admit` saw to all else)."""
    return state.manifest is not None and state.manifest.examples == plan.examples


def _standing(
    folder: Folder, plan: BuildPlan, state: FolderState, expect: Mapping[int, ShardEntry] | None
) -> dict[int, ShardEntry]:
    """The shards of the plan that are there: a manifest or a record has their entry, and the file its size."""
    files = folder.list()
    old = state.manifest.shards if state.manifest else ()
    entries = {e.start // plan.layout.shard_examples: e for e in old if stands(e, plan, files)}
    entries.update(read_journals(folder, plan, files))
    return entries if expect is None else {i: e for i, e in entries.items() if e.content == expect[i].content}


def _make(
    folder: Folder, plan: BuildPlan, jobs: list[ShardJob], workers: int, executor: Executor, quiet: bool
) -> tuple[str, dict[int, ShardEntry]]:
    """Do the jobs and keep the journal; a summary in one line, and the new shards by index."""
    if jobs:
        # As a job, because Ctrl-C in the middle of a compilation can get lost in LLVM's callbacks.
        show = waiting("compiling, once on this machine", quiet=quiet)
        list(executor(warm_up, [plan], 1, tick=lambda counts: None, show=show))
    rows = sum(stop - start for start, stop in (plan.range(job.index) for job in jobs))
    entries: dict[int, ShardEntry] = {}
    with (
        Progress("building", rows, quiet=quiet) as progress,
        Journal(folder, plan) as journal,
        closing(executor(make_and_store, jobs, workers, tick=progress.tick, show=progress.show)) as finished,
    ):
        for entry in finished:
            journal.append(entry)
            entries[entry.start // plan.layout.shard_examples] = entry
    return progress.summary(), entries


def _check_again(folder: Folder, plan: BuildPlan, entries: Mapping[int, ShardEntry]) -> None:
    """No lock holds a person off, nor other builds in an object store: do all shards stand that we say are there?"""
    files = folder.list()
    lost = sorted(entry.path for entry in entries.values() if not stands(entry, plan, files))
    if lost:
        raise StorageError(
            f"{folder.url}: {len(lost)} shards are no longer what was written (such as {lost[0]}); "
            "let nothing else write or delete there, and run the same command again"
        )


def _finish(folder: Folder, plan: BuildPlan, entries: dict[int, ShardEntry], state: FolderState) -> Manifest:
    old = state.manifest
    shards = [entries[i] for i in range(plan.layout.num_shards)]
    if old is None or list(old.shards) != shards:  # else a newer pyarrow would only change its own version in there
        old = Manifest(plan.identity, plan.layout, plan.task.columns, shards)
        folder.write(state.name, old.to_json())
    clear_scratch(folder)
    return old


def _first_run(indices: list[int]) -> str:
    """The first run of consecutive numbers, as ``"3-7"``."""
    length = next((i for i, index in enumerate(indices) if index != indices[0] + i), len(indices))
    return f"{indices[0]}-{indices[length - 1]}"
