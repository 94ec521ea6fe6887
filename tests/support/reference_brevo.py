"""Brevo's rows in plain Python integers, written from docs/randomness.md alone.

Numbers, sizes and words come from reference.py; no line is the package's. A test that wants a wrong law overrides one
method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import reference
from reference import numbers

Edge = tuple[int, int]  # parent, child


class Brevo:
    """The law for one set of parameters (all of them, by name)."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)
        self.words = reference.Depo({**params, "qa": params["qa"]})  # for what both tasks share

    def size(self, source: Iterator[int]) -> int:
        """randomness.md, "Size and leaves": n."""
        return self.words.size(source)

    def leaves(self, source: Iterator[int], n: int) -> int:
        """randomness.md, "Size and leaves"."""
        return 1 + numbers(source, (n - 1) // 4 + 1)[0]

    def degree(self, u: int, most: int) -> int:
        """The number of parents that the number u below `most` means."""
        return 1 + u

    def edges(self, source: Iterator[int], n: int, leaves: int) -> list[Edge]:
        """randomness.md, "Parents"."""
        cap = self.params["max_in"]
        free, children, out = list(range(leaves)), dict.fromkeys(range(n), 0), []
        for i in range(leaves, n):
            most = min(cap, len(free))
            u, *places = numbers(source, most, *range(len(free), max(len(free) - 4, 0), -1))
            degree, taken = self.degree(u, most), []
            while True:
                for place in places:
                    taken.append(free[place])
                    last = free.pop()
                    if place < len(free):
                        free[place] = last
                if len(taken) >= degree:
                    break
                places = numbers(source, *range(len(free), max(len(free) - 4, 0), -1))
            for parent in taken[:degree]:
                children[parent] += 1
                out.append((parent, i))
            free += [node for node in taken if children[node] < cap]
            free.append(i)
        return out

    def names(self, source: Iterator[int], count: int) -> list[tuple[int, ...]]:
        """randomness.md, "Names of nodes"."""
        if self.params["multi"]:
            return self.words.names(source, count)
        pool, out = list(range(1, self.params["N"] + 1)), []
        while len(out) < count:
            steps = min(6 if len(pool) <= 256 else 3, len(pool))
            for place in numbers(source, *(len(pool) - step for step in range(steps))):
                out.append((pool[place],))
                last = pool.pop()
                if place < len(pool):
                    pool[place] = last
        return out[:count]

    def answer(self, source: Iterator[int], query: int, edges: list[Edge]) -> list[int]:
        """randomness.md, "The answer": the answer's nodes as they stand in the row."""
        wanted = ancestors(query, edges) | {query}
        waiting = {node: sum(parent == node and child in wanted for parent, child in edges) for node in wanted}
        ready, backwards = [query], []
        while ready:
            place = numbers(source, len(ready))[0]
            node, last = ready[place], ready.pop()
            if place < len(ready):
                ready[place] = last
            backwards.append(node)
            for parent, child in edges:
                if child == node:
                    waiting[parent] -= 1
                    if not waiting[parent]:
                        ready.append(parent)
        return backwards[::-1]

    def edge_order(self, source: Iterator[int], m: int) -> list[int]:
        """randomness.md, "Edges": the numbers of the edges as they stand in the row."""
        return reference.shuffled(source, m)[::-1]

    def row(self, key: tuple[int, int], i: int) -> dict[str, Any]:
        """randomness.md, "Brevo", "Tokens and facts of Brevo": all columns but labels."""
        p, source = self.params, reference.words(reference.start(key, i))
        n = self.size(source)
        leaves = self.leaves(source, n)
        edges = self.edges(source, n, leaves)
        seen = sorted({node for edge in edges for node in edge})
        name = dict(zip(seen, self.names(source, len(seen)), strict=True))
        answer = self.answer(source, n - 1, edges)
        ids = [p["bos_token_id"]]
        for e in self.edge_order(source, len(edges)):
            ids += [*name[edges[e][0]], *name[edges[e][1]]]
        ids += [p["query_token_id"], *name[n - 1]]
        mask = [False] * len(ids)
        ids.append(p["answer_token_id"])
        for node in answer:
            ids += name[node]
        ids.append(p["eos_token_id"])
        mask += [True] * (len(ids) - len(mask))
        facts = {"n": n, "leaves": leaves, "edges": len(edges), "depth": depth(n - 1, edges)}
        return {"input_ids": ids, "loss_mask": mask, **facts, "answer_length": len(answer)}

    def rows(self, seed: int, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of some indices of one dataset."""
        key = reference.key_of(reference.identity_digest("brevo", 1, self.params, seed, split))
        return [self.row(key, i) for i in indices]


def ancestors(query: int, edges: list[Edge]) -> set[int]:
    """All nodes from which edges lead to the query."""
    found: set[int] = set()
    stack = [query]
    while stack:
        node = stack.pop()
        above = {parent for parent, child in edges if child == node} - found
        found |= above
        stack += above
    return found


def depth(query: int, edges: list[Edge]) -> int:
    """Least number of edges from the query up to a node without parents."""
    steps, level = 0, {query}
    while all(any(child == node for _, child in edges) for node in level):
        steps, level = steps + 1, {parent for parent, child in edges if child in level}
    return steps
