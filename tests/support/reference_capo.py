"""Capo's rows in plain Python integers, written from docs/capo.md, docs/randomness.md and the files in pools/ alone.

No NumPy, no Numba, no import of the package. Each function names the heading of docs/capo.md that it follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import permutations
from math import isqrt
from pathlib import Path
from typing import Any

from reference import MASK64, canonical, identity_digest, key_of, numbers, start, words

POOLS = Path(__file__).parents[2] / "synthshards" / "tasks" / "capo" / "pools"
MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]  # fmt: skip
SIX = ["birth_date", "birth_city", "university", "major", "employer", "work_city"]
ASK = {
    "birth_date": "When was {} born?", "birth_city": "In which city was {} born?",
    "university": "Which school did {} attend?", "major": "What did {} major in?",
    "employer": "Which company did {} work for?", "work_city": "In which city did {} work?",
}  # fmt: skip
GRAMMAR = {
    "he": {"{He}": "He", "{His}": "His", "{he}": "he", "{him}": "him", "{his}": "his"},
    "she": {"{He}": "She", "{His}": "Her", "{he}": "she", "{him}": "her", "{his}": "her"},
    "they": {"{He}": "They", "{His}": "Their", "{he}": "they", "{him}": "them", "{his}": "their"},
}


def pools() -> dict[str, list[str]]:
    """ "Two keys"."""
    lists = {
        name: (POOLS / f"{name}.txt").read_text().splitlines()
        for name in ("first_names", "middle_names", "last_names", "birth_cities", "universities", "majors", "companies")
    }
    pairs = [line.split("\t") for line in lists["companies"]]
    return {**lists, "companies": [c for c, _ in pairs], "work_cities": [w for _, w in pairs]}


def templates() -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for line in (POOLS / "biographies.txt").read_text().splitlines():
        if line[:1] == "[":
            here = out.setdefault(line.strip("[]"), [])
        elif line[:1] == "{":
            here.append(line)
    return out


def permuted(x: int, n: int, key: tuple[int, int], stream: int) -> int:
    """ "Permutations"."""
    source = words(start(key, stream))
    k = [next(source) for _ in range(6)]
    a = isqrt(n) + (isqrt(n) ** 2 < n)
    b = -(-n // a)

    def h(key: int, y: int, m: int) -> int:
        z = (key + (y + 1) * 0x9E3779B97F4A7C15) & MASK64
        z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 & MASK64
        z = (z ^ z // 2**27) * 0x94D049BB133111EB & MASK64
        return (z ^ z // 2**31) * m // 2**64

    while True:
        u, v = x // b, x % b
        for r in (0, 2, 4):
            u = (u + h(k[r], v, a)) % a
            v = (v + h(k[r + 1], u, b)) % b
        x = u * b + v
        if x < n:
            return x


def say(template: str, pronoun: str, name: str | None, value: str) -> str:
    """A sentence, piece by piece: the verb is plural behind "they", unless the full name was the subject."""
    plural, out = False, []
    for piece in template.replace("{", "\0{").replace("}", "}\0").replace("[", "\0[").replace("]", "]\0").split("\0"):
        if piece in ("{He}", "{he}"):
            plural = pronoun == "they" and (piece == "{he}" or name is None)
        if piece == "{value}":
            out.append(value)
        elif name is not None and piece in ("{He}", "{His}"):
            out.append(name + ("'s" if piece == "{His}" else ""))
        elif piece[:1] == "[":
            out.append(piece.strip("[]").split("|")[plural])
        else:
            out.append(GRAMMAR[pronoun].get(piece, piece))
    return "".join(out)


class Capo:
    """Rows of one dataset. `params` are canonical: every parameter is given."""

    def __init__(self, params: Mapping[str, Any], seed: int, split: str) -> None:
        self.p, self.pools, self.templates = params, pools(), templates()
        self.key = key_of(identity_digest("capo", 1, params, seed, split))
        pools_digest = "sha256:" + hashlib.sha256(canonical(self.pools).encode()).hexdigest()
        shared: dict[str, Any] = {"num_people": params["num_people"], "pools": pools_digest, "they": params["they"]}
        document = {"seed": seed, "task": "capo", "task_version": 1, "world": shared}
        self.people = key_of(hashlib.sha256(canonical(document).encode()).digest())
        shared |= {name: params[name] for name in "KCDLT"}
        self.third = key_of(hashlib.sha256(canonical(document).encode()).digest())

    def person(self, p: int) -> dict[str, Any]:
        """ "People"."""
        of = self.pools
        ranges = (2 + self.p["they"], 12, 28, 200, 200, 300, 100, 263)
        pronoun, month, day, year, city, school, major, company = numbers(words(start(self.people, p)), *ranges)
        q = permuted(p, 400 * 400 * 1000, self.people, 2**61)
        date = f"{MONTHS[month]} {day + 1}, {1900 + year}"
        if self.p["reverse_md"]:
            date = f"{day + 1} of {MONTHS[month]}, {1900 + year}"
        return {
            "name": " ".join(
                [of["first_names"][q // 400_000], of["middle_names"][q // 1000 % 400], of["last_names"][q % 1000]]
            ),
            "pronoun": ["he", "she", "they"][pronoun],
            "birth_date": date,
            "birth_city": of["birth_cities"][city],
            "university": of["universities"][school],
            "major": of["majors"][major],
            "employer": of["companies"][company],
            "work_city": of["work_cities"][company],
        }

    def place(self, i: int) -> tuple[int, int]:
        """ "Rows": person and pass."""
        N = self.p["num_people"]
        half = -(-N // 2)
        first, n = {"all": (0, N), "train": (0, half), "test": (half, N - half)}[self.p["people"]]
        t, at = i // n, i % n
        low = -(-n // 2)
        if at < low:
            rank = permuted(at, low, self.key, 2**61 + 2 * t)
        else:
            rank = low + permuted(at - low, n - low, self.key, 2**61 + 2 * t + 1)
        rank = (rank + numbers(words(start(self.key, 2**61 + 2**60)), n)[0]) % n
        return (rank if n == N else permuted(first + rank, N, self.people, 2**61 + 1)), t

    def row(self, i: int) -> dict[str, Any]:
        """Text, person and exposure of row i."""
        person, t = self.place(i)
        them = self.person(person)
        exposure = t // 6 if self.p["form"] == "qa" else t
        told = {"bios": self.biography, "qa": self.question, "biod": self.biod}[self.p["form"]]
        f = exposure % (self.p["fresh"] or self.p["exposures"])
        return {"person_id": person, "exposure_idx": exposure, "text": told(them, person, f, t)}

    def biography(self, them: Mapping[str, Any], person: int, f: int, _t: int) -> str:
        """ "Biographies"."""
        orders = [tuple(range(6))] if self.p["order"] else [(0, 1, 2, 3, 5, 4)]
        if self.p["permute"]:
            orders = list(permutations(range(6)))
        if self.p["couple"]:
            orders = [(*x, *y, *z) for x, y, z in permutations([(0, 1), (2, 3), (4, 5)])]
        source = words(start(self.key, person * 2**16 + f))
        which, *chosen = numbers(source, len(orders), *(len(self.templates[name]) for name in SIX))
        return " ".join(
            say(
                self.templates[SIX[a]][chosen[a]],
                them["pronoun"],
                them["name"] if j == 0 or self.p["fullname"] else None,
                them[SIX[a]],
            )
            for j, a in enumerate(orders[which])
        )

    def question(self, them: Mapping[str, Any], person: int, f: int, t: int) -> str:
        """ "Questions"."""
        (which,) = numbers(words(start(self.key, person * 2**16 + t // 6)), 720)
        asked = SIX[list(permutations(range(6)))[which][t % 6]]
        return f"{ASK[asked].format(them['name'])} Answer: {them[asked]}"

    def biod(self, them: Mapping[str, Any], person: int, f: int, _t: int) -> str:
        """ "bioD"."""
        K, C, D, L, T = (self.p[name] for name in "KCDLT")
        source = words(start(self.third, person))
        picks = [[numbers(source, D)[0] for _ in range(C)] for _ in range(K)]
        order = list(range(K))
        if self.p["permute"]:
            source = words(start(self.key, person * 2**16 + f))
            for left in range(K, 0, -1):
                (j,) = numbers(source, left)
                order[left - 1], order[j] = order[j], order[left - 1]
        said = []
        for place, k in enumerate(order):
            subject = {"he": "His", "she": "Her", "they": "Their"}[them["pronoun"]]
            if place == 0 or self.p["fullname"]:
                subject = f"{them['name']}'s"
            value = " ".join(self.spell(w) for j in picks[k] for w in self.string(k, j, D, L, T))
            said.append(f"{subject} ID {k + 1} is {value}.")
        return " ".join(said)

    def string(self, k: int, j: int, D: int, L: int, T: int) -> list[int]:
        free = max(n for n in range(1, L + 1) if T**n < 2**62)
        x = permuted(j, T**free, self.third, 2**61 + k)
        rest = words(start(self.third, 2**60 + k * D + j))
        return [x // T**i % T for i in reversed(range(free))] + [numbers(rest, T)[0] for _ in range(L - free)]

    def spell(self, w: int) -> str:
        T = self.p["T"]
        digits = [w % 100] if T <= 100 else [w // 100, w % 100]
        if T > 10_000:
            digits = [w // 10_000, w // 100 % 100, w % 100]
        return "".join("bcdfghjklmnpqrstvwyz"[d // 5] + "aeiou"[d % 5] for d in digits)
