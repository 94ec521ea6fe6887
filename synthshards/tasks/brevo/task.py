"""Brevo: reasoning breadth. List all ancestors of a node in a DAG so that every parent stands before its children.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Brevo and its appendix.

A row of n = 5 nodes, 2 of them leaves (6 and 5), one token each; node 1 and leaf 6 are no ancestors of the query 7:

    <bos>   6 1   5 7   5 1   3 7   5 3   <query> 7   <ans> 5 3 7 <eos>
            each edge: parent child       of whom?    ancestors, parents first

The loss mask is 1 from <ans> to <eos>. Any order is right that lists exactly the query's ancestors and then the query,
each once, parents before children.

**Order of draws** from the row's stream (how numbers share a word: `kernels.rng`); part of the task's version:

1. The number n of nodes (`node_counts`; with `qa` its word is taken all the same, then n = N). The number of leaves
   less one, below (n−1) // 4 + 1. Nodes are 0 … n−1, and the leaves come first.
2. The parents of each node i = leaves … n−1 in turn. A list holds the nodes that may be chosen, at first the leaves in
   order. With f its length a word gives d − 1 below min(max_in, f), then numbers below f, f−1, f−2, f−3 (as many of
   these as are positive). Each number takes out the entry at that place of the list, and the last entry fills the gap.
   The first d entries taken are i's parents, in this order; where d > 4, further words of four numbers likewise follow
   until at least d are taken. Then all that were taken go back to the end of the list, in the order taken and parents
   or not, except those that now have max_in children; and behind them i itself.
3. Names, for those nodes only that have an edge, in the order of the nodes. With `multi` they are words (`node_names`).
   Else a list holds 1 … N; numbers below its length, its length − 1 and so on, six to a word while it holds at most
   256, otherwise three, take out the entry at that place, and the last entry fills the gap. What is left of the last
   word's numbers is dropped.
4. The answer's order, backwards: a list holds the nodes whose children among the query's ancestors all have their
   places, at first only the query, node n−1. A number below its length, a word each time, takes out an entry, and the
   last entry fills the gap; then those of the node's parents that become free join the list's end, in the order of 2.
5. The order of the edges, which stand in the order of 2, by the shuffle of Depo: from the back, six steps to a word
   while at most 256 are left, otherwise three.

The file is long, but the law, the kernel and the checker of one kind of row are read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from msgspec import Meta

from ...errors import UsageError
from ...kernels.arrays import U16, U32, U64
from ...kernels.buffers import Buffers
from ...kernels.jit import helper, kernel
from ...kernels.rng import State, below, mulhi, stream, word_for
from ...params import TaskParams
from ...ragged import Column, RaggedBatch
from ..node_counts import SizeLaw, draw_size, size_law
from ..node_names import WordLaw, WordTables, check_words, draw_words, put_rest, put_word, word_law
from ..task import BrokenLaw, Preset, Task, TokenRows, check_mask, integers, token_rows
from .dag import FAR, LOW16, SIX, Ranges, draw_answer, draw_graph, find_ancestors, ranges_of

Name: TypeAlias = tuple[int, ...]
#: Every token id is a uint32, and this one stays free.
MAX_ID = 2**32 - 2

_0, _1, _2, _3, _4, _6, _8, _16 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 6, 8, 16))
_256 = np.uint64(SIX)


class BrevoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Brevo, named as in the paper and its published code."""

    N: Annotated[int, Meta(ge=3, le=16_384, description="largest number of nodes; n is drawn from 3..N")] = 70
    multi: Annotated[bool, Meta(description="nodes are words (Brevo2) in place of the ids 1..N (Brevo1)")] = False
    mini_vocab: Annotated[int, Meta(ge=1, le=1_000_000, description="V: tokens that words are made of (multi)")] = 4
    min_tlen: Annotated[int, Meta(ge=1, le=64, description="fewest tokens of a word (multi)")] = 2
    max_tlen: Annotated[int, Meta(ge=1, le=64, description="most tokens of a word (multi)")] = 4
    max_in: Annotated[int, Meta(ge=1, le=64, description="most parents, and most children, of a node")] = 4
    qa: Annotated[bool, Meta(description="evaluation: n = N")] = False
    bos_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <bos>")] = 9999
    query_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <query>")] = 9997
    answer_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <ans>")] = 9998
    eos_token_id: Annotated[
        int, Meta(ge=0, le=MAX_ID, description="id of <eos>; may be that of <ans>, as in the published code")
    ] = 9996

    def check(self) -> None:
        if self.multi:
            check_words("brevo", self.N, self.mini_vocab, self.min_tlen, self.max_tlen)
        else:
            self.refuse_idle("brevo", ("mini_vocab", "min_tlen", "max_tlen"), "multi=false")
        names = "word tokens (1..2*mini_vocab)" if self.multi else "nodes (1..N)"
        marks = ("bos_token_id", "query_token_id", "answer_token_id", "eos_token_id")
        for i, mark in enumerate(marks):
            token = getattr(self, mark)
            if 1 <= token <= self.top_name:
                raise UsageError(f"brevo: ids clash: {names} and {mark} share {token}; legal: ids that stay apart")
            for other in marks[:i]:
                if token == getattr(self, other) and (other, mark) != ("answer_token_id", "eos_token_id"):
                    raise UsageError(
                        f"brevo: ids clash: {other} and {mark} share {token}; "
                        "legal: ids that stay apart, but for eos_token_id = answer_token_id"
                    )

    @property
    def top_name(self) -> int:
        """The largest token id in a node's name."""
        return 2 * self.mini_vocab if self.multi else self.N


