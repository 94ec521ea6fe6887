"""How a sentence grows from the root, in stages of one or two levels, with a draw for each symbol: the law of Lano.

Every rule of a symbol is equally likely. In a stage every symbol of the row, from left to right, is replaced by an
expansion, whose number is drawn below the symbol's *radix*:

* over one level, the radix is the number of the symbol's rules, and the number drawn is the rule's;
* over two levels, for d rules of which rule r can go on in c(r) ways (the product of the numbers of rules of its
  symbols), the radix is d·L, where L is the least common multiple of all c(r). The number s means rule r = s // L, and
  e = (s mod L) // (L / c(r)) gives the rules of r's symbols: e has one digit for each, the first symbol's most
  significant, and the radix of a digit is that symbol's number of rules.

For 8 -> 7 7 | 7 6, 6 -> 1 2 and 7 -> 2 2 1 | 1 the stage from 8 to the terminals has c = 4, 2 and the radix 2·4 = 8:

    0 → 2 2 1 2 2 1    1 → 2 2 1 1    2 → 1 2 2 1    3 → 1 1    4, 5 → 2 2 1 1 2    6, 7 → 1 1 2

Two levels at once halve the draws, and a table spells the expansions (three times as fast as level by level).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import lcm, prod
from typing import NamedTuple

import numpy as np

from ...kernels.arrays import I64, U16, U32, U64, Ids
from .grammar import Grammar
from .grammar_parser import Rule

#: A stage spans two levels when the radices of its symbols sum to at most `MAX_NUMBERS`, and no expansion is longer
#: than `WIDE`, the width of a table's rows.
MAX_NUMBERS = 1 << 15
WIDE = 16
#: Numbers drawn from one word: at most 8, as long as the greatest radix of the stage to that power is at most this.
_GROUP_PRODUCT = 1 << 52


def stages(grammar: Grammar) -> list[tuple[int, int]]:
    """The stages as (level of the symbols, level of what replaces them), the root's first.

    They are chosen from the terminals up: two levels where that is allowed, else one.
    """
    out, below = [], grammar.depth
    while below > 0:
        above = below - 2 if below > 1 and _fits(grammar, below - 2) else below - 1
        out.append((above, below))
        below = above
    return out[::-1]


def _fits(grammar: Grammar, level: int) -> bool:
    """Whether a stage may lead from `level` over two levels."""
    numbers = 0
    for symbol in grammar.levels[level]:
        widest = max(sum(max(len(body) for body in grammar.rules[s]) for s in rule) for rule in grammar.rules[symbol])
        numbers += _radix(grammar, symbol) if widest <= WIDE else MAX_NUMBERS + 1
        if numbers > MAX_NUMBERS:
            return False
    return True


def _ways(grammar: Grammar, rule: Rule) -> int:
    """c(r)"""
    return prod(len(grammar.rules[s]) for s in rule)


def _radix(grammar: Grammar, symbol: int) -> int:
    """The radix of a symbol over two levels."""
    rules = grammar.rules[symbol]
    return len(rules) * lcm(*(_ways(grammar, rule) for rule in rules))


def _expansions(grammar: Grammar, symbol: int, levels: int) -> list[tuple[Rule, int]]:
    """The expansions of a symbol in the order of their numbers, each with the count of its numbers."""
    rules = grammar.rules[symbol]
    if levels == 1:
        return [(rule, 1) for rule in rules]
    numbers = _radix(grammar, symbol) // len(rules)
    return [
        (tuple(s for body in bodies for s in body), numbers // _ways(grammar, rule))
        for rule in rules
        for bodies in product(*(grammar.rules[s] for s in rule))
    ]


def _most(grammar: Grammar, level: int) -> int:
    """The most symbols of `level` in a row."""
    most = dict.fromkeys(grammar.levels[level], 1)
    for symbols in reversed(grammar.levels[:level]):
        most = {symbol: max(sum(most[s] for s in rule) for rule in grammar.rules[symbol]) for symbol in symbols}
    return most[grammar.root]


class ExpansionTables(NamedTuple):
    """The law of one grammar as a kernel takes it.

    The symbols that stages start from are numbered from the root's 0 upward; the last stage yields terminals.
    Expansions lie in rows of 16, padded with zeros; a longer one takes several.

    Attributes:
        groups: [stages], the numbers drawn from one word.
        radix, first: [symbols], the radix, and where the symbol's numbers begin in `row`.
        row: [numbers], the first row of the expansion that a number means.
        inner, inner_size: [rows, 16], [rows]: expansions to symbols; how many are left from a row on.
        outer, outer_size: [rows, 16], [rows]: the same for the last stage.
        widest: the most symbols in a row before the last stage.
    """

    groups: I64
    radix: U64
    first: U64
    row: U32
    inner: U16
    inner_size: U32
    outer: Ids
    outer_size: U32
    widest: int


@lru_cache(maxsize=16)
def expansion_tables(grammar: Grammar, dtype: str) -> ExpansionTables:
    """The tables of a grammar, terminals in `dtype` ("uint16" or "uint32")."""
    plan = stages(grammar)
    sources = [symbol for above, _ in plan for symbol in grammar.levels[above]]
    number = {symbol: i for i, symbol in enumerate(sources)}
    number.update((terminal, terminal) for terminal in grammar.levels[-1])
    groups, radix, first, row = [], [], [], list[int]()
    inner, outer = _Rows(), _Rows()
    for above, below in plan:
        spell = outer if below == grammar.depth else inner
        for symbol in grammar.levels[above]:
            first.append(len(row))
            for body, weight in _expansions(grammar, symbol, below - above):
                row += [spell.add([number[s] for s in body])] * weight
            radix.append(len(row) - first[-1])
        most = max(radix[-len(grammar.levels[above]) :])
        groups.append(next(g for g in range(8, 0, -1) if g == 1 or most**g <= _GROUP_PRODUCT))
    return ExpansionTables(
        groups=np.array(groups, np.int64),
        radix=np.array(radix, np.uint64),
        first=np.array(first, np.uint64),
        row=np.array(row, np.uint32),
        inner=inner.array("uint16"),
        inner_size=np.array(inner.sizes, np.uint32),
        outer=outer.array(dtype),
        outer_size=np.array(outer.sizes, np.uint32),
        widest=_most(grammar, plan[-1][0]),
    )


class _Rows:
    """Bodies laid out in rows of `WIDE`."""

    def __init__(self) -> None:
        self.rows: list[Sequence[int]] = []
        self.sizes: list[int] = []

    def add(self, body: Sequence[int]) -> int:
        """The first row of `body`."""
        first = len(self.rows)
        for at in range(0, len(body), WIDE):
            self.rows.append(body[at : at + WIDE])
            self.sizes.append(len(body) - at)
        return first

    def array(self, dtype: str) -> np.ndarray:
        out = np.zeros((max(1, len(self.rows)), WIDE), dtype)
        for i, row in enumerate(self.rows):
            out[i, : len(row)] = row
        return out
