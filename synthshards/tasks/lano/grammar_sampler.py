"""Grammars drawn at random, as the cfg3 families were: a new one for each `grammar_seed`.

A grammar of depth 2 with two symbols a level, two rules a symbol and rules of 1..2 symbols (seed 0):

    8 -> 6 7 | 6
    6 -> 2 1 | 1
    7 -> 1 1 | 2

The law, exact enough to be written again (conventions as in docs/randomness.md; every number is drawn by itself):

1. The key is that of the sha256 of ``synthshards grammar``, a zero byte, and the canonical JSON of the object
   {"depth", "distinct_rules", "distinct_symbols", "grammar_seed", "max_degree", "max_rule_length", "min_degree",
   "min_rule_length", "symbols": [one number a level below the root], "task": "lano", "task_version"}; the words are
   those of row 0. Neither the dataset's seed nor its split nor its framing takes part.
2. Level by level from the root, and symbol by symbol: a number below max_degree − min_degree + 1, plus min_degree, is
   the symbol's number of rules. For each rule: a number below max_rule_length − min_rule_length + 1, plus
   min_rule_length, is its length; then for each of its symbols a number below the number of candidates: the symbols of
   the next level in order, without those already in the rule if `distinct_symbols`. A rule that the symbol has already,
   or with `distinct_rules` any symbol of the level, is drawn again, its length included.
3. When the level's rules stand, each symbol of the next level that none of them holds, in order, is put into them: a
   number is drawn below the number of places whose symbol stands at least twice in the level (places in order of
   symbols, rules, symbols within the rule), and it takes that place. As the newcomer stands nowhere else, no rule
   becomes like another. Only where a level's rules have fewer places than the next has symbols, some are in no rule
   (as ten published symbols of cfg3e1 are).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from ...digest import canonical_json
from ...errors import UsageError
from ...kernels.rng import key_of, words
from .grammar import MAX_SENTENCE, Grammar
from .grammar_parser import MAX_DEPTH, Rule

#: Version of the Lano task, whose grammars these are.
LANO_VERSION = 1
#: Symbols in all rules together, so that a grammar is drawn in a second and fits into a manifest.
MAX_PLACES = 200_000


def check_shape(
    where: str,
    symbols: Sequence[int],
    degrees: tuple[int, int],
    rule_lengths: tuple[int, int],
    distinct_symbols: bool,
    distinct_rules: bool,
) -> None:
    """Refuse shapes that some seed could not draw.

    Raises:
        UsageError: naming the parameters and what would be legal.
    """
    for name, (low, high) in (("degree", degrees), ("rule_length", rule_lengths)):
        if not 1 <= low <= high:
            raise UsageError(f"{where}: min_{name}={low}, max_{name}={high}; legal: 1 ≤ min_{name} ≤ max_{name}")
    least, longest = rule_lengths
    depth = len(symbols)
    if not 1 <= depth <= MAX_DEPTH or min(symbols) < 1:
        raise UsageError(f"{where}: symbols={list(symbols)}; legal: 1..{MAX_DEPTH} levels of 1 or more symbols")
    if longest**depth > MAX_SENTENCE:
        raise UsageError(
            f"{where}: max_rule_length={longest} and depth={depth} allow sentences of more than {MAX_SENTENCE} "
            "terminals; legal: smaller of either"
        )
    places = sum((1, *symbols[:-1])) * degrees[1] * longest
    if places > MAX_PLACES:
        raise UsageError(
            f"{where}: rules of up to {places} symbols in all; legal: at most {MAX_PLACES} "
            "(symbols above the terminals × max_degree × max_rule_length)"
        )
    for level, (heads, below) in enumerate(zip((1, *symbols[:-1]), symbols, strict=True)):
        if distinct_symbols and longest > below:
            raise UsageError(
                f"{where}: distinct_symbols with max_rule_length={longest}, but level {level + 1} has {below} symbols; "
                f"legal: max_rule_length ≤ {below}"
            )
        need = heads * degrees[1] if distinct_rules else degrees[1]
        bodies = sum(_bodies(below, length, distinct_symbols, need) for length in range(least, longest + 1))
        if bodies < need:
            raise UsageError(
                f"{where}: level {level} needs up to {need} different right-hand sides, and only {bodies} can be made "
                f"of {below} symbols; legal: a smaller max_degree, more symbols or a larger max_rule_length"
                + (", or distinct_rules=false" if distinct_rules else "")
            )


def _bodies(symbols: int, length: int, distinct: bool, enough: int) -> int:
    """The number of different rules of a length, counted up to `enough`."""
    count = 1
    for i in range(length):
        count *= symbols - i if distinct else symbols
        if count >= enough:
            return enough
    return count


@lru_cache(maxsize=64)
def draw_grammar(
    grammar_seed: int,
    symbols: tuple[int, ...],
    degrees: tuple[int, int] = (3, 4),
    rule_lengths: tuple[int, int] = (2, 3),
    *,
    distinct_symbols: bool = False,
    distinct_rules: bool = True,
) -> Grammar:
    """The grammar of a seed: ``draw_grammar(7, (3, 3, 3, 3, 3, 3))`` is of the kind of cfg3f.

    Args:
        grammar_seed: 0..2^64−1.
        symbols: symbols of each level below the root; the last number is that of the terminals.
        degrees: fewest and most rules of a symbol.
        rule_lengths: fewest and most symbols of a rule.
        distinct_symbols: no symbol stands twice in a rule.
        distinct_rules: no right-hand side stands twice in a level (within one symbol's rules it never does).

    Raises:
        UsageError: some seed could not draw such a grammar, or grammar_seed is out of range.
    """
    if not 0 <= grammar_seed < 1 << 64:
        raise UsageError(f"grammar_seed={grammar_seed}; legal: 0..2^64-1")
    check_shape("grammar", symbols, degrees, rule_lengths, distinct_symbols, distinct_rules)
    (min_degree, max_degree), (min_rule_length, max_rule_length) = degrees, rule_lengths
    shape = {
        "depth": len(symbols),
        "distinct_rules": distinct_rules,
        "distinct_symbols": distinct_symbols,
        "grammar_seed": grammar_seed,
        "max_degree": max_degree,
        "max_rule_length": max_rule_length,
        "min_degree": min_degree,
        "min_rule_length": min_rule_length,
        "symbols": list(symbols),
        "task": "lano",
        "task_version": LANO_VERSION,
    }
    source = _words(hashlib.sha256(b"synthshards grammar\0" + canonical_json(shape)).digest())
    levels: list[tuple[int, ...]] = []
    free = sum(symbols) + 4  # the root's number: the highest
    for size in (1, *symbols[:-1]):
        levels.append(tuple(range(free + 1 - size, free + 1)))
        free -= size
    levels.append(tuple(range(1, symbols[-1] + 1)))
    rules: dict[int, tuple[Rule, ...]] = {}
    for heads, below in pairwise(levels):
        bodies: list[tuple[int, list[int]]] = []  # of the whole level, each with its symbol
        taken = set[tuple[int, ...]]()
        for head in heads:
            if not distinct_rules:
                taken.clear()
            for _ in range(min_degree + _below(source, max_degree - min_degree + 1)):
                body: list[int] = []
                while not body or tuple(body) in taken:
                    length = min_rule_length + _below(source, max_rule_length - min_rule_length + 1)
                    body = []
                    for _ in range(length):
                        legal = [s for s in below if s not in body] if distinct_symbols else below
                        body.append(legal[_below(source, len(legal))])
                taken.add(tuple(body))
                bodies.append((head, body))
        uses = Counter(symbol for _, body in bodies for symbol in body)
        for newcomer in [s for s in below if s not in uses]:
            places = [(body, k) for _, body in bodies for k, symbol in enumerate(body) if uses[symbol] > 1]
            if not places:
                break
            body, k = places[_below(source, len(places))]
            uses[body[k]] -= 1
            uses[newcomer] = 1
            body[k] = newcomer
        for head, body in bodies:
            rules[head] = (*rules.get(head, ()), tuple(body))
    return Grammar(tuple(levels), rules)


def _words(digest: bytes) -> Iterator[int]:
    """The words of row 0, one after another."""
    key, have = key_of(digest), 0
    count = 1024
    while True:
        for word in words(key, np.uint64(0), count)[have:]:
            yield int(word)
        have, count = count, 2 * count


def _below(source: Iterator[int], n: int) -> int:
    """One unbiased number below n (docs/randomness.md, "Numbers")."""
    x = next(source)
    while x * n % (1 << 64) < (1 << 64) % n:
        x = next(source)
    return x * n >> 64
