"""Node names of Depo and Brevo: distinct, self-delimiting words of mini-vocabulary tokens.

A word has L tokens, L uniform in [min_tlen, max_tlen]; each is uniform in 1..V, and V is added to the last, so that a
reader knows where a word ends. On a repeat within one row the whole word is drawn again, its length included
(arXiv 2512.17351, appendix on Depo).

One bounded draw decides a whole word. There are S = (max_tlen − min_tlen + 1)·V^max_tlen equally likely *slots*;
slot // V^max_tlen chooses the length L, and (slot mod V^max_tlen) // V^(max_tlen − L) written in base V (most
significant digit first, L digits) gives the tokens, each digit plus 1. Where S is small, a table does that arithmetic.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..errors import UsageError
from ..kernels.arrays import U8, U32, U64, Ids
from ..kernels.jit import helper, kernel
from ..kernels.rng import State, mulhi, word_for

#: Largest number of slots: they must be drawn from one 64-bit word.
MAX_SLOTS = 1 << 62
#: Up to this many slots a table spells the words.
_TABLE_SLOTS = 1 << 16
#: Slots drawn from one 64-bit word: as many as keep S^g within this.
_GROUP_PRODUCT = 1 << 52

_0, _1, _2, _3, _4, _5, _6, _7 = (np.uint64(i) for i in range(8))
#: An index in kernels: signed or not.
_Index: TypeAlias = int | np.uint64


def check_words(where: str, N: int, V: int, shortest: int, longest: int) -> None:
    """Refuse a name space that is empty, too small for N distinct words or too large to draw from.

    Raises:
        UsageError: naming the parameters and what would be legal.
    """
    if shortest > longest:
        raise UsageError(f"{where}: min_tlen={shortest} exceeds max_tlen={longest}; legal: min_tlen ≤ max_tlen")
    if (longest - shortest + 1) * V**longest >= MAX_SLOTS:
        raise UsageError(
            f"{where}: mini_vocab={V} with max_tlen={longest} spans more than 2^62 words; legal: smaller of either"
        )
    count = sum(V**length for length in range(shortest, longest + 1))
    if count < N:
        raise UsageError(
            f"{where}: mini_vocab={V} with words of {shortest}..{longest} tokens makes {count} distinct words, "
            f"fewer than N={N}; legal: N ≤ {count}, or a larger mini_vocab or max_tlen"
        )


class WordLaw(NamedTuple):
    """The numbers that kernels need to draw words.

    Attributes:
        slots: S.
        group: slots drawn from one 64-bit word, and `product` = S^group.
        power: V^max_tlen; `V`, `shortest`, `longest` as in the law.
        hash_factor, hash_shift, hash_mask: map a word to one of hash_mask + 1 cells, in which repeats are found.
    """

    slots: np.uint64
    group: int
    product: np.uint64
    power: np.uint64
    V: np.uint64
    shortest: int
    longest: int
    hash_factor: np.uint64
    hash_shift: np.uint64
    hash_mask: np.uint64


class WordTables(NamedTuple):
    """The words spelled out, where S is small. (A tuple of numbers and arrays together costs Depo 4%, measured.)

    Attributes:
        slot_word: [S], slot → row of `spelling`; empty without a table.
        spelling: [words, width], left-aligned, zero-padded; [0, width] without a table. The width is max_tlen rounded
            up to a multiple of 8, so that words can be copied eight tokens at a time.
        lengths: [words].
    """

    slot_word: U32
    spelling: Ids
    lengths: U8


@cache
def word_law(N: int, V: int, shortest: int, longest: int, dtype: str) -> tuple[WordLaw, WordTables]:
    """The law for words of these parameters, and its tables, token ids of `dtype` ("uint16" or "uint32")."""
    slots = (longest - shortest + 1) * V**longest
    group = 1
    while group < 4 and slots ** (group + 1) <= _GROUP_PRODUCT:
        group += 1
    width = -(-longest // 8) * 8
    slot_word = np.empty(0, np.uint32)
    spelling, lengths = np.empty((0, width), dtype), np.empty(0, np.uint8)
    words = sum(V**length for length in range(shortest, longest + 1))
    if slots <= _TABLE_SLOTS:
        slot_word = np.empty(slots, np.uint32)
        spelling, lengths = np.zeros((words, width), dtype), np.empty(words, np.uint8)
        _fill_table(np.uint64(V), shortest, longest, slot_word, spelling, lengths)
        hash_bits, factor, shift = (words - 1).bit_length(), 1, 0
    else:
        hash_bits = (4 * N).bit_length()
        factor, shift = 0x9E3779B97F4A7C15, 64 - hash_bits
    law = WordLaw(
        slots=np.uint64(slots),
        group=group,
        product=np.uint64(slots**group),
        power=np.uint64(V**longest),
        V=np.uint64(V),
        shortest=shortest,
        longest=longest,
        hash_factor=np.uint64(factor),
        hash_shift=np.uint64(shift),
        hash_mask=np.uint64((1 << hash_bits) - 1),
    )
    return law, WordTables(slot_word, spelling, lengths)


@helper
def spell(
    slot: np.uint64, power: np.uint64, V: np.uint64, shortest: int, longest: int, tokens: Ids, row: int
) -> tuple[np.int64, np.uint64]:
    """Write the word of `slot` to tokens[row, :] ([rows, width]); return (its length, its number among them)."""
    length = shortest + np.int64(slot // power)
    number = slot % power
    for _ in range(longest - length):
        number //= V
    rest = number
    for i in range(length):
        tokens[row, length - 1 - i] = rest % V + _1
        rest //= V
    tokens[row, length - 1] += V
    return length, number


@kernel
def _fill_table(V: np.uint64, shortest: int, longest: int, slot_word: U32, spelling: Ids, lengths: U8) -> None:
    """Fill the arrays of `WordTables`: slot_word [S], spelling [words, width], lengths [words]."""
    power = _1
    for _ in range(longest):
        power *= V
    first: Any = np.int64(0)
    slot = _0
    for length in range(shortest, longest + 1):
        per_word = _1
        for _ in range(longest - length):
            per_word *= V
        last: Any = -1
        for i in range(np.int64(power)):
            word = first + np.int64(np.uint64(i) // per_word)
            if word != last:
                lengths[word], _number = spell(slot, power, V, shortest, longest, spelling, word)
                last = word
            slot_word[slot] = word
            slot += _1
        first = last + 1


@helper
def draw_words(
    s: State, n: int | np.uint64, law: WordLaw, slot_word: U32, node_row: U32, spelling: Ids, lengths: U8,
    stamps: U32, seen: U64, stamp: np.uint32,
) -> State:  # fmt: skip
    """Draw n distinct words; the new state.

    Args:
        slot_word: of the tables.
        node_row: out, [n or more]: node i's word is row node_row[i] of `spelling`.
        spelling, lengths: those of the tables; without a table, rows of their own to be filled, [n or more, width].
        stamps: [cells]: cell c is taken when stamps[c] equals `stamp`, which must be new for each row of data.
        seen: [cells]: the word in a taken cell. With a table ([1] then) every word has its own cell, and one load
            decides.
    """
    slots, group, product, power, V, shortest, longest, hash_factor, hash_shift, hash_mask = law
    left = 0
    x = _0
    count = 0
    if slot_word.size > 0:
        while count < n:
            if left == 0:
                s, x = word_for(s, product)
                left = group
            word = slot_word[mulhi(x, slots)]
            x *= slots
            left -= 1
            node_row[count] = word
            count += stamps[word] != stamp
            stamps[word] = stamp
    else:
        while count < n:
            if left == 0:
                s, x = word_for(s, product)
                left = group
            length, number = spell(mulhi(x, slots), power, V, shortest, longest, spelling, count)
            x *= slots
            left -= 1
            word = number + np.uint64(length - shortest) * power
            cell = ((word * hash_factor) >> hash_shift) & hash_mask
            while stamps[cell] == stamp and seen[cell] != word:
                cell = (cell + _1) & hash_mask
            if stamps[cell] != stamp:
                stamps[cell] = stamp
                seen[cell] = word
                lengths[count] = length
                node_row[count] = count
                count += 1
    return s


@helper
def put_word(out: Ids, at: _Index, spelling: Ids, row: _Index) -> None:
    """Copy the first eight tokens of a word to out[at:]; the caller moves the cursor by the word's true length.

    Straight-line, loads before stores: the compiler makes one wide store of it, and drops the reference counting of
    the arrays, which it would keep around a branch (8 ns a word, measured). `out` needs eight tokens of room.
    """
    r, o = np.uint64(row), np.uint64(at)  # unsigned: no test for negative indices, which would stop the wide store
    a, b, c, d = spelling[r, 0], spelling[r, 1], spelling[r, 2], spelling[r, 3]
    e, f, g, h = spelling[r, 4], spelling[r, 5], spelling[r, 6], spelling[r, 7]
    out[o], out[o + _1], out[o + _2], out[o + _3] = a, b, c, d
    out[o + _4], out[o + _5], out[o + _6], out[o + _7] = e, f, g, h


@helper
def put_rest(out: Ids, at: _Index, spelling: Ids, row: _Index, length: int) -> None:
    """Copy what `put_word` leaves of a word longer than eight tokens."""
    for i in range(8, length):
        out[at + i] = spelling[row, i]
