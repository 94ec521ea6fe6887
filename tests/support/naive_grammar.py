"""Grammars the slow and obvious way, in fractions: every derivation written out, or one sentence by plain recursion.

No import of the package. `rules` maps a symbol to its right-hand sides; what it does not map is a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import product
from math import log

Rules = Mapping[int, Sequence[Sequence[int]]]
Tokens = tuple[int, ...]

#: Small grammars of every kind: (text, number of terminals).
TINY = {
    "one rule": "S -> 1",
    "one level": "S -> 1 2 | 2 1 2 | 2",
    "sample": "S -> A A | A B\nB -> 1 2\nA -> 2 2 1 | 1",
    "ambiguous": "S -> A A | A\nA -> 1 | 1 1 | 1 1 1",
    "ambiguous twice": "S -> A B | B A | A A A\nA -> C | C C\nB -> C D | D\nC -> 1 | 1 1\nD -> 1 | 2 1",
    "units": "S -> A\nA -> B\nB -> C\nC -> 1 | 2 | 1 2",
    "shared right-hand side": "S -> A B | B A\nA -> 1 2 | 1\nB -> 1 2 | 2",
    "long rule": "S -> A B A B A A | B\nA -> 1 | 2\nB -> 2 | 1 2",
    "dead symbol": "S -> A A\nA -> 1 | 2 2\nB -> 1 2 | 3",
    "many alike": "S -> A0 | "
    + " | ".join(f"A{i} A{i % 3}" for i in range(40))
    + "".join(f"\nA{i} -> 1" for i in range(40)),
    "lopsided": "S -> A B\nA -> 1 | 2 | 1 2 | 2 1 | 2 2 2\nB -> 2",
}


def leaves(rules: Rules, symbol: int) -> Iterator[tuple[Tokens, Fraction]]:
    """The tokens and the probability of every derivation from a symbol."""
    if symbol not in rules:
        yield (symbol,), Fraction(1)
        return
    for body in rules[symbol]:
        for parts in product(*(list(leaves(rules, s)) for s in body)):
            share = Fraction(1, len(rules[symbol]))
            tokens: Tokens = ()
            for part, p in parts:
                tokens, share = tokens + part, share * p
            yield tokens, share


def count_derivations(rules: Rules, symbol: int) -> int:
    """How many there are to write out."""
    total = 0
    for body in rules.get(symbol, ()):
        ways = 1
        for s in body:
            ways *= count_derivations(rules, s)
        total += ways
    return total if symbol in rules else 1


def language(rules: Rules, root: int) -> dict[Tokens, tuple[Fraction, int]]:
    """Sentence → (its probability, its number of derivations)."""
    out: dict[Tokens, tuple[Fraction, int]] = {}
    for tokens, share in leaves(rules, root):
        p, n = out.get(tokens, (Fraction(0), 0))
        out[tokens] = p + share, n + 1
    return out


def next_tokens(sentences: Mapping[Tokens, tuple[Fraction, int]], prefix: Tokens, terminals: int) -> list[float] | None:
    """The law of what follows a prefix, over 1..V and the end; None where no sentence begins so."""
    shares = [Fraction(0)] * (terminals + 1)
    for tokens, (p, _) in sentences.items():
        if tokens[: len(prefix)] == prefix:
            shares[tokens[len(prefix)] - 1 if len(tokens) > len(prefix) else terminals] += p
    total = sum(shares)
    return [float(share / total) for share in shares] if total else None


class Recursive:
    """One sentence under a grammar, by recursion over spans: for sentences too long to write their language out."""

    def __init__(self, rules: Rules, root: int, tokens: Tokens) -> None:
        self.rules, self.root, self.tokens = rules, root, tokens
        self.inside = cache(self._inside)
        self.row = cache(self._row)

    def _inside(self, symbol: int, i: int) -> dict[int, Fraction]:
        """End → probability that the symbol yields the tokens from i to there."""
        if symbol not in self.rules:
            return {i + 1: Fraction(1)} if i < len(self.tokens) and self.tokens[i] == symbol else {}
        out: dict[int, Fraction] = {}
        for body in self.rules[symbol]:
            for end, p in self.row(tuple(body), i).items():
                out[end] = out.get(end, Fraction(0)) + p / len(self.rules[symbol])
        return out

    def _row(self, body: tuple[int, ...], i: int) -> dict[int, Fraction]:
        if not body:
            return {i: Fraction(1)}
        out: dict[int, Fraction] = {}
        for middle, p in self.inside(body[0], i).items():
            for end, q in self.row(body[1:], middle).items():
                out[end] = out.get(end, Fraction(0)) + p * q
        return out

    def probability(self) -> Fraction:
        return self.inside(self.root, 0).get(len(self.tokens), Fraction(0))

    def prefix_probability(self, prefix: Tokens) -> Fraction:
        """The probability that a sentence begins with `prefix`: by a recursion of its own, from the left edge."""
        at_edge = Recursive(self.rules, self.root, prefix)
        n = len(prefix)

        @cache
        def begins(symbol: int, i: int) -> Fraction:
            """The probability that the symbol's tokens begin with those from i to the edge."""
            if symbol not in self.rules:
                return Fraction(int(i == n - 1 and prefix[i] == symbol))
            total = Fraction(0)
            for body in self.rules[symbol]:
                for k, s in enumerate(body):  # the symbol that reaches the edge
                    for middle, p in at_edge.row(tuple(body[:k]), i).items():
                        total += p * begins(s, middle) if middle < n else 0
            return total / len(self.rules[symbol])

        return begins(self.root, 0) if prefix else Fraction(1)


def exact_log(x: Fraction) -> float:
    """log of a fraction too small for a float."""
    return log(x.numerator) - log(x.denominator)
