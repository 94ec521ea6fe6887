"""The tasks in plain Python, as one writes them on a first afternoon: what `bench` measures the package against.

`random.Random`, lists and sets, the standard library alone (and Capo's pools); rows of the same laws, of other random
streams. Nothing but `bench` imports this. The plain generator of one more task is one function and one line in `PLAIN`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from synthshards.biography import templates
from synthshards.people import MONTHS, load_pools

#: A row as the package gives it: `input_ids` and `loss_mask`, or `text`.
Row = dict[str, Any]
#: Draws one row.
Draw = Callable[[random.Random], Row]


def draw_size(rng: random.Random, largest: int) -> int:
    """n in 3..largest with weight 1 / (n + √largest)."""
    sizes = range(3, largest + 1)
    weights = [1 / (n + largest**0.5) for n in sizes]
    return rng.choices(sizes, weights)[0]


def distinct_words(rng: random.Random, count: int, vocab: int, shortest: int, longest: int) -> list[list[int]]:
    """Node names: `count` different words of tokens 1..vocab, the last token raised by vocab."""
    words: list[list[int]] = []
    taken = set()
    while len(words) < count:
        word = []
        for _ in range(rng.randint(shortest, longest)):
            word.append(rng.randint(1, vocab))
        word[-1] += vocab
        if tuple(word) not in taken:
            taken.add(tuple(word))
            words.append(word)
    return words


def depo(p: Any) -> Draw:
    """Rows of Depo with training parameters `p` (`qa`, `fixed_k` and `separator` are not for it)."""

    def draw(rng: random.Random) -> Row:
        n = draw_size(rng, p.N)
        names = distinct_words(rng, n, p.mini_vocab, p.min_tlen, p.max_tlen)
        nodes = list(range(n))
        rng.shuffle(nodes)
        ids = [p.bos_token_id]
        for node in nodes:
            ids.extend(names[node])
            ids.extend(names[(node + 1) % n])
        mask = [False] * len(ids)
        for node in rng.sample(nodes, min(n, p.M)):
            k = rng.randint(1, p.K)
            question = [p.query_token_base + k, *names[node]]
            answer = [p.answer_token_id, *names[(node + k) % n]]
            ids += question + answer
            mask += [False] * len(question) + [True] * len(answer)
        return {"input_ids": ids, "loss_mask": mask}

    return draw


def capo(p: Any) -> Draw:
    """Biographies of Capo with a new order of sentences, he and she (the other options are not for it).

    The people are drawn before, and only so many as a measurement meets: it is the telling that is measured.
    """
    pools, some = load_pools(), {name: [_as_format(t) for t in texts] for name, texts in templates().items()}
    rng = random.Random(0)
    people: list[dict[str, Any]] = []
    for _ in range(min(p.num_people, 2000)):
        company = rng.randrange(len(pools.companies))
        them: dict[str, Any] = {
            "first_name": rng.choice(pools.first_names),
            "middle_name": rng.choice(pools.middle_names),
            "last_name": rng.choice(pools.last_names),
            "pronoun": rng.choice(["he", "she"]),
            "birth_month": rng.randint(1, 12),
            "birth_day": rng.randint(1, 28),
            "birth_year": rng.randint(1900, 2099),
            "birth_city": rng.choice(pools.birth_cities),
            "university": rng.choice(pools.universities),
            "major": rng.choice(pools.majors),
            "employer": pools.companies[company],
            "work_city": pools.work_cities[company],
        }
        people.append(them)

    def draw(rng: random.Random) -> Row:
        person = rng.randrange(len(people))
        them = people[person]
        name = f"{them['first_name']} {them['middle_name']} {them['last_name']}"
        birth_date = f"{MONTHS[them['birth_month'] - 1]} {them['birth_day']}, {them['birth_year']}"
        words = ("He", "His", "him", "his") if them["pronoun"] == "he" else ("She", "Her", "her", "her")
        order = list(some)
        rng.shuffle(order)
        text = ""
        spans = {"full_name": (0, len(name))}
        for attribute in order:
            value = birth_date if attribute == "birth_date" else them[attribute]
            before, after = rng.choice(some[attribute])
            he, his = (words[0], words[1]) if text else (name, name + "'s")
            told = {"He": he, "His": his, "he": words[0].lower(), "him": words[2], "his": words[3]}
            text += (" " if text else "") + before.format(**told)
            spans[attribute] = (len(text), len(text) + len(value))
            text += value + after.format(**told)
        flat = [edge for thing in ("full_name", *some) for edge in spans[thing]]
        return {"text": text, "person_id": person, "exposure_idx": rng.randrange(p.exposures), **them, "spans": flat}

    return draw


def _as_format(template: str) -> tuple[str, str]:
    """What stands before and after the value, for `str.format`; one person is singular."""
    before, after = re.sub(r"\[(\w+)\|\w+\]", r"\1", template).split("{value}")
    return before, after


#: Task → a function that takes the task's parameters and gives the drawing function.
PLAIN: dict[str, Callable[[Any], Draw]] = {
    "depo": depo,
    "capo": capo,
}


def units(row: Row) -> int:
    """Tokens of a row, or characters of a text row."""
    return len(row["input_ids"] if "input_ids" in row else row["text"])
