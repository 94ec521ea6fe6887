"""Tables for a terminal, and as Markdown between the markers of a page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from synthshards.errors import DataError, UsageError
from synthshards.inspect import aligned

from .tables import TABLES, Document, machine


def text(document: Document) -> str:
    """All tables that have rows, for a terminal."""
    parts = [machine(document)]
    for make in TABLES.values():
        table = make(document)
        if table.rows:
            lines = aligned([table.head, *table.rows], right=2)
            parts.append("\n".join([table.title, *(f"  {line}" for line in lines)]))
    return "\n\n".join(parts)


def markdown(document: Document, name: str) -> str:
    """What stands at marker `name`: a table, or for ``machine`` a paragraph."""
    if name == "machine":
        return machine(document) + "."
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
    """Put the figures of a run between the markers of a page that `check_markers` has passed.

    What the run did not measure stays as it is, and so does the machine, where only loaders or peers were measured.
    """

    def filled(match: re.Match[str]) -> str:
        name = match["name"]
        if not (document["plain"] if name == "machine" else TABLES[name](document).rows):
            return match[0]
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
