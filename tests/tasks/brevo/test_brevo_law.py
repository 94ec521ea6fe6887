"""Brevo's rows have the law that the docstring states, and each test of it can fail.

Every statistic takes rows, or what was read off them, and returns a p-value. It is used twice: on the package's rows it
must not be below ALPHA, on rows of a law that is wrong in one way (a mutant of reference_brevo.py) it must. Seeds are
fixed; each use on true rows raises a false alarm with probability ALPHA, the 15 together with less than 1e-4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, permutations
from typing import Any

import law_statistics as law
import numpy as np
import pytest
import reference
from reference import numbers
from reference_brevo import Brevo, Edge, ancestors

from synthshards import BrevoTask, make_task
from synthshards.ragged import RaggedBatch
from synthshards.tasks.task import Task

pytestmark = pytest.mark.slow

ALPHA = 1e-6


@lru_cache(maxsize=4)
def batch(task: Task, rows: int) -> RaggedBatch:
    return task.batch(0, "train", 0, rows)


def lists(task: Task, rows: int) -> list[list[int]]:
    """Ids of the package's rows."""
    return batch(task, rows).columns["input_ids"].tolist()


def wrong(mutant: type[Brevo], task: Task, rows: int) -> list[list[int]]:
    """Ids of rows of a wrong law."""
    return [row["input_ids"] for row in mutant(task.params.canonical()).rows(0, "train", range(rows))]


# Graph and answer together, against an enumeration in fractions ----------------------------------------------------
#
# A one-token row without its names is a *plan*: the edges, nodes numbered by their place in the answer, then the others
# (those numbered so that the edges come out least). The exact probability of every plan follows from the law by brute
# force: leaves, parents of each node, and each order in which nodes can be removed.

Plan = tuple[Edge, ...]


def plan_of(edges: Sequence[tuple[Any, Any]], answer: Sequence[Any]) -> Plan:
    others = sorted({node for edge in edges for node in edge} - set(answer))
    plans = []
    for order in permutations(others):
        number = {node: i for i, node in enumerate([*answer, *order])}
        plans.append(tuple(sorted((number[a], number[b]) for a, b in edges)))
    return min(plans)


def orders(query: int, edges: list[Edge]) -> dict[tuple[int, ...], Fraction]:
    """Every answer and its probability: from the query down, remove a node without remaining child, each as likely."""
    wanted = ancestors(query, edges) | {query}
    found: dict[tuple[int, ...], Fraction] = {}

    def remove(gone: tuple[int, ...], share: Fraction) -> None:
        left = wanted - set(gone)
        ready = [node for node in left if not any(a == node and b in left for a, b in edges)]
        if not left:
            found[gone[::-1]] = share
        for node in ready:
            remove((*gone, node), share / len(ready))

    remove((), Fraction(1))
    return found


@lru_cache
def plans(n: int, max_in: int) -> dict[Plan, Fraction]:
    """Every plan of n nodes and its exact probability."""
    found: dict[Plan, Fraction] = {}

    def grow(i: int, leaves: int, edges: list[Edge], share: Fraction) -> None:
        if i == n:
            for answer, part in orders(n - 1, edges).items():
                plan = plan_of(edges, answer)
                found[plan] = found.get(plan, Fraction(0)) + share * part
            return
        free = [a for a in range(i) if sum(edge[0] == a for edge in edges) < max_in]
        most = min(max_in, len(free))
        for d in range(1, most + 1):
            choices = list(combinations(free, d))
            for chosen in choices:
                grow(i + 1, leaves, [*edges, *((a, i) for a in chosen)], share / most / len(choices))

    most = (n - 1) // 4 + 1
    for leaves in range(1, most + 1):
        grow(leaves, leaves, [], Fraction(1, most))
    assert sum(found.values()) == 1
    return found


def plan_law(rows: list[list[int]], n: int, max_in: int) -> float:
    exact, seen = plans(n, max_in), Counter[Plan]()
    for ids in rows:
        at, end = ids.index(9997), ids.index(9998)
        seen[plan_of(list(zip(ids[1:at:2], ids[2:at:2], strict=True)), ids[end + 1 : -1])] += 1
    if set(seen) - set(exact):
        return 0.0
    order = sorted(exact, key=lambda plan: (exact[plan], plan))
    return law.chi_square(np.array([seen[plan] for plan in order]), np.array([float(exact[plan]) for plan in order]))


