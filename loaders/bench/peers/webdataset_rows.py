"""webdataset: tar files of .npy members by its `ShardWriter`."""

from __future__ import annotations

from pathlib import Path

import webdataset as wds

from .common import BATCH, FlatRows, Readers, collate, main


def write(rows: FlatRows, out: Path) -> None:
    """16,384 rows a shard."""
    out.mkdir()
    with wds.ShardWriter(str(out / "rows-%05d.tar"), maxcount=16_384, verbose=0) as writer:
        for i, (ids, mask) in enumerate(rows):
            writer.write({"__key__": f"{i:012d}", "input_ids.npy": ids, "loss_mask.npy": mask})


def readers(out: Path) -> Readers:
    """Its usual pipeline."""
    shards = [str(path) for path in sorted(out.glob("*/*.tar"))]

    def batches() -> wds.WebDataset:
        rows = wds.WebDataset(shards, shardshuffle=False).decode().to_tuple("input_ids.npy", "loss_mask.npy")
        return rows.batched(BATCH, collation_fn=collate)

    return {".npy members": batches}


if __name__ == "__main__":
    main("webdataset", {".npy members": write}, readers)