class _Facts(NamedTuple):
    """Facts of rows: n, leaves, edges, depth, answer_length [rows]."""

    n: U16
    leaves: U16
    edges: U32
    depth: U16
    answer_length: U16


class _Law(NamedTuple):
    """What the parameters say to the kernel; without `multi`, max_tlen is 1."""

    N: np.uint64
    max_tlen: np.uint64
    max_in: np.uint64
    multi: bool
    qa: bool
    bos: int
    query: int
    ans: int
    eos: int


@helper
def _draw_ids(s: State, N: np.uint64, count: np.uint64, falling: U64, free: U32, name: U32) -> State:
    """Draw `count` distinct ids of 1..N into `name` (`falling`: `Ranges.shuffle`); the new state."""
    for v in range(N):
        free[v] = v + 1
    i, left = _0, N
    while i < count:
        s, x = word_for(s, falling[left] if left <= _256 else left * (left - _1) * (left - _2))
        stop = min(count, i + (_6 if left <= _256 else _3))
        while i < stop:
            j = mulhi(x, left)
            x *= left
            left -= _1
            name[i] = free[j]
            free[j] = free[left]
            i += _1
    return s


@kernel
def _fill(
    key: U64, indices: U64, first: int, out: TokenRows, facts: _Facts, sizes: SizeLaw, ranges: Ranges,
    words: WordLaw, tables: WordTables, law: _Law,
) -> int:  # fmt: skip
    """Write rows first, first + 1 … while another surely fits; return the number of rows that stand.

    Args:
        key: [2 or more]; indices: [rows].
    """
    N, max_tlen, max_in, multi, qa, bos, query, ans, eos = law
    ids, mask, offsets = out
    n_out, leaves_out, edges_out, depth_out, answer_out = facts
    slot_word, spelling, lengths = tables
    width = np.uint64(spelling.shape[1])
    edges = np.zeros((N + _1) * max_in + _8, np.uint32)
    begin, free = np.empty(N + _8, np.uint32), np.empty(N + _8, np.uint32)
    ready, order = np.empty(N + _8, np.uint32), np.empty(N + _8, np.uint32)
    taken = np.empty(max_in + _4, np.uint32)
    used, waiting, distance = np.empty(N, np.uint8), np.empty(N, np.uint32), np.empty(N, np.uint32)
    name, unnamed = np.empty(N + _1, np.uint32), np.empty(N, np.uint32)
    if slot_word.size == 0:
        spelling, lengths = np.zeros((N, width), ids.dtype), np.empty(N, np.uint8)
    cells = np.int64(words.hash_mask) + 1
    seen = np.empty(1 if slot_word.size else cells, np.uint64)
    stamps = np.zeros(cells, np.uint32)
    falling = ranges.shuffle
    at = np.uint64(offsets[first])
    for r in range(first, indices.size):
        s = stream(key, indices[r])
        s, size = draw_size(s, sizes)
        n = N if qa else np.uint64(size)
        s, x = below(s, ((n - _1) >> _2) + _1)
        leaves = _1 + x
        for v in range(n):
            begin[v] = 0
            free[v] = v
            used[v] = 0
            waiting[v] = 0
            distance[v] = FAR
        s, m = draw_graph(s, n, leaves, max_in, ranges.parents, edges, begin, free, taken)
        if at + _4 + (_2 * m + n + _1) * max_tlen + width > np.uint64(ids.size):
            return r
        depth = find_ancestors(n, leaves, m, edges, used, waiting, distance)
        named = n - leaves
        i: Any = _0
        while i < leaves:
            named += np.uint64(used[i])
            i += _1
        if multi:
            s = draw_words(s, named, words, slot_word, name, spelling, lengths, stamps, seen, np.uint32(r - first + 1))
        else:
            s = _draw_ids(s, N, named, falling, unnamed, name)
        i = n
        while i > _0:  # the names stand close together: move each to its node, from the back
            i -= _1
            named -= np.uint64(used[i]) | np.uint64(i >= leaves)
            name[i] = name[named]
        s, answers = draw_answer(s, n, edges, begin, waiting, ready, order)

        start = at
        ids[at] = bos
        at += _1
        left = m
        while left > _0:
            s, x = word_for(s, falling[left] if left <= _256 else left * (left - _1) * (left - _2))
            stop = left - min(left, _6 if left <= _256 else _3)
            while left > stop:
                j = mulhi(x, left)
                x *= left
                left -= _1
                edge = np.uint64(edges[j])
                edges[j] = edges[left]
                for node in (edge & LOW16, edge >> _16):
                    word = np.uint64(name[node])
                    if multi:
                        put_word(ids, at, spelling, word)
                        if width > _8:
                            put_rest(ids, at, spelling, word, lengths[word])
                        at += np.uint64(lengths[word])
                    else:
                        ids[at] = word
                        at += _1
        ids[at] = query
        at += _1
        order[answers] = n - _1  # what follows is the query and, behind <ans>, `order` from its end
        quiet = at
        for place in range(answers, -1, -1):
            word = np.uint64(name[order[np.uint64(place)]])
            if multi:
                put_word(ids, at, spelling, word)
                if width > _8:
                    put_rest(ids, at, spelling, word, lengths[word])
                at += np.uint64(lengths[word])
            else:
                ids[at] = word
                at += _1
            if place == answers:
                quiet = at
                ids[at] = ans
                at += _1
        ids[at] = eos
        at += _1
        mask[np.int64(start) : np.int64(quiet)] = False
        mask[np.int64(quiet) : np.int64(at)] = True
        n_out[r] = n
        leaves_out[r] = leaves
        edges_out[r] = m
        depth_out[r] = depth
        answer_out[r] = answers
        offsets[r + 1] = at
    return indices.size


