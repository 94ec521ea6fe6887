"""How Capo tells about people: templates, orders and questions have the law that is stated, and each test can fail.

Each statistic is used on the package's rows, where p must exceed ALPHA, and on rows that are wrong in one way.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest
from law_statistics import chi_square, independent

from synthshards.tasks.capo.biography import ATTRIBUTES, parts, templates
from synthshards.tasks.capo.people import PRONOUNS
from synthshards.tasks.capo.task import CapoTask

pytestmark = pytest.mark.slow

ALPHA = 1e-6
SIZES = [len(templates()[name]) for name in ATTRIBUTES]
ORDERS = {order: i for i, order in enumerate(permutations(range(6)))}


@cache
def numbers() -> dict[tuple[str, bool, str, str], int]:
    """(pronoun, named, before, after) → the template's number among its attribute's."""
    return {
        (pronoun, named, *parts(template, pronoun, named)): i
        for some in templates().values()
        for i, template in enumerate(some)
        for pronoun in PRONOUNS
        for named in (False, True)
    }


@cache
def told(rows: int = 40_000) -> dict[str, np.ndarray]:
    """Read off the rows of 1,000 people: person, exposure, order (0..719), and templates [rows, 6]."""
    task = CapoTask(num_people=1000, exposures=100)
    batch = task.batch(5, "train", 0, rows)
    order, used = np.empty(rows, np.int64), np.empty((rows, 6), np.int64)
    for r, row in enumerate(batch.rows()):
        starts, stops = row["spans"][2::2], row["spans"][3::2]
        sequence = tuple(sorted(range(6), key=starts.__getitem__))
        order[r] = ORDERS[sequence]
        at, text = 0, row["text"]
        for j, about in enumerate(sequence):
            end = text.index(".", stops[about]) + 1
            skip = row["spans"][1] if j == 0 else at
            before, after = text[skip : starts[about]], text[stops[about] : end]
            used[r, about] = numbers()[row["pronoun"], j == 0, before, after]
            at = end + 1
    return {
        "person": batch.columns["person_id"].values.astype(np.int64),
        "exposure": batch.columns["exposure_idx"].values.astype(np.int64),
        "order": order,
        "templates": used,
    }


def counts(values: np.ndarray, size: int) -> float:
    return chi_square(np.bincount(values, minlength=size)) if values.max() < size else 0.0


def repeats(values: np.ndarray, size: int, person: np.ndarray, exposure: np.ndarray) -> float:
    """Whether two exposures in a row of one person agree as often as chance has it: one in `size`."""
    by = np.lexsort((exposure, person))
    same_person = person[by][1:] == person[by][:-1]
    same = int((values[by][1:] == values[by][:-1])[same_person].sum())
    tries = int(same_person.sum())
    return chi_square(np.array([same, tries - same]), np.array([1 / size, 1 - 1 / size]))


def test_templates_are_equally_likely() -> None:
    for a, size in enumerate(SIZES):
        assert counts(told()["templates"][:, a], size) > ALPHA, ATTRIBUTES[a]


def test_orders_are_equally_likely() -> None:
    assert counts(told()["order"], 720) > ALPHA


def test_templates_and_orders_are_independent() -> None:
    columns = {**{ATTRIBUTES[a]: told()["templates"][:, a] for a in range(6)}, "order": told()["order"] % 60}
    columns |= {"exposure": told()["exposure"], "person": told()["person"] % 50}
    for a, b in combinations(columns, 2):
        assert independent(columns[a], columns[b]) > ALPHA, (a, b)


def test_exposures_in_a_row_are_independent() -> None:
    person, exposure = told()["person"], told()["exposure"]
    for a, size in enumerate(SIZES):
        assert repeats(told()["templates"][:, a], size, person, exposure) > ALPHA, ATTRIBUTES[a]
    assert repeats(told()["order"] // 20, 36, person, exposure) > ALPHA


def test_these_can_fail() -> None:
    rng = np.random.default_rng(0)
    some, person, exposure = told()["templates"][:, 0], told()["person"], told()["exposure"]
    assert counts(np.where(some == 45, 0, some), 46) < ALPHA  # the last template is never drawn
    assert counts(np.where(rng.random(len(some)) < 0.01, 7, some), 46) < ALPHA  # one is drawn in 1% more
    naive = np.tile(np.arange(6), (40_000, 1))  # a shuffle that exchanges each place with any other
    for i in range(6):
        j = rng.integers(0, 6, 40_000)
        every = np.arange(40_000)
        naive[every, i], naive[every, j] = naive[every, j].copy(), naive[every, i].copy()
    assert counts(np.array([ORDERS[tuple(row)] for row in naive.tolist()]), 720) < ALPHA
    assert independent(some, np.where(rng.random(len(some)) < 0.03, some, told()["templates"][:, 1])) < ALPHA
    of_person = (person * 7) % 46
    assert repeats(np.where(rng.random(len(some)) < 0.15, of_person, some), 46, person, exposure) < ALPHA


def test_question_orders() -> None:
    """Any of the 720 orders of questions is equally likely for a person in an exposure, and unlike its neighbours."""
    task = CapoTask(num_people=1000, exposures=12, form="qa")
    batch = task.batch(0, "train", 0, task.num_examples)
    asked = np.array([ATTRIBUTES.index(name) for name in batch.columns["question"].tolist()])
    person = batch.columns["person_id"].values.astype(np.int64)
    exposure = batch.columns["exposure_idx"].values.astype(np.int64)
    by = np.lexsort((np.arange(len(person)), exposure, person))
    six = asked[by].reshape(-1, 6)
    assert (np.sort(six, 1) == np.arange(6)).all()
    order = np.array([ORDERS[tuple(row)] for row in six.tolist()])
    assert counts(order, 720) > ALPHA
    assert repeats(order // 20, 36, np.repeat(np.arange(1000), 12), np.tile(np.arange(12), 1000)) > ALPHA
    always = np.where(np.random.default_rng(0).random(len(order)) < 0.1, 5, order)
    assert counts(always, 720) < ALPHA
