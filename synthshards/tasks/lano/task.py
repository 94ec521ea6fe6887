"""Lano: hierarchical structure. Sentences of a layered context-free grammar, token by token.

Sources: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Lano; the cfg3 grammars are those of
Part 1 (arXiv 2305.13673). A grammar's text, a row of it with ``framing=bos``, and how it came about:

    8 -> 7 7 | 7 6          <bos>   2 2 1   1 2           8
    6 -> 1 2                        7       6            ╱ ╲
    7 -> 2 2 1 | 1                                      7   6
                                                   2 2 1     1 2

The tokens are the terminals 1..V; V + 1, V + 2, V + 3 are reserved (`<eos>`, `<mask>`, `<sep>`) and stand in no row.
With ``framing=none`` a row is the bare sentence. The loss mask is 1 on every token, `<bos>` included: it ends the
sentence before it in a packed window. The only fact of a row is `length`, its number of terminals.

The random choices are those of `tasks.lano.expansion`: stage by stage from the root, each symbol of the row from
left to right. The numbers of g consecutive symbols are drawn together (docs/randomness.md, "Numbers"), where g is the
largest of 1..8 with (greatest radix of the stage's symbols)^g ≤ 2^52; the last group of a stage has what is left.

The file is long because options, kernel and checker of a row belong together; grammars and charts have their own files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ...errors import UsageError
from ...kernels.arrays import U16, U32, U64, Ids
from ...kernels.buffers import Buffers
from ...kernels.jit import helper, kernel
from ...kernels.rng import State, mulhi, stream, word_for
from ...params import TaskParams
from ...ragged import Column, RaggedBatch
from ..task import BrokenLaw, Preset, Task, TokenRows, check_mask, integers, token_rows
from .expansion import WIDE, ExpansionTables, expansion_tables
from .grammar import SHIPPED, Grammar, canonical_source, load_grammar
from .grammar_sampler import LANO_VERSION, check_shape, draw_grammar

_0, _1, _2, _3, _4, _5, _6, _7, _8, _16 = (np.uint64(i) for i in (*range(9), 16))
#: Every token id is a uint32, and this one stays free.
MAX_ID = 2**32 - 2
#: The parameters that also mean something where the grammar is not drawn.
_ALWAYS = ("grammar", "framing", "bos_token_id")


class LanoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Lano; those from `grammar_seed` on say what ``grammar=drawn`` means (`tasks.lano.grammar_sampler`).

    `grammar` is kept in the form that identifies it: a shipped grammar by name and digest, a user's as canonical text.
    """

    grammar: Annotated[
        str, Meta(description="shipped name, path of a file, text like 'S -> 1 2 | 2 1', or drawn (from grammar_seed)")
    ] = "cfg3f"
    framing: Annotated[Literal["none", "bos"], Meta(description="none: the bare sentence; bos: <bos> before it")] = (
        "none"
    )
    bos_token_id: Annotated[
        int, Meta(ge=0, le=MAX_ID, description="id of <bos>, with or without framing; not 1..V+3")
    ] = 0
    grammar_seed: Annotated[int, Meta(ge=0, description="which drawn grammar, 0..2^64-1")] = 0
    depth: Annotated[int, Meta(ge=1, le=64, description="drawn: levels below the root")] = 6
    symbols: Annotated[
        int | str, Meta(description="drawn: symbols of each level below the root, 3 or 3,9,27 (the last: terminals)")
    ] = "3"
    min_degree: Annotated[int, Meta(ge=1, le=10_000, description="drawn: fewest rules of a symbol")] = 3
    max_degree: Annotated[int, Meta(ge=1, le=10_000, description="drawn: most rules of a symbol")] = 4
    min_rule_length: Annotated[int, Meta(ge=1, le=1000, description="drawn: fewest symbols of a rule")] = 2
    max_rule_length: Annotated[int, Meta(ge=1, le=1000, description="drawn: most symbols of a rule")] = 3
    distinct_symbols: Annotated[bool, Meta(description="drawn: no repeated symbol in a rule")] = False
    distinct_rules: Annotated[bool, Meta(description="drawn: no repeated right-hand side in a level")] = True

    def __post_init__(self) -> None:
        if self.grammar != "drawn":
            msgspec.structs.force_setattr(self, "grammar", _resolved(self.grammar))
        msgspec.structs.force_setattr(self, "symbols", _sizes_text(self.symbols))

    @classmethod
    def check_identity(cls, values: Mapping[str, Any]) -> None:
        grammar = values.get("grammar")
        if isinstance(grammar, str) and "->" not in grammar and grammar.partition(" ")[0] not in {*SHIPPED, "drawn"}:
            raise UsageError(f"lano: grammar={grammar[:80]!r} is not legal; legal: a shipped grammar, rules, or drawn")

    def check(self) -> None:
        if self.grammar == "drawn":
            if self.grammar_seed >= 1 << 64:
                raise UsageError(f"lano: grammar_seed={self.grammar_seed} is not legal; legal: int 0..2^64-1")
            check_shape("lano", *self._shape())
        for field in msgspec.structs.fields(self):
            given = getattr(self, field.name)
            if self.grammar != "drawn" and field.name not in _ALWAYS and given != field.default:
                raise UsageError(f"lano: {field.name}={given!r} is for drawn grammars; legal: only with grammar=drawn")
        V = self.make_grammar().terminals
        if 1 <= self.bos_token_id <= V + 3:
            raise UsageError(
                f"lano: bos_token_id={self.bos_token_id} clashes with the terminals 1..{V} or the reserved ids "
                f"{V + 1}..{V + 3} (eos, mask, sep); legal: 0, or from {V + 4}"
            )

    def sizes(self) -> tuple[int, ...]:
        """Symbols of each level below the root of a drawn grammar."""
        numbers = tuple(int(number) for number in str(self.symbols).split(","))
        if len(numbers) not in (1, self.depth):
            raise UsageError(
                f"lano: symbols={self.symbols!r} has {len(numbers)} numbers; legal: 1 or depth={self.depth}"
            )
        return numbers if len(numbers) == self.depth else numbers * self.depth

    def _shape(self) -> tuple[tuple[int, ...], tuple[int, int], tuple[int, int], bool, bool]:
        degrees, lengths = (self.min_degree, self.max_degree), (self.min_rule_length, self.max_rule_length)
        return self.sizes(), degrees, lengths, self.distinct_symbols, self.distinct_rules

    def make_grammar(self) -> Grammar:
        """The grammar itself."""
        if self.grammar != "drawn":
            return load_grammar(self.grammar)
        sizes, degrees, lengths, distinct_symbols, distinct_rules = self._shape()
        flags = {"distinct_symbols": distinct_symbols, "distinct_rules": distinct_rules}
        return draw_grammar(self.grammar_seed, sizes, degrees, lengths, **flags)

    def canonical(self) -> dict[str, Any]:
        """As for every task; `symbols` with one number a level where the grammar is drawn."""
        symbols = ",".join(map(str, self.sizes())) if self.grammar == "drawn" else self.symbols
        return {**super().canonical(), "symbols": symbols}


