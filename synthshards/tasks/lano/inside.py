"""All spans of a sentence under a layered grammar, and the sums over them, in Numba.

A *span* (X, i, j) says that symbol X yields the terminals i..j−1; its inside value is the summed probability, or the
number, of its derivations. Spans are found from the terminals' level upward, and kept only where there are some: a
sentence of a published grammar has a few for each place, so that 1,500 tokens take milliseconds.

The *start* value of (X, t) is the probability that the first t terminals come out as they are and X starts behind them.
Starts are found from the root downward: X at t, expanding by X → Y Z, starts Y at t and, for each span (Y, t, u), Z at
u. At the terminals' level they are the joint probabilities of a prefix and its next token.

Values are kept as logarithms, which do not underflow, and are the quick choice here as most sums have one term. Exact
numbers are worked out modulo as many primes as they need (the logarithm says how many), and put together from those.

The file is long, but upward and downward sums run over the same spans, whose layout only this file knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from ...errors import UsageError
from ...kernels.arrays import F64, I64
from ...kernels.jit import helper, kernel

_NONE = -np.inf


class LevelRules(NamedTuple):
    """The rules of one level, flat; symbols are numbered within their level from 0.

    Attributes:
        symbols: their number.
        rule_at: [symbols + 1]: symbol X has the rules rule_at[X]..rule_at[X+1]-1.
        body_at: [rules + 1]: rule r has the symbols body_at[r]..body_at[r+1]-1 of `body`.
        body: [symbols of all rules], numbers of symbols of the level below.
    """

    symbols: int
    rule_at: I64
    body_at: I64
    body: I64


class Spans(NamedTuple):
    """The spans of one level over n terminals. Those with one start and one symbol are a *run*.

    Attributes:
        run_at: [n + 2]: start i has the runs run_at[i]..run_at[i+1]-1.
        run_symbol: [runs].
        run_span: [runs + 1]: run r has the spans run_span[r]..run_span[r+1]-1.
        end, value: [spans].
    """

    run_at: I64
    run_symbol: I64
    run_span: I64
    end: I64
    value: F64


@dataclass(frozen=True, eq=False)
class GrammarArrays:
    """A grammar as kernels take it: the rules of every level but the last, and the number of terminals."""

    levels: tuple[LevelRules, ...]
    terminals: int

    @staticmethod
    def of(levels: Sequence[Sequence[int]], rules: Mapping[int, Sequence[Sequence[int]]]) -> GrammarArrays:
        """From symbols by level and symbol → right-hand sides."""
        place = {symbol: i for level in levels for i, symbol in enumerate(level)}
        out = []
        for level in levels[:-1]:
            bodies = [body for symbol in level for body in rules[symbol]]
            counts, widths = [len(rules[symbol]) for symbol in level], [len(body) for body in bodies]
            body = np.array([place[s] for one in bodies for s in one], np.int64)
            out.append(LevelRules(len(level), _offsets(counts), _offsets(widths), body))
        return GrammarArrays(tuple(out), len(levels[-1]))


def _offsets(counts: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@helper
def _log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b)) of finite a and b."""
    if a < b:
        a, b = b, a
    return a + math.log1p(math.exp(b - a))


@helper
def _plus(a: float, b: float, prime: float) -> float:
    """The sum of two values: logarithms if `prime` is 0, else integers below it (all exact in a float64)."""
    if prime == 0:
        return _log_add(a, b)
    total = a + b
    return total - prime if total >= prime else total


@helper
def _times(a: float, b: float, prime: float) -> float:
    """Their product; a prime below 2^26 keeps it exact."""
    return a + b if prime == 0 else np.float64(np.uint64(a * b) % np.uint64(prime))


