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
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...kernels.copying import copy32
from ...kernels.jit import kernel
from ...kernels.permutation import permute as permute_once
from ...kernels.permutation import permuted, round_keys, round_keys_of, sides
from ...kernels.rng import below, stream
from ...kernels.rng import words as words_of
from ..task import BrokenLaw
from .people import PRONOUNS, load_pools, world_key

if TYPE_CHECKING:
    from .task import CapoTask

#: Streams of the strings' key: person p's picks are stream p, the words that no permutation decides those of
#: REST_STREAM + k·D + j for string j of attribute k, and attribute k has the round keys of STRING_STREAM + k.
REST_STREAM, STRING_STREAM = 1 << 60, 1 << 61
_REST, _STRING = np.uint64(REST_STREAM), np.uint64(STRING_STREAM)
_16, _32, _LOW = np.uint64(16), np.uint64(32), np.uint64(0xFFFFFFFF)
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


def string_world(task: CapoTask, seed: int) -> np.ndarray:
    """The key of bioD's strings and of who has which."""
    p = task.params
    sizes = {"K": p.K, "C": p.C, "D": p.D, "L": p.L, "T": p.T}
    return world_key(task.version, seed, p.num_people, p.they, load_pools(), **sizes)


@dataclass(frozen=True)
class BioD:
    """The law of bioD for one choice of K, C, D, L, T, and the tables of its kernel.

    Attributes:
        width: letters of a word.
        free: words of a string that the permutation decides; `codes` = T^free.
        words: uint8, eight bytes a word: its letters and a space.
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
    words: np.ndarray
    data: np.ndarray
    heads: np.ndarray

    def room(self, rows: int) -> int:
        """Bytes that `rows` texts surely fit into."""
        return rows * self.K * (128 + self.C * self.L * (self.width + 1)) + 128

    def write(
        self, key: np.ndarray, person: np.ndarray, fresh: np.ndarray, permute: bool, fullname: bool, pieces: np.ndarray,
        pronoun: np.ndarray, data: np.ndarray, text: np.ndarray, offsets: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Write texts and offsets; return spans int32 [rows, 2 + 2K] (in bytes) and picks uint16 [rows, K·C]."""
        spans = np.empty((len(person), 2 + 2 * self.K), np.int32)
        picks = np.empty((len(person), self.K * self.C), np.uint16)
        law = tuple(np.uint64(n) for n in (self.D, self.T, self.codes, *sides(self.codes)))
        _write(
            key, key[4:6], person, fresh, permute, fullname, pieces, pronoun, data, self.data, self.heads, self.words,
            law, self.K, self.C, self.L, self.free, self.width, text, offsets, spans, picks,
        )  # fmt: skip
        return spans, picks

    def string(self, key: np.ndarray, k: int, j: int) -> list[int]:
        """String j of attribute k (both from 0) as numbers of words, in plain Python; `key` is `string_world`'s."""
        code = permuted(j, self.codes, round_keys_of(key, STRING_STREAM + k))
        first = [code // self.T**i % self.T for i in reversed(range(self.free))]
        if self.free == self.L:
            return first
        return first + _drawn(key, REST_STREAM + k * self.D + j, self.T, self.L - self.free)

    def picks(self, key: np.ndarray, p: int) -> list[int]:
        """Person p's strings: C numbers of each attribute in turn; `key` is `string_world`'s."""
        return _drawn(key, p, self.D, self.K * self.C)


@cache
def make_biod(K: int, C: int, D: int, L: int, T: int) -> BioD:
    """The law for these parameters."""
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
        np.frombuffer(words + bytes(64), np.uint8),
        np.frombuffer(bytes(data) + bytes(64), np.uint8),
        np.array(heads, np.uint64).reshape(4, K),
    )  # fmt: skip


def _drawn(key: np.ndarray, index: int, n: int, count: int) -> list[int]:
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
def _write(
    key: Any, strings: Any, person: Any, fresh: Any, permute: Any, fullname: Any, pieces: Any, pronoun: Any, data: Any,
    own: Any, heads: Any, words: Any, law: Any, K: Any, C: Any, L: Any, free: Any, width: Any,
    text: Any, offsets: Any, spans: Any, picks: Any,
) -> None:  # fmt: skip
    D, T, codes, a, b = law
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
                    copy32(text, at, data, np.int64(piece & _LOW))
                    at += np.int64(piece >> _32)
                if i == 0:
                    spans[r, 0] = 0
                    spans[r, 1] = at - begin
            copy32(text, at, own, np.int64(head & _LOW))
            at += np.int64(head >> _32)
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


def check_biod(task: CapoTask, example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless the row is a text of bioD; with a `seed`, unless its strings are that world's."""
    p, law = task.params, make_biod(*(getattr(task.params, name) for name in "KCDLT"))
    name = f"{example['first_name']} {example['middle_name']} {example['last_name']}"
    picks, text = list(example["picks"]), example["text"]
    if len(picks) != p.K * p.C or not all(0 <= pick < p.D for pick in picks):
        raise BrokenLaw(f"picks are {picks}; legal: {p.K * p.C} numbers of 0..{p.D - 1}")
    number = {spell(word, law.width): word for word in range(p.T)}
    key = string_world(task, example["seed"]) if "seed" in example else None
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
                    raise BrokenLaw(f"ID {k + 1}: string {pick} of this world is not {string}")
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
