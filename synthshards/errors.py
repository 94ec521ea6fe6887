"""What a user is told: errors, each one line (what, where, the legal values, the nearest match), and `say`.

The exit code of the command line follows from the class: 2 for wrong usage, 1 for data that are not what they
should be and for failed input or output.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterable


def printable(text: str) -> str:
    """A text from a file or a user for a terminal: what does not print (line breaks, escape sequences) is escaped.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def bounded(message: str) -> str:
    """A message without the middle of what makes it longer than a screen, which is some value that was given."""
    return (
        message if len(message) <= 2000 else f"{message[:500]} … ({len(message) - 1000} characters) … {message[-500:]}"
    )


class SynthshardsError(ValueError):
    """Base of all errors raised on purpose by this package: one line, whatever the names in it."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(bounded(message)))


class UsageError(SynthshardsError):
    """A name, option, value or folder that cannot be used (exit code 2)."""

    exit_code = 2


class DataError(SynthshardsError):
    """Data that are damaged, differ from what was promised, or cannot be trusted (exit code 1)."""


class ManifestError(DataError):
    """A manifest that is not one, or that claims the impossible (exit code 1)."""


class VersionError(DataError):
    """Rows of another task version: they can be read but not generated again (exit code 1)."""


class StorageError(SynthshardsError):
    """Reading or writing failed: no space, no permission, an unreachable store (exit code 1)."""


class HealWarning(UserWarning):
    """A damaged or missing shard was replaced by generating its rows again."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or an empty string.

    >>> nearest("dep0", ["depo", "mano"])
    "; did you mean 'depo'?"
    """
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line: its first, or the name of its class."""
    return next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)


def cut(text: str, most: int = 80) -> str:
    """At most `most` characters of a text that may be long (a grammar, say), for one line."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def is_integer(text: str) -> bool:
    """Whether a text is an integer as people write it: ASCII digits, at most 20, perhaps after a minus."""
    return re.fullmatch("-?[0-9]{1,20}", text) is not None


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line that may hold what comes from files: what does not print in it, line breaks included, is escaped.

    It is the one way to the terminal for names, texts and values; a test looks for any other.
    """
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def say_json(text: str) -> None:
    """Print a JSON document, whose strings may hold anything, as an equal one that any terminal shows as it is."""
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print("".join(shown).rstrip("\n"), flush=True)
