"""`synthshards loaders-check`: the loaders' guarantees, proved on one's own dataset."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

import click

from synthshards.errors import DataError, UsageError

from .dataset import Mixture
from .open_dataset import open_dataset
from .selfcheck import Trial, run_checks


@click.command("loaders-check")
@click.argument("location", metavar="OUT|TASK")
@click.option("--world", type=click.IntRange(1, 1024), default=8, show_default=True, help="Ranks to try.")
@click.option("--workers", type=click.IntRange(0, 64), default=2, show_default=True, help="DataLoader workers.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Of all ranks together.")
@click.option("--seq-len", type=click.IntRange(1), default=2048, show_default=True, help="Of packed windows.")
@click.option("--rows", type=click.IntRange(1), default=50_000, show_default=True, help="Try the first so many rows.")
@click.option("--tokenizer", help="For text rows: a tokenizer.json, or what AutoTokenizer takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def loaders_check(
    location: str,
    world: int,
    workers: int,
    batch_size: int,
    seq_len: int,
    rows: int,
    tokenizer: str | None,
    as_json: bool,
) -> None:
    """Prove on a dataset what the loaders promise: every row once, one order for every world, exact resume.

    \b
    Example:
      synthshards loaders-check data/depo/train --world 8 --workers 2
    """
    if batch_size % world:
        raise UsageError(f"--batch-size {batch_size} is no multiple of --world {world}; legal: {world}, {2 * world}, …")
    ds = open_dataset(location)
    assert not isinstance(ds, Mixture), "a string names one dataset"
    limit = rows if ds.num_examples is None else min(rows, ds.num_examples)
    ds = open_dataset(location, num_examples=limit)
    assert not isinstance(ds, Mixture), "a string names one dataset"
    trial = Trial(ds, batch_size, world, workers, seq_len, tokenizer)
    found, began = [], time.perf_counter()
    for check in run_checks(trial):
        found.append(check)
        if not as_json:
            figures = ", ".join(f"{value:,} {name}" for name, value in check.figures.items())
            click.echo(f"{'FAIL' if check.problem else 'ok':4}  {check.says}{f' ({figures})' if figures else ''}")
    broken = [check for check in found if check.problem]
    if as_json:
        click.echo(json.dumps({"ok": not broken, "rows": limit, "checks": [asdict(check) for check in found]}))
    else:
        click.echo(f"{limit:,} rows, {world} ranks, {workers} workers, {time.perf_counter() - began:.0f} s")
    if broken:
        raise DataError(f"{location}: {broken[0].problem}")
