"""`synthshards bench`: what is measured, in which order, and the document it makes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from synthshards.catalog import TASKS, resolve
from synthshards.cli import BENCH_SECTIONS, MAX_ROWS, Integer, load
from synthshards.errors import UsageError, cut, is_integer, nearest
from synthshards.formats import FORMATS, check_compression, get_format

from ..commands import JSON, MAX_WORKERS, cores
from . import memory, process, report
from .machine import machine
from .memory import MeasuredPreset
from .plain import PLAIN

#: Measured when no preset is named; the first of them and that of text are also built end to end.
PRESETS = ("depo1-225", "depo2-125", "brevo1-110", "brevo2-50", "mano-10", "lano-cfg3f", "capo-50k")
_TEXT = "capo-50k"
SECTIONS = ("start-up", "builds", "resume", "generation", "formats", "loaders")
#: Measured only when named: the one installs other people's libraries, the other trains for half a minute.
ASKED_FOR = ("peers", "train")
#: Names of a format and a compression.
Case = tuple[str, str]

#: What --quick changes of the settings.
_QUICK: dict[str, Any] = {
    "rows": 1 << 14,
    "memory_rows": 1 << 11,
    "seconds": 0.05,
    "runs": 1,
    "shards": 100,
    "loaded_rows": 1 << 12,
}


@dataclass(frozen=True)
class BenchSettings:
    """What to measure, and how long: rows of a build, rows and seconds of what is timed in memory, runs of a process.

    `formats` None means every compression in memory, and each format's default end to end.
    """

    presets: tuple[str, ...]
    built: tuple[str, ...]
    formats: tuple[Case, ...] | None
    workers: tuple[int, ...]
    sections: tuple[str, ...]
    quick: bool
    rows: int = 1 << 20
    memory_rows: int = 1 << 14
    seconds: float = 1.0
    runs: int = 3
    shards: int = 100_000
    loaded_rows: int = 60_000


@dataclass
class BenchRun:
    """One run: what is measured of each preset in turn, and the speeds of plain Python in between."""

    settings: BenchSettings
    say: Callable[[str], None]
    document: dict[str, Any] = field(default_factory=dict)

    def measure(self) -> dict[str, Any]:
        """The document, without ratios."""
        chosen = self.settings
        subjects = [MeasuredPreset.of(preset) for preset in chosen.presets]
        plain: dict[str, list[float]] = {preset: [] for preset in chosen.presets}

        def time_plain() -> None:
            if set(chosen.sections) <= BENCH_SECTIONS.keys():  # they have other measures
                return
            for subject in subjects:
                self.say(f"plain Python, {subject.preset}")
                plain[subject.preset].append(memory.plain_speed(subject, chosen.seconds))

        self.document = {"schema_version": 1, "quick": chosen.quick, "machine": machine(), "plain": []}
        time_plain()
        if "start-up" in chosen.sections:
            self.say("start-up")
            self.document["start_up"] = process.start_up(chosen.runs)
        if "builds" in chosen.sections:
            self._builds([subject for subject in subjects if subject.preset in chosen.built])
        if "resume" in chosen.sections:
            self.say(f"resuming {chosen.shards:,} shards")
            self.document["resume"] = [process.resume(chosen.shards)]
        time_plain()
        if "generation" in chosen.sections:
            self.document["generation"] = []
            for subject in subjects:
                self.say(f"generation, {subject.preset}")
                self.document["generation"].append(memory.generation(subject, chosen.seconds))
        if "formats" in chosen.sections:
            self._formats(subjects)
        time_plain()
        self.document["plain"] = [
            {"preset": s.preset, "unit": s.unit, "per_second": max(plain[s.preset]), "measured": plain[s.preset]}
            for s in subjects
            if plain[s.preset]
        ]
        self._above([subject.preset for subject in subjects if subject.preset in chosen.built])
        return self.document

    def _builds(self, subjects: Sequence[MeasuredPreset]) -> None:
        chosen = self.settings
        self.document["builds"], self.document["verifications"] = [], []
        cases = chosen.formats or tuple((name, check_compression(name, None)) for name in FORMATS)
        # A quarter of the rows once, in the first format: peak memory is the same whatever the total.
        plans = [(case, workers, chosen.rows) for case in cases for workers in chosen.workers]
        plans.insert(len(chosen.workers), (cases[0], chosen.workers[-1], -(-chosen.rows // 4)))
        for subject in subjects:
            # Of text one large build, so that start-up counts for little: all five million rows of capo-50k.
            limit = subject.task.num_examples or chosen.rows
            text = [(cases[0], chosen.workers[-1], min(5 * chosen.rows, limit))]
            for (name, compression), workers, rows in plans if subject.unit == "tokens" else text:
                self.say(f"build, {subject.preset}, {name} {compression}, workers {workers}, {rows:,} rows")
                built, verified = process.build(subject, rows, name, compression, workers, chosen.runs)
                self.document["builds"].append(built)
                self.document["verifications"].append(verified)

    def _above(self, presets: Sequence[str]) -> None:
        """Loaders, peers and training, of token rows; left out with one line where PyTorch is missing."""
        chosen = self.settings
        for section, (name, extra) in BENCH_SECTIONS.items():
            if section not in chosen.sections:
                continue
            try:
                above = load(name, extra, f"{section} left out:")
            except UsageError as error:
                _say(str(error))
                continue
            entries = self.document[section] = []
            for preset in presets:
                if MeasuredPreset.of(preset).unit == "tokens":
                    entries += above.measure(preset, chosen.loaded_rows, chosen.seconds, self.say)

    def _formats(self, subjects: Sequence[MeasuredPreset]) -> None:
        chosen = self.settings
        self.document["formats"], self.document["columns"], self.document["digests"] = [], [], []
        every = tuple((name, compression) for name, format in FORMATS.items() for compression in format.compressions)
        for subject in subjects:
            made = memory.batches_of(subject, chosen.memory_rows)
            self.say(f"digests, {subject.preset}")
            self.document["digests"].append(memory.digests(subject, made, chosen.seconds / 2))
            for name, compression in chosen.formats or every:
                self.say(f"write and read, {subject.preset}, {name} {compression}")
                entry = memory.format_speeds(subject, name, compression, made, chosen.seconds / 2)
                self.document["formats"].append(entry)
            for column in subject.task.columns:
                self.document["columns"].append(memory.column_cost(subject, column, made, chosen.seconds / 4))


def add_ratios(document: dict[str, Any]) -> dict[str, Any]:
    """Put beside each speed its quotient by the best speed of plain Python in the same run."""
    plain = {entry["preset"]: entry["per_second"] for entry in document["plain"]}
    for section in ("builds", "verifications", "generation", "formats", "digests"):
        for entry in document.get(section, ()):
            for speed, ratio in (
                ("per_second", "ratio"),
                ("write_per_second", "write_ratio"),
                ("read_per_second", "read_ratio"),
                ("content_per_second", "content_ratio"),
            ):
                if speed in entry:
                    entry[ratio] = entry[speed] / plain[entry["preset"]]
    return document


@click.command()
@click.argument("names", nargs=-1, metavar="[TASK|PRESET]...")
@click.option("--rows", type=Integer(1, MAX_ROWS), help="Rows of each build. [default: 1048576]")
@click.option("--formats", metavar="LIST", help="Such as parquet,arrow:lz4. [default: all]")
@click.option("--workers", metavar="LIST", help="Workers of the builds, such as 1,2. [default: 1 and all cores]")
@click.option(
    "--only", metavar="LIST", help=f"Of {','.join(SECTIONS)}; and {','.join(ASKED_FOR)}. [default: all but these two]"
)
@click.option("--quick", is_flag=True, help="A few seconds, rough figures.")
@JSON
@click.option("--markdown", metavar="FILE", help="Put the tables between the <!-- bench:NAME --> markers of FILE.")
@click.option("--from", "stored", metavar="FILE", help="Show the figures of a stored --json; measure nothing.")
def bench(
    names: tuple[str, ...],
    rows: int | None,
    formats: str | None,
    workers: str | None,
    only: str | None,
    quick: bool,
    as_json: bool,
    markdown: str | None,
    stored: str | None,
) -> None:
    """Measure generation, formats, whole builds and loaders on this machine, as ratios of one run.

    \b
    Examples:
      synthshards bench
      synthshards bench depo2-125 --formats parquet,arrow --workers 1,2
      synthshards bench --json > bench.json && synthshards bench --from bench.json --markdown docs/performance.md

    `--only peers` reads the same rows with litdata, HF datasets, webdataset and mosaicml-streaming, too, and installs
    each into an environment of its own under .peers/, which is kept.

    Builds are written to a folder under the current one and deleted; with default settings they need up to 4 GB.
    """
    if markdown is not None:
        report.check_markers(Path(markdown))
    if stored is not None:
        document = report.load(Path(stored))
    else:
        presets = _presets(names)
        changed = {**(_QUICK if quick else {}), **({} if rows is None else {"rows": rows})}
        settings = BenchSettings(
            presets=presets,
            built=presets if names else (presets[0], _TEXT),
            formats=None if formats is None else _cases(formats),
            workers=_numbers(workers) if workers is not None else tuple(sorted({cores() if quick else 1, cores()})),
            sections=SECTIONS if only is None else _sections(only),
            quick=quick,
            **changed,
        )
        try:
            document = add_ratios(BenchRun(settings, _quiet if as_json else _say).measure())
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            raise click.exceptions.Exit(130) from None
    if markdown is not None:
        report.update(Path(markdown), document)
    click.echo(json.dumps(document, indent=2) if as_json else report.text(document))


def _say(line: str) -> None:
    click.echo(f"bench: {line}", err=True)


def _quiet(line: str) -> None:
    pass


def _presets(names: Sequence[str]) -> tuple[str, ...]:
    """The presets that task and preset names mean, each once."""
    presets = [TASKS[name][1] if name in TASKS else name for name in names or PRESETS]
    for name in presets:
        task = resolve(name)[0].name
        if task not in PLAIN:
            raise UsageError(f"bench has no plain-Python generator of {task}; legal: {', '.join(PLAIN)}")
    return tuple(dict.fromkeys(presets))


def _cases(text: str) -> tuple[Case, ...]:
    """``"parquet,arrow:lz4"`` → the formats and compressions."""
    cases = []
    for item in text.split(","):
        name, _, compression = item.strip().partition(":")
        get_format(name)
        cases.append((name, check_compression(name, compression or None)))
    return tuple(dict.fromkeys(cases))


def _numbers(text: str) -> tuple[int, ...]:
    items = text.split(",")
    if not all(is_integer(item) and 0 < int(item) <= MAX_WORKERS for item in items):
        raise UsageError(f"--workers {cut(repr(text))}; legal: numbers 1..{MAX_WORKERS}, with commas between")
    return tuple(sorted({int(item) for item in items}))


def _sections(text: str) -> tuple[str, ...]:
    items = [item.strip() for item in text.split(",")]
    for item in items:
        if item not in (*SECTIONS, *ASKED_FOR):
            legal = (*SECTIONS, *ASKED_FOR)
            raise UsageError(f"--only {item!r}{nearest(item, legal)}; legal: {', '.join(legal)}")
    return tuple(items)
