"""Small datasets for tests, the command line in this process, and ways to damage both."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from synthshards.catalog import make_task
from synthshards.cli import main
from synthshards.dataset.manifest import Manifest
from synthshards.dataset.stored import StoredDataset, open_stored
from synthshards.digest import ContentDigest, sha256_of
from synthshards.formats import get_format
from synthshards.pipelines.build import build
from synthshards.pipelines.plan import make_plan
from synthshards.pipelines.shard import file_metadata
from synthshards.ragged import BLOCK_ROWS, RaggedBatch

FORMATS = ["parquet", "webdataset", "arrow"]
SMALL: dict[str, Any] = {"N": 9, "K": 3}


def make(
    out: Path | str,
    *,
    task: str = "depo",
    params: dict[str, Any] = SMALL,
    seed: int = 0,
    split: str = "train",
    **layout: Any,
) -> str:
    """Build a dataset in `out`; by default 100 small Depo rows in shards of 40. Returns `out` as a string."""
    layout = {"examples": 100, "shard_examples": 40, **layout} if "shards" not in layout else layout
    build(make_plan(make_task(task, params), seed=seed, split=split, **layout), str(out))
    return str(out)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error; fails where there is no error, or more than one line."""
        assert self.code != 0, self
        lines = [line for line in self.err.splitlines() if line]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0]


def run(*args: str | Path) -> Outcome:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["synthshards", *map(str, args)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Outcome(code, out.getvalue(), err.getvalue())


def edit_manifest(out: str, change: Callable[[Any], None]) -> None:
    """Change a manifest's JSON in place."""
    path = Path(out) / "_manifest"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rows_of_shard(out: str, index: int) -> RaggedBatch:
    """All rows of a small shard."""
    reader = open_stored(out).open_shard(index)
    batch: RaggedBatch = reader.read(0, reader.rows)
    assert reader.rows <= BLOCK_ROWS
    return batch


def shard_bytes(manifest: Manifest, batch: RaggedBatch, start: int, stop: int) -> bytes:
    """`batch` as a shard file that claims the range start..stop-1."""
    metadata = file_metadata(manifest.identity, start, stop)
    writer: Any = get_format(manifest.layout.format).writer(
        manifest.columns, manifest.layout.compression, metadata, start
    )
    writer.write(batch)
    return bytes(writer.finish())


def rewrite_shard(dataset: StoredDataset, index: int, data: bytes, content: RaggedBatch | None = None) -> None:
    """Put `data` in the place of a shard (of a local dataset) and let the manifest say that it belongs there.

    With `content` the manifest also takes over the content digest and the counts of these rows.
    """
    assert dataset.folder.path is not None
    entry = dataset.manifest.shards[index]
    (dataset.folder.path / entry.path).write_bytes(data)

    def change(document: Any) -> None:
        shard = document["shards"][index]
        document["totals"]["bytes"] += len(data) - shard["bytes"]
        shard["bytes"], shard["sha256"] = len(data), sha256_of(data)
        if content is not None:
            digest = ContentDigest(content.kinds)
            digest.update(content)
            shard["content"] = digest.hexdigest()

    edit_manifest(str(dataset.folder.path), change)
