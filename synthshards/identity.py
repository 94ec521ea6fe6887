"""Identity and layout: what decides the rows, and what only decides how they are stored."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

from .digest import canonical_json
from .errors import UsageError, cut

MAX_SHARDS = 100_000
MAX_SEED = 2**64 - 1
_SPLIT = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Identity:
    """Everything, apart from the index, that rows are a pure function of.

    Attributes:
        task: name of the task.
        task_version: version of its law.
        params: every parameter, canonical (integers, booleans, strings, None and lists of them).
        seed: 0..2^64−1.
        split: a name of ``[a-z0-9_]+``; every split has a random stream of its own.

    Raises:
        UsageError: seed or split is not legal.
    """

    task: str
    task_version: int
    params: dict[str, Any]
    seed: int
    split: str

    def __post_init__(self) -> None:
        try:
            seed = -1 if isinstance(self.seed, bool) else index(self.seed)  # NumPy's integers are integers
        except TypeError:
            seed = -1
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"seed={cut(repr(self.seed))} is not legal; legal: an integer 0..2^64-1")
        if not isinstance(self.split, str) or not _SPLIT.fullmatch(self.split):
            raise UsageError(f"split={cut(repr(self.split))} is not legal; legal: lower-case letters, digits and _")
        object.__setattr__(self, "seed", seed)

    def as_dict(self) -> dict[str, Any]:
        """The ``dataset`` object of a manifest."""
        return {
            "task": self.task,
            "task_version": self.task_version,
            "params": self.params,
            "seed": self.seed,
            "split": self.split,
        }

    @cached_property
    def digest(self) -> bytes:
        """sha256 of the canonical JSON of `as_dict`; its first 16 bytes are the stream key."""
        return hashlib.sha256(canonical_json(self.as_dict())).digest()

    @property
    def fingerprint(self) -> str:
        """``"sha256:"`` and the 64 hex digits of `digest`."""
        return f"sha256:{self.digest.hex()}"


@dataclass(frozen=True)
class Layout:
    """How rows are stored; it can change without changing a row.

    Attributes:
        format: "parquet", "webdataset" or "arrow".
        shard_examples: rows of every shard but perhaps the last.
        num_shards: at most 100,000.
        compression: one that the format supports.
    """

    format: str
    shard_examples: int
    num_shards: int
    compression: str

    def as_dict(self) -> dict[str, Any]:
        """The ``layout`` object of a manifest."""
        return {
            "format": self.format,
            "shard_examples": self.shard_examples,
            "num_shards": self.num_shards,
            "compression": self.compression,
        }
