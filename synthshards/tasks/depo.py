"""Depo: reasoning depth. Follow k edges of a directed cycle whose edges are written in random order.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Depo and its appendix.

A row with n = 3 nodes named `7·52`, `61` and `9·88`, two queries shown:

    <bos>   7 52 61      9 88 7 52      61 9 88      <query_2> 7 52 <ans> 9 88      <query_1> 61 <ans> 9 88
            edge         edge           edge         two steps from (7 52)          one step from (61)

The loss mask is 1 on each `<ans>` and on the tokens of the answer after it. There is no end token.

The file stays whole, long as it is: it shows all that a task consists of, in the order in which one writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from msgspec import Meta

from ..errors import UsageError
from ..kernels.arrays import I64, U16, U64, Bool, Ids
from ..kernels.buffers import Buffers
from ..kernels.jit import kernel
from ..kernels.rng import mulhi, stream, word_for
from ..params import TaskParams
from ..ragged import Column, RaggedBatch, offsets_of
from .node_counts import SizeLaw, draw_size, size_law
from .node_names import WordLaw, WordTables, check_words, draw_words, put_rest, put_word, word_law
from .task import BrokenLaw, Preset, Task, TokenRows, check_mask, integers, token_rows

Word: TypeAlias = tuple[int, ...]
_1 = np.uint64(1)
#: Every token id is a uint32, and this one stays free.
MAX_ID = 2**32 - 2


class DepoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Depo, named as in the paper and its published code."""

    N: Annotated[int, Meta(ge=3, le=65_535, description="largest number of nodes; n is drawn from 3..N")] = 225
    K: Annotated[int, Meta(ge=1, le=65_535, description="largest number of steps; may exceed n, k wraps")] = 8
    M: Annotated[int, Meta(ge=1, le=65_535, description="most queries in a row; a row has min(n, M)")] = 10
    mini_vocab: Annotated[int, Meta(ge=1, le=1_000_000, description="V: tokens that words are made of")] = 50
    min_tlen: Annotated[int, Meta(ge=1, le=64, description="fewest tokens of a word")] = 1
    max_tlen: Annotated[int, Meta(ge=1, le=64, description="most tokens of a word")] = 2
    qa: Annotated[bool, Meta(description="evaluation: n = N, k a power of two (or K itself)")] = False
    fixed_k: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None,
        Meta(description="every query asks for this many steps; wins over qa"),
    ] = None
    separator: Annotated[bool, Meta(description="put a separator token before each edge")] = False
    bos_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <bos>")] = 0
    separator_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <sep>; reserved anyway")] = 9700
    query_token_base: Annotated[int, Meta(ge=0, le=MAX_ID, description="<query_k> has this id + k")] = 9000
    answer_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <ans>")] = 9500

    def check(self) -> None:
        check_words("depo", self.N, self.mini_vocab, self.min_tlen, self.max_tlen)
        if self.fixed_k is not None and self.fixed_k > self.K:
            raise UsageError(f"depo: fixed_k={self.fixed_k} exceeds K={self.K}; legal: 1..{self.K} or null")
        queries = range(self.query_token_base + 1, self.query_token_base + self.K + 1)
        if queries[-1] > MAX_ID:
            raise UsageError(
                f"depo: query_token_base={self.query_token_base} + K={self.K} exceeds {MAX_ID}; "
                f"legal: query_token_base 0..{MAX_ID - self.K}"
            )
        words = range(1, 2 * self.mini_vocab + 1)
        groups = {
            "word tokens (1..2*mini_vocab)": words,
            "bos_token_id": range(self.bos_token_id, self.bos_token_id + 1),
            "separator_token_id": range(self.separator_token_id, self.separator_token_id + 1),
            "queries (query_token_base + 1..K)": queries,
            "answer_token_id": range(self.answer_token_id, self.answer_token_id + 1),
        }
        names = list(groups)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                first, last = max(groups[a][0], groups[b][0]), min(groups[a][-1], groups[b][-1])
                if first <= last:
                    raise UsageError(f"depo: ids clash: {a} and {b} share {first}; legal: ids that stay apart")

    def hops(self) -> list[int]:
        """The numbers of steps that a query may ask for, equally likely."""
        if self.fixed_k is not None:
            return [self.fixed_k]
        if not self.qa:
            return list(range(1, self.K + 1))
        powers = {1 << i for i in range(self.K.bit_length())}
        return sorted(powers | {self.K} | ({24} if self.K == 32 else set()))


class _Facts(NamedTuple):
    """Facts of rows: n, queries [rows]; ks [rows * min(N, M)], the rows' end to end."""

    n: U16
    queries: U16
    ks: U16


