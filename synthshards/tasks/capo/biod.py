"""bioD: Capo's people with values whose diversity is a parameter.

Source: "Physics of Language Models: Part 3.3" (arXiv 2404.05405), section on bioD(N, K, C, D, L, T). Each attribute
"ID 1" .. "ID K" has D different strings of L words out of T; a person's value is C of them, drawn independently. With
K = 3, C = 2, D = 1000, L = 2, T = 100, row 0 of seed 0:

    Kyle Grant McMillan's ID 1 is re lu mi gi. His ID 2 is zu le lo do. His ID 3 is je we no gi.

The first sentence has the full name and the order is new in every biography (`permute`). Words have 2, 4 or 6 letters,
two for each digit to base 100 of the word's number 0..T-1 (`spell`). Where T^L ≥ 2^62, strings differ in the first
words, as many as T^l < 2^62 allows, and the other words are drawn independently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ...kernels.arrays import U8, U16, U64
from ...kernels.copying import copy32
from ...kernels.jit import kernel
from ...kernels.permutation import permute as permute_once
from ...kernels.permutation import permuted, round_keys, round_keys_of, sides
from ...kernels.rng import below, stream
from ...kernels.rng import words as words_of
from ..task import BrokenLaw
from .kernels import People, TextRows, piece_place, piece_size
from .params import CapoParams
from .people import PRONOUNS, load_pools, people_key

#: Streams of the strings' key: person p's picks are stream p, the words that no permutation decides those of
#: REST_STREAM + k·D + j for string j of attribute k, and attribute k has the round keys of STRING_STREAM + k.
REST_STREAM, STRING_STREAM = 1 << 60, 1 << 61
_REST, _STRING = np.uint64(REST_STREAM), np.uint64(STRING_STREAM)
_16 = np.uint64(16)
#: Two letters for each digit to base 100.
SYLLABLES = [c + v for c in "bcdfghjklmnpqrstvwyz" for v in "aeiou"]
_MAX_CODE = 1 << 62
POSSESSIVES = {"he": "His", "she": "Her", "they": "Their"}


def spell(word: int, width: int) -> str:
    """Word number `word` in `width` letters (2, 4 or 6).

    >>> spell(7, 2), spell(4_207, 4)
    ('ci', 'lici')
    """
    return "".join(SYLLABLES[word // 100**i % 100] for i in reversed(range(width // 2)))


def string_key(p: CapoParams, version: int, seed: int) -> U64:
    """The key of bioD's strings and of who has which."""
    sizes = {"K": p.K, "C": p.C, "D": p.D, "L": p.L, "T": p.T}
    return people_key(version, seed, p.num_people, p.they, load_pools(), **sizes)


