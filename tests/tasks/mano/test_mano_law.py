"""Mano's rows have the law that the docstring states, and each test of it can fail.

Every statistic takes rows, or what was read off them, and returns a p-value. It is used twice: on the package's rows it
must not be below ALPHA, on rows of a law that is wrong in one way (a mutant of reference_mano.py) it must. Seeds are
fixed; each use on true rows raises a false alarm with probability ALPHA, the 30 together with less than 1e-4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import gcd
from typing import Any

import law_statistics as law
import numpy as np
import pytest
import reference
from reference import numbers
from reference_mano import Mano, Shape

from synthshards import ManoTask, make_task
from synthshards.ragged import RaggedBatch
from synthshards.tasks.task import Task

pytestmark = pytest.mark.slow

ALPHA = 1e-6


@lru_cache(maxsize=4)
def batch(task: Task, rows: int) -> RaggedBatch:
    return task.batch(0, "train", 0, rows)


def lists(task: Task, rows: int) -> list[list[int]]:
    """Ids of the package's rows."""
    return batch(task, rows).columns["input_ids"].tolist()


def wrong(mutant: type[Mano], task: Task, rows: int) -> list[list[int]]:
    """Ids of rows of a wrong law."""
    return [row["input_ids"] for row in mutant(task.params.canonical()).rows(0, "train", range(rows))]


# Every expression of few operations, against an enumeration in fractions -------------------------------------------


def value_of(expression: Sequence[Any], p: int) -> int | None:
    """The value of a nested expression (a number, or (letter, left, right)); None where it divides by no unit."""
    if isinstance(expression, int):
        return expression
    letter, left, right = expression
    a, b = value_of(left, p), value_of(right, p)
    if a is None or b is None or (letter == "d" and gcd(b, p) > 1):
        return None
    return {"a": a + b, "s": a - b, "m": a * b, "d": a * pow(b, -1, p) if letter == "d" else 0}[letter] % p


def tokens_of(expression: Sequence[Any]) -> tuple[int, ...]:
    if isinstance(expression, int):
        return (5000 + expression,)
    letter, left, right = expression
    return ("asmd".index(letter) + 1, *tokens_of(left), *tokens_of(right))


@lru_cache
def draws(length: int, p: int, ttype: str) -> dict[Any, Fraction]:
    """Every nested expression of so many operations → the probability that it is drawn (accepted or not)."""
    if length == 0:
        return {value: Fraction(1, p) for value in range(p)}
    found: dict[Any, Fraction] = {}
    for left in range(length):
        sides = product(draws(left, p, ttype).items(), draws(length - 1 - left, p, ttype).items())
        for (a, share), (b, other) in sides:
            for letter in ttype:
                found[letter, a, b] = share * other / length / len(ttype)
    return found


@lru_cache
def rows_law(L: int, p: int, ttype: str) -> dict[tuple[int, ...], float]:
    """Every row of 1..L operations, no synonyms, and its probability."""
    found: dict[tuple[int, ...], Fraction] = {}
    for length in range(1, L + 1):
        accepted = {e: share for e, share in draws(length, p, ttype).items() if value_of(e, p) is not None}
        total = sum(accepted.values())
        for e, share in accepted.items():
            row = (9999, 10 * length, *tokens_of(e), 10 * length + 4, 5000 + (value_of(e, p) or 0))
            found[row] = share / total / L
    assert sum(found.values()) == 1
    return {row: float(share) for row, share in found.items()}


def every_row(rows: list[list[int]], L: int, p: int, ttype: str) -> float:
    exact, seen = rows_law(L, p, ttype), Counter(map(tuple, rows))
    if set(seen) - set(exact):
        return 0.0
    return law.chi_square(np.array([seen[row] for row in exact]), np.array(list(exact.values())))