class _Law(NamedTuple):
    """What the parameters say to the kernel."""

    N: int
    M: int
    max_tlen: int
    qa: bool
    separator: bool
    bos: int
    sep: int
    query_base: int
    ans: int


@kernel
def _fill(
    key: U64, indices: U64, first: int, ids: Ids, mask: Bool, offsets: I64, n_out: U16, queries_out: U16, ks_out: U16,
    hops: U16, sizes: SizeLaw, words: WordLaw, tables: WordTables, law: _Law,
) -> int:  # fmt: skip
    """Write rows first, first + 1 … while another surely fits; return the number of rows that stand.

    The order of draws is part of the law's version: size, words, edge order, then for each query its node and k.

    What is written comes as arrays of its own: as tuples `TokenRows` and `_Facts` it costs 4 to 7%, measured.

    Args:
        key: [2 or more]; indices: [rows]; hops: [hops], those of `DepoParams.hops`.
        ids, mask: out, [room], and offsets: out, [rows + 1], those of `TokenRows`.
        n_out, queries_out: out, [rows], and ks_out: out, [rows * min(N, M)], those of `_Facts`.
    """
    N, M, max_tlen, qa, separator, bos, sep, query_base, ans = law
    slot_word, spelling, lengths = tables
    width = spelling.shape[1]
    node_row = np.empty(N + 1, np.uint32)
    order = np.empty(N, np.uint32)
    if slot_word.size == 0:
        spelling, lengths = np.zeros((N, width), ids.dtype), np.empty(N, np.uint8)
    cells = np.int64(words.hash_mask) + 1
    seen = np.empty(1 if slot_word.size else cells, np.uint64)
    stamps = np.zeros(cells, np.uint32)
    extra = 1 if separator else 0
    choices = np.uint64(hops.size)
    k_at: Any = 0
    for r in range(first):
        k_at += np.int64(queries_out[r])
    at = offsets[first]
    for r in range(first, indices.size):
        s = stream(key, indices[r])
        s, n = draw_size(s, sizes)
        if qa:
            n = N
        queries = min(n, M)
        if at + 1 + n * (extra + 2 * max_tlen) + queries * 2 * (1 + max_tlen) + width > ids.size:
            return r
        s = draw_words(s, n, words, slot_word, node_row, spelling, lengths, stamps, seen, np.uint32(r - first + 1))
        node_row[n] = node_row[0]  # the cycle closes

        start = at
        ids[at] = bos
        at += 1
        # Edge order: a Fisher-Yates shuffle from the back, writing each edge as it is drawn.
        for i in range(n):
            order[i] = i
        left = n
        while left > 0:
            steps = 6 if left <= 256 else 3  # their product stays below 2^48
            if steps > left:
                steps = left
            product = _1
            for i in range(steps):
                product *= np.uint64(left - i)
            s, x = word_for(s, product)
            for _ in range(steps):
                span = np.uint64(left)
                j = mulhi(x, span)
                x *= span
                left -= 1
                a = np.int64(order[j])
                order[j] = order[left]
                order[left] = a
                if separator:
                    ids[at] = sep
                    at += 1
                for node in (a, a + 1):
                    word = node_row[node]
                    put_word(ids, at, spelling, word)
                    if width > 8:
                        put_rest(ids, at, spelling, word, lengths[word])
                    at += lengths[word]
        # The mask: zero up to here, then set behind each query. (One memset, as the compiler sees it.)
        mask[start:at] = False
        for q in range(queries):
            span = np.uint64(n - q)
            s, x = word_for(s, span * choices)
            j = np.uint64(q) + mulhi(x, span)
            x *= span
            k = np.int64(hops[np.int64(mulhi(x, choices))])
            a = np.int64(order[j])
            order[j] = order[q]
            order[q] = a
            target = (a + k) % n
            for side in range(2):  # the query and its node are quiet, <ans> and the answer count
                word = node_row[target if side else a]
                begin = at
                ids[at] = ans if side else query_base + k
                put_word(ids, at + 1, spelling, word)
                if width > 8:
                    put_rest(ids, at + 1, spelling, word, lengths[word])
                at += 1 + lengths[word]
                mask[begin:at] = side == 1
            ks_out[k_at] = k
            k_at += 1
        n_out[r] = n
        queries_out[r] = queries
        offsets[r + 1] = at
    return indices.size