@kernel
def _spans_above(n: int, starts: int, below: Spans, rules: LevelRules, weighted: bool, prime: float) -> Spans:
    """The spans of one level, with their values, from those of the level below. Only starts below `starts` are tried.

    A rule is matched with three sets of positions, kept as lists and as dense values: 0 and 1 hold by turns where its
    first k symbols can end, and 2 where the symbol itself can. A value of −inf stands for none.

    Args:
        n: terminals of the sentence.
        below, rules: shapes and dtypes as in `Spans` and `LevelRules`.
        weighted, prime: as in `Chart`.
    """
    run_at, run_symbol, run_span, span_end, span_value = below
    symbols, rule_at, body_at, body = rules
    out_run_at = np.zeros(n + 2, np.int64)
    out_symbol = np.empty(2 * n + 16, np.int64)
    out_run_span = np.empty(2 * n + 16, np.int64)
    out_end = np.empty(4 * n + 16, np.int64)
    out_value = np.empty(4 * n + 16, np.float64)
    value = np.full((3, n + 1), _NONE)
    place = np.empty((3, n + 1), np.int64)
    runs: Any = 0
    spans: Any = 0
    for i in range(n + 1):
        out_run_at[i] = runs
        if i >= starts or run_at[i] == run_at[i + 1]:
            continue
        for symbol in range(symbols):
            end_count: Any = 0
            weight = 0.0 if prime == 0 else 1.0
            if weighted:
                weight = -math.log(rule_at[symbol + 1] - rule_at[symbol])
            for rule in range(rule_at[symbol], rule_at[symbol + 1]):
                now = 0
                count: Any = 1
                place[0, 0] = i
                value[0, i] = weight
                for k in range(body_at[rule], body_at[rule + 1]):
                    last = k == body_at[rule + 1] - 1
                    then = 2 if last else 1 - now
                    next_count = end_count if last else 0
                    child = body[k]
                    for c in range(count):
                        p = place[now, c]
                        v = value[now, p]
                        value[now, p] = _NONE
                        for run in range(run_at[p], run_at[p + 1]):
                            if run_symbol[run] == child:
                                for span in range(run_span[run], run_span[run + 1]):
                                    q = span_end[span]
                                    new = _times(v, span_value[span], prime)
                                    old = value[then, q]
                                    if old == _NONE:
                                        place[then, next_count] = q
                                        next_count += 1
                                        value[then, q] = new
                                    else:
                                        value[then, q] = _plus(old, new, prime)
                    if last:
                        end_count = next_count
                    now = then
                    count = next_count
                    if next_count == 0:
                        break
            if end_count > 0:
                if runs + 2 > out_symbol.size:
                    out_symbol = np.append(out_symbol, np.empty(out_symbol.size, np.int64))
                    out_run_span = np.append(out_run_span, np.empty(out_run_span.size, np.int64))
                if spans + end_count > out_end.size:
                    out_end = np.append(out_end, np.empty(out_end.size + end_count, np.int64))
                    out_value = np.append(out_value, np.empty(out_value.size + end_count, np.float64))
                out_symbol[runs] = symbol
                out_run_span[runs] = spans
                runs += 1
                for c in range(end_count):
                    q = place[2, c]
                    out_end[spans] = q
                    out_value[spans] = value[2, q]
                    value[2, q] = _NONE
                    spans += 1
    out_run_at[n + 1] = runs
    out_run_span[runs] = spans
    return Spans(out_run_at, out_symbol[:runs], out_run_span[: runs + 1], out_end[:spans], out_value[:spans])


@kernel
def _starts_below(above: F64, spans: Spans, rules: LevelRules, symbols_below: int) -> F64:
    """Start values of the level below, [n + 1, symbols_below], from those of a level and the spans below.

    Args:
        above: [n + 1, symbols], start values of the level; −inf for none.
        spans, rules: shapes and dtypes as in `Spans` and `LevelRules`.
    """
    run_at, run_symbol, run_span, span_end, span_value = spans
    _symbols, rule_at, body_at, body = rules
    n = above.shape[0] - 1
    below = np.full((n + 1, symbols_below), _NONE)
    value = np.full((2, n + 1), _NONE)
    place = np.empty((2, n + 1), np.int64)
    for t in range(n + 1):
        for symbol in range(above.shape[1]):
            if above[t, symbol] == _NONE:
                continue
            weight = above[t, symbol] - math.log(rule_at[symbol + 1] - rule_at[symbol])
            for rule in range(rule_at[symbol], rule_at[symbol + 1]):
                now = 0
                count: Any = 1
                place[0, 0] = t
                value[0, t] = weight
                for k in range(body_at[rule], body_at[rule + 1]):
                    last = k == body_at[rule + 1] - 1
                    then = 1 - now
                    next_count: Any = 0
                    child = body[k]
                    for c in range(count):
                        p = place[now, c]
                        v = value[now, p]
                        value[now, p] = _NONE
                        old = below[p, child]
                        below[p, child] = v if old == _NONE else _log_add(old, v)
                        if last:
                            continue
                        for run in range(run_at[p], run_at[p + 1]):
                            if run_symbol[run] == child:
                                for span in range(run_span[run], run_span[run + 1]):
                                    q = span_end[span]
                                    new = v + span_value[span]
                                    old = value[then, q]
                                    if old == _NONE:
                                        place[then, next_count] = q
                                        next_count += 1
                                        value[then, q] = new
                                    else:
                                        value[then, q] = _log_add(old, new)
                    now = then
                    count = next_count
                    if next_count == 0:
                        break
    return below


