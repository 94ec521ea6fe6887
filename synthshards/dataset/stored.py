"""An opened dataset: its manifest, and its shards, read one at a time and checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from ..catalog import is_task_name
from ..digest import sha256_of
from ..errors import DataError, UsageError
from ..formats import get_format
from ..formats.base import Bounds, Reader
from ..kernels.buffers import Pool
from ..ragged import BLOCK_ROWS, RaggedBatch
from ..storage.folder import Folder
from ..storage.open import open_folder, split_url
from .manifest import LFS_POINTER, Manifest, ShardEntry
from .manifest_parser import load


@dataclass(frozen=True)
class StoredDataset:
    """A manifest, and the folder it describes.

    `name` is its file name where its own path was given, not its folder's: it may then stand alone.
    """

    folder: Folder
    manifest: Manifest
    name: str | None = None

    def only(self, index: int) -> StoredDataset:
        """This dataset with one shard alone, its number 0: a small value, for work that is done elsewhere."""
        return replace(self, manifest=replace(self.manifest, shards=[self.manifest.shards[index]]))

    def open_shard(self, index: int) -> Reader:
        """A reader of one shard, after its size and sha256 were found right.

        Raises:
            DataError: the file is absent, damaged or of another schema; the message says which.
            StorageError: it cannot be read.
        """
        entry = self.manifest.shards[index]
        return reader_of(self.manifest, entry, checked_bytes(self.folder, entry))

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


def reader_of(
    manifest: Manifest,
    entry: ShardEntry,
    data: pa.Buffer,
    wanted: Collection[str] | None = None,
    pool: Pool | None = None,
) -> Reader:
    """A reader of a shard's bytes, which believes no size in them beyond what the manifest says; see `MakeReader`.

    Raises:
        DataError: the bytes are no such shard (the message does not name the file).
    """
    rows = entry.stop - entry.start
    bounds = Bounds.of(rows, entry.counts())
    reader = get_format(manifest.layout.format).reader(data, manifest.columns, wanted, pool, bounds)
    if reader.rows != rows:
        raise DataError(f"{reader.rows} rows; the manifest says {rows}")
    return reader


def checked_bytes(folder: Folder, entry: ShardEntry) -> pa.Buffer:
    """The bytes of a shard's file, when its size and sha256 are those of the manifest.

    Raises:
        DataError: no such file, or not those bytes (the message does not name the file).
    """
    if entry.sha256 is None:
        raise DataError("the file is absent: the manifest describes rows that were not written; reproduce makes them")
    try:
        data = folder.read(entry.path)
    except FileNotFoundError:
        raise DataError("the file is absent") from None
    check_bytes(data, entry)
    return data


def check_bytes(data: pa.Buffer, entry: ShardEntry) -> None:
    """Raise `DataError` unless size and sha256 of a shard's bytes are those of the manifest."""
    if data.size != entry.bytes:
        lfs = bytes(data[: len(LFS_POINTER)]) == LFS_POINTER
        how = "a Git LFS pointer in its place; fetch the files with: git lfs pull" if lfs else "truncated or replaced"
        raise DataError(f"{data.size} bytes; the manifest says {entry.bytes} ({how})")
    if sha256_of(memoryview(data)) != entry.sha256:
        raise DataError("the sha256 of the file differs from the manifest's (damaged)")


def open_stored(location: str) -> StoredDataset:
    """Open a folder or URI that holds a dataset, or a manifest of any name (its shards are then looked for beside it).

    Raises:
        UsageError: there is no dataset, or `location` is the name of a task or preset.
        ManifestError: its manifest is hostile.
        StorageError: it cannot be read.
    """
    if is_task_name(location):
        raise UsageError(f"{location!r} is a task, not a dataset; write ./{location} for a folder of that name")
    folder = open_folder(location)
    if folder.is_file():
        return _open(*split_url(location))
    try:
        return _open(folder)
    except UsageError as absent:
        # An object store does not tell a folder from a file: it may be a manifest after all.
        if folder.path is None:
            with suppress(UsageError):
                return _open(*split_url(location))
        raise absent from None


def _open(folder: Folder, name: str | None = None) -> StoredDataset:
    return StoredDataset(folder, load(folder, name), name)
