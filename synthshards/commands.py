"""Commands that need the core alone: tasks, info, inspect."""

from __future__ import annotations

import json
import os
import time
from itertools import chain
from typing import Any

import click

from . import inspect as inspection
from .catalog import TASKS, preset_names, resolve, task_from_text
from .cli import MAX_ROWS, Integer
from .dataset.stored import open_stored
from .errors import StorageError, UsageError, cut, say, say_json
from .kernels.buffers import Buffers
from .params import describe
from .storage.folder import reason
from .storage.local import local_path
from .tasks.task import Task
from .tokenizer import write_tokenizer


@click.command()
@click.argument("name", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--measure", is_flag=True, help="Add the generation speed of one core of this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--tokenizer", metavar="FILE", help="Write the task's tokenizer.json to FILE instead.")
@click.option("--dense", is_flag=True, help="With --tokenizer: ids 0..n-1 instead of the published ones.")
def tasks(
    name: str | None, overrides: tuple[str, ...], measure: bool, as_json: bool, tokenizer: str | None, dense: bool
) -> None:
    """List tasks and presets; with NAME show its parameters, or write its tokenizer.

    \b
    Examples:
      synthshards tasks
      synthshards tasks depo
      synthshards tasks --measure
      synthshards tasks depo K=16 --tokenizer tokenizer.json --dense
    """
    if tokenizer is not None:
        if name is None:
            raise UsageError("--tokenizer: whose? legal: a task or preset name before it")
        task = task_from_text(name, overrides)
        write_tokenizer(task, local_path(tokenizer), dense=dense)
        return say(f"wrote {tokenizer}")
    if dense or overrides:
        idle = "--dense" if dense else overrides[0]
        raise UsageError(f"tasks: {idle} has no effect here; legal: with --tokenizer FILE")
    if name is None:
        presets = [_preset(preset, measure) for preset in preset_names()]
        if as_json:
            return say_json(json.dumps(presets, indent=2))
        table = [["preset", "mean row", *(["one core"] if measure else []), "what it is"]]
        for entry in presets:
            unit = entry["unit"]
            speed = [_rate(entry[f"{unit}_per_second"], unit)] if measure else []
            table.append([entry["name"], f"{entry['mean_length']:.1f} {unit}", *speed, entry["about"]])
        for line in inspection.aligned(table, longest=24):
            say(line)
        bare = ", ".join(f"{task} = {preset}" for task, (_, preset) in TASKS.items())
        say()
        say(f"Bare names: {bare}. Parameters: synthshards tasks NAME")
        return None
    cls, values = resolve(name)
    rows = [{**row, "default": values.get(row["name"], row["default"])} for row in describe(cls.Params)]
    if as_json:
        return say_json(json.dumps({"task": cls.name, "version": cls.version, "parameters": rows}, indent=2))
    doc = (cls.__doc__ or "").splitlines()[0]
    say(f"{name}: task {cls.name}, version {cls.version}. {doc}")
    say()
    table = [["parameter", "default", "legal", "meaning"]]
    for row in rows:
        default = row["default"] if isinstance(row["default"], str) else json.dumps(row["default"])
        table.append([row["name"], default, row["legal"], row["meaning"]])
    for line in inspection.aligned(table, longest=24):
        say(line)
    if measure:
        task = cls(values)
        say()
        say(f"{_rate(_speed(task), _unit(task))} on one core")
    return None


def _preset(name: str, measure: bool) -> dict[str, Any]:
    cls, values = resolve(name)
    preset, task = cls.presets[name], cls(values)
    unit = _unit(task)
    entry: dict[str, Any] = {"name": name, "task": cls.name, "about": preset.about}
    entry.update(mean_length=preset.mean_length, unit=unit)
    if measure:
        entry[f"{unit}_per_second"] = _speed(task)
    return entry


def _unit(task: Task) -> str:
    """What rows are measured in."""
    return "tokens" if "input_ids" in task.columns else "bytes"


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second / 1e6:.0f} M {unit}/s"


def _speed(task: Task, seconds: float = 0.3) -> float:
    """Tokens (bytes of text) a second of one core, compilation not counted."""
    buffers, at, tokens = Buffers(), 0, 0
    task.batch(0, "measure", 0, 1024, buffers=buffers)
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        tokens += int(task.batch(0, "measure", at, 1024, buffers=buffers).offsets[-1])
        at += 1024
    return tokens / (time.perf_counter() - start)


