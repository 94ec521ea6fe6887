"""Lano's rows again in plain Python, from docs/randomness.md alone. It shares no line with the package."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm, prod
from typing import Any

import reference

from synthshards.tasks.lano.grammar import Grammar


def planned(grammar: Grammar) -> list[tuple[int, int]]:
    """randomness.md, "Stages": which there are."""
    rules, below, out = grammar.rules, grammar.depth, list[tuple[int, int]]()
    while below:
        above = below - 1
        if below > 1:
            heads = grammar.levels[below - 2]
            longest = max(sum(max(map(len, rules[s])) for s in rule) for head in heads for rule in rules[head])
            if longest <= 16 and sum(radix(grammar, head, 2) for head in heads) <= 32_768:
                above = below - 2
        out.insert(0, (above, below))
        below = above
    return out


def ways(grammar: Grammar, rule: Sequence[int]) -> int:
    return prod(len(grammar.rules[s]) for s in rule)


def radix(grammar: Grammar, symbol: int, levels: int) -> int:
    rules = grammar.rules[symbol]
    return len(rules) * (lcm(*(ways(grammar, rule) for rule in rules)) if levels == 2 else 1)


def expansion(grammar: Grammar, symbol: int, levels: int, s: int) -> list[int]:
    """randomness.md, "Stages": what the number s makes of a symbol."""
    rules = grammar.rules[symbol]
    if levels == 1:
        return list(rules[s])
    L = lcm(*(ways(grammar, rule) for rule in rules))
    rule = rules[s // L]
    e = (s % L) // (L // ways(grammar, rule))
    out: list[int] = []
    for child in reversed(rule):
        e, digit = divmod(e, len(grammar.rules[child]))
        out[:0] = grammar.rules[child][digit]
    return out


def by_the_prose(task: Any, seed: int, split: str, i: int) -> dict[str, Any]:
    """randomness.md, "Sentences", "Tokens and facts of Lano": a row."""
    p, grammar = task.params, task.grammar
    key = reference.key_of(reference.identity_digest("lano", 1, p.canonical(), seed, split))
    source = reference.words(reference.start(key, i))
    row = [grammar.root]
    for above, below in planned(grammar):
        most = max(radix(grammar, symbol, below - above) for symbol in grammar.levels[above])
        group = max(g for g in range(1, 9) if g == 1 or most**g <= 2**52)
        grown: list[int] = []
        for at in range(0, len(row), group):
            part = row[at : at + group]
            numbers = reference.numbers(source, *(radix(grammar, symbol, below - above) for symbol in part))
            for symbol, s in zip(part, numbers, strict=True):
                grown += expansion(grammar, symbol, below - above, s)
        row = grown
    ids = [p.bos_token_id] * (p.framing == "bos") + row
    return {"input_ids": ids, "loss_mask": [True] * len(ids), "labels": ids, "length": len(row)}
