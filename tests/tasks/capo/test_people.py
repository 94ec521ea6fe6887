"""The people of Capo: pools, permutations, facts of (seed, number of people) alone, unique names, capacity."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from math import log, log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_statistics import chi_square, independent

from synthshards.errors import DataError, UsageError
from synthshards.kernels import permutation
from synthshards.kernels.jit import kernel
from synthshards.tasks.capo import capacity, people
from synthshards.tasks.capo.kernels import People, facts_of
from synthshards.tasks.capo.people import Pools, load_pools, people_key, person
from synthshards.tasks.capo.task import text_tables

POOLS = load_pools()
ALPHA = 1e-6


# Pools -------------------------------------------------------------------------------------------------------------


def test_pools_have_the_published_sizes() -> None:
    sizes = {name: len(values) for name, values in asdict(POOLS).items()}
    assert sizes == {
        "first_names": 400, "middle_names": 400, "last_names": 1000, "birth_cities": 200, "universities": 300,
        "majors": 100, "companies": 263, "work_cities": 263,
    }  # fmt: skip
    cities = Counter(POOLS.work_cities)
    assert len(cities) == 133
    assert cities.most_common(2) == [("New York, NY", 36), ("Chicago, IL", 16)]
    assert POOLS.names == 160_000_000


@pytest.mark.parametrize("name", [name for name in asdict(POOLS) if name != "work_cities"])
def test_no_value_is_another_or_part_of_another(name: str) -> None:
    values = getattr(POOLS, name)
    assert len(set(values)) == len(values)
    for value in values:
        assert value == value.strip()
        assert value.isascii()
        assert "." not in value  # a period ends a sentence
        assert "  " not in value
    if not name.endswith("_names"):
        assert [(a, b) for a in values for b in values if a != b and a in b] == []


def test_possessives_need_no_exception() -> None:
    """Templates write 's behind these; behind an s that would be open to question."""
    assert [v for v in POOLS.last_names + POOLS.universities + POOLS.companies if v.endswith("s")] == []


def test_first_middle_and_last_names_are_different_words() -> None:
    words = [*POOLS.first_names, *POOLS.middle_names, *POOLS.last_names]
    assert len(set(words)) == 1800
    assert not any(" " in word for word in words)


def test_a_changed_pool_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    people.pool_text.cache_clear()
    monkeypatch.setitem(people.POOL_SHA256, "majors", "0" * 64)
    with pytest.raises(DataError, match=r"^pools/majors.txt is damaged: sha256 [0-9a-f]{64}, not 0+; install the"):
        people.pool_text("majors")


# Permutations ------------------------------------------------------------------------------------------------------


@kernel
def _places(n: int, a: np.uint64, b: np.uint64, keys: tuple[np.uint64, ...], out: np.ndarray) -> None:
    for x in range(out.size):
        out[x] = permutation.permute(np.uint64(x), np.uint64(n), a, b, keys)


def places(n: int, keys: list[int], count: int | None = None) -> np.ndarray:
    out = np.empty(n if count is None else count, np.uint64)
    a, b = permutation.sides(n)
    _places(n, np.uint64(a), np.uint64(b), tuple(np.uint64(k) for k in keys), out)
    return out


def keys_of(i: int) -> list[int]:
    return permutation.round_keys_of(np.array([i, 5], np.uint64), 9)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), i=st.integers(0, 2**60))
def test_permutations_are_permutations(n: int, i: int) -> None:
    made = places(n, keys_of(i))
    assert np.array_equal(np.sort(made), np.arange(n))
    for x in {0, n // 2, n - 1}:
        assert permutation.permuted(x, n, keys_of(i)) == made[x]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1024, 160_000_000, 2**62 - 1, 40_000**4])
def test_kernel_and_plain_python_agree_on_any_size(n: int) -> None:
    a, b = permutation.sides(n)
    assert 0 <= a * b - n < a
    count = min(n, 50)
    assert places(n, keys_of(3), count).tolist() == [permutation.permuted(x, n, keys_of(3)) for x in range(count)]


def spread(rows: np.ndarray, n: int) -> list[float]:
    """p-values: where 0 goes; where 0 and 1 go together; how far apart; whether 0 tells of the last."""
    first, second, last = rows[:, 0].astype(int), rows[:, 1].astype(int), rows[:, -1].astype(int)
    pairs = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
    shares = (1 - np.eye(n)) / (n * (n - 1))
    return [
        chi_square(np.bincount(first, minlength=n)),
        chi_square(pairs[shares > 0], shares[shares > 0]),
        chi_square(np.bincount((second - first) % n, minlength=n)[1:]),
        chi_square(np.bincount((last - first) % n, minlength=n)[1:]),
    ]


@pytest.mark.parametrize("n", [11, 24, 50])
def test_permutations_of_many_keys_spread_evenly(n: int) -> None:
    rows = np.array([places(n, keys_of(i)) for i in range(20_000)])
    assert min(spread(rows, n)) > ALPHA