class DepoTask(Task):
    """The Depo task. Facts of a row: `n` nodes, `queries`, and `ks`, the steps each query asks for."""

    name = "depo"
    version = 1
    Params = DepoParams
    size_fact = "n"
    presets: ClassVar[Mapping[str, Preset]] = {
        **{
            f"depo1-{N}": Preset({"N": N}, f"Depo1: up to {N} nodes, words of 1-2 tokens, 1..8 steps", mean)
            for N, mean in ((225, 283.5), (300, 358.5), (375, 432.9))
        },
        **{
            f"depo2-{N}": Preset(
                {"N": N, "K": 16, "mini_vocab": 3, "min_tlen": 5, "max_tlen": 7},
                f"Depo2: up to {N} nodes, words of 5-7 tokens, 1..16 steps",
                mean,
            )
            for N, mean in ((75, 456.9), (100, 549.5), (125, 638.9))
        },
    }

    @property
    def _id_dtype(self) -> str:
        p = self.params
        top = max(2 * p.mini_vocab, p.bos_token_id, p.separator_token_id, p.query_token_base + p.K, p.answer_token_id)
        return "uint16" if top < 1 << 16 else "uint32"

    @property
    def columns(self) -> dict[str, str]:
        return {
            "input_ids": f"list<{self._id_dtype}>",
            "loss_mask": "list<bool>",
            "n": "uint16",
            "queries": "uint16",
            "ks": "list<uint16>",
        }

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        p = self.params
        words, tables = word_law(p.N, p.mini_vocab, p.min_tlen, p.max_tlen, self._id_dtype)
        law = _Law(
            p.N, p.M, p.max_tlen, p.qa, p.separator,
            p.bos_token_id, p.separator_token_id, p.query_token_base, p.answer_token_id,
        )  # fmt: skip
        hops = np.array(p.hops(), np.uint16)
        rows, most = len(indices), min(p.N, p.M)
        facts = _Facts(*(np.empty(size, np.uint16) for size in (rows, rows, rows * most)))
        longest = 1 + p.N * (p.separator + 2 * p.max_tlen) + most * 2 * (1 + p.max_tlen) + tables.spelling.shape[1]

        def fill(first: int, out: TokenRows) -> int:
            return _fill(key, indices, first, *out, *facts, hops, size_law(p.N), words, tables, law)

        ids, mask, offsets = token_rows(fill, self._id_dtype, rows, self._mean_length(), longest, buffers)
        ends = offsets_of(facts.queries)
        return RaggedBatch(
            {
                "input_ids": Column(self.columns["input_ids"], ids, offsets),
                "loss_mask": Column("list<bool>", mask, offsets),
                "n": Column("uint16", facts.n),
                "queries": Column("uint16", facts.queries),
                "ks": Column("list<uint16>", facts.ks[: int(ends[-1])], ends),
            }
        )

    def _mean_length(self) -> float:
        p = self.params
        nodes = p.N if p.qa else (p.N + 3) / 2
        queries = min(nodes, p.M)
        return float(1 + nodes * (p.separator + p.min_tlen + p.max_tlen) + queries * (2 + p.min_tlen + p.max_tlen))

    def token_ids(self) -> list[int]:
        """Words, queries, `<bos>`, `<ans>`, and `<sep>` where there are separators."""
        p = self.params
        specials = [p.bos_token_id, p.answer_token_id] + [p.separator_token_id] * p.separator
        queries = range(p.query_token_base + 1, p.query_token_base + p.K + 1)
        return [*range(1, 2 * p.mini_vocab + 1), *queries, *specials]

    def token_name(self, token: int) -> str:
        """`<bos>`, `<sep>`, `<query_k>`, `<ans>`; a word token is its number, and ends a word above mini_vocab."""
        p = self.params
        special = {p.bos_token_id: "<bos>", p.separator_token_id: "<sep>", p.answer_token_id: "<ans>"}
        if token in special:
            return special[token]
        k = token - p.query_token_base
        if 1 <= k <= p.K:
            return f"<query_{k}>"
        return str(token) if 1 <= token <= 2 * p.mini_vocab else f"<unknown_{token}>"

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Parse a row and check every clause of the law.

        Args:
            example: `input_ids` and `loss_mask`, sequences; `labels`, `n`, `queries` and `ks` are checked when present.
        """
        p = self.params
        ids = integers(example["input_ids"], "input_ids")
        row = _parse(p, ids)
        n, nodes = len(row.edges), {tail for tail, _ in row.edges}
        if not (n == p.N if p.qa else 3 <= n <= p.N):
            raise BrokenLaw(f"{n} edges; legal: {p.N if p.qa else f'3..{p.N}'}")
        if len(nodes) < n:
            raise BrokenLaw("a node has two edges out of it")
        successor = dict(row.edges)
        if set(successor.values()) != nodes:
            raise BrokenLaw("a node has no edge into it")
        at, steps = successor[row.edges[0][0]], 1
        while at != row.edges[0][0]:
            at, steps = successor[at], steps + 1
        if steps != n:
            raise BrokenLaw(f"the edges form several cycles, one of {steps} nodes; legal: one cycle of {n}")
        if len(row.queries) != min(n, p.M):
            raise BrokenLaw(f"{len(row.queries)} queries; legal: {min(n, p.M)}")
        if len({node for _, node, _ in row.queries}) < len(row.queries):
            raise BrokenLaw("a node is queried twice")
        hops = set(p.hops())
        for i, (k, node, answer) in enumerate(row.queries):
            if k not in hops:
                raise BrokenLaw(f"query {i + 1} asks for {k} steps; legal: {sorted(hops)}")
            if node not in nodes:
                raise BrokenLaw(f"query {i + 1} asks about a node that has no edge")
            right = node
            for _ in range(k % n):
                right = successor[right]
            if answer != right:
                raise BrokenLaw(f"answer {i + 1} is {list(answer)}, not {list(right)}")
        check_mask(ids, row.mask, example)
        facts = {"n": n, "queries": len(row.queries), "ks": [k for k, _, _ in row.queries]}
        for name, value in facts.items():
            if name in example and example[name] != value:
                raise BrokenLaw(f"{name} is {example[name]}, not {value}")

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int]) -> None:
        """Refuse `answer_ids` unless they answer the row's queries.

        Args:
            example: a row of this task.
            answer_ids: one word (the answer to the row's last query) or one word for each query in order, each word
                with or without the `<ans>` before it.
        """
        parsed = _parse(self.params, integers(example["input_ids"], "input_ids"))
        words = _split_answers(self.params, integers(answer_ids, "answer_ids"))
        gold = [answer for _k, _q, answer in parsed.queries]
        wanted = gold if len(words) == len(gold) else gold[-1:]
        if len(words) != len(wanted):
            raise BrokenLaw(f"{len(words)} words answer {len(gold)} queries; legal: 1 or {len(gold)}")
        for i, (word, right) in enumerate(zip(words, wanted, strict=True)):
            if word != right:
                raise BrokenLaw(f"answer {i + 1} is {list(word)}, not {list(right)}")


@dataclass(frozen=True)
class _Parsed:
    edges: list[tuple[Word, Word]]
    queries: list[tuple[int, Word, Word]]  # k, node, answer
    mask: list[bool]


def _word_at(p: DepoParams, ids: Sequence[int], at: int) -> tuple[Word, int]:
    """The word that starts at `at`, and where it ends."""
    V = p.mini_vocab
    for end in range(at, len(ids)):
        if not 1 <= ids[end] <= 2 * V:
            raise BrokenLaw(f"token {ids[end]} at {end} stands where a word token 1..{2 * V} belongs")
        if ids[end] > V:
            if not p.min_tlen <= end + 1 - at <= p.max_tlen:
                raise BrokenLaw(f"word at {at} has {end + 1 - at} tokens; legal: {p.min_tlen}..{p.max_tlen}")
            return tuple(ids[at : end + 1]), end + 1
    raise BrokenLaw(f"word at {at} does not end")


def _split_answers(p: DepoParams, ids: Sequence[int]) -> list[Word]:
    words, at = [], 0
    while at < len(ids):
        word, at = _word_at(p, ids, at + (ids[at] == p.answer_token_id))
        words.append(word)
    return words


def _parse(p: DepoParams, ids: Sequence[int]) -> _Parsed:
    if not ids or ids[0] != p.bos_token_id:
        raise BrokenLaw(f"the row does not start with <bos> ({p.bos_token_id})")
    at, edges, queries = 1, [], []
    query_ids = range(p.query_token_base + 1, p.query_token_base + p.K + 1)
    while at < len(ids) and ids[at] not in query_ids:
        if p.separator:
            if ids[at] != p.separator_token_id:
                raise BrokenLaw(f"token {ids[at]} at {at} stands where <sep> belongs")
            at += 1
        tail, at = _word_at(p, ids, at)
        head, at = _word_at(p, ids, at)
        edges.append((tail, head))
    mask = [False] * at
    while at < len(ids):
        if ids[at] not in query_ids:
            raise BrokenLaw(f"token {ids[at]} at {at} stands where a query belongs")
        k, begin = ids[at] - p.query_token_base, at
        node, at = _word_at(p, ids, at + 1)
        if at >= len(ids) or ids[at] != p.answer_token_id:
            raise BrokenLaw(f"no <ans> at {at}")
        answer_at = at
        answer, at = _word_at(p, ids, at + 1)
        mask += [False] * (answer_at - begin) + [True] * (at - answer_at)
        queries.append((k, node, answer))
    return _Parsed(edges, queries, mask)
