"""The errors a user can meet. Each is one line: what, where, the legal values, the nearest match.

The exit code of the command line follows from the class: 2 for wrong usage, 1 for data that are not what they
should be and for failed input or output.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SynthshardsError(ValueError):
    """Base of all errors raised on purpose by this package."""

    exit_code = 1


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


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest candidate, or an empty string.

    >>> nearest("dep0", ["depo", "mano"])
    "; did you mean 'depo'?"
    """
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def cut(text: str, most: int = 80) -> str:
    """At most `most` characters of a text that may be long (a grammar, say), for one line."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
