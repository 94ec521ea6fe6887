"""Mano: knowledge manipulation. Work out an expression of modular arithmetic written in prefix notation.

Source: "Physics of Language Models: Part 4.1" (arXiv 2512.17351), section on Mano and its appendix.

A row of ℓ = 3 operations mod 23, which asks for (0 − 9) × (20 + 4) = 14 · 1 = 14:

    <bos'> <len_3>   ×'  - 0 9   +' 20 4   <ans_3'> 14
                     op  left    right              value

With `knowledge_augment` <bos>, both marks and every operator give way to a synonym (shown with a prime) with
probability ½. The loss mask is 1 on every token, and there is no end token: a row has 2ℓ + 5 tokens.

**Order of draws** from the row's stream (how numbers share a word: `kernels.rng`); part of the task's version:

1. ℓ − 1, below L; with `knowledge_augment` together with three numbers below 2, which are 1 where <bos>, <len> and
   <ans> give way to their synonyms. (With `qa` these are drawn all the same; then ℓ = L.)
2. The ℓ operators in their order in the row, 16 to a word: each a number o below the number of letters of `ttype`, that
   of the letter. With `knowledge_augment` o is below twice that: letter o // 2, and its synonym where o is odd. What is
   left of a word's 16 numbers is dropped, here as below.
3. The ℓ + 1 values in their order in the row, each below p = value_mod, as many to a word as keep p^count ≤ 2^52.
4. The shape, in the order of the row. An expression of m > 7 operations draws the number l of operations of its left
   side, below m; then the left side draws, then the right. One of m ≤ 7 draws a number r below m!, and that is all: it
   is a value where m = 0, else l = r // (m−1)!, and with r' = r mod (m−1)! the left side's number is r' mod l!, that of
   the right side, which has k = m−1−l operations, (r' // l!) mod k!.
5. An expression that divides by a number without inverse mod p is given up, and 2 to 4 are done again.

The file is long because options, kernel and checker of a row belong together; expressions have a file of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from math import gcd
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from ...errors import UsageError
from ...kernels.arrays import I64, U16, U64, Ids
from ...kernels.buffers import Buffers
from ...kernels.jit import kernel
from ...kernels.rng import mulhi, stream, word_for
from ...params import TaskParams
from ...ragged import Column, RaggedBatch
from ..task import BrokenLaw, Preset, Task, check_mask, integers
from .expressions import LANES, VALUE_BASE, ExpressionTables, Shapes, line_up, shapes, work_out, write
from .shares import first_below

#: The token ids of the paper; `<len_l>` is 10·l and `<ans_l>` 10·l + 4, values start at VALUE_BASE. A synonym of bos is
#: one less, of an operator four more, of a mark one more.
OPERATORS = {"a": 1, "s": 2, "m": 3, "d": 4}
SIGNS = "+-×÷"
#: A draw must be accepted with at least this probability.
LEAST_ACCEPTED = Fraction(1, 1000)
#: Every token id is a uint32, and this one stays free.
MAX_ID = 2**32 - 2

_0, _1, _2, _4, _5, _8, _10 = (np.uint64(i) for i in (0, 1, 2, 4, 5, 8, 10))
_VALUES = np.uint64(VALUE_BASE)


class ManoParams(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of Mano, named as in the paper and its published code."""

    L: Annotated[int, Meta(ge=1, le=499, description="most operations; ℓ is drawn from 1..L")] = 10
    ttype: Annotated[str, Meta(description="operators: any of a (+) s (−) m (×) d (÷), each at most once")] = "asm"
    value_mod: Annotated[int, Meta(ge=2, le=4998, description="p: all arithmetic is mod p")] = 23
    knowledge_augment: Annotated[
        bool, Meta(description="replace <bos>, marks and operators by their synonyms with probability ½")
    ] = True
    qa: Annotated[bool, Meta(description="evaluation: ℓ = L")] = False
    bos_token_id: Annotated[int, Meta(ge=0, le=MAX_ID, description="id of <bos>; its synonym is one less")] = 9999

    def __post_init__(self) -> None:
        if set(self.ttype) <= set(OPERATORS):  # a set of operators has no order: "sam" is "asm", the same identity
            msgspec.structs.force_setattr(self, "ttype", "".join(sorted(self.ttype, key="asmd".index)))

    def check(self) -> None:
        if not self.ttype or set(self.ttype) - set(OPERATORS) or len(set(self.ttype)) < len(self.ttype):
            raise UsageError(f"mano: ttype={self.ttype!r} is not legal; legal: one or more of a s m d, each once")
        top = VALUE_BASE + self.value_mod - 1
        for bos in (self.bos_token_id, self.bos_token_id - self.knowledge_augment):
            if bos < 0 or 1 <= bos <= 10 * self.L + 5 or VALUE_BASE <= bos <= top:
                raise UsageError(
                    f"mano: ids clash: bos_token_id={self.bos_token_id} or its synonym meets operators and marks "
                    f"(1..{10 * self.L + 5}), values ({VALUE_BASE}..{top}) or falls below 0; legal: ids that stay apart"
                )
        if refused := first_below(self.ttype, self.value_mod, self.L, LEAST_ACCEPTED):
            length, share = refused
            raise UsageError(
                f"mano: with ttype={self.ttype!r} and value_mod={self.value_mod} a draw of {length} operations divides "
                f"by units only with probability {share:.2g}; legal: at least 1 in 1,000, so L ≤ {length - 1} or a "
                "value_mod with more units"
            )


