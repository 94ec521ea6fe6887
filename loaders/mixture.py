"""Several datasets as one, mixed by weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset as TorchDataset

from synthshards.digest import canonical_json
from synthshards.errors import UsageError
from synthshards.tasks.task import Row

from .batching.tensors import batch_pool
from .dataset import Dataset, row_index
from .order.mixing import Schedule
from .stream import Stream
from .stream_builder import stream_of


class Mixture(TorchDataset[Row]):
    """Datasets mixed by weights: in every prefix of the stream, each has its share to within one row or window.

    Args:
        parts: the datasets; each keeps its own order.
        weights: positive numbers.
        exhaustion: "stop" before the first row that a part cannot supply, or "repeat" parts for ever.

    Raises:
        UsageError: an illegal weight or exhaustion, or no part.
    """

    def __init__(self, parts: Sequence[Dataset], weights: Sequence[float], exhaustion: str = "stop") -> None:
        if not parts:
            raise UsageError("a mixture of nothing; legal: at least one dataset")
        if exhaustion not in ("stop", "repeat"):
            raise UsageError(f"exhaustion={exhaustion!r}; legal: stop, repeat")
        self.parts, self.exhaustion = tuple(parts), exhaustion
        self.schedule, self._batch_pool = Schedule(weights), batch_pool()
        rows = [part.num_examples for part in parts]
        self.num_examples = self.schedule.length(rows) if exhaustion == "stop" else None

    @property
    def fingerprint(self) -> str:
        """A digest of the parts, their numbers of rows, and the weights."""
        parts = [[part.fingerprint, part.num_examples] for part in self.parts]
        fields = {"mixture": parts, "weights": self.schedule.shares, "exhaustion": self.exhaustion}
        return f"sha256:{hashlib.sha256(canonical_json(fields)).hexdigest()}"

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{share}/{self.schedule.total} {part!r}"
            for share, part in zip(self.schedule.shares, self.parts, strict=True)
        )
        return f"<Mixture of {shares}>"

    def __len__(self) -> int:
        """Number of rows.

        Raises:
            TypeError: the mixture is endless.
        """
        if self.num_examples is None:
            raise TypeError("an endless mixture has no len")
        return self.num_examples

    def __getitem__(self, i: int) -> Row:
        """Row i of the mixture in index order, with `source`, the position of its dataset."""
        index = row_index(i, self.num_examples)
        before = self.schedule.counts(index)
        source = int(self.schedule.components(index, 1)[0])
        part = self.parts[source]
        row = before[source] if part.num_examples is None else before[source] % part.num_examples
        return {**part[row], "source": source}

    def batches(self, batch_size: int, **options: Any) -> Stream:
        """A stream of batches. `synthshards.loaders.stream_builder.stream_of` documents the options."""
        return stream_of(
            self.parts, self.schedule, self.exhaustion, self.fingerprint, self._batch_pool, batch_size, **options
        )
