"""Random expressions for Mano: drawing, writing and evaluating them.

The law and the order of draws are in `mano.task`. Rows are made side by side in *lanes*: arrays of lanes hold element e
of lane k at e·LANES + k.
"""

from __future__ import annotations

from functools import cache
from math import factorial
from typing import Any, NamedTuple

import numpy as np

from ...kernels.arrays import I64, U8, U16, U32, U64, Ids
from ...kernels.jit import helper
from ...kernels.rng import State, mulhi, word_for

#: Ids of values start here.
VALUE_BASE = 5000
#: Rows made side by side: enough to keep the processor busy, few enough for its nearest cache.
LANES = np.uint64(128)
#: Shapes of up to this many operations come from a table.
_TABLE = 7
#: Operators drawn from one word.
_OPS = np.uint64(16)

_0, _1, _2, _8, _16 = (np.uint64(i) for i in (0, 1, 2, 8, 16))
_LOW16, _SMALL, _VALUES = np.uint64(0xFFFF), np.uint64(_TABLE), np.uint64(VALUE_BASE)
_FACTORIAL = np.array([factorial(m) for m in range(_TABLE + 1)], np.uint64)
_FIRST_SHAPE = np.array([sum(factorial(k) for k in range(m)) for m in range(_TABLE + 1)], np.uint64)


class Shapes(NamedTuple):
    """Tables of the shapes of up to 7 operations.

    Attributes:
        entries: [shapes], entry _FIRST_SHAPE[m] + r names the shape of number r below m!.
        operators: [shapes · 8]: row s holds for each operator of shape s, from the left, its place among the tokens
            and, above bit 16, that of its right side.
        leaves: [shapes · 8]: row s holds the place of each value. Rows are filled up with the place behind the last
            token.
    """

    entries: U16
    operators: U32
    leaves: U32


class ExpressionTables(NamedTuple):
    """What the parameters say to the kernels.

    With R = floor(2^64 / p) + 1 a number x < 2^32 leaves the remainder ((x·R mod 2^64)·p) // 2^64 mod p.

    Attributes:
        rules: [2·p·operators]: for operator o and right side b the pair (f·R, g·R) at index 2·(o·p + b), such that
            (left·f + g) mod p is the result.
        stuck: [p·operators]: 1 at o·p + b where b has no inverse.
        op_ids: [operators]: their ids, synonyms counted.
        value_group, value_product: values drawn from one word, and p to that power.
        op_product: the number of operators to the power 16, which share a word.
        augment, qa, divides: whether there are synonyms, ℓ is always L, a draw can be given up.
    """

    rules: U64
    stuck: U8
    op_ids: U8
    L: np.uint64
    p: np.uint64
    value_group: np.uint64
    value_product: np.uint64
    op_product: np.uint64
    bos: np.uint64
    augment: bool
    qa: bool
    divides: bool


@cache
def shapes() -> Shapes:
    """The tables of all shapes of up to 7 operations."""

    @cache
    def places(m: int, r: int) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
        if m == 0:
            return (), (0,)
        left, rest = divmod(r, factorial(m - 1))
        rest, left_number = divmod(rest, factorial(left))
        sides = ((1, places(left, left_number)), (2 * left + 2, places(m - 1 - left, rest % factorial(m - 1 - left))))
        operators = [(at + by, right + by) for by, (ops, _) in sides for at, right in ops]
        return ((0, 2 * left + 2), *operators), tuple(at + by for by, (_, values) in sides for at in values)

    numbers: dict[Any, int] = {}
    entries = [numbers.setdefault(places(m, r), len(numbers)) for m in range(_TABLE + 1) for r in range(factorial(m))]
    operators, leaves = np.empty((len(numbers), 8), np.uint32), np.empty((len(numbers), 8), np.uint32)
    for (ops, values), number in numbers.items():
        operators[number] = leaves[number] = 2 * len(ops) + 1
        operators[number, : len(ops)] = [at | right << 16 for at, right in ops]
        leaves[number, : len(values)] = values
    return Shapes(np.array(entries, np.uint16), operators.ravel(), leaves.ravel())


