"""The places in a JSON document, and values that are wrong in most of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = Any
Path_ = tuple[str | int, ...]

WRONG: list[Json] = [
    None, True, False, 0, 1, -1, 7.0, 1.5, 1e300, 2**63, 2**64, 10**40, "", "x", "../x", "/etc/passwd", "é\n\x1b[31m",
    "sha256:0", "x" * 100_000, [], [1], {}, {"a": 1}, [[[[]]]],
]  # fmt: skip


def fields(tree: Json, at: Path_ = ()) -> Iterator[Path_]:
    """The path of everything in a document but itself."""
    branches: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, branch in branches:
        yield (*at, key)
        yield from fields(branch, (*at, key))


def parent_of(document: Json, path: Path_) -> Json:
    for key in path[:-1]:
        document = document[key]
    return document
