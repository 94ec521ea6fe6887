"""Commands that prove: verify, reproduce, overlap."""

from __future__ import annotations

import json

import click

from synthshards.errors import DataError, UsageError
from synthshards.formats import FORMATS

from .commands import JSON, ONLY, WORKERS, cores
from .execution.signals import interruptible

#: Lines of shared rows by size, and of files that are no part of a dataset.
_BINS, _NOTES = 16, 5


@click.command()
@click.argument("out")
@click.option("--rederive", is_flag=True, help="Generate the rows again and compare them.")
@click.option("--sample", metavar="F", type=float, help="Rederive a share F of the rows (0 < F ≤ 1), a fixed choice.")
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
        click.echo(json.dumps(document, indent=2))
    else:
        for path, problem in findings.problems:
            click.echo(f"{path}: {problem}")
        for note in findings.notes[:_NOTES]:
            click.echo(f"note: {note} is no part of the dataset")
        if len(findings.notes) > _NOTES:
            click.echo(f"note: nor are {len(findings.notes) - _NOTES} others")
        if findings.ok:
            again = f"; {_count(findings.rederived, 'row')} generated again and equal" if rederive else ""
            click.echo(f"{out}: ok, {_count(findings.shards, 'shard')}; {findings.summary}{again}")
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
    """Generate the rows that MANIFEST (a file, or a folder that has one) describes, and prove that they are the same.

    Shards that stand in --out already are checked, and made again where they are damaged.

    \b
    Examples:
      synthshards reproduce eval-manifest.json --out data/eval
      synthshards reproduce s3://bucket/depo/train --out data/copy --format arrow
    """
    from .reproduce import reproduce as run

    with interruptible():
        report = run(manifest, out, format=format_, only_shards=only_shards, workers=workers or cores(), quiet=False)
    shards = report.made + report.kept
    stood = f" ({report.kept:,} of them stood already)" if report.kept else ""
    click.echo(
        f"{out}: {_count(shards, 'shard')}{stood}, rows equal to the manifest's content digests; {report.summary}"
    )
    if report.manifest is None:
        click.echo(f"when all shards are made: synthshards seal {out}")
    else:
        click.echo(f"fingerprint {report.manifest.identity.fingerprint}")


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
        found = run(out_a, out_b, workers=workers or cores(), quiet=as_json)
    if as_json:
        document = {
            "shared": found.shared,
            "rows_a": found.rows_a,
            "rows_b": found.rows_b,
            "shared_in_a": found.shared_in_a,
            "shared_in_b": found.shared_in_b,
            "size": found.size,
            "by_size": found.by_size,
            "same_stream": found.same_stream,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(f"A: {found.rows_a:,} rows of {out_a}\nB: {found.rows_b:,} rows of {out_b}")
        click.echo(
            "A and B are one random stream: rows of equal index are equal"
            if found.same_stream
            else "A and B are disjoint random streams, by construction; small spaces share rows all the same"
        )
        click.echo(f"shared: {_count(found.shared, 'different row')}")
        if found.shared:
            click.echo(f"  {found.shared_in_a:,} of A's rows are in B, {found.shared_in_b:,} of B's rows are in A")
            for line in _by_size(found.size, found.by_size):
                click.echo(f"  {line}")
    if found.shared:
        raise DataError(f"{_count(found.shared, 'different row')} in both {out_a} and {out_b}")


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
