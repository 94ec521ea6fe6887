"""Brevo's checker and scorer: each way to break a row is refused, and for the reason that it breaks.

Rows are taken apart by a parser of the tests' own, broken, and written again with mask, labels and facts that agree
with what stands there, so that only the named fault can be found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synthshards import BrevoTask
from synthshards.tasks.task import Task

Word = tuple[int, ...]
Row = dict[str, Any]
Choose = Callable[[int], int]  # a number below the argument

TASKS = {
    "plain": BrevoTask(N=14),
    "words": BrevoTask(N=14, multi=True, min_tlen=1),
    "qa": BrevoTask(N=12, qa=True),
    "eos is ans": BrevoTask(N=14, eos_token_id=9998),
    "two": BrevoTask(N=14, max_in=2),
}


@dataclass
class Parts:
    """A row taken apart."""

    task: Task
    edges: list[tuple[Word, Word]]
    query: Word
    answer: list[Word]
    n: int
    eos: tuple[int, ...]

    def parents(self, node: Word) -> list[Word]:
        return [parent for parent, child in self.edges if child == node]

    def children(self, node: Word) -> list[Word]:
        return [child for parent, child in self.edges if parent == node]

    def nodes(self) -> list[Word]:
        return list(dict.fromkeys(node for edge in self.edges for node in edge))

    def strangers(self) -> list[Word]:
        """Nodes of the graph that are no ancestors of the query."""
        return [node for node in self.nodes() if node not in self.answer]

    def fresh(self) -> Word:
        """A legal name of no node."""
        p = self.task.params
        names = [(i,) for i in range(1, p.N + 1)] if not p.multi else [(a, b) for a in (1, 2) for b in range(5, 9)]
        left = [name for name in names if name not in self.nodes()]
        assume(left)
        return left[0]

    def row(self) -> Row:
        p = self.task.params
        ids = [
            p.bos_token_id,
            *(t for edge in self.edges for name in edge for t in name),
            p.query_token_id,
            *self.query,
        ]
        quiet = len(ids)
        ids += [p.answer_token_id, *(t for name in self.answer for t in name), *self.eos]
        mask = [i >= quiet for i in range(len(ids))]
        labels = [t if on else -100 for t, on in zip(ids, mask, strict=True)]
        inner = {child for _, child in self.edges}
        depth, level = 0, {self.query}
        while depth < 20 and all(self.parents(node) for node in level):
            depth, level = depth + 1, {parent for node in level for parent in self.parents(node)}
        return {
            "input_ids": ids, "loss_mask": mask, "labels": labels, "n": self.n, "leaves": self.n - len(inner),
            "edges": len(self.edges), "depth": depth, "answer_length": len(self.answer),
        }  # fmt: skip


def take_apart(task: Task, row: Row) -> Parts:
    p, ids = task.params, [int(t) for t in row["input_ids"]]

    def split(tokens: list[int]) -> list[Word]:
        if not p.multi:
            return [(t,) for t in tokens]
        words: list[list[int]] = [[]]
        for token in tokens:
            words[-1].append(token)
            if token > p.mini_vocab:
                words.append([])
        assert words.pop() == []
        return [tuple(word) for word in words]

    at = ids.index(p.query_token_id)
    ans = ids.index(p.answer_token_id)
    ends = split(ids[1:at])
    return Parts(
        task, list(zip(ends[::2], ends[1::2], strict=True)), split(ids[at + 1 : ans])[0], split(ids[ans + 1 : -1]),
        row["n"], (ids[-1],),
    )  # fmt: skip


def name(node: Word) -> str:
    return " ".join(map(str, node))


Broken = tuple[Row, str]
MUTATIONS: dict[str, tuple[Callable[[Parts, Choose], Broken], tuple[str, ...]]] = {}


def mutation(*tasks: str) -> Callable[[Callable[[Parts, Choose], Broken]], Callable[[Parts, Choose], Broken]]:
    def add(fn: Callable[[Parts, Choose], Broken]) -> Callable[[Parts, Choose], Broken]:
        MUTATIONS[fn.__name__] = (fn, tasks or tuple(TASKS))
        return fn

    return add


# The answer --------------------------------------------------------------------------------------------------------


@mutation()
def a_node_repeated(parts: Parts, choose: Choose) -> Broken:
    node = parts.answer[choose(len(parts.answer))]
    answer = [*parts.answer]
    answer.insert(choose(len(answer) + 1), node)
    return replace(parts, answer=answer).row(), f"node {name(node)} is repeated in the answer"


@mutation()
def a_node_missing(parts: Parts, choose: Choose) -> Broken:
    at = choose(len(parts.answer))
    answer = [*parts.answer[:at], *parts.answer[at + 1 :]]
    return replace(parts, answer=answer).row(), f"node {name(parts.answer[at])} is missing from the answer"


@mutation()
def no_answer(parts: Parts, choose: Choose) -> Broken:
    return replace(parts, answer=[]).row(), f"node {name(min(parts.answer))} is missing from the answer"


@mutation()
def a_node_that_is_no_ancestor(parts: Parts, choose: Choose) -> Broken:
    assume(parts.strangers())
    node = parts.strangers()[choose(len(parts.strangers()))]
    answer = [*parts.answer]
    if choose(2):
        answer[choose(len(answer))] = node
    else:
        answer.insert(choose(len(answer) + 1), node)
    return replace(parts, answer=answer).row(), f"node {name(node)} of the answer is no ancestor of the query"


@mutation()
def a_node_from_nowhere(parts: Parts, choose: Choose) -> Broken:
    node, answer = parts.fresh(), [*parts.answer]
    answer[choose(len(answer))] = node
    return replace(parts, answer=answer).row(), f"node {name(node)} of the answer is not in the graph"


@mutation()
def a_child_before_its_parent(parts: Parts, choose: Choose) -> Broken:
    inside = [(parent, child) for parent, child in parts.edges if child in parts.answer]
    parent, child = inside[choose(len(inside))]
    answer = [node for node in parts.answer if node != child]
    answer.insert(answer.index(parent), child)
    # The edge that is written first is named; all that now stand wrong are edges into the child.
    wrong = next(a for a, b in inside if b == child and answer.index(a) > answer.index(child))
    return replace(parts, answer=answer).row(), (
        f"node {name(child)} stands before its parent {name(wrong)} in the answer"
    )


@mutation()
def the_answer_backwards(parts: Parts, choose: Choose) -> Broken:
    answer = parts.answer[::-1]
    parent, child = next((a, b) for a, b in parts.edges if b in answer)
    return replace(parts, answer=answer).row(), (
        f"node {name(child)} stands before its parent {name(parent)} in the answer"
    )


# The graph ---------------------------------------------------------------------------------------------------------


@mutation()
def an_edge_written_twice(parts: Parts, choose: Choose) -> Broken:
    edges = [*parts.edges]
    edges.insert(choose(len(edges) + 1), edges[choose(len(edges))])
    return replace(parts, edges=edges).row(), "an edge is written twice"


@mutation("plain", "words", "eos is ans", "qa")
def a_cycle(parts: Parts, choose: Choose) -> Broken:
    # From a child of a node that is not the query back to the node.
    pairs = [(a, b) for a, b in parts.edges if b != parts.query and len(parts.parents(a)) < 4 > len(parts.children(b))]
    assume(pairs)
    a, b = pairs[choose(len(pairs))]
    edges = [*parts.edges]
    edges.insert(choose(len(edges) + 1), (b, a))
    return replace(parts, edges=edges).row(), "the edges form a cycle"


@mutation()
def an_edge_from_a_node_to_itself(parts: Parts, choose: Choose) -> Broken:
    most = parts.task.params.max_in
    nodes = [a for a in parts.nodes() if len(parts.parents(a)) < most > len(parts.children(a))]
    assume(nodes)
    node = nodes[choose(len(nodes))]
    return replace(parts, edges=[*parts.edges, (node, node)]).row(), "the edges form a cycle"


@mutation("two")
def a_parent_too_many(parts: Parts, choose: Choose) -> Broken:
    nodes = [
        (a, b)
        for b in parts.nodes()
        for a in parts.nodes()
        if len(parts.parents(b)) == 2 and a not in (*parts.parents(b), b) and len(parts.children(a)) < 2
    ]
    assume(nodes)
    a, b = nodes[choose(len(nodes))]
    return replace(parts, edges=[*parts.edges, (a, b)]).row(), f"node {name(b)} has 3 parents; legal: at most 2"


@mutation("two")
def a_child_too_many(parts: Parts, choose: Choose) -> Broken:
    nodes = [
        (a, b)
        for a in parts.nodes()
        for b in parts.nodes()
        if len(parts.children(a)) == 2 and b not in (*parts.children(a), a) and len(parts.parents(b)) < 2
    ]
    assume(nodes)
    a, b = nodes[choose(len(nodes))]
    return replace(parts, edges=[*parts.edges, (a, b)]).row(), f"node {name(a)} has 3 children; legal: at most 2"


@mutation("plain", "words", "eos is ans", "qa")
def the_query_has_a_child(parts: Parts, choose: Choose) -> Broken:
    ends = [node for node in parts.nodes() if not parts.children(node) and node != parts.query]
    ends = [node for node in ends if len(parts.parents(node)) < 4]
    assume(ends)
    edges = [*parts.edges, (parts.query, ends[choose(len(ends))])]
    return replace(
        parts, edges=edges
    ).row(), f"the query {name(parts.query)} has a child; legal: none, it is the last node"


@mutation()
def a_leaf_is_asked_for(parts: Parts, choose: Choose) -> Broken:
    roots = [node for node in parts.nodes() if not parts.parents(node)]
    root = roots[choose(len(roots))]
    return replace(parts, query=root, answer=[root]).row(), f"the query {name(root)} has no parent"


@mutation()
def a_stranger_is_asked_for(parts: Parts, choose: Choose) -> Broken:
    node = parts.fresh()
    return replace(parts, query=node, answer=[node]).row(), f"the query {name(node)} has no parent"


@mutation("plain", "words")
def leaves_too_many(parts: Parts, choose: Choose) -> Broken:
    # Two nodes with a parent each, and two roots: n would be 4 and may have but one leaf.
    a, b, c, d = ((i,) if not parts.task.params.multi else (1, i + 4) for i in range(1, 5))
    parts = replace(parts, edges=[(a, c), (b, d), (c, d)], query=d, answer=[b, a, c, d], n=4)
    return parts.row(), "no n in 3..N goes with 2 nodes with parents and 2 without"


@mutation("qa")
def too_few_nodes_for_an_evaluation(parts: Parts, choose: Choose) -> Broken:
    parts = replace(parts, edges=[((1,), (2,)), ((2,), (3,))], query=(3,), answer=[(1,), (2,), (3,)], n=3)
    return parts.row(), "no n in N goes with 2 nodes with parents and 1 without"


# Tokens ------------------------------------------------------------------------------------------------------------


def changed(row: Row, at: int, tokens: list[int], drop: int = 1) -> Row:
    """The row with the token at `at` replaced by some."""
    out = {**row}
    for column, put in (("input_ids", tokens), ("loss_mask", [row["loss_mask"][at]] * len(tokens)), ("labels", tokens)):
        out[column] = [*row[column][:at], *put, *row[column][at + drop :]]
    out["labels"] = [t if on else -100 for t, on in zip(out["input_ids"], out["loss_mask"], strict=True)]
    return out


@mutation()
def another_bos(parts: Parts, choose: Choose) -> Broken:
    return changed(parts.row(), 0, [[1], [9997], []][choose(3)]), "the row does not start with <bos> (9999)"


@mutation()
def no_query(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    return changed(row, row["input_ids"].index(9997), []), "the row has no <query> (9997)"


@mutation()
def no_ans(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = row["input_ids"].index(9998)
    return changed(row, at, []), f"no <ans> at {at}"


@mutation("plain", "words", "qa")
def no_eos(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    last = len(row["input_ids"]) - 1
    return changed(row, last, [[], [9998], [9999]][choose(3)]), "the row does not end with <eos> (9996)"


@mutation("eos is ans")
def nothing_after_ans(parts: Parts, choose: Choose) -> Broken:
    return replace(parts, answer=[], eos=()).row(), "the row does not end with <eos> (9998)"


@mutation()
def half_an_edge(parts: Parts, choose: Choose) -> Broken:
    row, size = parts.row(), len(parts.edges[0][0])
    return changed(
        row, 1, [], size
    ), f"{2 * len(parts.edges) - 1} names before <query>; legal: an even number, two for each edge"


@mutation("plain", "qa")
def a_token_that_is_no_node_s(parts: Parts, choose: Choose) -> Broken:
    row, N = parts.row(), parts.task.params.N
    places = [i for i, t in enumerate(row["input_ids"]) if 1 <= t <= N]
    at, wrong = places[choose(len(places))], [0, N + 1, 9998, 9999][choose(4)]
    assume((wrong, at) != (9998, row["input_ids"].index(9997) + 1))  # then <ans> stands twice: another fault, too
    return changed(row, at, [wrong]), f"token {wrong} at {at} stands where a node's token 1..{N} belongs"


@mutation("words")
def a_word_too_long(parts: Parts, choose: Choose) -> Broken:
    edges = [i for i, (tail, _) in enumerate(parts.edges) if len(tail) == 4]
    assume(edges)
    i = edges[choose(len(edges))]
    at = 1 + sum(len(word) for edge in parts.edges[:i] for word in edge)
    return changed(parts.row(), at, [1, parts.row()["input_ids"][at]]), f"word at {at} has 5 tokens; legal: 1..4"


@mutation("words")
def a_word_without_an_end(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = len(row["input_ids"]) - 2
    begin = at + 1 - len(parts.answer[-1])
    return changed(row, at, [1]), f"name at {begin} does not end"


@mutation()
def something_after_the_end(parts: Parts, choose: Choose) -> Broken:
    row, top = parts.row(), parts.task.params.top_name
    eos, last = row["input_ids"][-1], len(row["input_ids"]) - 1
    return changed(row, last, [eos, eos]), f"token {eos} at {last} stands where a node's token 1..{top} belongs"


# Mask, labels, facts -----------------------------------------------------------------------------------------------


@mutation()
def one_mask_flipped(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = choose(len(row["input_ids"]))
    row["loss_mask"][at] = not row["loss_mask"][at]
    return row, f"loss_mask is {int(row['loss_mask'][at])} at {at}; legal: {int(not row['loss_mask'][at])}"


@mutation()
def one_label_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = choose(len(row["input_ids"]))
    right = row["labels"][at]
    row["labels"][at] = right + 1
    return row, f"label {right + 1} at {at}; legal: {right}"


@mutation()
def one_fact_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    fact = ["leaves", "edges", "depth", "answer_length"][choose(4)]
    row[fact] += [-1, 1][choose(2)]
    return row, f"{fact} is {row[fact]}, not {parts.row()[fact]}"


@mutation("qa")
def n_is_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    row["n"] += [-1, 1][choose(2)]
    return row, f"n is {row['n']}; legal with these edges: 12..12"


@mutation()
def a_column_missing(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    column = ["input_ids", "loss_mask"][choose(2)]
    del row[column]
    return row, f"the row has no '{column}'"


@mutation()
def an_empty_row(parts: Parts, choose: Choose) -> Broken:
    return {"input_ids": [], "loss_mask": []}, "the row does not start with <bos> (9999)"


@settings(max_examples=30, deadline=None)
@given(data=st.data(), i=st.integers(0, 5000))
@pytest.mark.parametrize("fault", MUTATIONS)
def test_a_broken_row_is_refused_for_its_fault(fault: str, data: st.DataObject, i: int) -> None:
    mutate, tasks = MUTATIONS[fault]
    task = TASKS[data.draw(st.sampled_from(tasks))]
    parts = take_apart(task, task.example(0, "train", i))
    row, reason = mutate(parts, lambda below: data.draw(st.integers(0, below - 1)))
    verdict = task.validate_example(row)
    assert not verdict
    assert verdict.reason == reason


@pytest.mark.parametrize("key", TASKS)
def test_what_is_taken_apart_and_written_again_is_the_row(key: str) -> None:
    # The mutations would prove nothing if the unbroken row were refused, or were another row.
    task = TASKS[key]
    for row in task.take(1, 60):
        again = take_apart(task, row).row()
        assert again == {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
        assert task.validate_example(again), task.validate_example(again).reason
        bare = {name: again[name] for name in ("input_ids", "loss_mask")}
        assert task.validate_example(bare)


def test_n_is_checked_against_what_the_edges_allow() -> None:
    # Three nodes in a row: one leaf of at most (n − 1) // 4 + 1, so that n = 3 or, with hidden leaves, no other.
    row = Parts(TASKS["plain"], [((1,), (2,)), ((2,), (3,))], (3,), [(1,), (2,), (3,)], 3, (9996,)).row()
    assert TASKS["plain"].validate_example(row)
    assert TASKS["plain"].validate_example({**row, "n": 4}).reason == "n is 4; legal with these edges: 3..3"
    # Nine inner nodes in a row go with n = 10 .. 13: up to three leaves are hidden.
    edges = [((i,), (i + 1,)) for i in range(1, 10)]
    long = Parts(TASKS["plain"], edges, (10,), [(i,) for i in range(1, 11)], 10, (9996,))
    for n in (10, 11, 12, 13):
        assert TASKS["plain"].validate_example({**long.row(), "n": n, "leaves": n - 9})
    for n in (9, 14):
        assert not TASKS["plain"].validate_example({**long.row(), "n": n, "leaves": n - 9})


# Scores ------------------------------------------------------------------------------------------------------------


def orders(parts: Parts) -> tuple[list[list[Word]], list[list[Word]]]:
    """All orders of the answer's nodes: the valid and the others."""
    right, wrong = [], []
    for order in permutations(parts.answer):
        place = {node: i for i, node in enumerate(order)}
        valid = all(place[a] < place[b] for a, b in parts.edges if b in place)
        (right if valid else wrong).append([*order])
    return right, wrong


