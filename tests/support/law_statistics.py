"""The statistics of Depo's law: each takes rows, or what was read off them, and returns a p-value.

They are used twice, on the package's rows, where p must not be tiny, and on rows of a wrong law, where it must be. So
they know nothing of where rows come from. p-values are those of chi-square tests, with cells joined until each expects
at least ten, or of a normal mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats

Ints = np.ndarray


def chi_square(counts: Ints, shares: Ints | None = None) -> float:
    """How likely counts as uneven as these are, if `shares` (uniform if None; else summing to 1) is the law."""
    counts = np.asarray(counts, float)
    expected = counts.sum() * (np.full(counts.shape, 1 / counts.size) if shares is None else np.asarray(shares))
    joined: list[list[float]] = [[0.0, 0.0]]
    for pair in zip(counts.ravel(), expected.ravel(), strict=True):
        if joined[-1][1] >= 10:
            joined.append([0.0, 0.0])
        joined[-1][0] += pair[0]
        joined[-1][1] += pair[1]
    if len(joined) > 1 and joined[-1][1] < 10:
        last = joined.pop()
        joined[-1] = [joined[-1][0] + last[0], joined[-1][1] + last[1]]
    have, want = np.array(joined).T
    assert len(have) > 1, "too few counts to say anything"
    return float(stats.chi2.sf(((have - want) ** 2 / want).sum(), len(have) - 1))


def independent(a: Ints, b: Ints) -> float:
    """Whether two small labels, observed together, are independent."""
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a, b), 1)
    return float(stats.chi2_contingency(table[table.sum(1) > 0][:, table.sum(0) > 0]).pvalue)


def mean_is(values: Ints, mean: float) -> float:
    """Whether the mean of many values is `mean` (two-sided, normal)."""
    z = (values.mean() - mean) / (values.std(ddof=1) / sqrt(len(values)))
    return float(2 * stats.norm.sf(abs(z)))


def ranks(rows: Ints) -> Ints:
    """The number of each row's ordering among all orderings of that many (0 for ascending): int64 [rows]."""
    count = rows.shape[1]
    out = np.zeros(len(rows), np.int64)
    for i in range(count):
        out = out * (count - i) + (rows[:, i + 1 :] < rows[:, i : i + 1]).sum(1)
    return out


# The law's exact shares --------------------------------------------------------------------------------------------


def size_shares(N: int) -> Ints:
    """p(n) for n = 3..N."""
    weights = 1 / (np.arange(3, N + 1) + sqrt(N))
    return weights / weights.sum()


def one_token_names(n: int, V: int) -> list[Ints]:
    """For words of 1 or 2 tokens: entry m, for m = 0..n, has the shares of 0..V one-token names among m distinct names.

    Given a one-token and b two-token names, the next slot with a new name is a one-token one with odds
    (V − a)/V to (V² − b)/V².
    """
    shares = np.zeros(V + 1)
    shares[0] = 1
    out = [shares]
    for m in range(n):
        a = np.arange(V + 1)
        one, two = (V - a) / V, (V * V - (m - a)) / (V * V)
        short = shares * one / (one + two)
        shares = shares - short
        shares[1:] += short[:-1]
        out.append(shares)
    return out


def mean_length(N: int, V: int, M: int) -> float:
    """Mean tokens of a row with names of 1 or 2 tokens."""
    names = one_token_names(N, V)
    total = 0.0
    for n, share in zip(range(3, N + 1), size_shares(N), strict=True):
        tokens = 2 * n - float((names[n] * np.arange(V + 1)).sum())  # of all names together
        total += share * (1 + 2 * tokens + min(n, M) * (2 + 2 * tokens / n))
    return total


# Reading rows ------------------------------------------------------------------------------------------------------


def words_of(ids: Ints, V: int, words: int) -> tuple[Ints, Ints]:
    """The word tokens of rows that all have `words` words: (all word tokens, lengths [rows, words])."""
    tokens = ids[(ids >= 1) & (ids <= 2 * V)].astype(np.int64)
    ends = np.flatnonzero(tokens > V)
    return tokens, np.diff(ends, prepend=-1).reshape(-1, words)


def table_of(ids: Ints, n: int, queries: int, width: int = 1) -> dict[str, Ints]:
    """Rows of n edges whose names all have `width` tokens, no separator: names as numbers.

    Returns:
        tail, head: int64 [rows, n]; k, node, answer: int64 [rows, queries] (k as the query's token).
    """
    rows = ids.astype(np.int64).reshape(-1, 1 + 2 * n * width + queries * (2 + 2 * width))
    place = 100_000 ** np.arange(width)
    edges = rows[:, 1 : 1 + 2 * n * width].reshape(len(rows), n, 2, width) @ place
    tail = rows[:, 1 + 2 * n * width :].reshape(len(rows), queries, 2 + 2 * width)
    node, answer = tail[:, :, 1 : 1 + width] @ place, tail[:, :, 2 + width :] @ place
    return {"tail": edges[:, :, 0], "head": edges[:, :, 1], "k": tail[:, :, 0], "node": node, "answer": answer}