def test_spreading_can_fail() -> None:
    n = 24
    few_rounds = []
    for i in range(20_000):
        k0, k1, *_ = keys_of(i)
        a, b = permutation.sides(n)
        some = []
        for x in (0, 1, n - 1):
            u, v = divmod(x, b)
            u = (u + permutation._hash(k0, v, a)) % a
            some.append(u * b + (v + permutation._hash(k1, u, b)) % b)
        few_rounds.append(some)
    rows = np.array(few_rounds)
    rows = rows[(rows < n).all(1)]
    assert min(spread(rows, n)) < ALPHA
    rotations = np.array([(np.arange(n) + i) % n for i in range(20_000)])
    assert min(spread(rotations, n)) < ALPHA


# Facts -------------------------------------------------------------------------------------------------------------


def test_facts_depend_on_the_world_and_nothing_else() -> None:
    assert person(3, 1000, 7) == person(3, 1000, 7)
    others = [person(3, 1000, 8), person(4, 1000, 7), person(3, 1001, 7), person(3, 1000, 7, they=True)]
    others.append(person(3, 1000, 7, version=2))
    others.append(person(3, 1000, 7, pools=replace(POOLS, majors=("Alchemy", *POOLS.majors[1:]))))
    assert len({them.full_name for them in [person(3, 1000, 7), *others]}) == 7


def test_a_person_has_a_fixed_home_at_work() -> None:
    for p in range(50):
        them = person(0, 50, p)
        assert them.work_city == POOLS.work_cities[POOLS.companies.index(them.employer)]


@pytest.mark.parametrize("p", [-1, 50])
def test_people_who_do_not_exist(p: int) -> None:
    with pytest.raises(UsageError, match=f"^person {p}; legal: 0..49$"):
        person(0, 50, p)