@cache
def _tables(params: ManoParams) -> ExpressionTables:
    p, synonyms = params.value_mod, 1 + params.knowledge_augment
    reciprocal = 2**64 // p + 1
    rules, stuck, op_ids = [], [], []
    for letter in params.ttype:
        for synonym in range(synonyms):
            op_ids.append(OPERATORS[letter] + 4 * synonym)
            for b in range(p):
                unit = gcd(b, p) == 1
                inverse = pow(b, -1, p) if letter == "d" and unit else 0
                f, g = {"a": (1, b), "s": (1, p - b), "m": (b, 0), "d": (inverse, 0)}[letter]
                rules += [f * reciprocal % 2**64, g * reciprocal % 2**64]
                stuck.append(letter == "d" and not unit)
    group = max(g for g in range(1, 53) if p**g <= 2**52)
    return ExpressionTables(
        rules=np.array(rules, np.uint64),
        stuck=np.array(stuck, np.uint8),
        op_ids=np.array(op_ids, np.uint8),
        L=np.uint64(params.L),
        p=np.uint64(p),
        value_group=np.uint64(group),
        value_product=np.uint64(p**group),
        op_product=np.uint64(len(op_ids) ** 16),
        bos=np.uint64(params.bos_token_id),
        augment=params.knowledge_augment,
        qa=params.qa,
        divides="d" in params.ttype,
    )


@kernel
def _fill(
    key: U64,
    indices: U64,
    ids: Ids,
    offsets: I64,
    length_out: U16,
    answer_out: U16,
    tables: ExpressionTables,
    shapes: Shapes,
) -> None:
    """Write all rows, `LANES` of them side by side.

    Where all lanes do the same step, none waits for its own last step, and loops whose lengths fall slowly from lane to
    lane end where the processor expects.

    Args:
        key: [2 or more]; indices, length_out, answer_out: [rows].
        ids: [room], enough for rows of the greatest length; offsets: [rows + 1].
    """
    L, bos, augment, qa = tables.L, tables.bos, tables.augment, tables.qa
    header = L * _8 if augment else L
    pair = (key[0], key[1])
    s0, s1 = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    s2, s3 = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    lengths, synonyms = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    pending, row_of = np.empty(LANES, np.uint64), np.empty(LANES, np.uint64)
    active, seat = np.empty(L + _2, np.int64), np.empty(L + _2, np.uint64)
    sizes = np.empty(L + _2, np.uint64)
    digits = np.zeros(L + _1 + tables.value_group + _8, np.uint64)
    ops = np.zeros((L + _8) * LANES, np.uint8)
    places = np.empty((L + _8) * LANES, np.uint32)
    value = np.empty((_2 * L + _2) * LANES, np.uint32)
    broken = np.zeros(LANES, np.uint8)
    lanes, scratch = (ops, places, value), (digits, sizes)
    at = _0
    offsets[0] = 0
    for block in range(0, indices.size, np.int64(LANES)):
        rows: Any = min(np.int64(LANES), indices.size - block)
        for i in range(rows):
            s0[i], s1[i], s2[i], s3[i] = stream(pair, indices[block + i])
        for i in range(rows):
            s = (s0[i], s1[i], s2[i], s3[i])
            s, x = word_for(s, header)
            s0[i], s1[i], s2[i], s3[i] = s
            length = L if qa else _1 + mulhi(x, L)
            synonym = mulhi(x * L, _8) if augment else _0
            lengths[i] = length
            synonyms[i] = synonym
            pending[i] = i
            length_out[block + i] = length
            ids[at] = bos - (synonym >> _2)
            ids[at + _1] = _10 * length + ((synonym >> _1) & _1)
            at += _2 * length + _5
            offsets[block + i + 1] = at
        while rows > 0:
            line_up(rows, L, lengths, pending, row_of, active, seat)
            for lane in range(rows):
                k = np.uint64(lane)
                row = row_of[k]
                s = (s0[row], s1[row], s2[row], s3[row])
                start = np.uint64(offsets[block + np.int64(row)]) + _2
                s = write(s, k, lengths[row], start, ids, lanes, scratch, tables, shapes)
                s0[row], s1[row], s2[row], s3[row] = s
            work_out(active, lanes, broken, tables)
            again = 0
            for lane in range(rows):
                k = np.uint64(lane)
                row = row_of[k]
                answer = np.uint64(value[k])
                answer_out[block + np.int64(row)] = answer
                end = np.uint64(offsets[block + np.int64(row) + 1])
                ids[end - _2] = _10 * lengths[row] + _4 + (synonyms[row] & _1)
                ids[end - _1] = _VALUES + answer
                pending[again] = row
                again += broken[k]
                broken[k] = 0
            rows = again


