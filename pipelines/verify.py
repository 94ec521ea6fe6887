"""Check a dataset: every file is what the manifest says, every row is what its identity says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from synthshards.dataset.manifest import NAMES, ShardEntry
from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.digest import ContentDigest
from synthshards.errors import DataError, StorageError
from synthshards.identity import Identity
from synthshards.kernels.rng import words
from synthshards.ragged import BLOCK_ROWS, Column, RaggedBatch, is_ragged
from synthshards.storage.folder import SCRATCH
from synthshards.tasks.task import Task

from .execution.executor import Executor
from .execution.progress import Progress, Tick
from .execution.threads import run_in_threads
from .folder.preflight import looks_like_shard
from .shard import batch_counts, check_counts, file_metadata, thread_buffers


@dataclass
class Findings:
    """Outcome of a verification.

    Attributes:
        shards: number of shards checked.
        problems: (file name, what is wrong), sorted by name.
        notes: other files in the folder, for information.
        summary: rows, tokens, time and rates in one line.
        rederived: number of rows that were regenerated and found equal.
    """

    shards: int
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    summary: str = ""
    rederived: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    location: str,
    *,
    rederive: bool = False,
    sample: float = 1.0,
    workers: int = 1,
    quiet: bool = True,
    executor: Executor = run_in_threads,
) -> Findings:
    """Check sizes, sha256, columns, row counts, metadata, content digests and counts of every shard.

    Args:
        location: a folder or URI, or a manifest's path.
        rederive: also regenerate rows and compare them.
        sample: fraction of the rows that `rederive` compares; dataset and fraction determine which.
        workers: number of shards to check at the same time; each is held in memory.
        quiet: no progress on stderr.
        executor: who checks the shards; by default threads of this process.

    Raises:
        UsageError: there is no dataset.
        ManifestError: its manifest is not valid.
        VersionError: `rederive` of a task version that this package does not generate.
    """
    dataset = open_stored(location)
    return check(dataset, rederive=rederive, sample=sample, workers=workers, quiet=quiet, executor=executor)


def check(
    dataset: StoredDataset,
    *,
    rederive: bool = False,
    sample: float = 1.0,
    workers: int = 1,
    quiet: bool = True,
    executor: Executor = run_in_threads,
) -> Findings:
    """`verify`, of a dataset that is open."""
    manifest = dataset.manifest
    task = manifest.task() if rederive else None
    findings = Findings(len(manifest.shards))
    known = {entry.path for entry in manifest.shards}
    for name in dataset.folder.list():
        if name not in known and looks_like_shard(name):
            findings.problems.append((name, "not in the manifest, though named like a shard"))
        elif name not in known and name not in (*NAMES, dataset.name):
            findings.notes.append(name)
    for name in dataset.folder.subfolders():
        findings.notes.append(f"{name}/" + (" (of an unfinished build)" if name == SCRATCH else ""))
    jobs = (CheckJob(dataset.only(index), task, sample) for index in range(len(manifest.shards)))
    with (
        Progress("verifying", manifest.examples, quiet=quiet) as progress,
        closing(executor(check_shard, jobs, workers, tick=progress.tick, show=progress.show)) as outcomes,
    ):
        for outcome in outcomes:
            findings.rederived += outcome.rederived
            if outcome.problem is not None:
                findings.problems.append((outcome.path, outcome.problem))
    findings.problems.sort()
    findings.summary = progress.summary()
    return findings


@dataclass(frozen=True)
class CheckJob:
    """One shard to check: a plain value, for any executor.

    Attributes:
        dataset: of this shard alone.
        task: generates the rows again, None where that is not asked for.
        sample: share of the rows to compare.
    """

    dataset: StoredDataset
    task: Task | None
    sample: float


class ShardFinding(NamedTuple):
    """What is wrong with a shard, if anything, and how many of its rows were generated again and found equal."""

    path: str
    problem: str | None
    rederived: int = 0


def check_shard(job: CheckJob, tick: Tick) -> ShardFinding:
    """Do a job. Damage, and a file that cannot be read, are findings and no errors."""
    (entry,) = job.dataset.manifest.shards
    try:
        return ShardFinding(entry.path, None, _rederived(job, entry, tick))
    except (DataError, StorageError) as error:
        return ShardFinding(entry.path, str(error))


def _rederived(job: CheckJob, entry: ShardEntry, tick: Tick) -> int:
    """Rows compared with generated ones. Raises DataError with what is wrong, the file's name left out."""
    manifest = job.dataset.manifest
    reader = job.dataset.open_shard(0)
    content = ContentDigest(manifest.columns)
    totals: dict[str, int] = dict.fromkeys(entry.counts(), 0)
    rederived = 0
    for at in range(0, reader.rows, BLOCK_ROWS):
        batch: RaggedBatch = reader.read(at, min(at + BLOCK_ROWS, reader.rows))
        content.update(batch)
        counts = batch_counts(batch)
        for name in totals:
            totals[name] += counts[name]
        check_counts(totals, entry)
        if job.task is not None:
            step = job.task.step_rows(job.task.key(manifest.identity.seed, manifest.identity.split))
            for first in range(0, len(batch), step):
                some = batch.slice(first, min(first + step, len(batch))) if step < len(batch) else batch
                rederived += _compare(manifest.identity, job.task, entry.start + at + first, some, job.sample)
        tick({"examples": len(batch), **counts})
    if content.hexdigest() != entry.content:
        raise DataError(f"its rows have content {content.hexdigest()}; the manifest says {entry.content}")
    if totals != entry.counts():
        raise DataError(f"its rows count {totals}; the manifest says {entry.counts()}")
    for name, value in file_metadata(manifest.identity, entry.start, entry.stop).items():
        if reader.metadata.get(name) != value:
            raise DataError(f"the file says {name}={reader.metadata.get(name)!r}; the manifest says {value!r}")
    return rederived


