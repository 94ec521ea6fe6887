"""The commands `cache` and `loaders-check`. The first of them works without torch, so nothing here imports it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict
from typing import Any

import click

from synthshards.cli import MAX_ROWS, Integer
from synthshards.errors import DataError, UsageError, say, say_json

from .shards.cache import Cache, fingerprint_of


@click.group(invoke_without_command=True)
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show or clear the copies of remote shards that loaders keep on the local disk.

    \b
    Examples:
      synthshards cache ls
      synthshards cache clear
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(as_json: bool) -> None:
    """List the datasets that have copies.

    \b
    Example:
      synthshards cache ls --json
    """
    copies = Cache.of_environment()
    datasets: list[dict[str, Any]] = []
    for folder, files in copies.folders().items():
        fingerprint = fingerprint_of(folder)
        name = folder.removesuffix(f"-{fingerprint}")
        size = sum(file.size for file in files)
        datasets.append({"name": name, "fingerprint": f"sha256:{fingerprint}", "files": len(files), "bytes": size})
    total = {name: sum(entry[name] for entry in datasets) for name in ("files", "bytes")}
    if as_json:
        return say_json(
            json.dumps({"path": str(copies.root), "limit": copies.limit, **total, "datasets": datasets}, indent=2)
        )
    width = max([len(entry["name"]) for entry in datasets], default=0)
    for entry in datasets:
        say(f"{entry['name']:{width}}  {entry['fingerprint'][:23]}  {_sized(entry)}")
    say(f"{copies.root}: {_sized(total)} of at most {copies.limit:,} bytes")
    return None


@cache.command()
@click.option("--fingerprint", metavar="F", help="Only this dataset's: its fingerprint, or the beginning of it.")
def clear(fingerprint: str | None) -> None:
    """Delete copies (programs that have them open can go on reading).

    \b
    Example:
      synthshards cache clear --fingerprint sha256:3f2a
    """
    copies = Cache.of_environment()
    digest = "" if fingerprint is None else _digest(fingerprint, copies)
    files, size = copies.clear(digest)
    say(f"{copies.root}: {_sized({'files': files, 'bytes': size})} deleted")


def _digest(fingerprint: str, copies: Cache) -> str:
    """The hex digits of a fingerprint, or of the beginning of one, of which there are copies."""
    text = fingerprint.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{1,64}", text):
        raise UsageError(f"--fingerprint {fingerprint!r}; legal: sha256: and up to 64 of the digits 0-9 and a-f")
    if not any(fingerprint_of(folder).startswith(text) for folder in copies.folders()):
        raise UsageError(
            f"--fingerprint {fingerprint}: {copies.root} has none of it; legal: what synthshards cache ls shows"
        )
    return text


def _sized(counts: dict[str, Any]) -> str:
    return f"{counts['files']} {'file' if counts['files'] == 1 else 'files'}, {counts['bytes']:,} bytes"


@click.command("loaders-check")
@click.argument("location", metavar="OUT|TASK")
@click.option("--world", type=Integer(1, 1024), default=8, show_default=True, help="Ranks to try.")
@click.option("--workers", type=Integer(0, 64), default=2, show_default=True, help="DataLoader workers.")
@click.option(
    "--batch-size", type=Integer(1, 1 << 20), default=64, show_default=True, help="Rows of all ranks together."
)
@click.option("--seq-len", type=Integer(1, 1 << 24), default=2048, show_default=True, help="Length of packed windows.")
@click.option(
    "--rows", type=Integer(1, MAX_ROWS), default=50_000, show_default=True, help="Rows to try, from the first."
)
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
    """Check on a dataset: every row once, the same order for any number of ranks, exact resume.

    \b
    Example:
      synthshards loaders-check data/depo/train --world 8 --workers 2
    """
    from .dataset import Dataset
    from .open_dataset import open_dataset
    from .selfcheck import Trial, run_checks

    if batch_size % world:
        raise UsageError(f"--batch-size {batch_size} is no multiple of --world {world}; legal: {world}, {2 * world}, …")
    whole = open_dataset(location)
    assert isinstance(whole, Dataset), "a string names one dataset"
    limit = rows if whole.num_examples is None else min(rows, whole.num_examples)
    ds = open_dataset(location, num_examples=limit)
    assert isinstance(ds, Dataset), "a string names one dataset"
    checks, began = [], time.perf_counter()
    for check in run_checks(Trial(ds, batch_size, world, workers, seq_len, tokenizer)):
        checks.append(check)
        if not as_json:
            figures = ", ".join(f"{value:,} {name}" for name, value in check.figures.items())
            say(f"{'FAIL' if check.problem else 'ok':4}  {check.says}{f' ({figures})' if figures else ''}")
    broken = [check for check in checks if check.problem]
    if as_json:
        say_json(json.dumps({"ok": not broken, "rows": limit, "checks": [asdict(check) for check in checks]}))
    else:
        say(f"{limit:,} rows, {world} ranks, {workers} workers, {time.perf_counter() - began:.0f} s")
    if broken:
        raise DataError(f"{location}: {broken[0].problem}")
