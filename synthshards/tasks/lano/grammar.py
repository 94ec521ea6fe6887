"""Layered context-free grammars: the shipped ones, the user's, and what can be computed exactly about their sentences.

Sources: "Physics of Language Models: Part 1" (arXiv 2305.13673), section on the synthetic CFGs, and Part 4.1
(arXiv 2512.17351), section on Lano. A grammar as text, the root's rules first:

    6 -> 5 5 | 5 4       level 0: the root; each of its two rules is taken with probability 1/2
    4 -> 1 2             level 1: two symbols, which expand to terminals only
    5 -> 2 2 1 | 1

A symbol of level l expands to symbols of level l + 1 only, and the last level holds the terminals 1..V, which are the
tokens. V + 1 is the end of a sentence; V + 2 and V + 3 are reserved (mask, sep), so that the other symbols are numbered
from V + 4 upward, level by level from the bottom: 6, 7, 8 in place of 4, 5, 6 above. A user's file may name its symbols
as it likes (`S -> NP VP | VP`), leave lines empty, and comment behind `#`; `Grammar.text` has the numbers.

Examples:
    >>> grammar = load_grammar("S -> A A | A B\\nB -> 1 2\\nA -> 2 2 1 | 1")
    >>> print(grammar.text, end="")
    8 -> 7 7 | 7 6
    6 -> 1 2
    7 -> 2 2 1 | 1
    >>> grammar.contains([1, 1, 2]), grammar.derivations([1, 1]), grammar.longest_prefix([1, 2, 1])
    (True, 1, 2)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, UsageError, nearest
from .grammar_parser import MAX_TEXT, Rule, parse
from .inside import Chart, GrammarArrays, derivations

__all__ = ["SHIPPED", "Grammar", "canonical_source", "load_grammar", "parse_grammar", "smoothed_kl"]

#: Shipped grammar → digest of its text, which is also that of the file grammars/<name>.cfg.
SHIPPED = {
    "cfg3b": "sha256:6ed9ddefc190334c786d3ee91a81ac71c02371255588112c78d8f15823c4be6b",
    "cfg3e1": "sha256:9339fc2aa57f86c4b0a0026df31e3966269507b6601a1d8e1e773ea670e88e27",
    "cfg3e2": "sha256:00a0bce2162c4916986c311c5fdb5b25f8729151fdef7b0a81e193415326b700",
    "cfg3f": "sha256:d16fb5cb54df9bca0894fdf62f422bf7c8eef04fc421dd2c5270405551c85d29",
    "cfg3g": "sha256:a83862a288cd2596ea844bf8d5bde6d010b74dcac0515b993f1fb6d7f9fa8094",
    "cfg3h": "sha256:d6878e0acf2721fd22a8c9f18564513a0197eb7e0f3ad2b211b25102f65c66bb",
    "cfg3i": "sha256:657cc1ec6cbda1b1dfbecd6357cfca1d7e3a6e88cf672552c1b5a5d0ade2fa7f",
    "cfg3j": "sha256:5ee4610e1305c320c2fcb06387609e6773d22a4630bc42a2e2f1f5ac4ede143a",
    "cfg3k": "sha256:6515f925e9bde44fb576d424ddff0f1747cbce0ab0e2694bd971eef0b3c5a3ed",
}
#: A row must fit into a buffer.
MAX_SENTENCE = 1_000_000


@dataclass(frozen=True, eq=False)
class Grammar:
    """A layered grammar; every rule of a symbol is equally likely. Make one with `load_grammar` or `draw_grammar`.

    Attributes:
        levels: the symbols of each level, the root's level first, the terminals' last.
        rules: symbol → its right-hand sides, in order.

    Raises:
        UsageError: the longest sentence exceeds 1,000,000 terminals.
    """

    levels: tuple[tuple[int, ...], ...]
    rules: dict[int, tuple[Rule, ...]]

    def __post_init__(self) -> None:
        if (longest := self.lengths[1]) > MAX_SENTENCE:
            raise UsageError(f"grammar: its longest sentence has {longest} terminals; legal: at most {MAX_SENTENCE}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grammar) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[Any, ...]:
        return Grammar, (self.levels, self.rules)  # without the arrays: a shard's job is a small value

    def __repr__(self) -> str:
        sizes = " ".join(str(len(level)) for level in self.levels)
        return f"<Grammar of levels {sizes}, {self.digest}>"

    @property
    def root(self) -> int:
        """The symbol that sentences start from."""
        return self.levels[0][0]

    @property
    def terminals(self) -> int:
        """V: the terminals are 1..V."""
        return len(self.levels[-1])

    @property
    def depth(self) -> int:
        """Expansions from the root to a terminal (one less than the number of levels)."""
        return len(self.levels) - 1

    @cached_property
    def text(self) -> str:
        """The canonical text: one line a symbol, level by level from the root, symbols numbered as published."""
        return "".join(
            f"{symbol} -> {' | '.join(' '.join(map(str, rule)) for rule in self.rules[symbol])}\n"
            for level in self.levels[:-1]
            for symbol in level
        )

    @cached_property
    def digest(self) -> str:
        """``"sha256:"`` and the 64 hex digits of the text's UTF-8 bytes."""
        return "sha256:" + hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def lengths(self) -> tuple[int, int, float]:
        """Terminals of the shortest, the longest and (exactly computed) the mean sentence."""
        least: dict[int, int] = dict.fromkeys(self.levels[-1], 1)
        most, mean = dict(least), dict.fromkeys(self.levels[-1], 1.0)
        for level in reversed(self.levels[:-1]):
            for symbol in level:
                rules = self.rules[symbol]
                least[symbol] = min(sum(least[s] for s in rule) for rule in rules)
                most[symbol] = max(sum(most[s] for s in rule) for rule in rules)
                mean[symbol] = math.fsum(mean[s] for rule in rules for s in rule) / len(rules)
        return least[self.root], most[self.root], mean[self.root]

    def length_distribution(self) -> np.ndarray:
        """Probability of each sentence length: float64 [longest + 1], by convolution."""
        spread = dict.fromkeys(self.levels[-1], np.array([0.0, 1.0]))
        for level in reversed(self.levels[:-1]):
            above = {}
            for symbol in level:
                parts = []
                for rule in self.rules[symbol]:
                    part = spread[rule[0]]
                    for s in rule[1:]:
                        part = np.convolve(part, spread[s])
                    parts.append(part)
                above[symbol] = np.zeros(max(map(len, parts)))
                for part in parts:
                    above[symbol][: len(part)] += part / len(parts)
            spread = above
        return spread[self.root]

    # What a chart of all spans says about one sentence ---------------------------------------------------------------

    @cached_property
    def _arrays(self) -> GrammarArrays:
        return GrammarArrays.of(self.levels, self.rules)

    def contains(self, tokens: Sequence[int] | np.ndarray) -> bool:
        """Whether the terminals are a sentence of this grammar."""
        return Chart(self._arrays, tokens).inside() > -math.inf

    def log_prob(self, tokens: Sequence[int] | np.ndarray) -> float:
        """Natural logarithm of the probability that a sentence is `tokens`; −inf where none is."""
        return Chart(self._arrays, tokens).inside()

    def derivations(self, tokens: Sequence[int] | np.ndarray) -> int:
        """The number of derivations of `tokens` (parse trees), exactly: 0 where they are no sentence."""
        return derivations(self._arrays, tokens)

    def log_derivations(self, tokens: Sequence[int] | np.ndarray) -> float:
        """Natural logarithm of the number of derivations, in milliseconds however large it is; −inf for none."""
        return Chart(self._arrays, tokens, weighted=False).inside()

    def next_token_distributions(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """The exact distribution of what follows each prefix of `tokens`.

        Returns:
            float64 [len(tokens) + 1, V + 1]. Row t is the distribution after the first t tokens; column v − 1 is that
            of terminal v, column V that of the end (id V + 1). Rows sum to 1, except that rows behind a prefix with
            which no sentence begins are NaN.
        """
        return Chart(self._arrays, tokens).next_token_distributions()

    def longest_prefix(self, tokens: Sequence[int] | np.ndarray) -> int:
        """The number of tokens of the longest prefix of `tokens` with which some sentence begins."""
        dead = np.isnan(self.next_token_distributions(tokens)[:, 0])
        return int(dead.argmax()) - 1 if dead.any() else len(tokens)


def load_grammar(source: str | Path) -> Grammar:
    """A grammar by name, from a file, or from its text.

    Args:
        source: a shipped name (``"cfg3f"``), with or without its digest behind a space; a text that holds ``->``; or
            the path of a file with such a text. A file named like a shipped grammar is ``./cfg3f``.

    Raises:
        UsageError: no such grammar or file, another digest, or a text that is no layered grammar.
        DataError: the shipped file is damaged.
    """
    if isinstance(source, Path):
        return _from_file(source)
    name, _, digest = source.partition(" ")
    if name in SHIPPED:
        if digest and digest != SHIPPED[name]:
            raise UsageError(f"grammar {name} has digest {digest[:80]!r}; legal: {SHIPPED[name]}, that of this release")
        return _shipped(name)
    if "->" in source:
        return parse_grammar(source)
    return _from_file(Path(source))


def canonical_source(source: str) -> str:
    """What stands for a grammar in an identity: ``"cfg3f sha256:…"`` for a shipped one, else its canonical text."""
    grammar = load_grammar(source)
    name = source.partition(" ")[0]
    return f"{name} {grammar.digest}" if name in SHIPPED else grammar.text


@cache
def _shipped(name: str) -> Grammar:
    try:
        grammar = parse_grammar((files(__package__) / "grammars" / f"{name}.cfg").read_text(encoding="utf-8"), name)
        found = f"digest {grammar.digest}"
    except (OSError, ValueError) as error:
        found = str(error)
    if found != f"digest {SHIPPED[name]}":
        raise DataError(f"grammars/{name}.cfg is damaged: {found}; legal: digest {SHIPPED[name]}, as released")
    return grammar


def _from_file(path: Path) -> Grammar:
    try:
        if not path.is_file():
            raise UsageError(
                f"grammar {str(path)[:80]!r} is neither shipped nor a file{nearest(str(path), SHIPPED)}; "
                f"legal: {', '.join(SHIPPED)}, a file, or rules like 'S -> 1 2 | 2 1'"
            )
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
        return parse_grammar(data.decode("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"grammar {str(path)[:80]!r} cannot be read ({error})") from None


@lru_cache(maxsize=64)
def parse_grammar(text: str, where: str = "grammar") -> Grammar:
    """The grammar that a text spells; `where` is what errors name before the line.

    Raises:
        UsageError: naming the line and what is legal there.
    """
    return Grammar(*parse(text, where))


def smoothed_kl(p: np.ndarray, q: np.ndarray, smoothing: float = 1e-5) -> float:
    """The mean over rows of Σ p·log(p/q), in nats, both sides smoothed and renormalised, as published for Lano.

    Args:
        p: true distributions, float [positions, V + 1], as `Grammar.next_token_distributions` gives them.
        q: a model's, of the same shape, over the terminals and the end (its logits cut to those before the softmax).
        smoothing: what is added to every probability.

    Raises:
        UsageError: shapes differ, or a value is negative or not finite (a row behind an impossible prefix).
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if p.shape != q.shape or p.ndim != 2:
        raise UsageError(f"KL of shapes {p.shape} and {q.shape}; legal: two of [positions, terminals + 1]")
    if not (np.isfinite(p).all() and np.isfinite(q).all() and (p >= 0).all() and (q >= 0).all()):
        raise UsageError("KL of values that are negative or not finite; legal: probabilities")
    p, q = p + smoothing, q + smoothing
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return float((p * np.log(p / q)).sum(axis=1).mean())
