"""What a build is to make: an identity, a layout and the number of rows, decided before any work starts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from synthshards.catalog import TASKS, task_from_identity
from synthshards.dataset.document import Dataset, DocumentLayout
from synthshards.dataset.manifest import MAX_SHARD_EXAMPLES, Manifest, shard_name
from synthshards.digest import canonical_json, sha256_of
from synthshards.errors import ManifestError, SynthshardsError, UsageError, VersionError, cut
from synthshards.formats import check_compression, get_format
from synthshards.identity import MAX_SHARDS, Identity, Layout
from synthshards.ragged import BLOCK_ROWS
from synthshards.tasks.task import Task

DEFAULT_SHARD_EXAMPLES = 16_384
#: Letters of a split: names of shards, and of their temporary files, are at most 255 bytes long.
MAX_SPLIT = 180
#: Plans of unfinished builds are files of this name in the scratch folder.
PLAN_PREFIX = "plan-"
#: File names of shards: split, number, suffix of the format.
SHARD_NAME = re.compile(r"([a-z0-9_]+)-([0-9]{5})\.([a-z]+)")


@dataclass(frozen=True)
class BuildPlan:
    """Shards to make. Two plans that agree in `shard_key` make the same bytes of a shard of the same range.

    Attributes:
        task: generates the rows.
        identity: what the rows are a pure function of.
        layout: where they land.
        examples: total number of rows; the last shard may be short.

    Raises:
        UsageError: the split's name is too long for that of a file.
    """

    task: Task
    identity: Identity
    layout: Layout
    examples: int

    def __post_init__(self) -> None:
        if len(self.identity.split) > MAX_SPLIT:
            raise UsageError(
                f"split={cut(self.identity.split)!r} has {len(self.identity.split)} letters; legal: at most "
                f"{MAX_SPLIT}, so that file names fit"
            )

    @cached_property
    def shard_key(self) -> str:
        """Digest of all that decides a shard's bytes, its range aside."""
        layout = self.layout
        same = [self.identity.fingerprint, layout.format, layout.compression, layout.shard_examples]
        return sha256_of(canonical_json(same))

    @cached_property
    def suffix(self) -> str:
        """File suffix of the format."""
        return get_format(self.layout.format).suffix

    def name(self, index: int) -> str:
        """File name of a shard."""
        return shard_name(self.identity.split, index, self.suffix)

    def makes(self, name: str) -> bool:
        """Whether a shard of the plan has that file name."""
        return names_shard(name, self.identity.split, self.suffix, self.layout.num_shards)

    def range(self, index: int) -> tuple[int, int]:
        """Seed range [start, stop) of a shard."""
        start = index * self.layout.shard_examples
        return start, min(start + self.layout.shard_examples, self.examples)

    def as_dict(self) -> dict[str, Any]:
        """What `seal` needs to know of the plan, as JSON."""
        return {
            "dataset": self.identity.as_dict(),
            "layout": self.layout.as_dict(),
            "examples": self.examples,
        }

    @cached_property
    def file(self) -> str:
        """Name of the file that declares the plan: the same for equal plans, and for no others."""
        return plan_file(self.as_dict())


def plan_file(record: dict[str, Any]) -> str:
    """`BuildPlan.file`, of what `BuildPlan.as_dict` gave."""
    return f"{PLAN_PREFIX}{sha256_of(canonical_json(record))[7:23]}.json"