def _resolved(grammar: str) -> str:
    try:
        return canonical_source(grammar)
    except UsageError as error:
        also = ", or drawn" if "neither shipped" in str(error) else ""
        raise UsageError(f"lano: {error}{also}") from None


def _sizes_text(symbols: int | str) -> str:
    numbers = [number.strip() for number in str(symbols).split(",")]
    if not all(number.isascii() and number.isdecimal() and 0 < len(number) < 8 for number in numbers):
        raise UsageError(f"lano: symbols={symbols!r} is not legal; legal: a number, or one for each level like 3,9,27")
    return ",".join(str(int(number)) for number in numbers)


@helper
def _put(out: Ids, at: np.uint64, rows: Ids, row: np.uint64) -> None:
    """Copy a row's 16 entries to out[at:], whatever its true length.

    Straight-line, loads before stores: see `node_names.put_word`. `out` needs 16 entries of room.
    """
    r, o = np.uint64(row), np.uint64(at)
    a0, a1, a2, a3, a4, a5, a6, a7 = (
        rows[r, 0], rows[r, 1], rows[r, 2], rows[r, 3], rows[r, 4], rows[r, 5], rows[r, 6], rows[r, 7],
    )  # fmt: skip
    b0, b1, b2, b3, b4, b5, b6, b7 = (
        rows[r, 8], rows[r, 9], rows[r, 10], rows[r, 11], rows[r, 12], rows[r, 13], rows[r, 14], rows[r, 15],
    )  # fmt: skip
    out[o], out[o + _1], out[o + _2], out[o + _3] = a0, a1, a2, a3
    out[o + _4], out[o + _5], out[o + _6], out[o + _7] = a4, a5, a6, a7
    o += _8
    out[o], out[o + _1], out[o + _2], out[o + _3] = b0, b1, b2, b3
    out[o + _4], out[o + _5], out[o + _6], out[o + _7] = b4, b5, b6, b7


