"""Mano's rows in plain Python integers, written from docs/randomness.md alone.

Numbers come from reference.py; no line is the package's. A test that wants a wrong law overrides one method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import factorial, gcd
from typing import Any, TypeAlias

import reference
from reference import numbers

Shape: TypeAlias = "tuple[Shape, Shape] | None"  # two sides, or a value
OPERATORS = {"a": 1, "s": 2, "m": 3, "d": 4}


class Mano:
    """The law for one set of parameters (all of them, by name)."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)

    def header(self, source: Iterator[int]) -> tuple[int, int, int, int]:
        """randomness.md, "Length and marks": ℓ, and whether <bos>, <len> and <ans> are synonyms."""
        L, augment = self.params["L"], self.params["knowledge_augment"]
        drawn = [*numbers(source, L, *[2] * (3 * augment)), 0, 0, 0]
        return (L if self.params["qa"] else drawn[0] + 1), drawn[1], drawn[2], drawn[3]

    def operators(self, source: Iterator[int], length: int) -> list[tuple[str, int]]:
        """randomness.md, "Operators": letters, and whether each is a synonym."""
        letters, ways = self.params["ttype"], 1 + self.params["knowledge_augment"]
        out: list[tuple[str, int]] = []
        while len(out) < length:
            out += [(letters[o // ways], o % ways) for o in numbers(source, *[len(letters) * ways] * 16)]
        return out[:length]

    def values(self, source: Iterator[int], count: int) -> list[int]:
        """randomness.md, "Values"."""
        p, group, out = self.params["value_mod"], 1, []
        while p ** (group + 1) <= 2**52:
            group += 1
        while len(out) < count:
            out += numbers(source, *[p] * group)
        return out[:count]

    def shape(self, source: Iterator[int], m: int) -> Shape:
        """randomness.md, "Shape"."""
        if m > 7:
            left = numbers(source, m)[0]
            first = self.shape(source, left)
            return first, self.shape(source, m - 1 - left)
        return self.small_shape(m, numbers(source, factorial(m))[0])

    def small_shape(self, m: int, r: int) -> Shape:
        """randomness.md, "Shape": the shape of m ≤ 7 operations whose number is r."""
        if m == 0:
            return None
        left, rest = divmod(r, factorial(m - 1))
        k = m - 1 - left
        return self.small_shape(left, rest % factorial(left)), self.small_shape(
            k, rest // factorial(left) % factorial(k)
        )

    def work_out(
        self, shape: Shape, operators: Iterator[tuple[str, int]], values: Iterator[int]
    ) -> tuple[list[int], int]:
        """Tokens and value of an expression; raises ZeroDivisionError where it divides by what is no unit."""
        p = self.params["value_mod"]
        if shape is None:
            value = next(values)
            return [5000 + value], value
        letter, synonym = next(operators)
        first, a = self.work_out(shape[0], operators, values)
        second, b = self.work_out(shape[1], operators, values)
        if letter == "d":
            if gcd(b, p) > 1:
                raise ZeroDivisionError
            value = next(x for x in range(p) if x * b % p == a)
        else:
            value = {"a": a + b, "s": a - b, "m": a * b}[letter] % p
        return [OPERATORS[letter] + 4 * synonym, *first, *second], value

    def row(self, key: tuple[int, int], i: int) -> dict[str, Any]:
        """randomness.md, "Mano", "Tokens and facts of Mano": all columns but labels."""
        source = reference.words(reference.start(key, i))
        length, bos, first, second = self.header(source)
        while True:
            operators = self.operators(source, length)
            values = self.values(source, length + 1)
            shape = self.shape(source, length)
            try:
                tokens, answer = self.work_out(shape, iter(operators), iter(values))
            except ZeroDivisionError:  # "Once more"
                continue
            ids = [self.params["bos_token_id"] - bos, 10 * length + first, *tokens, 10 * length + 4 + second]
            ids.append(5000 + answer)
            return {"input_ids": ids, "loss_mask": [True] * len(ids), "length": length, "answer": answer}

    def rows(self, seed: int, split: str, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of some indices of one dataset."""
        key = reference.key_of(reference.identity_digest("mano", 1, self.params, seed, split))
        return [self.row(key, i) for i in indices]