def _compare(identity: Identity, task: Task, start: int, batch: RaggedBatch, sample: float) -> int:
    chosen = np.arange(start, start + len(batch), dtype=np.uint64)
    if sample < 1:
        chosen = chosen[chosen_rows(task.key(identity.seed, identity.split), start, len(batch), sample)]
    if not len(chosen):
        return 0
    again = task.generate(task.key(identity.seed, identity.split), chosen, thread_buffers())
    if len(chosen) == len(batch) and all(_equal(batch.columns[name], again.columns[name]) for name in batch.columns):
        return len(batch)
    for i, global_index in enumerate(chosen.tolist()):
        for name, problem in row_differences(batch, global_index - start, again, i):
            raise DataError(f"row {global_index} differs from the row generated again: {name} {problem}")
    return len(chosen)


def _equal(a: Column, b: Column) -> bool:
    same = a.offsets is b.offsets or (
        a.offsets is not None and b.offsets is not None and np.array_equal(a.offsets, b.offsets)
    )
    return same and np.array_equal(a.values, b.values)


def chosen_rows(key: np.ndarray, start: int, count: int, sample: float) -> np.ndarray:
    """Bool [count]: which of the rows start..start+count-1 a share `sample` means.

    Row i is chosen when a hash of i and the dataset's key lies below the share, so that the choice is the same for any
    shard size and format.
    """
    index = np.arange(start, start + count, dtype=np.uint64)
    salt = words(key, np.uint64(1 << 62), 1)[0]
    x = (index + salt) * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    x ^= x >> np.uint64(32)
    return np.asarray((x >> np.uint64(11)) < np.uint64(int(sample * 2**53)))


def row_differences(a: RaggedBatch, i: int, b: RaggedBatch, j: int) -> Iterator[tuple[str, str]]:
    """(column, what differs) between row i of `a` and row j of `b`."""
    for name, column in a.columns.items():
        other = b.columns[name]
        if is_ragged(column.kind):
            assert column.offsets is not None
            assert other.offsets is not None
            left: Any = column.values[column.offsets[i] : column.offsets[i + 1]]
            right: Any = other.values[other.offsets[j] : other.offsets[j + 1]]
            if len(left) != len(right):
                yield name, f"has {len(left)} entries, not {len(right)}"
            elif not np.array_equal(left, right):
                at = int(np.flatnonzero(left != right)[0])
                yield name, f"is {left[at]} at {at}, not {right[at]}"
        elif column.values[i] != other.values[j]:
            yield name, f"is {column.values[i]}, not {other.values[j]}"
