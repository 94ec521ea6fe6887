"""Laws of Depo that are wrong in one way each, on top of the prose reference: what test_depo_law.py must refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import reference


class UniformSize(reference.Depo):
    def size(self, source: Iterator[int]) -> int:
        return 3 + reference.numbers(source, self.params["N"] - 2)[0]


class RootSize(reference.Depo):
    """p(n) ∝ 1 / √(N + n), as the paper says in one place."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        weights = np.cumsum(1 / np.sqrt(np.arange(3, params["N"] + 1) + params["N"]))
        self.thresholds = [int(w / weights[-1] * 2**64) for w in weights[:-1]]


class ShiftedSize(reference.Depo):
    """n in 2..N−1."""

    def size(self, source: Iterator[int]) -> int:
        return super().size(source) - 1


class PublishedHops(reference.Depo):
    """The published QA list, with 32 twice."""

    def hops(self) -> list[int]:
        return [1, 2, 4, 8, 16, 32, 24, 32]


class NamesByNumber(reference.Depo):
    """All names equally likely, so that nearly all are long."""

    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        V, low, high = (self.params[name] for name in ("mini_vocab", "min_tlen", "max_tlen"))
        out: dict[tuple[int, ...], None] = {}
        while len(out) < n:
            number, L = reference.numbers(source, sum(V**L for L in range(low, high + 1)))[0], low
            while number >= V**L:
                number, L = number - V**L, L + 1
            out[reference.spell((L - low) * V**high + number * V ** (high - L), V, low, high)] = None
        return list(out)


class BiasedTokens(reference.Depo):
    """Tokens as a random byte modulo V."""

    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        V, low, high = (self.params[name] for name in ("mini_vocab", "min_tlen", "max_tlen"))
        out: dict[tuple[int, ...], None] = {}
        while len(out) < n:
            L = low + reference.numbers(source, high - low + 1)[0]
            tokens = [byte % V + 1 for byte in next(source).to_bytes(8, "little")[:L]]
            out[(*tokens[:-1], tokens[-1] + V)] = None
        return list(out)


class LengthKept(reference.Depo):
    """A repeated name is drawn again at the same length."""

    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        V, low, high = (self.params[name] for name in ("mini_vocab", "min_tlen", "max_tlen"))
        out: dict[tuple[int, ...], None] = {}
        for _ in range(n):
            length, slot = reference.numbers(source, high - low + 1, V**high)
            while (name := reference.spell(length * V**high + slot, V, low, high)) in out:
                slot = reference.numbers(source, V**high)[0]
            out[name] = None
        return list(out)


class SurplusCutInFront(reference.Depo):
    """Ten names too many are drawn and the first ten dropped: early names are shorter than late ones."""

    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        return super().names(source, n + 10)[10:]


class SortedNames(reference.Depo):
    def names(self, source: Iterator[int], n: int) -> list[tuple[int, ...]]:
        return sorted(super().names(source, n))


class NaiveShuffle(reference.Depo):
    """Each place is exchanged with any place."""

    def edge_order(self, source: Iterator[int], n: int) -> list[int]:
        order = list(range(n))
        for i in range(n):
            j = reference.numbers(source, n)[0]
            order[i], order[j] = order[j], order[i]
        return order


class Sattolo(reference.Depo):
    """An exchange never leaves an edge where it is."""

    def edge_order(self, source: Iterator[int], n: int) -> list[int]:
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = reference.numbers(source, i)[0]
            order[i], order[j] = order[j], order[i]
        return order


class UncarriedShuffle(reference.Depo):
    """The six steps of a group all use the word's own high half, not what the step before left."""

    def edge_order(self, source: Iterator[int], n: int) -> list[int]:
        order, left = list(range(n)), n
        while left > 0:
            x = next(source)
            for _ in range(min(6, left)):
                j, left = x * left >> 64, left - 1
                order[j], order[left] = order[left], order[j]
        return order


class NextInOrder(reference.Depo):
    """Queries follow the order of edges."""

    def queries(self, source: Iterator[int], order: list[int]) -> list[tuple[int, int]]:
        hops = self.hops()
        return [(a, hops[reference.numbers(source, len(hops))[0]]) for a in order[: self.params["M"]]]


class KFromTheNode(reference.Depo):
    """Node and k are both read off the same word, without carrying."""

    def queries(self, source: Iterator[int], order: list[int]) -> list[tuple[int, int]]:
        hops, out = self.hops(), []
        for q in range(min(len(order), self.params["M"])):
            x = next(source)
            u, v = x * (len(order) - q) >> 64, x * len(hops) >> 64
            out.append((order[q + u], hops[v]))
            order[q + u], order[q] = order[q], order[q + u]
        return out


class ShuffleStopsEarly(reference.Depo):
    """The last few steps are left out."""

    def edge_order(self, source: Iterator[int], n: int) -> list[int]:
        order = list(range(n))
        for left in range(n - 1, 5, -1):
            j = reference.numbers(source, left + 1)[0]
            order[j], order[left] = order[left], order[j]
        return order