class ManoTask(Task):
    """The Mano task. Facts of a row: `length`, its number ℓ of operations, and `answer`, the value."""

    name = "mano"
    version = 1
    Params = ManoParams
    size_fact = "length"
    presets: ClassVar[Mapping[str, Preset]] = {
        f"mano-{L}": Preset({"L": L}, f"Mano: up to {L} operations + − × mod 23", mean)
        for L, mean in ((10, 16.0), (13, 19.0), (16, 22.0))
    }

    @property
    def _id_dtype(self) -> str:
        return "uint16" if self.params.bos_token_id < 1 << 16 else "uint32"  # all other ids are below 10,000

    @property
    def columns(self) -> dict[str, str]:
        return {
            "input_ids": f"list<{self._id_dtype}>",
            "loss_mask": "list<bool>",
            "length": "uint16",
            "answer": "uint16",
        }

    def generate(self, key: U64, indices: U64, buffers: Buffers) -> RaggedBatch:
        rows = len(indices)
        room = rows * (2 * self.params.L + 5)
        ids = buffers.take("input_ids", room, self._id_dtype)
        mask = buffers.take("loss_mask", room, np.bool_)
        offsets = buffers.take("offsets", rows + 1, np.int64)[: rows + 1]
        length, answer = np.empty(rows, np.uint16), np.empty(rows, np.uint16)
        _fill(key, indices, ids, offsets, length, answer, _tables(self.params), shapes())
        total = int(offsets[rows])
        mask[:total] = True
        return RaggedBatch(
            {
                "input_ids": Column(f"list<{self._id_dtype}>", ids[:total], offsets),
                "loss_mask": Column("list<bool>", mask[:total], offsets),
                "length": Column("uint16", length),
                "answer": Column("uint16", answer),
            }
        )

    def token_ids(self) -> list[int]:
        """`<bos>`, operators, `<len_l>`, `<ans_l>`, each with its synonym, and values."""
        p = self.params
        synonyms = range(1 + p.knowledge_augment)
        heads = [p.bos_token_id - i for i in synonyms] + [OPERATORS[o] + 4 * i for o in p.ttype for i in synonyms]
        lengths = [p.L] if p.qa else range(1, p.L + 1)
        marks = [mark for length in lengths for digit in (0, 4) for mark in _marks(p, length, digit)]
        return [*heads, *marks, *range(VALUE_BASE, VALUE_BASE + p.value_mod)]

    def token_name(self, token: int) -> str:
        """`<bos>`, `<len_7>`, `<ans_7>`, an operator or a plain value; a synonym carries a prime: `<bos'>`, `+'`."""
        p = self.params
        prime = "'"
        names = {p.bos_token_id: "<bos>"}
        if p.knowledge_augment:
            names[p.bos_token_id - 1] = "<bos'>"
        if token in names:
            return names[token]
        if VALUE_BASE <= token < VALUE_BASE + p.value_mod:
            return str(token - VALUE_BASE)
        if operator := _operator(p, token):
            return SIGNS["asmd".index(operator)] + prime * (token > len(OPERATORS))
        length = token // 10
        if 1 <= length <= p.L:
            for mark, digit in (("len", 0), ("ans", 4)):
                if token in (ids := _marks(p, length, digit)):
                    return f"<{mark}_{length}{prime * ids.index(token)}>"
        return f"<unknown_{token}>"

    def check_example(self, example: Mapping[str, Any]) -> None:
        """Parse a row, work it out and check every clause of the law.

        Args:
            example: `input_ids` and `loss_mask`, sequences; `labels`, `length` and `answer` are checked when present.
        """
        ids = integers(example["input_ids"], "input_ids")
        length, answer = _read(self.params, ids)
        if ids[-1] != VALUE_BASE + answer:
            raise BrokenLaw(f"the value is {self.token_name(ids[-1])}, not {answer}")
        check_mask(ids, [True] * len(ids), example)
        for name, right in (("length", length), ("answer", answer)):
            if name in example and example[name] != right:
                raise BrokenLaw(f"{name} is {example[name]}, not {right}")

    def check_answer(self, example: Mapping[str, Any], answer_ids: Sequence[int]) -> None:
        """Refuse `answer_ids` unless they are the expression's value: one token, with or without `<ans_l>` before."""
        given = integers(answer_ids, "answer_ids")
        length, answer = _read(self.params, integers(example["input_ids"], "input_ids"))
        if len(given) == 2 and given[0] in _marks(self.params, length, 4):
            del given[0]
        if len(given) != 1:
            raise BrokenLaw(f"the answer has {len(given)} tokens; legal: 1")
        if given[0] != VALUE_BASE + answer:
            raise BrokenLaw(f"the answer is {self.token_name(given[0])}, not {answer}")