@pytest.mark.parametrize("key", ["plain", "words", "eos is ans"])
def test_any_valid_order_is_right_and_no_other(key: str) -> None:
    task, several = TASKS[key], 0
    p = task.params
    for row in task.take(2, 150):
        parts = take_apart(task, row)
        if len(parts.answer) > 6:
            continue
        right, wrong = orders(parts)
        several += len(right) > 1
        for order in right:
            flat = [t for node in order for t in node]
            assert task.score_answer(row, flat)
            assert task.score_answer(row, [p.answer_token_id, *flat, p.eos_token_id])
            assert task.validate_example(replace(parts, answer=order).row())
        for order in wrong:
            verdict = task.score_answer(row, [*(t for node in order for t in node), p.eos_token_id])
            assert "stands before its parent" in (verdict.reason or "")
    assert several > 20


def test_scores_and_their_reasons() -> None:
    # The row of the docstring: 6 1 · 5 7 · 5 1 · 3 7 · 5 3, query 7.
    task = BrevoTask(N=12)
    row = {"input_ids": [9999, 6, 1, 5, 7, 5, 1, 3, 7, 5, 3, 9997, 7, 9998, 5, 3, 7, 9996]}
    for ids, reason in {
        (5, 3, 7): None,
        (5, 3, 7, 9996): None,
        (9998, 5, 3, 7, 9996): None,
        (5, 3, 3, 7): "node 3 is repeated in the answer",
        (5, 3, 7, 7): "node 7 is repeated in the answer",
        (5, 7): "node 3 is missing from the answer",
        (5, 3): "node 7 is missing from the answer",
        (): "node 3 is missing from the answer",
        (9996,): "node 3 is missing from the answer",
        (5, 6, 3, 7): "node 6 of the answer is no ancestor of the query",
        (5, 3, 7, 1): "node 1 of the answer is no ancestor of the query",
        (5, 3, 7, 2): "node 2 of the answer is not in the graph",
        (3, 5, 7): "node 3 stands before its parent 5 in the answer",
        (5, 7, 3): "node 7 stands before its parent 3 in the answer",
        (5, 3, 7, 9996, 5): "token 9996 at 3 stands where a node's token 1..12 belongs",
        (5, 3, 9997, 7): "token 9997 at 2 stands where a node's token 1..12 belongs",
        (13, 5, 3, 7): "token 13 at 0 stands where a node's token 1..12 belongs",
    }.items():
        verdict = task.score_answer(row, ids)
        assert (bool(verdict), verdict.reason) == (reason is None, reason), ids
    assert task.score_answer({"input_ids": [1]}, (5,)).reason == "the row does not start with <bos> (9999)"
