"""The document of a run as tables: plain text for a terminal, Markdown between markers for a page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synthshards.errors import DataError, UsageError

Document = Mapping[str, Any]


class Table(NamedTuple):
    """A title, the heads of its columns, and its rows."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def _rate(value: float, unit: str = "") -> str:
    """``"62.4 M"``, three digits."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{_three(value / factor)} {letter} {unit}".rstrip()
    return f"{_three(value)} {unit}".rstrip()


def _three(value: float) -> str:
    """Three digits, more before the point if there are more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(value: float) -> str:
    return f"{_three(value)} ×"


def _memory(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:,.0f} MB"


def _machine(document: Document) -> str:
    m = document["machine"]
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.0f} GiB; {m['system']}; Python {m['python']}, "
        f"numpy {m['numpy']}, numba {m['numba']}, pyarrow {m['pyarrow']}, synthshards {m['synthshards']}; "
        f"load at the start {m['load']}{'; rough figures (--quick)' if document['quick'] else ''}"
    )


def _plain(document: Document) -> Table:
    rows = [
        (e["preset"], f"{_rate(e['per_second'])} {e['unit']}/s", " ".join(map(_rate, e["measured"])))
        for e in document["plain"]
    ]
    return Table("Plain Python, one core", ("preset", "best", "in the course of the run"), rows)


def _generation(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{_rate(e['per_second'])} {e['unit']}/s",
            f"{_rate(e['median_per_second'])}",
            _rate(e["rows_per_second"]),
            f"{e['ns_per_row']:,.0f} ns",
            _times(e["ratio"]),
        )
        for e in document.get("generation", ())
    ]
    head = ("preset", "best", "median", "rows/s", "a row", "plain Python")
    return Table("Generation, one core", head, rows)


def _formats(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{e['format']} {e['compression']}",
            f"{_rate(e['write_per_second'])} {e['unit']}/s",
            _rate(e["write_rows_per_second"]),
            _times(e["write_ratio"]),
            f"{_rate(e['read_per_second'])} {e['unit']}/s",
            _times(e["read_ratio"]),
            f"{e['bytes_per_unit']:.2f}",
        )
        for e in document.get("formats", ())
    ]
    head = ("preset", "format", "write", "rows/s", "plain Python", "read", "plain Python", "bytes a token or character")
    return Table("Write and read, one core, in memory", head, rows)


def _digests(document: Document) -> Table:
    rows = [
        (
            e["preset"],
            f"{_rate(e['content_per_second'])} {e['unit']}/s",
            _times(e["content_ratio"]),
            f"{_rate(e['sha256_bytes_per_second'])}B/s",
        )
        for e in document.get("digests", ())
    ]
    head = ("preset", "content digest", "plain Python", "sha256 of a file")
    return Table("Digests, one core", head, rows)


def _processes(title: str, section: str) -> Callable[[Document], Table]:
    def table(document: Document) -> Table:
        rows = [
            (
                e["preset"],
                f"{e['format']} {e['compression']}",
                str(e["workers"]),
                f"{e['rows']:,}",
                f"{e['seconds']:.2f} s",
                f"{e['cpu_seconds']:.2f} s",
                _memory(e["peak_bytes"]),
                f"{_rate(e['per_second'])} {e['unit']}/s",
                _times(e["ratio"]),
            )
            for e in document.get(section, ())
        ]
        head = ("preset", "format", "workers", "rows", "wall", "processor", "peak memory", "speed", "plain Python")
        return Table(title, head, rows)

    return table


def _start_up(document: Document) -> Table:
    rows = [(e["command"], f"{e['seconds']:.2f} s", f"{e['cpu_seconds']:.2f} s") for e in document.get("start_up", ())]
    return Table("Start-up, whole processes", ("command", "wall", "processor"), rows)


def _resume(document: Document) -> Table:
    rows = [
        (
            f"{e['shards']:,}",
            f"{e['resume_seconds']:.2f} s",
            f"{e['resume_cpu_seconds']:.2f} s",
            f"{e['complete_seconds']:.2f} s",
            _memory(e["peak_bytes"]),
        )
        for e in document.get("resume", ())
    ]
    head = ("shards", "one was missing", "processor", "none was missing", "peak memory")
    return Table("Resuming a build, whole processes", head, rows)


def _summary(document: Document) -> Table:
    rows = [
        ("generation, one core", e["preset"], f"{_rate(e['per_second'])} {e['unit']}/s", _times(e["ratio"]))
        for e in document.get("generation", ())
    ]
    builds = document.get("builds", ())
    most = max((e["rows"] for e in builds), default=0)
    rows += [
        (
            f"build, {e['format']} {e['compression']}, {e['workers']} worker{'s' if e['workers'] > 1 else ''}",
            f"{e['preset']}, {e['rows']:,} rows in {e['seconds']:.2f} s",
            f"{_rate(e['per_second'])} {e['unit']}/s",
            _times(e["ratio"]),
        )
        for e in builds
        if e["rows"] == most
    ]
    return Table("In short", ("what", "of what", "speed", "plain Python"), rows)


#: Name of a marker → what stands there, in the order of the text report.
TABLES: dict[str, Callable[[Document], Table]] = {
    "plain": _plain,
    "generation": _generation,
    "formats": _formats,
    "digests": _digests,
    "builds": _processes("Builds, whole processes", "builds"),
    "verifications": _processes("Verifications, whole processes", "verifications"),
    "start-up": _start_up,
    "resume": _resume,
    "summary": _summary,
}


def text(document: Document) -> str:
    """All tables that have rows, for a terminal."""
    parts = [_machine(document)]
    for make in TABLES.values():
        table = make(document)
        if table.rows:
            parts.append(f"{table.title}\n" + "\n".join(f"  {line}" for line in _aligned([table.head, *table.rows])))
    return "\n\n".join(parts)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown(document: Document, name: str) -> str:
    """What stands at marker `name`: a table, or for ``machine`` a paragraph."""
    if name == "machine":
        return _machine(document) + "."
    table = TABLES[name](document)
    rule = ("---", "---", *("---:" for _ in table.head[2:]))
    return "\n".join("| " + " | ".join(row) + " |" for row in (table.head, rule, *table.rows))


_BLOCK = re.compile(r"(<!-- bench:(?P<name>[\w-]+) -->\n).*?(<!-- /bench -->)", re.S)


def check_markers(page: Path) -> None:
    """Refuse a page that is not there, has no marker, or has one of an unknown name.

    Raises:
        UsageError: and OSError.
    """
    try:
        names = [match["name"] for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise UsageError(f"--markdown {page}: no such file") from None
    legal = ", ".join(["machine", *TABLES])
    if not names:
        raise UsageError(f"{page}: no <!-- bench:NAME --> … <!-- /bench --> in it; legal names: {legal}")
    for name in names:
        if name != "machine" and name not in TABLES:
            raise UsageError(f"{page}: unknown marker bench:{name}; legal: {legal}")


def update(page: Path, document: Document) -> None:
    """Put the figures of a run between the markers of a page: ``<!-- bench:builds -->`` … ``<!-- /bench -->``."""
    check_markers(page)

    def filled(match: re.Match[str]) -> str:
        return f"{match[1]}{markdown(document, match['name'])}\n{match[3]}"

    page.write_text(_BLOCK.sub(filled, page.read_text(encoding="utf-8")), encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A stored document.

    Raises:
        UsageError: there is no such file.
        DataError: it is none.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        if document["schema_version"] == 1:
            text(document)
            return document
    except FileNotFoundError:
        raise UsageError(f"--from {path}: no such file") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise DataError(f"{path}: not a document of bench --json")