@helper
def line_up(rows: int, L: np.uint64, lengths: U64, pending: U64, row_of: U64, active: I64, seat: U64) -> None:
    """Give the pending rows their lanes, in order of falling ℓ; active[t] is the number of lanes with ℓ ≥ t.

    Args:
        lengths, pending, row_of: [LANES]; active, seat: [L + 2].
    """
    active[:] = 0
    for i in range(rows):
        active[lengths[pending[i]]] += 1
    for length in range(L, 0, -1):
        seat[length] = active[length + 1]
        active[length] += active[length + 1]
    for i in range(rows):
        length = lengths[pending[i]]
        row_of[seat[length]] = pending[i]
        seat[length] += _1


@helper
def write(
    s: State, k: np.uint64, length: np.uint64, start: np.uint64, ids: Ids, lanes: tuple[U8, U32, U32],
    scratch: tuple[U64, U64], tables: ExpressionTables, shapes: Shapes,
) -> State:  # fmt: skip
    """Draw an expression and write its tokens to ids[start:]; the new state.

    Args:
        lanes: out, (ops, places, value), [steps · LANES] each: operator t of lane k goes to ops, its place and that of
            its right side to places; values go to their places in value.
        scratch: digits [L + 9 + value_group], sizes [L + 2].
    """
    ops, places, value = lanes
    digits, sizes = scratch
    shape_of, shape_ops, shape_leaves = shapes
    p, op_ids, op_product = tables.p, tables.op_ids, tables.op_product
    value_group, value_product = tables.value_group, tables.value_product
    choices = np.uint64(op_ids.size)
    t: Any = _0
    while t < length:
        s, x = word_for(s, op_product)
        stop = min(t + _OPS, length)
        while t < stop:
            ops[t * LANES + k] = mulhi(x, choices)
            x *= choices
            t += _1
    v: Any = _0
    while v <= length:
        s, x = word_for(s, value_product)
        stop = v + value_group
        while v < stop:
            digits[v] = mulhi(x, p)
            x *= p
            v += _1
    # From the left: `here` is the place among the expression's tokens; t operators and v values stand. Rows of many
    # operations write all of a table's row: what is too much is soon written over, and a loop of constant length costs
    # less than one whose end cannot be foreseen.
    here: Any = _0
    t, v = _0, _0
    sizes[0] = length
    depth: Any = _1
    while depth > _0:
        depth -= _1
        m = sizes[depth]
        if m > _SMALL:
            s, x = word_for(s, m)
            left = mulhi(x, m)
            sizes[depth] = m - _1 - left
            sizes[depth + _1] = left
            depth += _2
            places[t * LANES + k] = here | ((here + _2 * left + _2) << _16)
            ids[start + here] = op_ids[ops[t * LANES + k]]
            here += _1
            t += _1
        else:
            numbers = _FACTORIAL[m]
            s, x = word_for(s, numbers)
            shape = np.uint64(shape_of[_FIRST_SHAPE[m] + mulhi(x, numbers)]) * _8
            span = m if length <= _SMALL else _SMALL
            e: Any = _0
            while e < span:
                cell = (t + e) * LANES + k
                place = np.uint64(shape_ops[shape + e]) + (here | (here << _16))
                places[cell] = place
                ids[start + (place & _LOW16)] = op_ids[ops[cell]]
                e += _1
            e = _0
            while e <= span:
                place = np.uint64(shape_leaves[shape + e]) + here
                value[place * LANES + k] = digits[v + e]
                ids[start + place] = _VALUES + digits[v + e]
                e += _1
            here += _2 * m + _1
            t += m
            v += m + _1
    return s


@helper
def work_out(active: I64, lanes: tuple[U8, U32, U32], broken: U8, tables: ExpressionTables) -> None:
    """Work out all lanes' operations from the right: both sides of each stand when its turn comes.

    Args:
        active: [L + 2], lanes that have so many operations; lanes: as for `write`; broken: out, [LANES].
    """
    ops, places, value = lanes
    L, p, divides, rules, stuck = tables.L, tables.p, tables.divides, tables.rules, tables.stuck
    t: Any = L
    while t > _0:
        running = active[t]
        t -= _1
        for lane in range(running):
            k = np.uint64(lane)
            place = np.uint64(places[t * LANES + k])
            cell = (place & _LOW16) * LANES + k
            rule = np.uint64(ops[t * LANES + k]) * p + np.uint64(value[(place >> _16) * LANES + k])
            raw = np.uint64(value[cell + LANES]) * rules[_2 * rule] + rules[_2 * rule + _1]
            value[cell] = mulhi(raw, p)
            if divides:
                broken[k] |= stuck[rule]