TINY = {
    "asm mod 3": ManoTask(L=2, value_mod=3, knowledge_augment=False),
    "asmd mod 3": ManoTask(L=2, value_mod=3, ttype="asmd", knowledge_augment=False),
    "md mod 4": ManoTask(L=2, value_mod=4, ttype="md", knowledge_augment=False),
    "shapes of three": ManoTask(L=3, value_mod=2, ttype="sd", knowledge_augment=False),
    "shapes of four": ManoTask(L=4, value_mod=2, ttype="a", knowledge_augment=False),
}


@pytest.mark.parametrize("name", TINY)
def test_every_row_of_few_operations(name: str) -> None:
    task = TINY[name]
    assert every_row(lists(task, 200_000), task.params.L, task.params.value_mod, task.params.ttype) > ALPHA


def test_the_enumeration_is_the_law_by_hand() -> None:
    exact = rows_law(2, 3, "asm")
    assert len(exact) == 27 + 2 * 9 * 27
    # 1 × 2 = 2, and 2 − (1 + 1) = 0: of two operations, each shape has probability ½.
    assert exact[9999, 10, 3, 5001, 5002, 14, 5002] == pytest.approx(1 / 2 / 27)
    assert exact[9999, 20, 2, 5002, 1, 5001, 5001, 24, 5000] == pytest.approx(1 / 2 / 2 / 9 / 27)
    assert len(rows_law(1, 4, "md")) == 16 + 8


class EvenShapes(Mano):
    """All trees equally likely: 14 of four operations, where the law weighs them."""

    def shape(self, source: Iterator[int], m: int) -> Shape:
        ways = [1]
        for n in range(1, m + 1):
            ways.append(sum(ways[left] * ways[n - 1 - left] for left in range(n)))
        if m == 0:
            return None
        r, left = numbers(source, ways[m])[0], 0
        while r >= ways[left] * ways[m - 1 - left]:
            r, left = r - ways[left] * ways[m - 1 - left], left + 1
        first = self.shape(source, left)
        return first, self.shape(source, m - 1 - left)


class LeftLeaning(Mano):
    """The left side has as many operations as two draws' larger."""

    def shape(self, source: Iterator[int], m: int) -> Shape:
        if m == 0:
            return None
        left = max(numbers(source, m)[0], numbers(source, m)[0])
        first = self.shape(source, left)
        return first, self.shape(source, m - 1 - left)


class SharedShapes(Mano):
    """Both sides of a small expression take their shapes from the same number."""

    def small_shape(self, m: int, r: int) -> Shape:
        if m == 0:
            return None
        left, rest = r * m // max(1, _factorial(m)), r
        k = m - 1 - left
        return self.small_shape(left, rest % _factorial(left)), self.small_shape(k, rest % _factorial(k))


def _factorial(n: int) -> int:
    return n * _factorial(n - 1) if n else 1


class ModuloValues(Mano):
    """Values are a random number of three bits modulo p."""

    def values(self, source: Iterator[int], count: int) -> list[int]:
        return [numbers(source, 8)[0] % self.params["value_mod"] for _ in range(count)]


class FewMinuses(Mano):
    def operators(self, source: Iterator[int], length: int) -> list[tuple[str, int]]:
        letters = self.params["ttype"]
        return [(letters[numbers(source, 4)[0] % len(letters)], 0) for _ in range(length)]


class NewLength(Mano):
    """An expression that divides by zero is drawn again at another ℓ."""

    def row(self, key: tuple[int, int], i: int) -> dict[str, Any]:
        source_index = i
        while True:
            row = self._once(key, source_index)
            if row is not None:
                return row
            source_index += 1_000_000

    def _once(self, key: tuple[int, int], i: int) -> dict[str, Any] | None:
        source = reference.words(reference.start(key, i))
        length, bos, first, second = self.header(source)
        operators, values = self.operators(source, length), self.values(source, length + 1)
        try:
            tokens, answer = self.work_out(self.shape(source, length), iter(operators), iter(values))
        except ZeroDivisionError:
            return None
        ids = [9999 - bos, 10 * length + first, *tokens, 10 * length + 4 + second, 5000 + answer]
        return {"input_ids": ids, "loss_mask": [True] * len(ids), "length": length, "answer": answer}


