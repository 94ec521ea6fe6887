"""The one way to the terminal for lines that hold what comes from files: names, texts, values.

A test looks for any other: a name in a manifest may hold escape sequences that clear the screen or hide a line.
"""

from __future__ import annotations

import json

import click

from .errors import printable


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line; what does not print in it, line breaks included, is escaped."""
    click.echo(printable(line), err=err)


def say_json(text: str) -> None:
    """Print a JSON document, whose strings may hold anything, as an equal one that any terminal shows as it is."""
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    click.echo("".join(shown).rstrip("\n"))