AT_FIVE, AT_SIX_CAPPED = BrevoTask(N=5, qa=True), BrevoTask(N=6, qa=True, max_in=2)
PLANS = {"five nodes": (AT_FIVE, 5, 4), "six nodes, two at most": (AT_SIX_CAPPED, 6, 2)}


@pytest.mark.parametrize("case", PLANS)
def test_graph_and_answer(case: str) -> None:
    task, n, max_in = PLANS[case]
    assert len(plans(n, max_in)) > 100
    assert plan_law(lists(task, 30_000), n, max_in) > ALPHA


class LeavesRoundedUp(Brevo):
    """Up to ceil((n − 1) / 4) + 1 leaves, as the paper says."""

    def leaves(self, source: Iterator[int], n: int) -> int:
        return 1 + numbers(source, -(-(n - 1) // 4) + 1)[0]


class OneLeaf(Brevo):
    def leaves(self, source: Iterator[int], n: int) -> int:
        return 1


class FewParents(Brevo):
    """The number of parents leans to one."""

    def degree(self, u: int, most: int) -> int:
        return 1 + u * u // most


class UncappedChildren(Brevo):
    """Every earlier node may be chosen."""

    def edges(self, source: Iterator[int], n: int, leaves: int) -> list[Edge]:
        out = []
        for i in range(leaves, n):
            most = min(self.params["max_in"], i)
            order = reference.shuffled(source, i)
            out += [(a, i) for a in order[: 1 + numbers(source, most)[0]]]
        return out


class NearParents(Brevo):
    """Parents are the nodes just before."""

    def edges(self, source: Iterator[int], n: int, leaves: int) -> list[Edge]:
        free: dict[int, int] = dict.fromkeys(range(leaves), 0)
        out = []
        for i in range(leaves, n):
            most = min(self.params["max_in"], len(free))
            for a in sorted(free)[-1 - numbers(source, most)[0] :]:
                out.append((a, i))
                free[a] += 1
                if free[a] == self.params["max_in"]:
                    del free[a]
            free[i] = 0
        return out


class UniformOrder(Brevo):
    """All valid orders equally likely."""

    def answer(self, source: Iterator[int], query: int, edges: list[Edge]) -> list[int]:
        choices = sorted(orders(query, edges))
        return list(choices[numbers(source, len(choices))[0]])


class DepthFirst(Brevo):
    """The node that became free last is removed next."""

    def answer(self, source: Iterator[int], query: int, edges: list[Edge]) -> list[int]:
        wanted = ancestors(query, edges) | {query}
        stack, gone = [query], []
        while stack:
            gone.append(stack.pop())
            for parent in sorted({a for a, b in edges if b == gone[-1]}):
                if all(b in gone for a, b in edges if a == parent and b in wanted):
                    stack.append(parent)
        return gone[::-1]


class ForwardOrder(Brevo):
    """From the leaves up, a uniformly chosen node without remaining parent."""

    def answer(self, source: Iterator[int], query: int, edges: list[Edge]) -> list[int]:
        wanted, placed = ancestors(query, edges) | {query}, []
        while len(placed) < len(wanted):
            ready = sorted(v for v in wanted if v not in placed and all(a in placed for a, b in edges if b == v))
            placed.append(ready[numbers(source, len(ready))[0]])
        return placed


@pytest.mark.parametrize(
    ("mutant", "case", "rows"),
    [
        (LeavesRoundedUp, "six nodes, two at most", 2000),
        (OneLeaf, "five nodes", 1000),
        (FewParents, "five nodes", 2000),
        (UncappedChildren, "six nodes, two at most", 1000),
        (NearParents, "five nodes", 1000),
        (UniformOrder, "six nodes, two at most", 12_000),
        (DepthFirst, "five nodes", 2000),
        (ForwardOrder, "five nodes", 8000),
    ],
)
def test_graph_and_answer_can_fail(mutant: type[Brevo], case: str, rows: int) -> None:
    task, n, max_in = PLANS[case]
    assert plan_law(wrong(mutant, task, rows), n, max_in) < ALPHA


# Names and the order of edges --------------------------------------------------------------------------------------


def names_and_edge_order(ids: np.ndarray) -> float:
    """Rows of the complete DAG on four nodes: names (4!) and the order of its edges (6!) are uniform, jointly."""
    rows = ids.astype(np.int64).reshape(-1, 21)
    edges = rows[:, 1:13].reshape(-1, 6, 2)
    tails = (edges[:, :, 0, None] == np.arange(1, 5)).sum(1)  # how often each id is a parent: 3, 2, 1, 0
    node = 3 - tails  # id → node
    if not (np.sort(node, 1) == np.arange(4)).all():
        return 0.0
    tail = np.take_along_axis(node, edges[:, :, 0] - 1, 1)
    head = np.take_along_axis(node, edges[:, :, 1] - 1, 1)
    cell = law.ranks(node) * 720 + law.ranks(4 * tail + head)
    return law.chi_square(np.bincount(cell, minlength=24 * 720))


def complete(made: RaggedBatch) -> np.ndarray:
    """The ids of the rows with all six edges."""
    return made.input_ids[np.repeat(made.columns["edges"].values == 6, made.columns["input_ids"].lengths())]


AT_FOUR = BrevoTask(N=4, qa=True)


def test_names_and_the_order_of_edges() -> None:
    ids = complete(batch(AT_FOUR, 1_500_000))
    assert 0.16 < len(ids) / 21 / 1_500_000 < 0.173  # 1/6 of the rows
    assert names_and_edge_order(ids) > ALPHA


class NamesInOrder(Brevo):
    def names(self, source: Iterator[int], count: int) -> list[tuple[int, ...]]:
        return sorted(super().names(source, count))


class EdgesUnshuffled(Brevo):
    def edge_order(self, source: Iterator[int], m: int) -> list[int]:
        return list(range(m))


class EdgesNearlyShuffled(Brevo):
    """The last two edges never change places."""

    def edge_order(self, source: Iterator[int], m: int) -> list[int]:
        order = super().edge_order(source, m)
        return sorted(order[:2]) + order[2:]


@pytest.mark.parametrize("mutant", [NamesInOrder, EdgesUnshuffled, EdgesNearlyShuffled])
def test_names_and_the_order_of_edges_can_fail(mutant: type[Brevo]) -> None:
    rows = [ids for ids in wrong(mutant, AT_FOUR, 24_000) if len(ids) == 21]
    assert names_and_edge_order(np.concatenate(rows)) < ALPHA


def query_names(rows: list[list[int]], N: int) -> float:
    """The query is any of 1..N, whatever n is."""
    counts = np.bincount([ids[ids.index(9997) + 1] for ids in rows], minlength=N + 1)
    return law.chi_square(counts[1:]) if counts[0] == 0 and len(counts) == N + 1 else 0.0


def test_names_are_of_one_to_N() -> None:
    assert query_names(lists(BrevoTask(N=30), 30_000), 30) > ALPHA


class NamesOfOneToCount(Brevo):
    def names(self, source: Iterator[int], count: int) -> list[tuple[int, ...]]:
        return [(i + 1,) for i in reference.shuffled(source, count)]


def test_names_are_of_one_to_N_can_fail() -> None:
    assert query_names(wrong(NamesOfOneToCount, BrevoTask(N=30), 1500), 30) < ALPHA


def short_words(names: int) -> np.ndarray:
    """Shares of 0..16 two-token words among so many distinct words of 2, 3 or 4 tokens of 4: 16, 64 and 256 words."""
    shares = np.zeros((17, 65))
    shares[0, 0] = 1
    a, b = np.arange(17)[:, None], np.arange(65)[None]
    for m in range(names):
        two, three, four = (16 - a) / 16, (64 - b) / 64, (256 - (m - a - b)) / 256
        total = two + three + np.clip(four, 0, 1)
        now = shares * np.clip(four, 0, 1) / total
        now[1:] += (shares * two / total)[:-1]
        now[:, 1:] += (shares * three / total)[:, :-1]
        shares = now
    return shares.sum(1)  # type: ignore[no-any-return]


WORDS = BrevoTask(N=50, multi=True, qa=True)


def word_law(rows: list[list[int]]) -> float:
    """How many of a row's 50 words are short follows the law of redrawing, where all nodes have an edge."""
    counts = []
    for ids in rows:
        ends = [i for i, t in enumerate(ids[: ids.index(9997)]) if 4 < t < 9]
        words = {tuple(ids[a + 1 : b + 1]) for a, b in zip([0, *ends], ends, strict=False)}
        if len(words) == 50:
            counts.append(sum(len(word) == 2 for word in words))
    return law.chi_square(np.bincount(counts, minlength=17), short_words(50))


def test_words() -> None:
    assert abs(short_words(50).sum() - 1) < 1e-12
    assert word_law(lists(WORDS, 12_000)) > ALPHA


class NamesThatNobodyHas(Brevo):
    """Forty names are drawn first and dropped: those that follow are longer."""

    def names(self, source: Iterator[int], count: int) -> list[tuple[int, ...]]:
        return super().names(source, count + 40)[40:]


def test_words_can_fail() -> None:
    assert word_law(wrong(NamesThatNobodyHas, WORDS, 500)) < ALPHA


# Sizes, and the figures of Brevo1-110 ------------------------------------------------------------------------------


def test_size_and_leaves() -> None:
    made = batch(BrevoTask(N=40), 100_000)
    n, leaves = made.columns["n"].values, made.columns["leaves"].values
    assert law.sizes(n, 40) > ALPHA
    for size in (8, 20, 40):
        at = leaves[n == size]
        assert at.min() == 1
        assert law.chi_square(np.bincount(at - 1, minlength=(size - 1) // 4 + 1)) > ALPHA
        assert at.max() == (size - 1) // 4 + 1


def test_size_and_leaves_can_fail() -> None:
    rows = LeavesRoundedUp(BrevoTask(N=40).params.canonical()).rows(0, "train", range(3000))
    counts = np.bincount([row["leaves"] - 1 for row in rows if row["n"] == 8], minlength=3)
    assert counts[2] > 0  # of n = 8 at most two are leaves
    assert law.sizes(np.array([row["n"] for row in rows]) // 2 + 2, 40) < ALPHA


#: Published figures of Brevo1-110, themselves the means of some ten thousand rows: (mean, sd).
FIGURES = {"tokens": (184.0, 146.0), "answer_length": (17.65, 13.39), "edges": (80.7, 67.5)}
DEPTHS = {1: 22.0, 2: 42.8, 3: 23.8, 4: 8.6, 5: 2.4}


def far_off(columns: dict[str, np.ndarray]) -> list[str]:
    """The figures that are missed: means and deviations by 1.5%, shares of depth by 0.7 points."""
    out = []
    for name, (mean, deviation) in FIGURES.items():
        values = columns[name].astype(float)
        if abs(values.mean() / mean - 1) > 0.015 or abs(values.std() / deviation - 1) > 0.015:
            out.append(name)
    shares = np.bincount(columns["depth"], minlength=6) * 100 / len(columns["depth"])
    return out + [f"depth {depth}" for depth, share in DEPTHS.items() if abs(shares[depth] - share) > 0.7]


def test_the_figures_of_brevo1_110() -> None:
    # With 400,000 rows the mean length is known to 0.23, so that each bound is ten standard errors away.
    made = batch(make_task("brevo1-110"), 400_000)
    columns = {name: column.values for name, column in made.columns.items() if name not in ("input_ids", "loss_mask")}
    assert far_off({**columns, "tokens": made.columns["input_ids"].lengths()}) == []


@pytest.mark.parametrize(
    ("params", "missed"),
    [
        ({"max_in": 3}, ["tokens", "edges", "answer_length", "depth 1"]),
        ({"max_in": 5}, ["tokens", "edges", "answer_length", "depth 2"]),
        ({"N": 107}, ["tokens", "edges", "answer_length"]),
    ],
    ids=str,
)
def test_the_figures_can_be_missed(params: dict[str, int], missed: list[str]) -> None:
    made = batch(make_task("brevo1-110", **params), 100_000)
    columns = {name: column.values for name, column in made.columns.items() if name not in ("input_ids", "loss_mask")}
    assert set(missed) <= set(far_off({**columns, "tokens": made.columns["input_ids"].lengths()}))
