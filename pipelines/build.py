"""Build a folder of shards: continue what a kill left, grow what is there, refuse what does not belong together.

Order of events: lock, plan, shards (each: whole file under its final name, then its record), manifest, end of the
scratch folder. Whatever moment a kill takes, what stands under a final name and has a record is whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synthshards.digest import canonical_json
from synthshards.errors import DataError, UsageError
from synthshards.manifest import NAME, Manifest, ShardEntry, load
from synthshards.storage import SCRATCH, Folder, open_folder

from .executors import check_stop, run_local
from .lock import locked
from .plan import Plan, parse_range, plan_from_record, plan_record
from .progress import Progress
from .records import RecordLog, read_records, standing
from .shard import make_shard

PLAN = f"{SCRATCH}/plan.json"

Executor = Callable[..., Iterator[ShardEntry]]


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
        UsageError: the folder holds something else, or another build is at work there.
        DataError: a shard's content is not the expected one.
        StorageError: writing failed; what was finished is kept for the next run.
    """
    wanted = parse_range(only_shards, plan.layout.num_shards) if only_shards else range(plan.layout.num_shards)
    folder = open_folder(out)
    folder.make()
    with locked(folder, shared=only_shards is not None):
        if overwrite:
            if only_shards:
                raise UsageError("--overwrite goes with a whole build; legal: without --only-shards")
            clear(folder)
        files = folder.list()
        old = _admit(folder, files, plan)
        kept = {e.start // plan.layout.shard_examples: e for e in (old.shards if old else ()) if standing(e, plan)}
        kept = {i: e for i, e in kept.items() if files.get(e.path) == e.bytes}
        kept.update(read_records(folder, plan, files))
        todo = [i for i in wanted if i not in kept]
        if old and not todo and old.layout.num_shards == plan.layout.num_shards:
            folder.delete_tree(SCRATCH)
            return Report(old, 0, len(kept), "complete already")
        folder.write(PLAN, canonical_json(plan.as_dict()))
        rows = sum(stop - start for start, stop in map(plan.range, todo))
        with Progress("building", rows, quiet=quiet) as progress:
            entries = _make(folder, plan, todo, workers, expect, progress, executor)
        if only_shards:
            return Report(None, len(todo), len(wanted) - len(todo), progress.summary())
        _check_plan(folder, plan)
        manifest = _finish(folder, plan, {**kept, **entries})
        return Report(manifest, len(todo), len(kept), progress.summary())


def seal(out: str) -> Manifest:
    """Join the shards that `only_shards` runs left into a manifest.

    Raises:
        UsageError: there is nothing to seal, or shards are missing (named, with the command that makes them).
    """
    folder = open_folder(out)
    try:
        raw = folder.read(PLAN)
    except FileNotFoundError:
        if folder.list().get(NAME):
            return load(folder)
        raise UsageError(f"{folder.url}: nothing to seal; make shards first: build … --only-shards A-B") from None
    plan = plan_from_record(raw.to_pybytes(), folder.where(PLAN))
    with locked(folder, shared=False):
        files = folder.list()
        old = load(folder) if NAME in files else None
        entries = {e.start // plan.layout.shard_examples: e for e in (old.shards if old else ()) if standing(e, plan)}
        entries.update(read_records(folder, plan, files))
        missing = [i for i in range(plan.layout.num_shards) if i not in entries]
        if missing:
            raise UsageError(
                f"{folder.url}: {len(missing)} of {plan.layout.num_shards} shards are missing; "
                f"make them with the same build command and --only-shards {_first_run(missing)}"
            )
        return _finish(folder, plan, entries)


def _make(
    folder: Folder,
    plan: Plan,
    todo: list[int],
    workers: int,
    expect: Mapping[int, str] | None,
    progress: Progress,
    executor: Executor | None,
) -> dict[int, ShardEntry]:
    stop = threading.Event()
    log = RecordLog(folder, plan)

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

    entries: dict[int, ShardEntry] = {}
    if todo and executor is None:
        # Compile in this thread, where Ctrl-C is heard, before any worker waits for it.
        plan.task.batch(plan.identity.seed, plan.identity.split, plan.range(todo[0])[0], 1)
    run: Any = executor or run_local
    try:
        for entry in run(todo, work, workers, stop, progress.show):
            log.append(entry)
            entries[entry.start // plan.layout.shard_examples] = entry
    finally:
        log.close()
    return entries


def _finish(folder: Folder, plan: Plan, entries: dict[int, ShardEntry]) -> Manifest:
    shards = [entries[i] for i in range(plan.layout.num_shards)]
    manifest = Manifest(plan.identity, plan.layout, plan.task.columns, shards)
    folder.write(NAME, manifest.to_json())
    folder.delete_tree(SCRATCH)
    return manifest


def clear(folder: Folder) -> None:
    """Delete a dataset: its manifest first, so that no moment shows a manifest without its shards."""
    files = folder.list()
    folder.delete(NAME)
    folder.delete_tree(SCRATCH)
    for name in files:
        if looks_like_shard(name):
            folder.delete(name)
    folder.make()


def looks_like_shard(name: str) -> bool:
    """Whether a file name is ``<split>-00000.<suffix>`` of some split and format."""
    from synthshards.formats import FORMATS

    stem, _, suffix = name.rpartition(".")
    split, _, number = stem.rpartition("-")
    return bool(split) and len(number) == 5 and number.isdecimal() and suffix in {f.SUFFIX for f in FORMATS.values()}


def _admit(folder: Folder, files: Mapping[str, int], plan: Plan) -> Manifest | None:
    """The manifest that stands, if any; refuse a folder that this plan would damage or mix."""
    old = load(folder) if NAME in files else None
    if old is not None:
        _same(folder, "identity", old.identity.as_dict(), plan.identity.as_dict())
        _same(folder, "layout", _fixed(old.layout.as_dict()), _fixed(plan.layout.as_dict()))
        _no_shrink(folder, old.layout.num_shards, old.examples, plan)
    try:
        raw = folder.read(PLAN).to_pybytes()
    except FileNotFoundError:
        strays = [name for name in files if looks_like_shard(name)] if old is None else []
        if strays:
            raise UsageError(
                f"{folder.url}: holds {len(strays)} shard files without a manifest (such as {strays[0]}); "
                "legal: an empty folder, or --overwrite"
            ) from None
        return old
    record = plan_record(raw, folder.where(PLAN))
    _same(folder, "identity", record["dataset"], plan.identity.as_dict())
    _same(folder, "layout", _fixed(record["layout"]), _fixed(plan.layout.as_dict()))
    _no_shrink(folder, record["layout"]["num_shards"], record["examples"], plan)
    return old


def _check_plan(folder: Folder, plan: Plan) -> None:
    """On an object store, where no lock is held: another identity may have come in the meantime."""
    if folder.path is None:
        try:
            record = plan_record(folder.read(PLAN).to_pybytes(), folder.where(PLAN))
        except FileNotFoundError:
            return  # a build of the same identity finished first
        _same(folder, "identity", record["dataset"], plan.identity.as_dict())


def _fixed(layout: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in layout.items() if name != "num_shards"}


def _same(folder: Folder, what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse unless both are equal, naming the first difference."""
    for name in {**old, **new}:
        a, b = old.get(name), new.get(name)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            _same(folder, f"{what}.{name}", a, b)
        elif a != b:
            raise UsageError(
                f"{folder.url}: holds another {what} ({name} is {a!r} there, {b!r} here); "
                "legal: another --out, or --overwrite to replace it"
            )


def _no_shrink(folder: Folder, num_shards: int, examples: int, plan: Plan) -> None:
    rows = plan.layout.shard_examples
    if plan.examples < examples:
        raise UsageError(
            f"{folder.url}: holds a plan of {num_shards} shards ({examples} rows), more than {plan.layout.num_shards} "
            f"({plan.examples} rows); legal: at least as many, another --out, or --overwrite"
        )
    if plan.examples > examples and examples % rows:
        raise UsageError(
            f"{folder.url}: its last shard is short ({examples % rows} of {rows} rows), so it cannot grow; "
            "legal: another --out, or --overwrite"
        )


def _first_run(indices: list[int]) -> str:
    last = indices[0]
    while last + 1 in indices[:10_000]:
        last += 1
    return f"{indices[0]}-{last}"
