"""Named ways to break a valid Depo row: each takes its parts and a source of choices, and gives a row and the reason.

None can leave a legal row by chance: where a choice could, it is made among those that cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from depo_parts import TASKS, Parts, Row, Word
from hypothesis import assume

Choose = Callable[[int], int]  # a number below the argument
Broken = tuple[Row, str]
MUTATIONS: dict[str, tuple[Callable[[Parts, Choose], Broken], tuple[str, ...]]] = {}


def mutation(*tasks: str) -> Callable[[Callable[[Parts, Choose], Broken]], Callable[[Parts, Choose], Broken]]:
    def add(fn: Callable[[Parts, Choose], Broken]) -> Callable[[Parts, Choose], Broken]:
        MUTATIONS[fn.__name__] = (fn, tasks or tuple(TASKS))
        return fn

    return add


def with_edges(parts: Parts, edges: list[tuple[Word, Word]]) -> Row:
    return replace(parts, edges=edges).row()


def with_query(parts: Parts, at: int, query: tuple[int, Word, Word]) -> Row:
    return replace(parts, queries=[*parts.queries[:at], query, *parts.queries[at + 1 :]]).row()


def sizes(parts: Parts) -> str:
    p = parts.task.params
    return f"{p.N}" if p.qa else f"3..{p.N}"


@mutation()
def an_edge_turned_round(parts: Parts, choose: Choose) -> Broken:
    at = choose(parts.n)
    tail, head = parts.edges[at]
    edges = [*parts.edges[:at], (head, tail), *parts.edges[at + 1 :]]
    return with_edges(parts, edges), "a node has two edges out of it"


@mutation("plain", "depo2", "fixed k", "separator", "two tokens")
def an_edge_dropped(parts: Parts, choose: Choose) -> Broken:
    at = choose(parts.n)
    return with_edges(parts, parts.edges[:at] + parts.edges[at + 1 :]), "a node has no edge into it"


@mutation("qa")
def an_edge_dropped_in_qa(parts: Parts, choose: Choose) -> Broken:
    at = choose(parts.n)
    return with_edges(parts, parts.edges[:at] + parts.edges[at + 1 :]), "8 edges; legal: 9"


@mutation()
def an_edge_written_twice(parts: Parts, choose: Choose) -> Broken:
    edges = [*parts.edges]
    edges.insert(choose(parts.n + 1), edges[choose(parts.n)])
    p = parts.task.params
    full = parts.n == p.N
    return with_edges(parts, edges), (
        f"{parts.n + 1} edges; legal: {sizes(parts)}" if full else "a node has two edges out of it"
    )


@mutation("plain", "qa")
def a_cycle_of_two_nodes(parts: Parts, choose: Choose) -> Broken:
    a, b = parts.edges[0]
    return with_edges(parts, [(a, b), (b, a)]), f"2 edges; legal: {sizes(parts)}"


@mutation()
def two_cycles(parts: Parts, choose: Choose) -> Broken:
    edges, i = [*parts.edges], choose(parts.n)
    j = (i + 1 + choose(parts.n - 1)) % parts.n
    (a, x), (b, y) = edges[i], edges[j]
    edges[i], edges[j] = (a, y), (b, x)
    at, steps, follow = edges[0][1], 1, dict(edges)
    while at != edges[0][0]:
        at, steps = follow[at], steps + 1
    return with_edges(
        parts, edges
    ), f"the edges form several cycles, one of {steps} nodes; legal: one cycle of {parts.n}"


@mutation()
def two_nodes_of_one_name(parts: Parts, choose: Choose) -> Broken:
    i = choose(parts.n)
    j = (i + 1 + choose(parts.n - 1)) % parts.n
    old, new = parts.edges[i][0], parts.edges[j][0]
    edges = [(new if a == old else a, new if b == old else b) for a, b in parts.edges]
    return with_edges(parts, edges), "a node has two edges out of it"


@mutation()
def an_edge_to_nowhere(parts: Parts, choose: Choose) -> Broken:
    at = choose(parts.n)
    edges = [*parts.edges[:at], (parts.edges[at][0], parts.fresh()), *parts.edges[at + 1 :]]
    return with_edges(parts, edges), "a node has no edge into it"


@mutation()
def a_wrong_answer(parts: Parts, choose: Choose) -> Broken:
    at = choose(len(parts.queries))
    k, node, right = parts.queries[at]
    others = [*(tail for tail, _ in parts.edges if tail != right), parts.fresh()]
    wrong = others[choose(len(others))]
    return with_query(parts, at, (k, node, wrong)), f"answer {at + 1} is {list(wrong)}, not {list(right)}"


@mutation("plain", "depo2", "separator", "qa")
def another_k(parts: Parts, choose: Choose) -> Broken:
    at = choose(len(parts.queries))
    k, node, answer = parts.queries[at]
    others = [h for h in parts.task.params.hops() if h % parts.n != k % parts.n]
    wrong, right, follow = others[choose(len(others))], node, dict(parts.edges)
    for _ in range(wrong % parts.n):
        right = follow[right]
    return with_query(parts, at, (wrong, node, answer)), f"answer {at + 1} is {list(answer)}, not {list(right)}"


@mutation("qa", "fixed k")
def a_k_that_is_not_asked_for(parts: Parts, choose: Choose) -> Broken:
    at = choose(len(parts.queries))
    legal = sorted(parts.task.params.hops())
    others = [k for k in range(1, 9) if k not in legal]
    wrong, node, right = others[choose(len(others))], parts.queries[at][1], dict(parts.edges)
    answer = node
    for _ in range(wrong):
        answer = right[answer]
    return with_query(parts, at, (wrong, node, answer)), f"query {at + 1} asks for {wrong} steps; legal: {legal}"


@mutation()
def a_node_queried_twice(parts: Parts, choose: Choose) -> Broken:
    i = choose(len(parts.queries))
    j = (i + 1 + choose(len(parts.queries) - 1)) % len(parts.queries)
    return with_query(parts, i, parts.queries[j]), "a node is queried twice"


@mutation()
def an_unknown_node_queried(parts: Parts, choose: Choose) -> Broken:
    at = choose(len(parts.queries))
    k, _node, answer = parts.queries[at]
    return with_query(parts, at, (k, parts.fresh(), answer)), f"query {at + 1} asks about a node that has no edge"


@mutation()
def a_query_too_many(parts: Parts, choose: Choose) -> Broken:
    count = len(parts.queries)
    queried = {node for _, node, _ in parts.queries}
    k, follow = parts.queries[0][0], dict(parts.edges)
    node = next((tail for tail, _ in parts.edges if tail not in queried), parts.edges[0][0])
    answer = node
    for _ in range(k):
        answer = follow[answer]
    row = replace(parts, queries=[*parts.queries, (k, node, answer)]).row()
    return row, f"{count + 1} queries; legal: {count}"


@mutation()
def queries_missing(parts: Parts, choose: Choose) -> Broken:
    kept = choose(len(parts.queries))
    return replace(parts, queries=parts.queries[:kept]).row(), f"{kept} queries; legal: {len(parts.queries)}"


def with_token_change(parts: Parts, what: str, at: int, change: Callable[[list[int]], list[int]]) -> tuple[Row, int]:
    """The row with the at-th piece called `what` changed, and the position where that piece starts."""
    tokens, position, found = parts.tokens(), 0, -1
    for i, (name, part, on) in enumerate(tokens):
        found += name == what
        if found == at and name == what:
            tokens[i] = (name, change([*part]), on)
            return parts.row(tokens), position
        position += len(part)
    raise AssertionError(f"no {what} {at}")


@mutation("plain", "depo2")
def a_word_too_long(parts: Parts, choose: Choose) -> Broken:
    p = parts.task.params
    full = [i for i, (tail, _) in enumerate(parts.edges) if len(tail) == p.max_tlen]
    assume(full)
    row, at = with_token_change(parts, "tail", full[choose(len(full))], lambda part: [1, *part])
    return row, f"word at {at} has {p.max_tlen + 1} tokens; legal: {p.min_tlen}..{p.max_tlen}"


@mutation("two tokens", "depo2")
def a_word_too_short(parts: Parts, choose: Choose) -> Broken:
    p = parts.task.params
    short = [i for i, (_, node, _) in enumerate(parts.queries) if len(node) == p.min_tlen]
    assume(short)
    row, at = with_token_change(parts, "node", short[choose(len(short))], lambda part: part[1:])
    return row, f"word at {at} has {p.min_tlen - 1} tokens; legal: {p.min_tlen}..{p.max_tlen}"


@mutation("two tokens", "depo2")
def two_tokens_swapped(parts: Parts, choose: Choose) -> Broken:
    p = parts.task.params
    short = [i for i, (_, head) in enumerate(parts.edges) if len(head) == p.min_tlen]
    assume(short)
    row, at = with_token_change(parts, "head", short[choose(len(short))], lambda w: [*w[:-2], w[-1], w[-2]])
    return row, f"word at {at} has {p.min_tlen - 1} tokens; legal: {p.min_tlen}..{p.max_tlen}"


@mutation()
def a_token_that_is_no_word_s(parts: Parts, choose: Choose) -> Broken:
    top = 2 * parts.task.params.mini_vocab
    wrong = [0, top + 1, 9500, 9700][choose(4)]
    row, at = with_token_change(parts, "head", choose(parts.n), lambda part: [wrong, *part[1:]])
    return row, f"token {wrong} at {at} stands where a word token 1..{top} belongs"


@mutation()
def the_row_cut_short(parts: Parts, choose: Choose) -> Broken:
    last = len(parts.queries) - 1
    row, at = with_token_change(parts, "answer", last, lambda part: part[:-1])
    return row, f"word at {at} does not end"


@mutation()
def no_ans(parts: Parts, choose: Choose) -> Broken:
    row, at = with_token_change(parts, "ans", choose(len(parts.queries)), lambda part: [])
    return row, f"no <ans> at {at}"


@mutation()
def a_query_of_no_known_k(parts: Parts, choose: Choose) -> Broken:
    p = parts.task.params
    wrong = p.query_token_base + [0, p.K + 1][choose(2)]
    row, at = with_token_change(parts, "k", 1, lambda part: [wrong])
    return row, f"token {wrong} at {at} stands where a query belongs"


@mutation()
def something_after_the_end(parts: Parts, choose: Choose) -> Broken:
    wrong = [0, 1, 9500, 9600, 9700][choose(5)]
    row = parts.row([*parts.tokens(), ("eos", [wrong], False)])
    return row, f"token {wrong} at {len(row['input_ids']) - 1} stands where a query belongs"


@mutation("separator")
def a_separator_missing(parts: Parts, choose: Choose) -> Broken:
    edge = choose(parts.n)
    row, at = with_token_change(parts, "sep", edge, lambda part: [])
    return row, f"token {parts.edges[edge][0][0]} at {at} stands where <sep> belongs"


@mutation("plain")
def a_separator_too_many(parts: Parts, choose: Choose) -> Broken:
    row, at = with_token_change(parts, "tail", choose(parts.n), lambda part: [9700, *part])
    return row, f"token 9700 at {at} stands where a word token 1..100 belongs"


@mutation()
def another_bos(parts: Parts, choose: Choose) -> Broken:
    change = [lambda _: [1], lambda _: [9700], lambda _: []][choose(3)]
    return with_token_change(parts, "bos", 0, change)[0], "the row does not start with <bos> (0)"


@mutation()
def one_mask_flipped(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = choose(len(row["input_ids"]))
    on = row["loss_mask"][at]
    row["loss_mask"][at] = not on
    return row, f"loss_mask is {int(not on)} at {at}; legal: {int(on)}"


@mutation()
def a_mask_of_another_length(parts: Parts, choose: Choose) -> Broken:
    row, length = parts.row(), len(parts.row()["input_ids"])
    row["loss_mask"] = [row["loss_mask"][:-1], [*row["loss_mask"], False]][choose(2)]
    return row, f"loss_mask has {len(row['loss_mask'])} entries for {length} tokens"


@mutation()
def one_label_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    at = choose(len(row["input_ids"]))
    right = row["labels"][at]
    row["labels"][at] = [right + 1, -100 if right != -100 else row["input_ids"][at]][choose(2)]
    return row, f"label {row['labels'][at]} at {at}; legal: {right}"


@mutation()
def one_fact_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    name = ["n", "queries"][choose(2)]
    row[name] += [-1, 1][choose(2)]
    return row, f"{name} is {row[name]}, not {parts.row()[name]}"


@mutation()
def one_k_fact_wrong(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    row["ks"][choose(len(row["ks"]))] += 1
    return row, f"ks is {row['ks']}, not {parts.row()['ks']}"


@mutation()
def a_column_missing(parts: Parts, choose: Choose) -> Broken:
    row = parts.row()
    name = ["input_ids", "loss_mask"][choose(2)]
    del row[name]
    return row, f"the row has no '{name}'"


@mutation()
def an_empty_row(parts: Parts, choose: Choose) -> Broken:
    return {"input_ids": [], "loss_mask": [], "labels": []}, "the row does not start with <bos> (0)"