class BrevoTask(Task):
    """The Brevo task.

    Facts of a row: `n` nodes (those without an edge too), `leaves`, `edges`, `depth` (least number of edges from the
    query up to a leaf), `answer_length` (nodes in the answer, the query among them).
    """

    name = "brevo"
    version = 1
    Params = BrevoParams
    size_fact = "n"
    presets: ClassVar[Mapping[str, Preset]] = {
        **{
            f"brevo1-{N}": Preset({"N": N}, f"Brevo1: up to {N} nodes, one token each", mean)
            for N, mean in ((70, 126.6), (90, 155.2), (110, 183.1))
        },
        **{
            f"brevo2-{N}": Preset({"N": N, "multi": True}, f"Brevo2: up to {N} nodes, words of 2-4 tokens", mean)
            for N, mean in ((30, 188.3), (40, 239.2), (50, 289.3))
        },
    }

    @property
    def _id_dtype(self) -> str:
        p = self.params
        top = max(p.top_name, p.bos_token_id, p.query_token_id, p.answer_token_id, p.eos_token_id)
        return "uint16" if top < 1 << 16 else "uint32"

    @property
    def columns(self) -> dict[str, str]:
        return {
            "input_ids": f"list<{self._id_dtype}>",
            "loss_mask": "list<bool>",
            "n": "uint16",
            "leaves": "uint16",
            "edges": "uint32",
            "depth": "uint16",
            "answer_length": "uint16",
        }

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        p, columns, rows = self.params, self.columns, len(indices)
        shape = (p.N, p.mini_vocab, p.min_tlen, p.max_tlen) if p.multi else (3, 4, 1, 1)  # without multi: never used
        words, tables = word_law(*shape, self._id_dtype)
        facts = _Facts(*(np.empty(rows, columns[name]) for name in _Facts._fields))
        longest = 4 + (2 * p.N * p.max_in + p.N + 1) * shape[-1] + tables.spelling.shape[1]
        law = _Law(
            np.uint64(p.N), np.uint64(shape[-1]), np.uint64(p.max_in), p.multi, p.qa,
            p.bos_token_id, p.query_token_id, p.answer_token_id, p.eos_token_id,
        )  # fmt: skip

        def fill(first: int, out: TokenRows) -> int:
            return _fill(key, indices, first, out, facts, size_law(p.N), ranges_of(p.N, p.max_in), words, tables, law)

        ids, mask, offsets = token_rows(fill, self._id_dtype, rows, self._mean_length(), longest, buffers)
        return RaggedBatch(
            {
                "input_ids": Column(columns["input_ids"], ids, offsets),
                "loss_mask": Column("list<bool>", mask, offsets),
                **{name: Column(columns[name], values) for name, values in facts._asdict().items()},
            }
        )

    def _mean_length(self) -> float:
        """A guess at the mean length of a row, good enough to make room by."""
        p = self.params
        nodes = p.N if p.qa else 0.36 * p.N
        edges = 0.86 * nodes * (1 + p.max_in) / 2
        return float(4 + (2 * edges + nodes / 2 + 1) * ((p.min_tlen + p.max_tlen) / 2 if p.multi else 1))

    def token_ids(self) -> list[int]:
        """Nodes' tokens, `<bos>`, `<query>`, `<ans>`, `<eos>`."""
        p = self.params
        specials = {p.bos_token_id, p.query_token_id, p.answer_token_id, p.eos_token_id}  # <eos> may be <ans>
        return [*range(1, p.top_name + 1), *specials]

    def token_name(self, token: int) -> str:
        """`<bos>`, `<query>`, `<ans>`, `<eos>` (`<ans>` where they share an id); a name's token is its number."""
        p = self.params
        special = {
            p.eos_token_id: "<eos>",
            p.answer_token_id: "<ans>",
            p.query_token_id: "<query>",
            p.bos_token_id: "<bos>",
        }
        return special.get(token) or (str(token) if 1 <= token <= p.top_name else f"<unknown_{token}>")

    def decode(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The names of token ids. Where <ans> and <eos> share an id, the first is `<ans>` and what follows `<eos>`."""
        names = super().decode(ids)
        if self.params.eos_token_id == self.params.answer_token_id and "<ans>" in names:
            behind = names.index("<ans>") + 1
            names[behind:] = ["<eos>" if name == "<ans>" else name for name in names[behind:]]
        return names

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Parse a row and check every clause of the law.

        Args:
            example: `input_ids` and `loss_mask`, sequences; `labels` and the facts are checked when present.
        """
        ids = integers(example["input_ids"], "input_ids")
        row = _parse(self.params, ids)
        _check_graph(self.params, row, example)
        _check_answer(row, row.answer)
        check_mask(ids, [at >= row.answer_at for at in range(len(ids))], example)

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int]) -> None:
        """Refuse `answer_ids` unless they list the query's ancestors and the query in a valid order (any is right).

        Args:
            example: a row of this task.
            answer_ids: names, with or without the <ans> before and the <eos> behind them.
        """
        p = self.params
        given = integers(answer_ids, "answer_ids")
        if given and given[0] == p.answer_token_id:
            del given[0]
        if given and given[-1] == p.eos_token_id:
            del given[-1]
        _check_answer(_parse(p, integers(example["input_ids"], "input_ids")), _names(p, given, 0, len(given)))


