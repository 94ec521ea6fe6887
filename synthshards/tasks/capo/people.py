"""The people of Capo: who they are is a pure function of (seed, pools, number of people, person), and of nothing else.

Splits, forms and numbers of exposures share their people: the facts have a key of their own. This page is the law in
plain Python; the kernels of `tasks.capo.kernels` say it again, fast, and tests compare the two.

Source of the law: "Physics of Language Models: Part 3.1" (arXiv 2309.14316), section on the bioS data, and Part 3.3
(arXiv 2404.05405), section on capacity, for sizes of pools. The pools in `pools/` were made for this project.

>>> them = person(seed=0, num_people=50_000, p=34_554)
>>> them.full_name, them.pronoun, them.birth_year, them.birth_city, them.major, them.employer, them.work_city
('Patrick Arden Tilton', 'she', 1981, 'Athens, GA', 'Botany', 'Westmark Electric', 'Charlotte, NC')
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from ...digest import canonical_json
from ...errors import DataError, UsageError
from ...kernels.arrays import U64
from ...kernels.permutation import permuted, round_keys_of
from ...kernels.rng import key_of, words

#: Months as they are written; each has 28 days, so that every date exists.
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS, FIRST_YEAR, YEARS = 28, 1900, 200
PRONOUNS = ("he", "she", "they")

#: Pool file → sha256. A changed file is another law: it needs a new version of the task.
POOL_SHA256 = {
    "first_names": "3d44ab8312f107b667c6f7bb97ce591819fabf34e131e2b80b7532b8b384ed0c",
    "middle_names": "b7308cdc6180582b181270cb557d6c025b3ab5f454666b48ef602b1384c0e1e2",
    "last_names": "a8e5a08b0a6f4b8606be1b0bd3ac3235a1ed6556d0e8c05a79399c100d4dfb84",
    "birth_cities": "8d7020870d8198b32f43bcffbc48961ae622ac0ad1bed78b41813d9dc8702209",
    "universities": "89348a47ccd77cd701146f4c7d987a0556894557c822f08756348b8749e38b32",
    "majors": "46635eaf1b69dd32b8da012be785ea0d01c8a0e69ff35b8387bbcc54507982eb",
    "companies": "9d3e19395fe56493d7435b0750230830cd32b86dc7a621a7c8cfb3370c218532",
    "biographies": "8686a1c75ecfe2965e0dd203bd96dc3eb90ea48d37f9c2460467b7f5f94c59c7",
}
#: Streams of the people's key: person p's facts are stream p (below 2^60); these are the round keys of permutations.
NAMES_STREAM, HALVES_STREAM = 1 << 61, (1 << 61) + 1


@dataclass(frozen=True)
class Pools:
    """What people are made of. `work_cities[i]` is the city of `companies[i]`."""

    first_names: tuple[str, ...]
    middle_names: tuple[str, ...]
    last_names: tuple[str, ...]
    birth_cities: tuple[str, ...]
    universities: tuple[str, ...]
    majors: tuple[str, ...]
    companies: tuple[str, ...]
    work_cities: tuple[str, ...]

    @property
    def names(self) -> int:
        """Number of full names that there are."""
        return len(self.first_names) * len(self.middle_names) * len(self.last_names)

    @cached_property
    def digest(self) -> str:
        """``"sha256:"`` and 64 hex digits over all pools; it is part of the people's key."""
        return "sha256:" + hashlib.sha256(canonical_json({k: list(v) for k, v in asdict(self).items()})).hexdigest()


@dataclass(frozen=True)
class Person:
    """The facts of one person, named as the columns of Capo's rows."""

    first_name: str
    middle_name: str
    last_name: str
    pronoun: str
    birth_month: int
    birth_day: int
    birth_year: int
    birth_city: str
    university: str
    major: str
    employer: str
    work_city: str

    @property
    def full_name(self) -> str:
        return f"{self.first_name} {self.middle_name} {self.last_name}"


