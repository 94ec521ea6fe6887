"""From a grammar's text to its levels and rules, with every mistake named by its line.

One line a symbol, its right-hand sides separated by `|`; empty lines and what follows a `#` do not count. Symbols are
words without spaces; those without rules are the terminals, and must be 1..V. See `tasks.lano.grammar` for an example.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from ...errors import UsageError

Rule: TypeAlias = tuple[int, ...]
#: The symbols of each level, and symbol → right-hand sides.
Levels: TypeAlias = tuple[tuple[int, ...], ...]
Rules: TypeAlias = dict[int, tuple[Rule, ...]]
_Named: TypeAlias = dict[str, list[tuple[str, ...]]]

#: A grammar stands in every manifest of its rows.
MAX_TEXT = 1 << 20
MAX_DEPTH = 64
MAX_SYMBOLS = 65_535


def parse(text: str, where: str) -> tuple[Levels, Rules]:
    """Levels and rules of a text, symbols numbered as published; `where` is what errors name before the line.

    Raises:
        UsageError: naming the line and what is legal there.
    """
    if len(text) > MAX_TEXT:
        raise UsageError(f"{where}: {len(text)} characters or more; legal: at most {MAX_TEXT}")
    lines: dict[str, int] = {}
    named: _Named = {}
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.partition("#")[0].strip()
        if bare:
            head, rules = _parse_line(bare, f"{where}: line {number}")
            if head in lines:
                raise UsageError(f"{where}: line {number}: {head} has its rules in line {lines[head]} already")
            lines[head], named[head] = number, rules
    if not named:
        raise UsageError(f"{where}: no rules; legal: lines like 'S -> 1 2 | 2 1', the root's first")
    heights = _heights(named, lines, where)
    return _numbered(named, heights)


def _parse_line(bare: str, where: str) -> tuple[str, list[tuple[str, ...]]]:
    head, arrow, bodies = bare.partition("->")
    head = head.strip()
    rules = [tuple(body.split()) for body in bodies.split("|")]
    if not arrow or "->" in bodies or not head or len(head.split()) > 1 or not all(rules):
        raise UsageError(f"{where}: {_short(bare)} is no rule; legal: like 'S -> 1 2 | 2 1'")
    if len(set(rules)) < len(rules):
        twice = next(rule for i, rule in enumerate(rules) if rule in rules[:i])
        raise UsageError(f"{where}: {head} has the right-hand side {_short(' '.join(twice))} twice")
    return head, rules


def _heights(named: _Named, lines: dict[str, int], where: str) -> dict[str, int]:
    """Expansions from each symbol down to the terminals, checked to be one number for each, and the root's alone."""
    heights: dict[str, int] = {}
    for head, rules in named.items():
        for symbol in (s for rule in rules for s in rule if s not in named):
            if not re.fullmatch("[1-9][0-9]{0,6}", symbol):
                raise UsageError(
                    f"{where}: line {lines[head]}: {_short(symbol)} has no rules and is no terminal; legal: 1, 2, 3 …"
                )
            heights[symbol] = 0
    terminals = {int(symbol) for symbol in heights}
    waiting = list(named)
    for _ in range(MAX_DEPTH):
        ready = [head for head in waiting if all(s in heights for rule in named[head] for s in rule)]
        below = {head: {s: heights[s] for rule in named[head] for s in rule} for head in ready}
        for head in ready:
            (first, height), *others = below[head].items()
            for symbol, other in others:
                if other != height:
                    raise UsageError(
                        f"{where}: line {lines[head]}: {head} expands to symbols of different levels, {first} "
                        f"({_above(height)}) and {symbol} ({_above(other)}); legal: symbols of one level"
                    )
            heights[head] = height + 1
        waiting = [head for head in waiting if head not in heights]
        if not ready or not waiting:
            break
    if waiting:
        head, seen, higher = waiting[0], set[str](), set(waiting)
        while head not in seen:  # down to a symbol on the cycle, if there is one
            seen.add(head)
            head = next((s for rule in named[head] for s in rule if s in higher), waiting[0])
        raise UsageError(
            f"{where}: line {lines[head]}: {head} leads back to itself, or is over {MAX_DEPTH} levels above the "
            "terminals; legal: symbols that expand to symbols of the level below"
        )
    root = next(iter(named))
    for head, height in heights.items():
        if head != root and height >= heights[root]:
            raise UsageError(
                f"{where}: line {lines[head]}: {head} is {_above(height)}, the root {root} {_above(heights[root])}; "
                "legal: the first line is the root's, and the root alone stands on top"
            )
    missing = next(t for t in range(1, len(terminals) + 2) if t not in terminals)
    if missing <= len(terminals):
        raise UsageError(f"{where}: terminal {missing} is missing; legal: terminals 1..V without holes")
    if len(named) > MAX_SYMBOLS:
        raise UsageError(f"{where}: {len(named)} symbols have rules; legal: at most {MAX_SYMBOLS}")
    return heights


def _numbered(named: _Named, heights: dict[str, int]) -> tuple[Levels, Rules]:
    """Levels and rules with the published numbers: within a level, symbols stand in the order of `named`."""
    terminals = sum(height == 0 for height in heights.values())
    number = {str(t): t for t in range(1, terminals + 1)}
    top = max(heights.values())
    levels: list[tuple[int, ...]] = [tuple(range(1, terminals + 1))]
    free = terminals + 4
    for height in range(1, top + 1):
        level = [head for head in named if heights[head] == height]
        number.update(zip(level, range(free, free + len(level)), strict=True))
        levels.append(tuple(range(free, free + len(level))))
        free += len(level)
    rules = {number[head]: tuple(tuple(number[s] for s in rule) for rule in bodies) for head, bodies in named.items()}
    return tuple(reversed(levels)), rules


def _above(height: int) -> str:
    return f"{height} above the terminals" if height else "a terminal, for it has no rules"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