@dataclass(frozen=True)
class _Parsed:
    edges: list[tuple[Name, Name]]  # parent, child
    query: Name
    answer: list[Name]
    answer_at: int  # of <ans>

    def parents(self) -> dict[Name, set[Name]]:
        """Every node that has an edge → its parents."""
        found: dict[Name, set[Name]] = {node: set() for edge in self.edges for node in edge}
        for parent, child in self.edges:
            found[child].add(parent)
        return found


def _spelt(name: Name) -> str:
    return " ".join(map(str, name))


def _name_at(p: BrevoParams, ids: Sequence[int], at: int) -> tuple[Name, int]:
    """The name that starts at `at`, and where it ends."""
    for end in range(at, len(ids)):
        if not 1 <= ids[end] <= p.top_name:
            raise BrokenLaw(f"token {ids[end]} at {end} stands where a node's token 1..{p.top_name} belongs")
        if not p.multi:
            return (ids[at],), at + 1
        if ids[end] > p.mini_vocab:
            if not p.min_tlen <= end + 1 - at <= p.max_tlen:
                raise BrokenLaw(f"word at {at} has {end + 1 - at} tokens; legal: {p.min_tlen}..{p.max_tlen}")
            return tuple(ids[at : end + 1]), end + 1
    raise BrokenLaw(f"name at {at} does not end")


def _names(p: BrevoParams, ids: Sequence[int], at: int, end: int) -> list[Name]:
    """The names in ids[at:end]."""
    names = []
    while at < end:
        name, at = _name_at(p, ids[:end], at)
        names.append(name)
    return names