class Chart:
    """The spans of one sentence, level by level.

    Args:
        grammar: the rules.
        tokens: terminals; tokens other than 1..V belong to no other symbol's span.
        weighted: values are logarithms of probabilities; otherwise of numbers of derivations.
        prime: values are numbers of derivations modulo this prime below 2^26 (with `weighted` false).
    """

    def __init__(
        self, grammar: GrammarArrays, tokens: Sequence[int] | np.ndarray, *, weighted: bool = True, prime: int = 0
    ) -> None:
        ids = np.asarray(tokens)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise UsageError(f"tokens are {ids.dtype} of {ids.ndim} dimensions; legal: a flat sequence of integers")
        n = len(ids)
        one = np.full(n, 1.0 if prime else 0.0)
        # Each place is a run of one span; a token that is no terminal is a symbol that no rule wants.
        places = np.arange(n + 1)
        spans = Spans(np.append(places, n), ids.astype(np.int64) - 1, places, places[1:], one)
        self._grammar, self._n = grammar, n
        #: Spans of each level, from the terminals' upward.
        self._levels = [spans]
        for height, rules in enumerate(reversed(grammar.levels), 1):
            starts = 1 if height == len(grammar.levels) else n  # the root starts at 0 alone
            spans = _spans_above(n, starts, spans, rules, weighted, float(prime))
            self._levels.append(spans)

    def inside(self) -> float:
        """The root's value over the whole sentence; −inf where there is no derivation."""
        _, _, _, end, value = self._levels[-1]
        whole = value[end == self._n]
        return float(whole[0]) if len(whole) else -math.inf

    def next_token_distributions(self) -> np.ndarray:
        """float64 [n + 1, V + 1]: see `Grammar.next_token_distributions`."""
        n, grammar = self._n, self._grammar
        starts = np.full((n + 1, 1), _NONE)
        starts[0, 0] = 0.0
        for height, rules in zip(range(len(grammar.levels) - 1, -1, -1), grammar.levels, strict=True):
            below = grammar.levels[-height].symbols if height else grammar.terminals
            starts = _starts_below(starts, self._levels[height], rules, below)
        _, _, _, end, value = self._levels[-1]
        joint = np.full((n + 1, grammar.terminals + 1), _NONE)
        joint[:, :-1] = starts
        joint[end, -1] = value
        top = joint.max(axis=1, keepdims=True)
        # An impossible prefix has only −inf here, and NaN behind the division, which is what is promised for it.
        with np.errstate(invalid="ignore"):
            shares: np.ndarray = np.exp(joint - top)
            shares /= shares.sum(axis=1, keepdims=True)
        return shares


def derivations(grammar: GrammarArrays, tokens: Sequence[int] | np.ndarray) -> int:
    """The exact number of derivations of a sentence, by the Chinese remainder theorem."""
    log = Chart(grammar, tokens, weighted=False).inside()
    if log == -math.inf:
        return 0
    number, product = 0, 1
    bits = log / math.log(2) * (1 + 1e-9) + 1  # more than the number has
    for prime in map(_prime, count()):
        rest = int(Chart(grammar, tokens, weighted=False, prime=prime).inside())
        number += product * ((rest - number) * pow(product, -1, prime) % prime)
        product *= prime
        if product.bit_length() > bits + 1:
            break
    return number


@cache
def _prime(i: int) -> int:
    """The i-th prime from 2^26 downward."""
    candidate = _prime(i - 1) - 2 if i else (1 << 26) - 1
    while not all(candidate % d for d in range(3, 1 << 13, 2)):
        candidate -= 2
    return candidate
