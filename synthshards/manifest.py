"""The manifest: what a finished folder holds, and enough to make its rows again. Hostile until it has been read.

docs/format.md lists every field. Reading checks each one; an error names the place, the value and what is legal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from . import __version__
from .catalog import TASKS, task_from_identity
from .errors import ManifestError, SynthshardsError, UsageError, VersionError, nearest
from .formats import FORMATS
from .ragged import KINDS
from .spec import MAX_SEED, MAX_SHARDS, Identity, Layout
from .storage import Folder
from .tasks.task import Task

NAME = "manifest.json"
SCHEMA_VERSION = 1
#: No manifest of 100,000 shards comes near this; anything larger is not read.
MAX_BYTES = 1 << 28
MAX_EXAMPLES = 2**63 - 1

Digest = str
Counts = dict[str, int]


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One shard: its file, its seed range [start, stop), what it counts, and the digests of file and rows.

    `bytes` and `sha256` are None where a manifest describes rows that no file holds.
    """

    path: str
    start: int
    stop: int
    tokens: int | UnsetType = UNSET
    loss_tokens: int | UnsetType = UNSET
    characters: int | UnsetType = UNSET
    bytes: int | None
    sha256: str | None
    content: str

    def counts(self) -> Counts:
        """The numbers that add up to the manifest's totals."""
        named = {"tokens": self.tokens, "loss_tokens": self.loss_tokens, "characters": self.characters}
        return {name: value for name, value in named.items() if value is not UNSET}

    def as_dict(self) -> dict[str, Any]:
        """The entry as it stands in the JSON."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class _Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: str
    task_version: int
    params: dict[str, Any]
    seed: int
    split: str


class _Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    shard_examples: int
    num_shards: int
    compression: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    dataset: _Dataset
    fingerprint: str
    layout: _Layout
    columns: dict[str, str]
    totals: dict[str, int | None]
    shards: list[ShardEntry]
    generator: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """A manifest that has passed every check, or one that a build has made.

    Attributes:
        identity: what the rows are a pure function of.
        layout: where they land.
        columns: column name → kind, in schema order.
        shards: one entry a shard, in order.
        generator: package and versions that wrote the files.
    """

    identity: Identity
    layout: Layout
    columns: dict[str, str]
    shards: Sequence[ShardEntry]
    generator: dict[str, str] = field(default_factory=lambda: generator_versions())

    @property
    def examples(self) -> int:
        """Rows in all."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def totals(self) -> dict[str, int | None]:
        """Rows, counts and bytes in all (bytes None where no files stand behind the manifest)."""
        totals: dict[str, int | None] = {"examples": self.examples}
        for name in self.shards[0].counts():
            totals[name] = sum(entry.counts()[name] for entry in self.shards)
        sizes = [entry.bytes for entry in self.shards]
        totals["bytes"] = None if None in sizes else sum(size for size in sizes if size is not None)
        return totals

    def task(self) -> Task:
        """The task, ready to generate these rows again.

        Raises:
            VersionError: the rows are of a task version that this package does not generate.
        """
        current = TASKS[self.identity.task][0].version
        if current != self.identity.task_version:
            raise VersionError(
                f"rows are {self.identity.task} version {self.identity.task_version}, this package generates version "
                f"{current}; the stored shards can be read, but to generate them again install a release of "
                f"synthshards that has version {self.identity.task_version}"
            )
        return task_from_identity(self.identity.task, self.identity.params)

    def to_json(self) -> bytes:
        """The file's bytes: one line a shard, the same for equal contents."""
        head = {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.identity.as_dict(),
            "fingerprint": self.identity.fingerprint,
            "layout": self.layout.as_dict(),
            "columns": self.columns,
            "totals": self.totals,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
        shards = ",\n".join("    " + json.dumps(entry.as_dict()) for entry in self.shards)
        lines += ['  "shards": [', shards, "  ],", f'  "generator": {json.dumps(self.generator)}']
        return ("{\n" + "\n".join(lines) + "\n}\n").encode()


def generator_versions() -> dict[str, str]:
    """Package and versions that decide a file's bytes (never its rows)."""
    import pyarrow

    return {"package": "synthshards", "version": __version__, "pyarrow": pyarrow.__version__}


def shard_name(split: str, index: int, suffix: str) -> str:
    """``train-00042.parquet``."""
    return f"{split}-{index:05d}.{suffix}"


def load(folder: Folder, name: str = NAME) -> Manifest:
    """Read and check a manifest.

    Raises:
        UsageError: there is none.
        ManifestError: it is not one, or claims the impossible.
        StorageError: it cannot be read.
    """
    try:
        data = folder.read(name)
    except FileNotFoundError:
        if not folder.exists():
            raise UsageError(
                f"{folder.url}: no such folder; make one with: synthshards build TASK --shards N"
            ) from None
        raise UsageError(
            f"{folder.url}: no {name} in it; legal: a finished dataset "
            "(an unfinished one is finished by the same build command again, or by: synthshards seal)"
        ) from None
    if data.size > MAX_BYTES:
        raise ManifestError(f"{folder.where(name)}: {data.size} bytes; legal: at most {MAX_BYTES}")
    return parse(data.to_pybytes(), folder.where(name))


def parse(data: bytes, where: str) -> Manifest:
    """Check a manifest's bytes; `where` is what errors name.

    Raises:
        ManifestError: with the place inside the document and what is legal there.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{where}: {_located(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"{where}: not JSON ({error})") from None
    try:
        return _checked(document)
    except SynthshardsError as error:
        raise ManifestError(f"{where}: {error}") from None


def _located(message: str) -> str:
    text, _, place = message.partition(" - at ")
    return f"{place.strip('`') or '$'}: {text.replace('`', '')}"


def _checked(doc: _Document) -> Manifest:
    if doc.schema_version != SCHEMA_VERSION:
        raise ManifestError(f"$.schema_version: {doc.schema_version}; legal: {SCHEMA_VERSION}")
    data, layout = doc.dataset, doc.layout
    if data.task not in TASKS:
        raise ManifestError(f"$.dataset.task: {data.task!r}{nearest(data.task, TASKS)}; legal: {', '.join(TASKS)}")
    if not 0 <= data.seed <= MAX_SEED:
        raise ManifestError(f"$.dataset.seed: {data.seed}; legal: 0..2^64-1")
    if data.task_version < 1:
        raise ManifestError(f"$.dataset.task_version: {data.task_version}; legal: from 1")
    current = TASKS[data.task][0].version == data.task_version
    identity = Identity(data.task, data.task_version, data.params, data.seed, data.split)
    if current:
        try:
            task = task_from_identity(data.task, data.params)
            identity = Identity.of(task, data.seed, data.split)
        except UsageError as error:
            raise ManifestError(f"$.dataset: {error}") from None
        if identity.params != data.params:
            missing = sorted(set(identity.params) - set(data.params))
            raise ManifestError(f"$.dataset.params: not the canonical form (missing: {', '.join(missing) or 'none'})")
        if doc.columns != task.columns:
            raise ManifestError(f"$.columns: {doc.columns}; legal: {task.columns}")
        columns = task.columns  # in schema order, whatever order the JSON had
    else:
        columns = doc.columns
        Identity.of(TASKS[data.task][0](), data.seed, data.split)
    for name, kind in doc.columns.items():
        if kind not in KINDS:
            raise ManifestError(f"$.columns.{name}: {kind!r}{nearest(kind, KINDS)}; legal: {', '.join(KINDS)}")
    if doc.fingerprint != identity.fingerprint:
        raise ManifestError(f"$.fingerprint: {doc.fingerprint!r}; legal: {identity.fingerprint!r}, as dataset says")
    _check_layout(layout)
    _check_shards(doc)
    manifest = Manifest(
        identity,
        Layout(layout.format, layout.shard_examples, layout.num_shards, layout.compression),
        columns,
        doc.shards,
        doc.generator,
    )
    if doc.totals != manifest.totals:
        raise ManifestError(f"$.totals: {doc.totals}; legal: {manifest.totals}, the sums over the shards")
    return manifest


def _check_layout(layout: _Layout) -> None:
    if layout.format not in FORMATS:
        found = nearest(layout.format, FORMATS)
        raise ManifestError(f"$.layout.format: {layout.format!r}{found}; legal: {', '.join(FORMATS)}")
    compressions = FORMATS[layout.format].COMPRESSIONS
    if layout.compression not in compressions:
        raise ManifestError(f"$.layout.compression: {layout.compression!r}; legal: {', '.join(compressions)}")
    if not 1 <= layout.num_shards <= MAX_SHARDS:
        raise ManifestError(f"$.layout.num_shards: {layout.num_shards}; legal: 1..{MAX_SHARDS}")
    if not 1 <= layout.shard_examples <= MAX_EXAMPLES // MAX_SHARDS:
        raise ManifestError(f"$.layout.shard_examples: {layout.shard_examples}; legal: 1..{MAX_EXAMPLES // MAX_SHARDS}")


def _check_shards(doc: _Document) -> None:
    layout = doc.layout
    if len(doc.shards) != layout.num_shards:
        raise ManifestError(f"$.shards: {len(doc.shards)} entries; legal: {layout.num_shards}, as layout says")
    names = ["tokens", "loss_tokens"] if "input_ids" in doc.columns else ["characters"]
    suffix = FORMATS[layout.format].SUFFIX
    for i, entry in enumerate(doc.shards):
        path = shard_name(doc.dataset.split, i, suffix)
        if entry.path != path:
            raise ManifestError(f"$.shards[{i}].path: {entry.path!r}; legal: {path!r}")
        start = i * layout.shard_examples
        if entry.start != start:
            raise ManifestError(f"$.shards[{i}].start: {entry.start}; legal: {start}")
        full = start + layout.shard_examples
        last = i == layout.num_shards - 1
        if not (start < entry.stop <= full if last else entry.stop == full):
            raise ManifestError(f"$.shards[{i}].stop: {entry.stop}; legal: {f'{start + 1}..' if last else ''}{full}")
        counts = entry.counts()
        if list(counts) != names:
            raise ManifestError(f"$.shards[{i}]: counts {list(counts)}; legal: {names}")
        for name, value in counts.items():
            if not 0 <= value <= MAX_EXAMPLES:
                raise ManifestError(f"$.shards[{i}].{name}: {value}; legal: 0..{MAX_EXAMPLES}")
        if entry.bytes is not None and not 1 <= entry.bytes <= MAX_EXAMPLES:
            raise ManifestError(f"$.shards[{i}].bytes: {entry.bytes}; legal: from 1, or null")
        if (entry.bytes is None) != (entry.sha256 is None):
            raise ManifestError(f"$.shards[{i}]: bytes and sha256; legal: both, or both null")
        for name, digest in (("sha256", entry.sha256), ("content", entry.content)):
            if digest is not None and not _is_digest(digest):
                raise ManifestError(f"$.shards[{i}].{name}: {digest!r}; legal: sha256: and 64 hex digits")


def _is_digest(text: str) -> bool:
    return len(text) == 71 and text.startswith("sha256:") and set(text[7:]) <= set("0123456789abcdef")
