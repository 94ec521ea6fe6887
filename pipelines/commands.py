"""Commands that build and prove: build, seal, verify, reproduce, overlap."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from synthshards.catalog import task_from_text
from synthshards.cli import Decimal, Integer
from synthshards.errors import DataError, UsageError, cut, is_integer, say, say_json
from synthshards.formats import FORMATS

from .execution.signals import interruptible

#: Threads that a command may be told to start; a larger number is a slip.
MAX_WORKERS = 4096

WORKERS = click.option(
    "--workers", type=Integer(1, MAX_WORKERS), default=None, help="Threads. [default: the cores this process may use]"
)
ONLY = click.option("--only-shards", metavar="A-B", help="Make only these shards; use `seal` at the end.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

#: What the line says that ends an interrupted build.
GOES_ON = "the same command goes on"

#: Lines of shared rows by size, and of files that are no part of a dataset.
_BINS, _NOTES = 16, 5


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
    if not is_integer(value):
        raise click.BadParameter(f"{cut(repr(value))} is neither a number nor all", ctx, param)
    return int(value)


@click.command()
@click.argument("task")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--shards", type=Integer(), help="Number of shards.")
@click.option(
    "--examples",
    metavar="N|all",
    callback=row_count,
    help="Total rows (`all` for a finite task); the last shard may be short.",
)
@click.option("--shard-examples", type=Integer(), help="Rows per shard. [default: 16384]")
@click.option("--seed", type=Integer(), default=0, show_default=True, help="0..2^64-1; each has its own random stream.")
@click.option("--split", default="train", show_default=True, help="train, eval …; each has its own random stream.")
@click.option("--out", help="Folder or URI. [default: data/TASK/SPLIT]")
@click.option("--format", "format_", default="parquet", show_default=True, help=" | ".join(FORMATS))
@click.option("--compression", help="Compression of the files. [default: the format's]")
@WORKERS
@click.option("--executor", default="local", show_default=True, help="Where shards are made: local.")
@ONLY
@click.option("--overwrite", is_flag=True, help="Replace an existing dataset.")
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
    """Build shards of TASK (a task or preset name). The same command continues an interrupted build.

    \b
    Examples:
      synthshards build depo --shards 64
      synthshards build depo1-300 K=4 --examples 5000 --split eval
      synthshards build depo --shards 64 --out s3://bucket/depo/train --only-shards 0-15
    """
    with interruptible(GOES_ON):
        from .build import build as run
        from .execution.executor import executor_named
        from .plan import make_plan

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
            plan,
            target,
            workers=workers or cores(),
            only_shards=only_shards,
            overwrite=overwrite,
            quiet=False,
            executor=executor_named(executor),
        )
    _tell(target, report)


def _tell(target: str, report: Any) -> None:
    made = f"{report.made} shard{'' if report.made == 1 else 's'} made"
    if report.manifest is None:
        say(f"{target}: {made}, {report.kept} stood already; {report.summary}")
        say(f"when all shards are made: synthshards seal {target}")
        return
    kept = f", {report.kept} kept" if report.kept else ""
    say(f"{target}: {made}{kept}; {report.summary}")
    say(f"fingerprint {report.manifest.identity.fingerprint}")


@click.command()
@click.argument("out")
def seal(out: str) -> None:
    """Write the manifest of OUT, whose shards were made by runs with --only-shards.

    \b
    Example:
      synthshards seal s3://bucket/depo/train
    """
    with interruptible(GOES_ON):
        from .build import seal as run

        manifest = run(out)
    say(f"{out}: {len(manifest.shards)} shards, {manifest.examples:,} rows; sealed")
    say(f"fingerprint {manifest.identity.fingerprint}")


@click.command()
@click.argument("out")
@click.option("--rederive", is_flag=True, help="Regenerate the rows and compare them.")
@click.option(
    "--sample", metavar="F", type=Decimal(), help="Regenerate only a fixed fraction F of the rows (0 < F ≤ 1)."
)
@WORKERS
@JSON
def verify(out: str, rederive: bool, sample: float | None, workers: int | None, as_json: bool) -> None:
    """Check every shard of OUT: size, sha256, columns, rows, content. Names each bad file; exit code 1 if there is one.

    \b
    Examples:
      synthshards verify data/depo/train
      synthshards verify data/depo/train --rederive
      synthshards verify s3://bucket/depo/train --sample 0.01
    """
    from .verify import verify as run

    if sample is not None and not 0 < sample <= 1:
        raise UsageError(f"--sample {sample}; legal: above 0, at most 1")
    rederive = rederive or sample is not None
    share = 1.0 if sample is None else sample
    with interruptible():
        findings = run(out, rederive=rederive, sample=share, workers=workers or cores(), quiet=as_json)
    if as_json:
        problems = [{"path": path, "problem": problem} for path, problem in findings.problems]
        document = {
            "ok": findings.ok,
            "shards": problems,
            "notes": findings.notes,
            "checked": findings.shards,
            "rederived": findings.rederived,
        }
        say_json(json.dumps(document, indent=2))
    else:
        for path, problem in findings.problems:
            say(f"{path}: {problem}")
        for note in findings.notes[:_NOTES]:
            say(f"note: {note} is no part of the dataset")
        if len(findings.notes) > _NOTES:
            say(f"note: nor are {len(findings.notes) - _NOTES} others")
        if findings.ok:
            again = f"; {_count(findings.rederived, 'row')} generated again and equal" if rederive else ""
            say(f"{out}: ok, {_count(findings.shards, 'shard')}; {findings.summary}{again}")
    if not findings.ok:
        names = ", ".join(path for path, _ in findings.problems[:3]) + (" …" if len(findings.problems) > 3 else "")
        raise DataError(f"{out}: {_count(len(findings.problems), 'bad file')}: {names}")


@click.command()
@click.argument("manifest")
@click.option("--out", required=True, help="Folder or URI for the rows.")
@click.option("--format", "format_", metavar="F", help=f"Another format than the manifest's: {' | '.join(FORMATS)}.")
@ONLY
@WORKERS
def reproduce(manifest: str, out: str, format_: str | None, only_shards: str | None, workers: int | None) -> None:
    """Regenerate the rows of MANIFEST (a file, or a folder that contains one), and check that they are the same.

    Shards that already exist in --out are checked, and made again if damaged.

    \b
    Examples:
      synthshards reproduce eval-manifest.json --out data/eval
      synthshards reproduce s3://bucket/depo/train --out data/copy --format arrow
    """
    from .reproduce import reproduce as run

    with interruptible(GOES_ON):
        report = run(manifest, out, format=format_, only_shards=only_shards, workers=workers or cores(), quiet=False)
    shards = report.made + report.kept
    stood = f" ({report.kept:,} of them stood already)" if report.kept else ""
    say(f"{out}: {_count(shards, 'shard')}{stood}, rows equal to the manifest's content digests; {report.summary}")
    if report.manifest is None:
        say(f"when all shards are made: synthshards seal {out}")
    else:
        say(f"fingerprint {report.manifest.identity.fingerprint}")


@click.command()
@click.argument("out_a")
@click.argument("out_b")
@WORKERS
@JSON
def overlap(out_a: str, out_b: str, workers: int | None, as_json: bool) -> None:
    """Count the rows that OUT_A and OUT_B share, exactly; exit code 1 if there are any.

    \b
    Examples:
      synthshards overlap data/depo/train data/depo/eval
      synthshards overlap data/depo/eval s3://bucket/depo/train --json
    """
    from .overlap import overlap as run

    with interruptible():
        result = run(out_a, out_b, workers=workers or cores(), quiet=as_json)
    if as_json:
        document = {
            "shared": result.shared,
            "rows_a": result.rows_a,
            "rows_b": result.rows_b,
            "shared_in_a": result.shared_in_a,
            "shared_in_b": result.shared_in_b,
            "size": result.size,
            "by_size": result.by_size,
            "same_stream": result.same_stream,
        }
        say_json(json.dumps(document, indent=2))
    else:
        say(f"A: {result.rows_a:,} rows of {out_a}")
        say(f"B: {result.rows_b:,} rows of {out_b}")
        say(
            "A and B are one random stream: rows of equal index are equal"
            if result.same_stream
            else "A and B are disjoint random streams, by construction; small spaces share rows all the same"
        )
        say(f"shared: {_count(result.shared, 'different row')}")
        if result.shared:
            say(f"  {result.shared_in_a:,} of A's rows are in B, {result.shared_in_b:,} of B's rows are in A")
            for line in _by_size(result.size, result.by_size):
                say(f"  {line}")
    if result.shared:
        raise DataError(f"{_count(result.shared, 'different row')} in both {out_a} and {out_b}")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _by_size(name: str | None, counts: dict[int, int]) -> list[str]:
    """One line a size, or a range of sizes where there are many."""
    width, first = 1, min(counts, default=0)
    while max(counts, default=0) - first >= width * _BINS:
        width += 1
    bins: dict[int, int] = {}
    for size, count in counts.items():
        low = first + (size - first) // width * width
        bins[low] = bins.get(low, 0) + count
    return [f"{name}={low}{f'..{low + width - 1}' if width > 1 else ''}: {count:,}" for low, count in bins.items()]