@helper
def _expand(
    s: State, symbols: U16, i: np.uint64, end: np.uint64, group: np.uint64, out: Ids, to: np.uint64,
    tables: ExpansionTables, spelled: tuple[Ids, U32],
) -> tuple[State, np.uint64]:  # fmt: skip
    """One stage: write the expansions of symbols[i:end] to out[to:]; (new state, where they end).

    `spelled` are the tables' inner or outer expansions and their sizes.
    """
    radix, first, row_of = tables.radix, tables.first, tables.row
    rows, sizes = spelled
    while i < end:
        stop = min(i + group, end)
        product = _1
        for j in range(i, stop):
            product *= radix[symbols[j]]
        s, x = word_for(s, product)
        while i < stop:
            symbol = symbols[i]
            n = radix[symbol]
            row = np.uint64(row_of[first[symbol] + mulhi(x, n)])
            x *= n
            size = np.uint64(sizes[row])
            _put(out, to, rows, row)
            k = _16
            while k < size:  # a body of more than 16
                row += _1
                _put(out, to + k, rows, row)
                k += _16
            to += size
            i += _1
    return s, to


@kernel
def _fill(
    key: U64,
    indices: U64,
    start: int,
    out: TokenRows,
    length_out: Ids,
    tables: ExpansionTables,
    room: int,
    framed: bool,
    bos: int,
) -> int:
    """Write rows start, start + 1 … while `room` is left for another; return the number of rows that stand.

    Args:
        key: [2 or more]; indices, length_out: [rows].
    """
    ids, mask, offsets = out
    groups = tables.groups
    inner, outer = (tables.inner, tables.inner_size), (tables.outer, tables.outer_size)
    half = np.uint64(tables.widest + WIDE)
    symbols = np.empty(2 * half, np.uint16)  # two halves in turn: what a stage reads, and what it writes
    last = groups.size - 1
    at = offsets[start]
    begin = at
    done = indices.size
    for r in range(start, indices.size):
        if at + room > ids.size:
            done = r
            break
        if framed:
            ids[at] = bos
            at += 1
        s = stream(key, indices[r])
        now, then = _0, half
        symbols[now] = 0  # the root
        end = _1
        for stage in range(last):
            group = np.uint64(groups[stage])
            s, made = _expand(s, symbols, now, end, group, symbols, then, tables, inner)
            now, then, end = then, now, made
        group = np.uint64(groups[last])
        s, made = _expand(s, symbols, now, end, group, ids, np.uint64(at), tables, outer)
        length_out[r] = np.int64(made) - at
        at = np.int64(made)
        offsets[r + 1] = at
    mask[begin:at] = True
    return done