@click.command()
@click.argument("out")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, with every shard's seed range, as JSON.")
def info(out: str, as_json: bool) -> None:
    """Show what the dataset OUT (a folder, a URI or a manifest) contains. Reads only its manifest.

    \b
    Examples:
      synthshards info data/depo/train
      synthshards info s3://bucket/depo/train --json
    """
    manifest = open_stored(out).manifest
    if as_json:
        return say_json(manifest.to_json().decode())
    identity, layout, generator = manifest.identity, manifest.layout, manifest.generator
    version = f"version {identity.task_version}"
    if identity.task_version != TASKS[identity.task][0].version:
        version += f" (this package makes version {TASKS[identity.task][0].version}: these rows can only be read)"
    totals = {name.replace("_", " "): f"{value:,}" for name, value in manifest.totals.items() if value is not None}
    lines = {
        "task": f"{identity.task} {version}",
        "stream": f"seed {identity.seed}, split {identity.split}",
        "parameters": " ".join(f"{key}={cut(json.dumps(value))}" for key, value in identity.params.items()),
        "fingerprint": identity.fingerprint,
        "layout": f"{layout.num_shards:,} {layout.format} shards of {layout.shard_examples:,} rows, "
        f"compression {layout.compression}",
        "columns": ", ".join(f"{name} {kind}" for name, kind in manifest.columns.items()),
        "totals": ", ".join(f"{value} {name}" for name, value in totals.items()),
        "written by": f"{generator['package']} {generator['version']}, pyarrow {generator['pyarrow']}",
    }
    say(out)
    for name, text in lines.items():
        say(f"  {name:12} {text}")
    say("  shards       (file, seed range, size)")
    shown = manifest.shards if len(manifest.shards) <= 6 else [*manifest.shards[:3], None, *manifest.shards[-2:]]
    for entry in shown:
        if entry is None:
            say("    …")
        else:
            size = "no file" if entry.bytes is None else f"{entry.bytes:,} bytes"
            say(f"    {entry.path}  {entry.start:,}..{entry.stop - 1:,}  {size}")
    return None


@click.command()
@click.argument("source", metavar="TASK|OUT")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--show", default=3, show_default=True, type=Integer(0, MAX_ROWS), help="Rows to show.")
@click.option("--seed", type=Integer(), help="Seed of generated rows. [default: 0]")
@click.option("--split", help="Split of generated rows. [default: train]")
@click.option("--tokenizer", metavar="NAME", help="Show tokens of a Hugging Face tokenizer (Hub name, folder or file).")
@click.option("--max-tokens", type=Integer(), default=-1, show_default=True, help="Tokens to show per row; -1 for all.")
@click.option(
    "--text-chars", type=Integer(), default=500, show_default=True, help="Characters to show per text; -1 for all."
)
@click.option("--no-color", is_flag=True, help="Plain text (as with NO_COLOR set, or into a pipe).")
@click.option("--html", metavar="FILE", help="Write an HTML page to FILE instead.")
def inspect(
    source: str,
    overrides: tuple[str, ...],
    show: int,
    seed: int | None,
    split: str | None,
    tokenizer: str | None,
    max_tokens: int,
    text_chars: int,
    no_color: bool,
    html: str | None,
) -> None:
    """Show rows of TASK (generated now) or of dataset OUT, decoded: dim where the loss mask is 0, green where it is 1.

    \b
    Examples:
      synthshards inspect depo N=12 --show 1
      synthshards inspect data/depo/train --max-tokens 80
      synthshards inspect depo1-300 --html depo.html
    """
    title, rows = inspection.report(
        source,
        overrides,
        show=show,
        seed=seed,
        split=split,
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        text_chars=text_chars,
    )
    if html is not None:
        try:
            local_path(html).write_text(inspection.as_html(title, rows), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise StorageError(f"cannot write {html}: {reason(error)}") from error
        return say(f"wrote {html}")
    color = False if no_color or os.environ.get("NO_COLOR") else None
    first = next(rows, None)  # where the data are damaged, the error comes alone
    say(title)
    say()
    for row in () if first is None else chain([first], rows):
        click.echo(inspection.as_terminal(row), color=color)
    return None