def facts(seed: int, num_people: int, they: bool = False) -> dict[str, np.ndarray]:
    """Everybody, as numbers: pieces are replaced by where they lie, which no two values share."""
    tables, out = text_tables(False), {}
    key = people_key(1, seed, num_people, they, POOLS)
    everybody = People(
        np.arange(num_people, dtype=np.uint32), np.empty(num_people, np.uint8),
        np.empty((num_people, 3), np.uint16), np.zeros((num_people, 12), np.uint64),
    )  # fmt: skip
    facts_of(key, tables.lists, np.uint64(2 + they), everybody)
    _person, pronoun, birth, pieces = everybody
    out = {"pronoun": pronoun, "month": birth[:, 0], "day": birth[:, 1], "year": birth[:, 2]}
    names = ["first", "middle", "last", None, None, None, "birth_city", "university", "major", "employer", "work_city"]
    for i, name in enumerate(names):
        if name:
            out[name] = (pieces[:, i] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    return out


def numbered(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1]


@pytest.mark.slow
@pytest.mark.parametrize("num_people", [50_000, 2_000_000])
def test_full_names_are_unique(num_people: int) -> None:
    them = facts(0, num_people)
    code = (numbered(them["first"]) * 400 + numbered(them["middle"])) * 1000 + numbered(them["last"])
    assert len(np.unique(code)) == num_people
    assert len(np.unique(code[:50_000] // 1000)) > 40_000  # and they are no run of neighbours


SIZES = {
    "pronoun": 2, "month": 12, "day": 28, "year": 200, "first": 400, "middle": 400, "last": 1000,
    "birth_city": 200, "university": 300, "major": 100, "employer": 263,
}  # fmt: skip


def uniform(values: np.ndarray, size: int) -> float:
    """p-value of each of `size` values being equally likely (0 if there are others)."""
    counts = np.unique(values, return_counts=True)[1]
    return 0.0 if len(counts) > size else chi_square(np.append(counts, [0] * (size - len(counts))))


@pytest.mark.slow
def test_facts_are_uniform_and_independent() -> None:
    them = facts(1, 200_000)
    for name, size in SIZES.items():
        assert uniform(them[name], size) > ALPHA, name
    assert uniform(facts(2, 50_000, they=True)["pronoun"], 3) > ALPHA
    names = list(SIZES)
    small = {name: numbered(them[name]) % 12 for name in names}
    for i, a in enumerate(names):
        for b in names[:i]:
            assert independent(small[a], small[b]) > ALPHA, (a, b)
        assert independent(small[a][:-1], small[a][1:]) > ALPHA, a  # neighbours
        assert independent(small[a], np.arange(200_000) % 12) > ALPHA, a


def test_uniformity_can_fail() -> None:
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        if size > 2:
            assert uniform(rng.integers(0, size - -(-size // 100), 200_000), size) < ALPHA, name
        assert uniform(rng.integers(0, size + 1, 200_000), size) < ALPHA
    assert uniform(rng.integers(0, 101, 200_000) % 100, 100) < ALPHA  # one value in a hundred twice as often
    a = rng.integers(0, 12, 200_000)
    assert independent(a, np.where(rng.random(200_000) < 0.02, a, rng.integers(0, 12, 200_000))) < ALPHA


def test_the_kernel_knows_the_same_people() -> None:
    tables = text_tables(False)
    for they in (False, True):
        them = facts(11, 700, they)
        for p in (0, 1, 350, 699):
            said = person(11, 700, p, they=they)
            assert (them["month"][p] + 1, them["day"][p] + 1, them["year"][p] + 1900) == (
                said.birth_month, said.birth_day, said.birth_year,
            )  # fmt: skip
            for name, value in (
                ("first", said.first_name), ("middle", said.middle_name), ("last", said.last_name),
                ("birth_city", said.birth_city), ("university", said.university), ("major", said.major),
                ("employer", said.employer), ("work_city", said.work_city),
            ):  # fmt: skip
                at = int(them[name][p])
                assert bytes(tables.data[at : at + len(value)]).decode() == value, name


def test_draws_reject_what_would_be_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    biased, fair = 0, 1 << 63  # with range 3, word 0 is the one value too many
    monkeypatch.setattr(people, "words", lambda key, index, count: np.array([biased, fair][:count], np.uint64))
    assert people.draw(np.zeros(2, np.uint64), 0, 3) == [1]


def test_halves_are_a_permutation_of_everybody() -> None:
    key = people_key(1, 0, 101, False, POOLS)
    halves = [
        {people.person_of_rank(key, 101, rank) for rank in range(*people.half_of(101, half))}
        for half in ("train", "test")
    ]
    assert [len(half) for half in halves] == [51, 50]
    assert halves[0] | halves[1] == set(range(101))
    assert halves[0] != set(range(51))


def test_pools_enter_the_world_by_digest() -> None:
    assert POOLS.digest == Pools(**asdict(POOLS)).digest
    swapped = replace(POOLS, majors=POOLS.majors[::-1])
    assert swapped.digest != POOLS.digest


# Capacity ----------------------------------------------------------------------------------------------------------


def test_best_possible_bits_are_the_published_ones() -> None:
    sizes = {50_000: 2.96, 100_000: 5.82, 200_000: 11.45, 500_000: 27.96, 1_000_000: 54.91, 2_000_000: 107.83}
    for people_, millions in sizes.items():
        assert round(capacity.best_bits(people_) / 1e6, 2) == millions


def test_spaces() -> None:
    assert capacity.name_space() == 400 * 400 * 1000
    assert capacity.fact_space() == 2 * (12 * 28 * 200) * 200 * 300 * 100 * 263
    assert capacity.fact_space(they=True) * 2 == capacity.fact_space() * 3
    assert round(log2(capacity.fact_space()), 1) == 47.6


def test_bits_fall_with_the_losses() -> None:
    full = 1000 * (log2(1.6e8) + log2(capacity.fact_space()))
    assert capacity.bits(1000, 0, 0) == pytest.approx(full)
    assert capacity.bits(1000, log(2), 0) == pytest.approx(full - 1000)
    assert capacity.bits(1000, 0, log(8)) == pytest.approx(full - 3000)
    assert capacity.bits(1000, log(capacity.name_space()), log(capacity.fact_space())) == pytest.approx(0, abs=1e-6)
    assert capacity.bits(1000, 0, 0, they=True) == pytest.approx(full + 1000 * log2(1.5))
    assert capacity.per_parameter(capacity.bits(1000, 0, 0), 500) == pytest.approx(full / 500)


def test_biod_bits() -> None:
    names, values, strings = 100 * log2(1.6e8), 100 * 3 * 2 * log2(50), 3 * 50 * (4 * log2(20) - log2(50))
    assert capacity.biod_bits(100, 3, 2, 50, 4, 20, 0, 0, 0) == pytest.approx(names + values + strings)
    assert capacity.biod_bits(100, 3, 2, 50, 4, 20, log(2), log(4), log(8)) == pytest.approx(
        names - 100 + values - 600 + strings - 450
    )
    best = names - 100 * log2(100) + values + strings
    assert capacity.best_biod_bits(100, 3, 2, 50, 4, 20) == pytest.approx(best)


def test_capacity_refuses_nonsense() -> None:
    for call in (
        lambda: capacity.bits(0, 0, 0),
        lambda: capacity.bits(10, -1, 0),
        lambda: capacity.bits(10, 0, float("nan")),
        lambda: capacity.best_bits(0),
        lambda: capacity.best_biod_bits(0, 1, 1, 10, 1, 20),
        lambda: capacity.biod_bits(10, 1, 1, 10, 1, 20, 0, 0, -1),
        lambda: capacity.per_parameter(1.0, 0),
    ):
        with pytest.raises(UsageError, match="legal: from"):
            call()