class LanoTask(Task):
    """The Lano task. Fact of a row: `length`, its number of terminals.

    Attributes:
        grammar: the `tasks.lano.grammar.Grammar` of the task: membership, derivations, next-token distributions.
    """

    name = "lano"
    version = LANO_VERSION
    Params = LanoParams
    size_fact = "length"
    presets: ClassVar[Mapping[str, Preset]] = {
        f"lano-{name}": Preset({"grammar": name}, f"{name}: {levels} levels above {V} terminals, {rules}", mean)
        for name, levels, V, rules, mean in (
            ("cfg3b", 6, 3, "2 rules a symbol, none ambiguous", 275.6),
            ("cfg3e1", 6, 9, "3 rules a symbol, up to 81 symbols a level", 198.6),
            ("cfg3e2", 6, 4, "3 rules a symbol, up to 27 symbols a level", 246.4),
            ("cfg3f", 6, 3, "3-4 rules a symbol", 249.9),
            ("cfg3g", 6, 3, "3 rules a symbol", 252.4),
            ("cfg3h", 6, 3, "2-3 rules a symbol", 236.4),
            ("cfg3i", 6, 3, "2 rules a symbol", 308.1),
            ("cfg3j", 7, 3, "3 rules a symbol", 543.9),
            ("cfg3k", 7, 3, "3-4 rules a symbol", 516.3),
        )
    }

    def __init__(self, params: Mapping[str, Any] | None = None, /, **overrides: Any) -> None:
        super().__init__(params, **overrides)
        self.grammar: Grammar = self.params.make_grammar()
        self._framed = self.params.framing == "bos"

    @property
    def _id_dtype(self) -> str:
        top = max(self.grammar.terminals, self.params.bos_token_id if self._framed else 0)
        return "uint16" if top < 1 << 16 else "uint32"

    @property
    def columns(self) -> dict[str, str]:
        return {
            "input_ids": f"list<{self._id_dtype}>",
            "loss_mask": "list<bool>",
            "length": "uint16" if self.grammar.lengths[1] < 1 << 16 else "uint32",
        }

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        expansions = expansion_tables(self.grammar, self._id_dtype)
        _, longest, mean = self.grammar.lengths
        rows = len(indices)
        kinds = self.columns
        length = np.empty(rows, kinds["length"])
        room = longest + 1 + WIDE

        def fill(first: int, out: TokenRows) -> int:
            bos = self.params.bos_token_id
            return _fill(key, indices, first, out, length, expansions, room, self._framed, bos)

        ids, mask, offsets = token_rows(fill, self._id_dtype, rows, mean + self._framed, room, buffers)
        return RaggedBatch(
            {
                "input_ids": Column(kinds["input_ids"], ids, offsets),
                "loss_mask": Column("list<bool>", mask, offsets),
                "length": Column(kinds["length"], length),
            }
        )

    def token_ids(self) -> list[int]:
        """The terminals, `<bos>` and the reserved `<eos>`, `<mask>`, `<sep>`."""
        V = self.grammar.terminals
        return sorted({*range(1, V + 4), self.params.bos_token_id})

    def token_name(self, token: int) -> str:
        """A terminal is its number; `<bos>`, and the reserved `<eos>`, `<mask>`, `<sep>`."""
        V = self.grammar.terminals
        special = {self.params.bos_token_id: "<bos>", V + 1: "<eos>", V + 2: "<mask>", V + 3: "<sep>"}
        return special.get(token) or (str(token) if 1 <= token <= V else f"<unknown_{token}>")

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Parse a row and check every clause of the law.

        Args:
            example: `input_ids` and `loss_mask`, sequences; `labels` and `length` are checked when present.
        """
        ids = integers(example["input_ids"], "input_ids")
        if self._framed and ids[:1] != [self.params.bos_token_id]:
            raise BrokenLaw(f"the row does not start with <bos> ({self.params.bos_token_id})")
        sentence = ids[self._framed :]
        self._parse(sentence)
        check_mask(ids, [True] * len(ids), example)
        if "length" in example and example["length"] != len(sentence):
            raise BrokenLaw(f"length is {example['length']}, not {len(sentence)}")

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int]) -> None:
        """Refuse `answer_ids` unless they are a sentence of the grammar.

        Args:
            example: any row; nothing of it is used, for Lano asks for a sentence and not for this one.
            answer_ids: a whole sentence, with or without `<bos>` before it, and `<eos>` or the next `<bos>` behind it.
        """
        bos = self.params.bos_token_id
        ids = integers(answer_ids, "answer_ids")
        if ids[:1] == [bos]:
            del ids[0]
        if ids and ids[-1] in (bos, self.grammar.terminals + 1):
            del ids[-1]
        self._parse(ids)

    def _parse(self, sentence: list[int]) -> None:
        """Raise `BrokenLaw`, with the place, unless the terminals are a sentence."""
        for at, token in enumerate(sentence):
            if not 0 <= token < 1 << 32:  # no id at all
                raise BrokenLaw(f"no sentence goes on with {token} after its first {at} terminals")
        if self.grammar.contains(sentence):
            return
        good = self.grammar.longest_prefix(sentence)
        if good < len(sentence):
            raise BrokenLaw(f"no sentence goes on with {sentence[good]} after its first {good} terminals")
        raise BrokenLaw(f"the sentence is unfinished after {good} terminals")
