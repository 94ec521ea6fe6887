"""The command `cache`: what the loaders keep of remote shards on the local disk."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from synthshards.errors import UsageError

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
    """List the datasets of which there are copies.

    \b
    Example:
      synthshards cache ls --json
    """
    kept = Cache.of_environment()
    datasets: list[dict[str, Any]] = []
    for folder, files in kept.folders().items():
        fingerprint = fingerprint_of(folder)
        name = folder.removesuffix(f"-{fingerprint}")
        size = sum(file.size for file in files)
        datasets.append({"name": name, "fingerprint": f"sha256:{fingerprint}", "files": len(files), "bytes": size})
    total = {name: sum(entry[name] for entry in datasets) for name in ("files", "bytes")}
    if as_json:
        return click.echo(
            json.dumps({"path": str(kept.root), "limit": kept.limit, **total, "datasets": datasets}, indent=2)
        )
    width = max([len(entry["name"]) for entry in datasets], default=0)
    for entry in datasets:
        click.echo(f"{entry['name']:{width}}  {entry['fingerprint'][:23]}  {_sized(entry)}")
    click.echo(f"{kept.root}: {_sized(total)} of at most {kept.limit:,} bytes")
    return None


@cache.command()
@click.option("--fingerprint", metavar="F", help="Only this dataset's: its fingerprint, or the beginning of it.")
def clear(fingerprint: str | None) -> None:
    """Delete copies (programs that read them go on reading).

    \b
    Example:
      synthshards cache clear --fingerprint sha256:3f2a
    """
    kept = Cache.of_environment()
    digest = "" if fingerprint is None else _digest(fingerprint, kept)
    files, size = kept.clear(digest)
    click.echo(f"{kept.root}: {_sized({'files': files, 'bytes': size})} deleted")


def _digest(fingerprint: str, kept: Cache) -> str:
    """The hex digits of a fingerprint, or of the beginning of one, of which there are copies."""
    text = fingerprint.removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{1,64}", text):
        raise UsageError(f"--fingerprint {fingerprint!r}; legal: sha256: and up to 64 of the digits 0-9 and a-f")
    if not any(fingerprint_of(folder).startswith(text) for folder in kept.folders()):
        raise UsageError(
            f"--fingerprint {fingerprint}: {kept.root} has none of it; legal: what synthshards cache ls shows"
        )
    return text


def _sized(counts: dict[str, Any]) -> str:
    return f"{counts['files']} {'file' if counts['files'] == 1 else 'files'}, {counts['bytes']:,} bytes"
