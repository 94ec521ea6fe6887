"""What the tests of builds share: small plans, and pictures of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthshards import make_task
from synthshards.pipelines.build import build
from synthshards.pipelines.plan import BuildPlan, make_plan
from synthshards.storage.folder import SCRATCH

#: The same plan as `small()`, as words of a command line; --shards is to be added.
SMALL = ("depo", "N=20", "--shard-examples", "64")


def small(shards: int | None = 4, **options: Any) -> BuildPlan:
    """Depo with N=20, shards of 64 rows."""
    return make_plan(make_task("depo", N=20), **{"shards": shards, "shard_examples": 64, **options})


def files(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its bytes, and every sub-folder with none."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def picture(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What a change would change: inode, time and size of everything below `folder`, and of itself."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        stat = path.stat()
        found[str(path)] = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    return found


def names(shards: int, suffix: str = "parquet") -> set[str]:
    """What a finished folder holds."""
    return {"_manifest", *(f"train-{index:05d}.{suffix}" for index in range(shards))}


def unfinished(folder: Path, shards: int, **options: Any) -> Path:
    """A folder as a kill leaves it when all shards have their records; return the log."""
    build(small(shards, **options), str(folder), only_shards=f"0-{shards - 1}")
    return next((folder / SCRATCH).glob("records-*"))