def _parse(p: BrevoParams, ids: Sequence[int]) -> _Parsed:
    if not ids or ids[0] != p.bos_token_id:
        raise BrokenLaw(f"the row does not start with <bos> ({p.bos_token_id})")
    if p.query_token_id not in ids:
        raise BrokenLaw(f"the row has no <query> ({p.query_token_id})")
    at = ids.index(p.query_token_id)
    ends = _names(p, ids, 1, at)
    if len(ends) % 2:
        raise BrokenLaw(f"{len(ends)} names before <query>; legal: an even number, two for each edge")
    query, at = _name_at(p, ids, at + 1)
    if at >= len(ids) or ids[at] != p.answer_token_id:
        raise BrokenLaw(f"no <ans> at {at}")
    if at + 1 >= len(ids) or ids[-1] != p.eos_token_id:
        raise BrokenLaw(f"the row does not end with <eos> ({p.eos_token_id})")
    return _Parsed(list(zip(ends[::2], ends[1::2], strict=True)), query, _names(p, ids, at + 1, len(ids) - 1), at)


def _check_graph(p: BrevoParams, row: _Parsed, example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless some draw makes these edges and this query, and the facts are theirs."""
    parents = row.parents()
    children: dict[Name, list[Name]] = {node: [] for node in parents}
    if len(set(row.edges)) < len(row.edges):
        raise BrokenLaw("an edge is written twice")
    for parent, child in row.edges:
        children[parent].append(child)
    for node in parents:
        for count, what in ((len(parents[node]), "parents"), (len(children[node]), "children")):
            if count > p.max_in:
                raise BrokenLaw(f"node {_spelt(node)} has {count} {what}; legal: at most {p.max_in}")
    waiting = {node: len(above) for node, above in parents.items()}
    free = [node for node, count in waiting.items() if not count]
    roots = len(free)
    while free:  # take nodes without remaining parents away, until none is left
        for child in children[free.pop()]:
            waiting[child] -= 1
            if not waiting[child]:
                free.append(child)
    if any(waiting.values()):
        raise BrokenLaw("the edges form a cycle")
    if not parents.get(row.query):
        raise BrokenLaw(f"the query {_spelt(row.query)} has no parent")
    if children[row.query]:
        raise BrokenLaw(f"the query {_spelt(row.query)} has a child; legal: none, it is the last node")
    # Leaves without an edge do not show: n is known only between bounds, or from the fact.
    inner = len(parents) - roots
    sizes = [n for n in range(p.N if p.qa else 3, p.N + 1) if roots <= n - inner <= (n - 1) // 4 + 1]
    if not sizes:
        raise BrokenLaw(f"no n in {'N' if p.qa else '3..N'} goes with {inner} nodes with parents and {roots} without")
    n = example.get("n", sizes[0])
    if n not in sizes:
        raise BrokenLaw(f"n is {n}; legal with these edges: {sizes[0]}..{sizes[-1]}")
    depth, level = 0, {row.query}
    while all(parents[node] for node in level):
        depth, level = depth + 1, {parent for node in level for parent in parents[node]}
    facts = {"leaves": n - inner, "edges": len(row.edges), "depth": depth, "answer_length": len(row.answer)}
    for name, value in facts.items():
        if name in example and example[name] != value and ("n" in example or name != "leaves"):
            raise BrokenLaw(f"{name} is {example[name]}, not {value}")


def _check_answer(row: _Parsed, answer: Sequence[Name]) -> None:
    """Raise `BrokenLaw` unless `answer` is the query's ancestors and the query, each once, parents first."""
    parents = row.parents()
    wanted, stack = {row.query}, [row.query]
    while stack:
        fresh = parents.get(stack.pop(), set()) - wanted
        wanted |= fresh
        stack += fresh
    placed: set[Name] = set()
    for node in answer:
        if node in placed:
            raise BrokenLaw(f"node {_spelt(node)} is repeated in the answer")
        if node not in parents:
            raise BrokenLaw(f"node {_spelt(node)} of the answer is not in the graph")
        if node not in wanted:
            raise BrokenLaw(f"node {_spelt(node)} of the answer is no ancestor of the query")
        placed.add(node)
    if missing := wanted - placed:
        raise BrokenLaw(f"node {_spelt(min(missing))} is missing from the answer")
    places = {node: place for place, node in enumerate(answer)}
    for parent, child in row.edges:
        if child in places and places[parent] > places[child]:
            raise BrokenLaw(f"node {_spelt(child)} stands before its parent {_spelt(parent)} in the answer")
