"""Commands that build: build, seal."""

from __future__ import annotations

import os
from typing import Any

import click

from synthshards.catalog import task_from_text
from synthshards.errors import UsageError
from synthshards.formats import FORMATS

from .execution.signals import interruptible

WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Threads. [default: the cores this process may use]"
)
ONLY = click.option("--only-shards", metavar="A-B", help="Make these shards alone; `seal` joins them.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def cores() -> int:
    """Cores this process may use: its affinity, capped by the cgroup's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as limit:  # noqa: PTH123 (a kernel file)
            quota, period = limit.read().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return allowed


def row_count(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """A number of rows, or ``all``."""
    if value is None or value == "all":
        return value
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor all", ctx, param) from None


@click.command()
@click.argument("task")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--shards", type=int, help="Number of shards.")
@click.option(
    "--examples",
    metavar="N|all",
    callback=row_count,
    help="Rows in all (`all` of a finite task); the last shard may be short.",
)
@click.option("--shard-examples", type=int, help="Rows of a shard. [default: 16384]")
@click.option("--seed", type=int, default=0, show_default=True, help="0..2^64-1; another seed is another stream.")
@click.option("--split", default="train", show_default=True, help="train, eval …; another split is another stream.")
@click.option("--out", help="Folder or URI. [default: data/TASK/SPLIT]")
@click.option("--format", "format_", default="parquet", show_default=True, help=" | ".join(FORMATS))
@click.option("--compression", help="Of the files; the format's default if left out.")
@WORKERS
@click.option("--executor", default="local", show_default=True, help="Where shards are made: local.")
@ONLY
@click.option("--overwrite", is_flag=True, help="Replace the dataset that stands there.")
def build(
    task: str,
    overrides: tuple[str, ...],
    shards: int | None,
    examples: int | str | None,
    shard_examples: int | None,
    seed: int,
    split: str,
    out: str | None,
    format_: str,
    compression: str | None,
    workers: int | None,
    executor: str,
    only_shards: str | None,
    overwrite: bool,
) -> None:
    """Build shards of TASK (a task or preset name). Run the same command again to continue after a kill.

    \b
    Examples:
      synthshards build depo --shards 64
      synthshards build depo1-300 K=4 --examples 5000 --split eval
      synthshards build depo --shards 64 --out s3://bucket/depo/train --only-shards 0-15
    """
    with interruptible():
        from .build import build as run
        from .plan import make_plan

        if executor != "local":
            raise UsageError(f"--executor {executor!r}; legal: local")
        plan = make_plan(
            task_from_text(task, overrides),
            seed=seed,
            split=split,
            shards=shards,
            examples=examples,
            shard_examples=shard_examples,
            format=format_,
            compression=compression,
        )
        target = f"data/{task}/{split}" if out is None else out
        report = run(
            plan, target, workers=workers or cores(), only_shards=only_shards, overwrite=overwrite, quiet=False
        )
    _say(target, report)


def _say(target: str, report: Any) -> None:
    made = f"{report.made} shard{'' if report.made == 1 else 's'} made"
    if report.manifest is None:
        click.echo(f"{target}: {made}, {report.kept} stood already; {report.summary}")
        click.echo(f"when all shards are made: synthshards seal {target}")
        return
    kept = f", {report.kept} kept" if report.kept else ""
    click.echo(f"{target}: {made}{kept}; {report.summary}")
    click.echo(f"fingerprint {report.manifest.identity.fingerprint}")


@click.command()
@click.argument("out")
def seal(out: str) -> None:
    """Join the shards that --only-shards runs made in OUT into a finished dataset.

    \b
    Example:
      synthshards seal s3://bucket/depo/train
    """
    with interruptible():
        from .build import seal as run

        manifest = run(out)
    click.echo(f"{out}: {len(manifest.shards)} shards, {manifest.examples:,} rows; sealed")
    click.echo(f"fingerprint {manifest.identity.fingerprint}")