@cache
def pool_text(name: str) -> str:
    """The text of pools/<name>.txt.

    Raises:
        DataError: the file is not the one that this version of the law was made with.
    """
    text = (files(__package__) / "pools" / f"{name}.txt").read_text(encoding="utf-8")
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != POOL_SHA256[name]:
        raise DataError(
            f"pools/{name}.txt is damaged: sha256 {found}, not {POOL_SHA256[name]}; install the package anew"
        )
    return text


@cache
def load_pools() -> Pools:
    """The shipped pools, checked against their checksums.

    Raises:
        DataError: a file is damaged.
    """
    lists = {name: tuple(pool_text(name).splitlines()) for name in POOL_SHA256 if name != "biographies"}
    pairs = [line.split("\t") for line in lists.pop("companies")]
    return Pools(**lists, companies=tuple(c for c, _ in pairs), work_cities=tuple(w for _, w in pairs))


def people_key(version: int, seed: int, num_people: int, they: bool, pools: Pools, **more: Any) -> U64:
    """The key [2] of all that the splits, forms and exposures of a seed share.

    Args:
        version: of the task.
        seed, num_people: who is meant.
        they: whether "they" is a pronoun beside "he" and "she".
        more: parameters of what is shared beside the people (bioD's strings).
    """
    shared = {"num_people": num_people, "pools": pools.digest, "they": they, **more}
    # "world" in the sense of the shared people. The key is hashed, so it stays: another name would be other people.
    document = {"seed": seed, "task": "capo", "task_version": version, "world": shared}
    return key_of(hashlib.sha256(canonical_json(document)).digest())


def draw(key: U64, index: int, *ranges: int) -> list[int]:
    """Numbers below each of `ranges`, drawn together from stream `index` (docs/randomness.md, "Numbers")."""
    product, count = int(np.prod(ranges, dtype=object)), 1
    while True:
        x = int(words(key, np.uint64(index), count)[-1])
        if x * product % 2**64 >= 2**64 % product:
            break
        count += 1
    out = []
    for n in ranges:
        x *= n
        out.append(x >> 64)
        x %= 2**64
    return out


def person(
    seed: int, num_people: int, p: int, *, they: bool = False, version: int = 1, pools: Pools | None = None
) -> Person:
    """The facts of person p among those of a seed.

    Raises:
        UsageError: there is no such person.
    """
    if not 0 <= p < num_people:
        raise UsageError(f"person {p}; legal: 0..{num_people - 1}")
    pools = pools or load_pools()
    key = people_key(version, seed, num_people, they, pools)
    pronoun, month, day, year, city, university, major, company = draw(
        key, p, 2 + they, len(MONTHS), DAYS, YEARS,
        len(pools.birth_cities), len(pools.universities), len(pools.majors), len(pools.companies),
    )  # fmt: skip
    name = permuted(p, pools.names, round_keys_of(key, NAMES_STREAM))
    name, last = divmod(name, len(pools.last_names))
    first, middle = divmod(name, len(pools.middle_names))
    return Person(
        first_name=pools.first_names[first],
        middle_name=pools.middle_names[middle],
        last_name=pools.last_names[last],
        pronoun=PRONOUNS[pronoun],
        birth_month=month + 1,
        birth_day=day + 1,
        birth_year=FIRST_YEAR + year,
        birth_city=pools.birth_cities[city],
        university=pools.universities[university],
        major=pools.majors[major],
        employer=pools.companies[company],
        work_city=pools.work_cities[company],
    )


def half_of(num_people: int, half: str) -> tuple[int, int]:
    """The ranks [start, stop) of a half's people under the people's permutation of halves (see `person_of_rank`)."""
    middle = num_people - num_people // 2
    return (0, middle) if half == "train" else (middle, num_people)


def person_of_rank(key: U64, num_people: int, rank: int) -> int:
    """The person of a rank: ranks below ⌈num_people/2⌉ are the half `people=train`, the others `people=test`."""
    return permuted(rank, num_people, round_keys_of(key, HALVES_STREAM))