def along_the_cycle(table: dict[str, Ints]) -> Ints:
    """For each row, the steps along the cycle from the first written edge's tail to every written edge's tail."""
    tail, head = table["tail"], table["head"]
    follow = (head[:, :, None] == tail[:, None, :]).argmax(2)  # edge → position of the edge after it
    steps = np.zeros_like(tail)
    at, every = np.zeros(len(tail), np.int64), np.arange(len(tail))
    for step in range(1, tail.shape[1]):
        at = follow[every, at]
        steps[every, at] = step
    return steps


# The tests of the law ----------------------------------------------------------------------------------------------


def sizes(n: Ints, N: int) -> float:
    """n follows the size law."""
    return chi_square(np.bincount(n, minlength=N + 1)[3:], size_shares(N)) if n.min() >= 3 else 0.0


def hops(ks: Ints, legal: Sequence[int]) -> float:
    """k is uniform over the legal hops, at each of the row's queries: ks [rows, queries]."""
    counts = np.array([[(column == k).sum() for k in legal] for column in ks.T])
    return chi_square(counts) if counts.sum() == ks.size else 0.0


def word_lengths(ids: Ints, V: int, shortest: int, longest: int, n: int, words: int) -> float:
    """Lengths of the n edges' tails are uniform."""
    _tokens, lengths = words_of(ids, V, words)
    return chi_square(np.bincount(lengths[:, : 2 * n : 2].ravel(), minlength=longest + 1)[shortest:])


def word_tokens(ids: Ints, V: int, n: int, words: int) -> float:
    """Tokens of the tails are uniform, at each place of a word of each length, V taken off the last."""
    tokens, lengths = words_of(ids, V, words)
    first = (np.cumsum(lengths.ravel()) - lengths.ravel()).reshape(lengths.shape)[:, : 2 * n : 2].ravel()
    lengths = lengths[:, : 2 * n : 2].ravel()
    counts, shares = [], []
    for length in np.unique(lengths):
        starts = first[lengths == length]
        for place in range(length):
            token = tokens[starts + place] - V * (place == length - 1)
            if token.min() < 1 or token.max() > V:
                return 0.0
            counts.append(np.bincount(token, minlength=V + 1)[1:])
            shares.append(np.full(V, len(starts) / V))
    return chi_square(np.array(counts), np.array(shares) / np.sum(shares))


def one_token_counts(ids: Ints, V: int, n: int, words: int) -> float:
    """How many of n distinct names have one token follows the law of redrawing."""
    _tokens, lengths = words_of(ids, V, words)
    counts = (lengths[:, : 2 * n : 2] == 1).sum(1)
    return chi_square(np.bincount(counts, minlength=V + 1), one_token_names(n, V)[n])


def everything_at_four(ids: Ints) -> float:
    """Over four nodes with the only four names there are: (cycle, edge order, query order) is uniform on 6·24·24."""
    table = table_of(ids, 4, 4)
    by_name = np.argsort(table["tail"], 1)
    heads = np.take_along_axis(table["head"], by_name, 1)  # where the nodes 1, 2, 3, 4 lead
    cycles = np.unique(ranks(np.array([p for p in permutations(range(4)) if _one_cycle(p)])))
    cycle = np.searchsorted(cycles, ranks(heads))
    if not np.isin(ranks(heads), cycles).all():
        return 0.0
    return chi_square(np.bincount((cycle * 24 + ranks(table["tail"])) * 24 + ranks(table["node"]), minlength=3456))


def edge_order(ids: Ints, n: int) -> float:
    """The order of edges, counted along the cycle from the first, is uniform on (n − 1)! (few one-token names)."""
    order = ranks(along_the_cycle(table_of(ids, n, n))[:, 1:])
    return chi_square(np.bincount(order, minlength=int(np.prod(np.arange(1, n)))))


def positions(wanted: Ints, tails: Ints) -> float:
    """The position of each row's `wanted` node among its written tails is uniform."""
    found = tails == wanted[:, None]
    return chi_square(np.bincount(found.argmax(1), minlength=tails.shape[1])) if (found.sum(1) == 1).all() else 0.0


def k_and_node(table: dict[str, Ints], query: int) -> float:
    """The k of a query says nothing about where the edge of its node stands (in tenths of the list)."""
    at = (table["tail"] == table["node"][:, query : query + 1]).argmax(1)
    return independent(at * 10 // table["tail"].shape[1], table["k"][:, query] - table["k"].min())


def _one_cycle(follow: tuple[int, ...]) -> bool:
    at, steps = follow[0], 1
    while at:
        at, steps = follow[at], steps + 1
    return steps == len(follow)


def flat(rows: Sequence[dict[str, Any]]) -> Ints:
    """The ids of rows end to end."""
    return np.concatenate([np.asarray(row["input_ids"]) for row in rows])