class MinusTurnedRound(Mano):
    def work_out(
        self, shape: Shape, operators: Iterator[tuple[str, int]], values: Iterator[int]
    ) -> tuple[list[int], int]:
        tokens, value = super().work_out(shape, operators, values)
        return tokens, -value % self.params["value_mod"] if tokens[0] == 2 else value


@pytest.mark.parametrize(
    ("mutant", "name", "rows"),
    [
        (EvenShapes, "shapes of three", 6000),
        (LeftLeaning, "asm mod 3", 2000),
        (ModuloValues, "asm mod 3", 3000),
        (FewMinuses, "asm mod 3", 2000),
        (NewLength, "shapes of three", 6000),
        (MinusTurnedRound, "asm mod 3", 500),
    ],
)
def test_every_row_can_fail(mutant: type[Mano], name: str, rows: int) -> None:
    task = TINY[name]
    made = wrong(mutant, task, rows)
    assert every_row(made, task.params.L, task.params.value_mod, task.params.ttype) < ALPHA


# Splits of long expressions ----------------------------------------------------------------------------------------


def splits(rows: list[list[int]]) -> dict[int, np.ndarray]:
    """m → how often an expression of m operations, anywhere in a row, has 0..m − 1 of them on its left side."""
    counts: dict[int, np.ndarray] = {}
    for ids in rows:
        stack: list[int] = []
        for token in reversed(ids[2:-2]):
            if token >= 5000:
                stack.append(0)
                continue
            left, right = stack.pop(), stack.pop()
            m = 1 + left + right
            counts.setdefault(m, np.zeros(m, int))[left] += 1
            stack.append(m)
    return counts


def split_law(rows: list[list[int]], m: int) -> float:
    """The left side of an expression of m operations has 0..m − 1 of them, equally likely."""
    return law.chi_square(splits(rows)[m])


LONG = ManoTask(L=16, qa=True)


def test_splits() -> None:
    # 2 to 7 come out of the table (7 below larger ones, too), 8 to 16 are drawn one by one.
    counts = splits(lists(LONG, 30_000))
    assert set(counts) == set(range(1, 17))
    for m in range(2, 17):
        assert law.chi_square(counts[m]) > ALPHA, m
    assert law.chi_square(splits(lists(ManoTask(L=7, qa=True), 30_000))[7]) > ALPHA


def depths(rows: list[list[int]]) -> np.ndarray:
    """The height of each expression's tree."""
    out = []
    for ids in rows:
        stack: list[int] = []
        for token in reversed(ids[2:-2]):
            stack.append(0 if token >= 5000 else 1 + max(stack.pop(), stack.pop()))
        out.append(stack[0])
    return np.array(out)


def exact_depths(length: int) -> np.ndarray:
    """Shares of the heights 0..length: P(height ≤ h) by the law's own recursion."""
    below = np.zeros((length + 1, length + 1))  # operations, height
    below[0] = 1
    for m in range(1, length + 1):
        for h in range(1, length + 1):
            below[m, h] = np.mean([below[left, h - 1] * below[m - 1 - left, h - 1] for left in range(m)])
    return np.diff(below[length], prepend=0)


@pytest.mark.parametrize("length", [7, 10, 16])
def test_both_sides_are_drawn_apart(length: int) -> None:
    rows = lists(ManoTask(L=length, qa=True), 30_000)
    assert law.chi_square(np.bincount(depths(rows), minlength=length + 1), exact_depths(length)) > ALPHA


@pytest.mark.parametrize(("mutant", "m"), [(EvenShapes, 16), (LeftLeaning, 16)])
def test_splits_can_fail(mutant: type[Mano], m: int) -> None:
    assert split_law(wrong(mutant, LONG, 600), m) < ALPHA


def test_both_sides_are_drawn_apart_can_fail() -> None:
    rows = wrong(SharedShapes, ManoTask(L=7, qa=True), 3000)
    assert split_law(rows, 7) > ALPHA  # the split alone does not tell
    assert law.chi_square(np.bincount(depths(rows), minlength=8), exact_depths(7)) < ALPHA


