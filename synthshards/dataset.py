"""A finished folder, opened: its manifest, and its shards read one at a time and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from .digest import sha256_of
from .errors import DataError
from .formats import get_format
from .manifest import NAME, Manifest, ShardEntry, load
from .ragged import BLOCK_ROWS, RaggedBatch
from .storage import Folder, open_folder, split_url


@dataclass(frozen=True)
class StoredDataset:
    """A manifest and the folder it describes."""

    folder: Folder
    manifest: Manifest

    def open_shard(self, index: int) -> Any:
        """A reader of one shard, after its size and sha256 were found right.

        Raises:
            DataError: the file is absent, damaged or of another schema; the message says which.
            StorageError: it cannot be read.
        """
        entry = self.manifest.shards[index]
        data = checked_bytes(self.folder, entry)
        reader = get_format(self.manifest.layout.format).Reader(data, self.manifest.columns)
        if reader.rows != entry.stop - entry.start:
            raise DataError(f"{reader.rows} rows; the manifest says {entry.stop - entry.start}")
        return reader

    def blocks(self, index: int) -> Iterator[RaggedBatch]:
        """The rows of one shard, 1,024 at a time.

        Raises:
            DataError: naming the shard's file.
        """
        try:
            reader = self.open_shard(index)
            for at in range(0, reader.rows, BLOCK_ROWS):
                yield reader.read(at, min(at + BLOCK_ROWS, reader.rows))
        except DataError as error:
            raise DataError(f"{self.folder.where(self.manifest.shards[index].path)}: {error}") from None


def checked_bytes(folder: Folder, entry: ShardEntry) -> pa.Buffer:
    """The bytes of a shard's file, when its size and sha256 are those of the manifest.

    Raises:
        DataError: no such file, or not those bytes (the message does not name the file).
    """
    if entry.sha256 is None:
        raise DataError("no file: the manifest describes rows that were never written")
    try:
        data = folder.read(entry.path)
    except FileNotFoundError:
        raise DataError("the file is missing") from None
    if data.size != entry.bytes:
        raise DataError(f"{data.size} bytes; the manifest says {entry.bytes} (truncated or replaced)")
    if sha256_of(memoryview(data)) != entry.sha256:
        raise DataError("the sha256 of the file differs from the manifest's (damaged)")
    return data


def open_stored(location: str) -> StoredDataset:
    """Open a folder, or a manifest by its own path or URI (whose files are then looked for beside it).

    Raises:
        UsageError: there is no dataset.
        ManifestError: its manifest is hostile.
    """
    if location.endswith(".json"):
        folder, name = split_url(location)
        return StoredDataset(folder, load(folder, name))
    folder = open_folder(location)
    return StoredDataset(folder, load(folder, NAME))