def make_plan(
    task: Task,
    *,
    seed: int = 0,
    split: str = "train",
    shards: int | None = None,
    examples: int | str | None = None,
    shard_examples: int | None = None,
    format: str = "parquet",
    compression: str | None = None,
) -> BuildPlan:
    """A plan for a build.

    Args:
        task: generates the rows.
        seed: 0..2^64−1.
        split: ``[a-z0-9_]+``.
        shards: number of shards. If given alone, all are full, with `shard_examples` rows.
        examples: total number of rows, or "all" for a finite task. If given alone, shards have `shard_examples` rows
            and the last may be short; together with `shards`, the rows are divided evenly.
        shard_examples: rows per shard; default 16,384.
        format: "parquet", "webdataset" or "arrow".
        compression: of the files; None is the format's default.

    Raises:
        UsageError: something is missing, illegal or contradictory.
    """
    identity = task.identity(seed, split)
    compression = check_compression(format, compression)
    limit = task.num_examples
    if shards is None and examples is None:
        if limit is None:
            raise UsageError("how many rows? give --shards N (of 16384 rows each) or --examples N")
        examples = "all"
    if examples == "all":
        if limit is None:
            raise UsageError(f"--examples all: {task.name} has no end; legal: a number")
        examples = limit
    if isinstance(examples, str):
        raise UsageError(f"--examples {cut(repr(examples))}; legal: a number or all")
    for name, value in (("--shards", shards), ("--examples", examples), ("--shard-examples", shard_examples)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}; legal: from 1")
    if shards is None:
        assert examples is not None
        rows = shard_examples or DEFAULT_SHARD_EXAMPLES
        shards = -(-examples // rows)
        if shards > MAX_SHARDS:
            raise UsageError(
                f"--examples {examples} makes {shards} shards; legal: at most {MAX_SHARDS}; "
                f"use --shard-examples {_rounded(-(-examples // MAX_SHARDS))} or more"
            )
    elif examples is None:
        rows = shard_examples or DEFAULT_SHARD_EXAMPLES
        examples = shards * rows
    else:
        rows = -(-examples // shards)
        if -(-examples // rows) != shards:
            fewer = -(-examples // rows)
            raise UsageError(
                f"--examples {examples} do not fill {shards} equal shards; legal: for instance --shards {fewer}"
            )
        if shard_examples is not None and shard_examples != rows:
            raise UsageError(
                f"--examples {examples} over --shards {shards} makes shards of {rows} rows, not "
                f"--shard-examples {shard_examples}; leave one of the three out"
            )
    if shards > MAX_SHARDS:
        raise UsageError(
            f"--shards {shards}; legal: 1..{MAX_SHARDS}; use larger shards "
            f"(--shard-examples {_rounded(-(-examples // MAX_SHARDS))} or more)"
        )
    if rows > MAX_SHARD_EXAMPLES:
        raise UsageError(f"--shard-examples {rows}; legal: 1..{MAX_SHARD_EXAMPLES}")
    if limit is not None and examples > limit:
        raise UsageError(f"{examples} rows asked for, {task.name} has {limit} with these parameters; legal: 1..{limit}")
    return BuildPlan(task, identity, Layout(format, rows, shards, compression), examples)


def plan_of(manifest: Manifest, *, format: str | None = None) -> BuildPlan:
    """The plan that makes a manifest's rows again, into its own format or another.

    Raises:
        VersionError: the rows are of a task version that this package does not generate.
        UsageError: no such format.
    """
    layout = manifest.layout
    if format is not None and format != layout.format:
        layout = Layout(format, layout.shard_examples, layout.num_shards, check_compression(format, None))
    return BuildPlan(manifest.task(), manifest.identity, layout, manifest.examples)


def names_shard(name: str, split: str, suffix: str, num_shards: int) -> bool:
    """Whether `name` is that of one of the first `num_shards` shards."""
    match = SHARD_NAME.fullmatch(name)
    return match is not None and (match[1], match[3]) == (split, suffix) and int(match[2]) < num_shards


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    dataset: Dataset
    layout: DocumentLayout
    examples: int


def plan_record(raw: bytes, where: str) -> dict[str, Any]:
    """What `BuildPlan.as_dict` wrote, read back: fields of the right types, with claims that are not checked yet.

    Raises:
        ManifestError: it is not that.
    """
    try:
        record: dict[str, Any] = msgspec.to_builtins(msgspec.json.decode(raw, type=_Record))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{where}: not a plan ({error}); delete it, or use --overwrite") from None
    return record


def plan_from_record(record: dict[str, Any], where: str) -> BuildPlan:
    """The plan that a build declared in the scratch folder.

    Raises:
        ManifestError: it is not one.
        VersionError: it is of a task version that this package does not generate.
    """
    try:
        data, layout = record["dataset"], record["layout"]
        task = task_from_identity(data["task"], data["params"])
        if TASKS[task.name][0].version != data["task_version"]:
            raise VersionError(f"{task.name} version {data['task_version']}, this package has {task.version}")
        plan = make_plan(
            task,
            seed=data["seed"],
            split=data["split"],
            examples=record["examples"],
            shard_examples=layout["shard_examples"],
            format=layout["format"],
            compression=layout["compression"],
        )
        if plan.identity != Identity(**data) or plan.layout.as_dict() != layout:
            raise ManifestError("identity or layout is not what it says")
    except SynthshardsError as error:
        raise type(error)(f"{where}: {error}") from None
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{where}: not a plan ({error})") from None
    return plan


def parse_range(text: str, num_shards: int) -> range:
    """``"0-15"`` or ``"7"`` → the shard indices, both ends included.

    Raises:
        UsageError: not of that form, or outside 0..num_shards-1.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if match is None:
        raise UsageError(f"--only-shards {cut(repr(text))}; legal: A-B (both included) or A")
    low, high = int(match[1]), int(match[2] or match[1])
    if not low <= high < num_shards:
        raise UsageError(f"--only-shards {text}; legal: A-B with 0 ≤ A ≤ B ≤ {num_shards - 1}")
    return range(low, high + 1)


def _rounded(rows: int) -> int:
    """Up to a whole number of blocks of 1,024 rows, which read best."""
    return -(-rows // BLOCK_ROWS) * BLOCK_ROWS
