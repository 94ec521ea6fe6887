"""The manifest: what a finished folder contains, and enough to regenerate its rows. All fields: docs/format.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from .. import __version__
from ..catalog import TASKS, task_from_identity
from ..errors import VersionError
from ..formats import FORMATS
from ..identity import MAX_SHARDS, Identity, Layout
from ..tasks.task import Task

#: The underscore and the missing suffix let other people's readers of folders pass it by.
NAME = "_manifest"
#: What a folder may call its manifest: the second name is that of the first layout, which a folder keeps.
NAMES = (NAME, "manifest.json")
SCHEMA_VERSION = 1
#: How a file begins that stands in place of another in a clone without Git LFS.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: Rows in all: the keys of WebDataset have 12 digits. A shard holds at most its hundred-thousandth part.
MAX_EXAMPLES = 10**12
MAX_SHARD_EXAMPLES = MAX_EXAMPLES // MAX_SHARDS
#: Tokens, characters or bytes of a shard.
MAX_COUNT = 2**63 - 1

Counts = dict[str, int]


def stated(**keywords: Any) -> msgspec.Meta:
    """Keywords of the JSON Schema for what the parser checks; msgspec decodes as without them, so errors stay ours."""
    return msgspec.Meta(extra_json_schema=keywords)


Count = Annotated[int, stated(minimum=0, maximum=MAX_COUNT)]
Digest = Annotated[str, stated(pattern="^sha256:[0-9a-f]{64}$")]
#: Tokens, or characters where rows are text.
COUNTED = stated(
    oneOf=[
        {"required": ["tokens", "loss_tokens"], "properties": {"characters": False}},
        {"required": ["characters"], "properties": {"tokens": False, "loss_tokens": False}},
    ],
)


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One shard: its file, its seed range [start, stop), what it counts, and the digests of file and rows.

    `bytes` and `sha256` are None where a manifest describes rows that no file holds.
    """

    path: Annotated[str, stated(pattern=rf"^[a-z0-9_]+-[0-9]{{5}}\.({'|'.join(f.suffix for f in FORMATS.values())})$")]
    start: Annotated[int, stated(minimum=0, maximum=MAX_EXAMPLES - 1)]
    stop: Annotated[int, stated(minimum=1, maximum=MAX_EXAMPLES)]
    tokens: Count | UnsetType = UNSET
    loss_tokens: Count | UnsetType = UNSET
    characters: Count | UnsetType = UNSET
    bytes: Annotated[int, stated(minimum=1, maximum=MAX_COUNT)] | None
    sha256: Digest | None
    content: Digest

    def counts(self) -> Counts:
        """The numbers that add up to the manifest's totals."""
        named = {"tokens": self.tokens, "loss_tokens": self.loss_tokens, "characters": self.characters}
        return {name: value for name, value in named.items() if value is not UNSET}

    def as_dict(self) -> dict[str, Any]:
        """The entry as it stands in the JSON."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


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
        counts = [entry.counts() for entry in self.shards]
        for name in counts[0]:
            totals[name] = sum(count[name] for count in counts)
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
        encode, spread = msgspec.json.encode, msgspec.json.format
        shards = ",\n".join("    " + spread(encode(entry), indent=0).decode() for entry in self.shards)
        lines += ['  "shards": [', shards, "  ],", f'  "generator": {json.dumps(self.generator)}']
        return ("{\n" + "\n".join(lines) + "\n}\n").encode()


def generator_versions() -> dict[str, str]:
    """Package and versions that decide a file's bytes (never its rows)."""
    import pyarrow

    return {"package": "synthshards", "version": __version__, "pyarrow": pyarrow.__version__}


def shard_name(split: str, index: int, suffix: str) -> str:
    """``train-00042.parquet``."""
    return f"{split}-{index:05d}.{suffix}"