class BioD(NamedTuple):
    """The law of bioD for one choice of K, C, D, L, T, and the tables of its kernel.

    Attributes:
        width: letters of a word.
        free: words of a string that the permutation decides; `codes` = T^free.
        sides: [2], of the permutation's network.
        words: [8·T + 64], eight bytes a word: its letters and a space.
        data: [bytes], every piece, with room for a wide copy behind the last.
        heads: [4, K] pieces of `data`: "His ID 1 is " …, and in the last row "'s ID 1 is ".
    """

    K: int
    C: int
    D: int
    L: int
    T: int
    width: int
    free: int
    codes: int
    sides: U64
    words: U8
    data: U8
    heads: U64

    def room(self, rows: int) -> int:
        """Bytes that `rows` texts surely fit into."""
        return rows * self.K * (128 + self.C * self.L * (self.width + 1)) + 128

    def string(self, key: U64, k: int, j: int) -> list[int]:
        """String j of attribute k (both from 0) as numbers of words, in plain Python; `key` is `string_key`'s."""
        code = permuted(j, self.codes, round_keys_of(key, STRING_STREAM + k))
        first = [code // self.T**i % self.T for i in reversed(range(self.free))]
        if self.free == self.L:
            return first
        return first + _drawn(key, REST_STREAM + k * self.D + j, self.T, self.L - self.free)

    def picks(self, key: U64, p: int) -> list[int]:
        """Person p's strings: C numbers of each attribute in turn; `key` is `string_key`'s."""
        return _drawn(key, p, self.D, self.K * self.C)


def biod_of(p: CapoParams) -> BioD:
    """The law for these parameters."""
    return make_biod(p.K, p.C, p.D, p.L, p.T)


@cache
def make_biod(K: int, C: int, D: int, L: int, T: int) -> BioD:
    """The law for these sizes."""
    width = 2 if T <= 100 else 4 if T <= 10_000 else 6
    free = next(n for n in range(L, 0, -1) if T**n < _MAX_CODE)
    words = b"".join(f"{spell(word, width)} ".ljust(8).encode() for word in range(T))
    data, heads = bytearray(), []
    for subject in (*(POSSESSIVES[p] for p in PRONOUNS), "'s"):
        for k in range(1, K + 1):
            raw = f"{subject} ID {k} is ".encode()
            heads.append(len(data) | len(raw) << 32)
            data.extend(raw)
    return BioD(
        K, C, D, L, T, width, free, T**free,
        np.array(sides(T**free), np.uint64),
        np.frombuffer(words + bytes(64), np.uint8),
        np.frombuffer(bytes(data) + bytes(64), np.uint8),
        np.array(heads, np.uint64).reshape(4, K),
    )  # fmt: skip


def _drawn(key: U64, index: int, n: int, count: int) -> list[int]:
    """`count` numbers below n, one after another, from stream `index` (docs/randomness.md, "Numbers")."""
    out: list[int] = []
    at, some = 0, words_of(key, np.uint64(index), 2 * count + 64)
    while len(out) < count:
        x = int(some[at])
        at += 1
        if x * n % 2**64 >= 2**64 % n:
            out.append(x * n >> 64)
    return out


@kernel
def write_biod(
    key: U64, people: People, fresh: U16, permute: bool, fullname: bool, data: U8, law: BioD, out: TextRows, picks: U16
) -> None:
    """A text of bioD about each person.

    Args:
        key: [6], the last two the key of the strings; fresh: [rows], as for `write_biographies`.
        data: [bytes], that of `TextTables`, for the names.
        out: spans are [rows, 2 + 2K], in bytes; picks: out, [rows, K·C].
    """
    person, pronoun, _birth, pieces = people
    text, offsets, spans = out
    K, C, L, free, width = law.K, law.C, law.L, law.free, law.width
    own, heads, words = law.data, law.heads, law.words
    D, T, codes, a, b = np.uint64(law.D), np.uint64(law.T), np.uint64(law.codes), law.sides[0], law.sides[1]
    strings = key[4:6]
    keys = np.empty((K, 6), np.uint64)
    for k in range(K):
        keys[k, 0], keys[k, 1], keys[k, 2], keys[k, 3], keys[k, 4], keys[k, 5] = round_keys(
            strings, _STRING + np.uint64(k)
        )
    top = codes // T
    order = np.empty(K, np.int64)
    at: Any = np.int64(0)
    offsets[0] = 0
    for r in range(person.size):
        p = np.uint64(person[r])
        s = stream(strings, p)
        for i in range(K * C):
            s, pick = below(s, D)
            picks[r, i] = pick
        for k in range(K):
            order[k] = k
        if permute:
            s = stream(key, (p << _16) | np.uint64(fresh[r]))
            for left in range(K, 0, -1):
                s, x = below(s, np.uint64(left))
                drawn = np.int64(x)
                order[left - 1], order[drawn] = order[drawn], order[left - 1]
        begin = at
        for i in range(K):
            k = order[i]
            head = heads[pronoun[r], k]
            if i == 0 or fullname:
                head = heads[3, k]
                for part in range(3):
                    piece = pieces[r, part]
                    copy32(text, at, data, piece_place(piece))
                    at += piece_size(piece)
                if i == 0:
                    spans[r, 0] = 0
                    spans[r, 1] = at - begin
            copy32(text, at, own, piece_place(head))
            at += piece_size(head)
            spans[r, 2 + 2 * k] = at - begin
            for c in range(C):
                j = np.uint64(picks[r, k * C + c])
                six = (keys[k, 0], keys[k, 1], keys[k, 2], keys[k, 3], keys[k, 4], keys[k, 5])
                code = permute_once(j, codes, a, b, six)
                power = top
                for _ in range(free):
                    word = code // power
                    code -= word * power
                    power //= T
                    copy32(text, at, words, np.int64(word) * 8)
                    at += width + 1
                if free < L:
                    s = stream(strings, _REST + np.uint64(k) * D + j)
                    for _ in range(L - free):
                        s, word = below(s, T)
                        copy32(text, at, words, np.int64(word) * 8)
                        at += width + 1
            spans[r, 3 + 2 * k] = at - 1 - begin
            text[at - 1] = 46  # a period in place of the space
            text[at] = 32
            at += 1
        at -= 1
        offsets[r + 1] = at


def check_biod(p: CapoParams, version: int, example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless the row is a text of bioD; with a `seed`, unless its strings are those of that seed."""
    law = biod_of(p)
    name = f"{example['first_name']} {example['middle_name']} {example['last_name']}"
    picks, text = list(example["picks"]), example["text"]
    if len(picks) != p.K * p.C or not all(0 <= pick < p.D for pick in picks):
        raise BrokenLaw(f"picks are {picks}; legal: {p.K * p.C} numbers of 0..{p.D - 1}")
    number = {spell(word, law.width): word for word in range(p.T)}
    key = string_key(p, version, example["seed"]) if "seed" in example else None
    spans, order, at = {-1: (0, len(name))}, [], 0
    for i, said in enumerate(text.split(". ")):
        end = "" if i + 1 < p.K else "."
        subject = f"{name}'s" if i == 0 or p.fullname else POSSESSIVES[example["pronoun"]]
        found = re.fullmatch(rf"{re.escape(subject)} ID ([1-9]\d?) is ([a-z ]+){re.escape(end)}", said)
        if found is None:
            raise BrokenLaw(f"sentence {i + 1} is no statement of bioD about {subject}: {said!r}")
        k = int(found[1]) - 1
        if k >= p.K or k in spans:
            raise BrokenLaw(f"sentence {i + 1} is about ID {k + 1}; legal: each of 1..{p.K} once")
        words = [number.get(word, -1) for word in found[2].split(" ")]
        if len(words) != p.C * p.L or min(words) < 0:
            raise BrokenLaw(f"ID {k + 1} is {found[2]!r}; legal: {p.C * p.L} of the {p.T} words")
        strings = [tuple(words[c * p.L : (c + 1) * p.L]) for c in range(p.C)]
        mine = picks[k * p.C : (k + 1) * p.C]
        if len(set(zip(strings, mine, strict=True))) != len(set(strings)) or len(set(strings)) != len(set(mine)):
            raise BrokenLaw(f"ID {k + 1}: the strings {strings} cannot be those that picks {mine} name")
        if key is not None:
            for pick, string in zip(mine, strings, strict=True):
                if list(string) != law.string(key, k, pick):
                    raise BrokenLaw(f"ID {k + 1}: string {pick} of this seed is not {string}")
            if mine != law.picks(key, example["person_id"])[k * p.C : (k + 1) * p.C]:
                raise BrokenLaw(f"ID {k + 1}: person {example['person_id']} has other picks than {mine}")
        spans[k] = (at + found.start(2), at + found.end(2))
        order.append(k)
        at += len(said) + 2
    if len(order) != p.K:
        raise BrokenLaw(f"{len(order)} sentences; legal: {p.K}")
    if not p.permute and order != sorted(order):
        raise BrokenLaw(f"the order of sentences is {[k + 1 for k in order]}")
    right = [edge for k in range(-1, p.K) for edge in spans[k]]
    if list(example["spans"]) != right:
        raise BrokenLaw(f"spans are {list(example['spans'])}, not {right}")
