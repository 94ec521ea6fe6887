"""The content digest: a sha256 of rows in canonical form, the same for every format, platform and library version.

Per column, in schema order, two running hashes: one over the row lengths (uint32 little-endian, ragged kinds only) and
one over the flat values (little-endian, one byte a bool). The content digest is the sha256 of one UTF-8 JSON document
that lists row count and, per column, name, kind and the two hex digests. It does not depend on how the rows were cut
into batches. docs/format.md gives it byte by byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from .ragged import KINDS, RaggedBatch, is_ragged


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces, the form that is hashed wherever a hash of JSON is taken."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class ContentDigest:
    """Running content digest over batches of one schema.

    >>> digest = ContentDigest({"n": "uint16"})
    >>> digest.hexdigest()[:7]
    'sha256:'
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = dict(columns)
        self._rows = 0
        self._lengths = {name: hashlib.sha256() for name, kind in columns.items() if is_ragged(kind)}
        self._values = {name: hashlib.sha256() for name in columns}

    def update(self, batch: RaggedBatch) -> None:
        """Add the rows of `batch`, whose schema must be this digest's."""
        assert batch.kinds == self._columns, "schema of the batch differs from the digest's"
        self._rows += len(batch)
        for name, column in batch.columns.items():
            if column.offsets is not None:
                ends = column.offsets
                lengths = np.subtract(ends[1:], ends[:-1], dtype="<u4", casting="unsafe")
                self._lengths[name].update(lengths.data)
            values = np.ascontiguousarray(column.values, dtype=KINDS[column.kind])
            self._values[name].update(values.view(np.uint8).data)

    def hexdigest(self) -> str:
        """``"sha256:"`` and 64 hex digits."""
        columns = [
            [name, kind, self._lengths[name].hexdigest() if name in self._lengths else None, value.hexdigest()]
            for (name, kind), value in zip(self._columns.items(), self._values.values(), strict=True)
        ]
        return sha256_of(canonical_json({"rows": self._rows, "columns": columns}))


def sha256_of(data: bytes | memoryview) -> str:
    """``"sha256:"`` and 64 hex digits of a file's or document's bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
