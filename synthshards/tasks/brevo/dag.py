"""Random DAGs for Brevo: parents under a cap, the ancestors of the last node, and a random valid order of them.

The law and the order of draws are in `brevo.task`. An edge is parent | child << 16; edges stand in the order of their
children, those into node i from begin[i] to begin[i + 1]. Lists are arrays of which the first `left` entries count.

What the kernels write to has room for the largest row and some for wide steps: edges [(N + 1)·max_in + 8]; begin, free,
ready, order [N + 8]; taken [max_in + 4]; used, waiting, distance [N].
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np

from ...kernels.arrays import U8, U32, U64
from ...kernels.jit import helper
from ...kernels.rng import State, below, mulhi, word_for

#: Up to this many entries six steps of a shuffle share a word.
SIX = 256
#: More than any distance.
FAR = np.uint64(0xFFFF)
LOW16 = np.uint64(0xFFFF)

_0, _1, _2, _3, _4, _16 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 16))


class Ranges(NamedTuple):
    """Products of the ranges that share a word, without the factors that are not positive.

    Attributes:
        parents: [N + 1], for the parents of a node: entry f is min(max_in, f)·f·(f−1)·(f−2)·(f−3).
        shuffle: [257], for six steps of a shuffle: entry f is f·(f−1)·…·(f−5).
    """

    parents: U64
    shuffle: U64


@cache
def ranges_of(N: int, max_in: int) -> Ranges:
    """The products for these parameters."""

    def falling(f: int, factors: int) -> int:
        return prod(max(f - i, 1) for i in range(factors))

    nodes = [max(min(max_in, f), 1) * falling(f, 4) for f in range(N + 1)]
    return Ranges(np.array(nodes, np.uint64), np.array([falling(f, 6) for f in range(SIX + 1)], np.uint64))


@helper
def _take(
    x: np.uint64, left: np.uint64, parent: np.uint64, m: np.uint64, above: np.uint64, free: U32, edges: U32
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Take an entry out of free[:left], as a parent (1) or not (0): (x, left, m, entry).

    An entry is a node and, from bit 16, the number of its children. The edge is written in any case, branch-free: what
    is none is soon written over.
    """
    j = mulhi(x, left)
    x *= left
    left -= _1
    entry = np.uint64(free[j]) + (parent << _16)
    free[j] = free[left]
    edges[m] = (entry & LOW16) | above
    return x, left, m + parent, entry


@helper
def _put_back(entry: np.uint64, full: np.uint64, free: U32, left: np.uint64) -> np.uint64:
    """Put an entry back behind free[:left], unless it has all its children; the new `left`."""
    free[left] = entry
    return left + np.uint64(entry < full)


@helper
def draw_graph(
    s: State, n: np.uint64, leaves: np.uint64, max_in: np.uint64, ranges: U64, edges: U32, begin: U32, free: U32,
    taken: U32,
) -> tuple[State, np.uint64]:  # fmt: skip
    """Draw all edges; (state, their number). `ranges` are those of `Ranges.parents`."""
    full = max_in << _16
    left, m, i = leaves, _0, leaves
    while i < n:
        begin[i] = m
        above = i << _16
        s, x = word_for(s, ranges[left])
        if max_in == _4 and left >= _4:  # nearly always: the general case below, written out
            parents = _1 + mulhi(x, _4)
            x *= _4
            x, left, m, a = _take(x, left, _1, m, above, free, edges)
            x, left, m, b = _take(x, left, np.uint64(parents > _1), m, above, free, edges)
            x, left, m, c = _take(x, left, np.uint64(parents > _2), m, above, free, edges)
            x, left, m, d = _take(x, left, np.uint64(parents > _3), m, above, free, edges)
            left = _put_back(a, full, free, left)
            left = _put_back(b, full, free, left)
            left = _put_back(c, full, free, left)
            left = _put_back(d, full, free, left)
        else:
            most = min(max_in, left)
            parents = _1 + mulhi(x, most)
            x *= most
            t = _0
            while t < parents:
                if t > _0:
                    s, x = word_for(s, ranges[left] // min(max_in, left))
                stop = t + min(_4, left)
                while t < stop:
                    x, left, m, taken[t] = _take(x, left, np.uint64(t < parents), m, above, free, edges)
                    t += _1
            u = _0
            while u < t:
                left = _put_back(np.uint64(taken[u]), full, free, left)
                u += _1
        free[left] = i
        left += _1
        i += _1
    begin[n] = m
    return s, m


@helper
def find_ancestors(
    n: np.uint64, leaves: np.uint64, m: np.uint64, edges: U32, used: U8, waiting: U32, distance: U32
) -> np.uint64:
    """Mark the nodes with children in `used`, count in `waiting` the children that are the query or its ancestors.

    Edges are in the order of their children: from the back, all a node's children are done when its turn comes.
    Returns the least distance from the query to a leaf.
    """
    query = n - _1
    distance[query] = 0
    waiting[query] = 1
    e = m
    while e > _0:
        e -= _1
        edge = np.uint64(edges[e])
        parent = edge & LOW16
        used[parent] = 1
        away = np.uint64(distance[edge >> _16]) + _1
        waiting[parent] += np.uint32(away <= FAR)
        distance[parent] = min(np.uint64(distance[parent]), away)
    depth = FAR
    i = _0
    while i < leaves:
        depth = min(depth, np.uint64(distance[i]))
        i += _1
    return depth


@helper
def draw_answer(
    s: State, n: np.uint64, edges: U32, begin: U32, waiting: U32, ready: U32, order: U32
) -> tuple[State, np.uint64]:
    """Draw the answer's nodes into `order`, the last first: (state, their number). Uses up `waiting`."""
    ready[_0] = n - _1
    left, answers = _1, _0
    while left > _0:
        s, x = below(s, left)
        left -= _1
        i = np.uint64(ready[x])
        ready[x] = ready[left]
        order[answers] = i
        answers += _1
        e = np.uint64(begin[i])
        parents = np.uint64(begin[i + _1]) - e
        t = _0
        while True:  # in fours, branch-free: what lies behind the node's own edges changes nothing
            for _ in range(4):
                parent = np.uint64(edges[e + t]) & LOW16
                own = np.uint64(t < parents)
                still = np.uint64(waiting[parent]) - own
                waiting[parent] = still
                ready[left] = parent
                left += own & np.uint64(still == _0)
                t += _1
            if t >= parents:
                break
    return s, answers