# Header, operators, values, each at its place ----------------------------------------------------------------------


def header(rows: Sequence[Sequence[int]], L: int) -> float:
    """ℓ uniform in 1..L, three synonyms with probability ½ each, all independent."""
    cells = [((ids[1] // 10 - 1) * 2 + (ids[0] == 9998)) * 4 + ids[1] % 2 * 2 + (ids[-2] % 10 - 4) for ids in rows]
    return law.chi_square(np.bincount(cells, minlength=8 * L))


def test_header() -> None:
    for task in (make_task("mano-16"), ManoTask(L=5, ttype="asmd")):
        assert header(lists(task, 60_000), task.params.L) > ALPHA


class CoupledMarks(Mano):
    """Both marks are synonyms, or neither."""

    def header(self, source: Iterator[int]) -> tuple[int, int, int, int]:
        length, bos, first, _ = super().header(source)
        return length, bos, first, first


class UnevenLengths(Mano):
    def header(self, source: Iterator[int]) -> tuple[int, int, int, int]:
        length, *rest = super().header(source)
        return (length - 1 if length > 1 and numbers(source, 3)[0] == 0 else length, *rest)  # type: ignore[return-value]


@pytest.mark.parametrize("mutant", [CoupledMarks, UnevenLengths])
def test_header_can_fail(mutant: type[Mano]) -> None:
    task = ManoTask(L=5)
    assert header(wrong(mutant, task, 4000), 5) < ALPHA


def by_place(rows: list[list[int]], length: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one ℓ: tokens of the operators in order (int64 [rows, ℓ]), and the values ([rows, ℓ + 1])."""
    body = np.array([ids[2:-2] for ids in rows])
    assert ((body >= 5000).sum(1) == length + 1).all()
    return body[body < 5000].reshape(len(body), length), body[body >= 5000].reshape(len(body), length + 1) - 5000


def operators(rows: list[list[int]], length: int, letters: int) -> float:
    """At each place, operator and synonym are uniform; neighbours are independent."""
    ops, _ = by_place(rows, length, 23)
    code = (ops - 1) % 4 * 2 + (ops > 4)
    places = np.array([np.bincount(column, minlength=2 * letters) for column in code.T])
    pairs = np.bincount((code[:, :-1] * 2 * letters + code[:, 1:]).ravel(), minlength=(2 * letters) ** 2)
    return min(law.chi_square(places), law.chi_square(pairs))


def values(rows: list[list[int]], length: int, p: int) -> float:
    """At each place values are uniform; those next to one another are independent."""
    _, found = by_place(rows, length, p)
    places = np.array([np.bincount(column, minlength=p) for column in found.T])
    pairs = np.bincount((found[:, :-1] * p + found[:, 1:]).ravel(), minlength=p * p)
    return min(law.chi_square(places), law.chi_square(pairs))


def test_operators_and_values() -> None:
    made = lists(LONG, 30_000)
    assert operators(made, 16, 3) > ALPHA / 2
    assert values(made, 16, 23) > ALPHA / 2


class NoSynonymsAtTheStart(Mano):
    def operators(self, source: Iterator[int], length: int) -> list[tuple[str, int]]:
        first, *rest = super().operators(source, length)
        return [(first[0], 0), *rest]


class RepeatedOperators(Mano):
    """A word's own high part is used for every second operator."""

    def operators(self, source: Iterator[int], length: int) -> list[tuple[str, int]]:
        return [o for o in super().operators(source, length) for _ in range(2)][:length]


class RepeatedValues(Mano):
    """The second word of values is the first once more."""

    def values(self, source: Iterator[int], count: int) -> list[int]:
        return (super().values(source, 11) * 2)[:count]


def test_operators_and_values_can_fail() -> None:
    for mutant in (NoSynonymsAtTheStart, RepeatedOperators):
        assert operators(wrong(mutant, LONG, 1000), 16, 3) < ALPHA
    assert values(wrong(ModuloValues, LONG, 1000), 16, 23) < ALPHA


def test_words_of_values_are_drawn_apart() -> None:
    # Eleven values share a word: the first and the twelfth do not.
    def apart(rows: list[list[int]]) -> float:
        _, found = by_place(rows, 16, 23)
        return law.independent(found[:, 0], found[:, 11])

    assert apart(lists(LONG, 30_000)) > ALPHA
    assert apart(wrong(RepeatedValues, LONG, 1000)) < ALPHA


# Answers -----------------------------------------------------------------------------------------------------------


@lru_cache
def answers(L: int, p: int, ttype: str) -> tuple[np.ndarray, ...]:
    """The exact law of the answer for ℓ = 1..L, each given that the draw is accepted (p × p sums, in floats)."""
    table = np.full((len(ttype), p, p), -1)
    for o, letter in enumerate(ttype):
        for a, b in product(range(p), range(p)):
            value = value_of((letter, a, b), p)
            table[o, a, b] = -1 if value is None else value
    shares = [np.full(p, 1 / p)]
    for length in range(1, L + 1):
        pairs = sum(np.outer(shares[left], shares[length - 1 - left]) for left in range(length))
        weights = np.broadcast_to(pairs / length / len(ttype), table.shape)[table >= 0]
        shares.append(np.bincount(table[table >= 0], weights, minlength=p))
    return tuple(share / share.sum() for share in shares[1:])


def test_the_chance_level_of_the_facts() -> None:
    for L, at_L, mix in ((10, 7.03, 6.62), (13, 7.13, 6.73), (16, 7.21, 6.82)):
        exact = answers(L, 23, "asm")
        assert (round(exact[-1][0] * 100, 2), round(np.mean(exact, 0)[0] * 100, 2)) == (at_L, mix)
        assert exact[-1].argmax() == 0


def answer_law(made: np.ndarray, exact: np.ndarray) -> float:
    return law.chi_square(np.bincount(made, minlength=len(exact)), exact)


@pytest.mark.parametrize("L", [10, 13, 16])
def test_answers(L: int) -> None:
    exact = answers(L, 23, "asm")
    for qa, right in ((True, exact[-1]), (False, np.mean(exact, 0))):
        made = batch(ManoTask(L=L, qa=qa), 300_000).columns["answer"].values
        assert answer_law(made, right) > ALPHA
        zero = (made == 0).mean()
        assert abs(zero - right[0]) < 4.9 * (right[0] * (1 - right[0]) / len(made)) ** 0.5


@pytest.mark.parametrize(("p", "ttype", "L"), [(23, "asmd", 8), (12, "asmd", 4), (6, "d", 5), (2, "m", 6)])
def test_answers_under_other_options(p: int, ttype: str, L: int) -> None:
    made = batch(ManoTask(L=L, value_mod=p, ttype=ttype, qa=True), 200_000).columns["answer"].values
    assert answer_law(made, answers(L, p, ttype)[-1]) > ALPHA


class ZeroForNothing(Mano):
    """A division by what is no unit is 0, and the draw accepted."""

    def work_out(
        self, shape: Shape, operators: Iterator[tuple[str, int]], values: Iterator[int]
    ) -> tuple[list[int], int]:
        if shape is None:
            value = next(values)
            return [5000 + value], value
        letter, _ = next(operators)
        first, a = self.work_out(shape[0], operators, values)
        second, b = self.work_out(shape[1], operators, values)
        return [4, *first, *second], (value_of((letter, a, b), self.params["value_mod"]) or 0)


def test_answers_can_fail() -> None:
    made = [ids[-1] - 5000 for ids in wrong(ZeroForNothing, ManoTask(L=8, ttype="asmd", qa=True), 3000)]
    assert answer_law(np.array(made), answers(8, 23, "asmd")[-1]) < ALPHA
    assert answer_law(np.array([i % 23 for i in range(23_000)]), answers(10, 23, "asm")[-1]) < ALPHA