def _operator(p: ManoParams, token: int) -> str | None:
    """The letter of an operator's token or of its synonym."""
    for letter in p.ttype:
        if token == OPERATORS[letter] or (p.knowledge_augment and token == OPERATORS[letter] + 4):
            return letter
    return None


def _marks(p: ManoParams, length: int, digit: int) -> tuple[int, ...]:
    """The ids of `<len_l>` (digit 0) or `<ans_l>` (digit 4)."""
    return (10 * length + digit, 10 * length + digit + 1)[: 1 + p.knowledge_augment]


def _read(p: ManoParams, ids: Sequence[int]) -> tuple[int, int]:
    """(ℓ, the expression's value) of a row, by rules of its own: read from the right, with a stack."""
    if not ids or ids[0] not in (p.bos_token_id, p.bos_token_id - p.knowledge_augment):
        raise BrokenLaw(f"the row does not start with <bos> ({p.bos_token_id})")
    length = next((n for n in range(1, p.L + 1) if len(ids) > 1 and ids[1] in _marks(p, n, 0)), None)
    if length is None:
        raise BrokenLaw(f"no <len_l> at 1; legal: l = 1..{p.L}")
    if p.qa and length < p.L:
        raise BrokenLaw(f"<len_{length}> in evaluation; legal: {p.L}")
    if len(ids) != 2 * length + 5:
        raise BrokenLaw(f"{len(ids)} tokens at {length} operations; legal: {2 * length + 5}")
    if ids[-2] not in _marks(p, length, 4):
        raise BrokenLaw(f"no <ans_{length}> at {len(ids) - 2}")
    stack: list[int] = []
    for at in range(len(ids) - 3, 1, -1):
        token = ids[at]
        if VALUE_BASE <= token < VALUE_BASE + p.value_mod:
            stack.append(token - VALUE_BASE)
            continue
        operator = _operator(p, token)
        if operator is None:
            raise BrokenLaw(f"token {token} at {at} is neither a value nor an operator of {p.ttype!r}")
        if len(stack) < 2:
            raise BrokenLaw(f"the operator at {at} lacks a side")
        a, b = stack.pop(), stack.pop()
        if operator == "d":
            try:
                b = pow(b, -1, p.value_mod)
            except ValueError:
                raise BrokenLaw(
                    f"the operator at {at} divides by {b}, which has no inverse mod {p.value_mod}"
                ) from None
        result = {"a": a + b, "s": a - b, "m": a * b, "d": a * b}[operator]
        stack.append(result % p.value_mod)
    if len(stack) != 1:
        raise BrokenLaw(f"{len(stack)} expressions follow one another; legal: one of {length} operations")
    return length, stack[0]
