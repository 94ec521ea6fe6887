"""The tasks in plain Python, as one writes them on a first afternoon: what `bench` measures the package against.

`random.Random`, lists and sets, the standard library alone (and Capo's pools); rows of the same laws, of other random
streams. Nothing but `bench` imports this. The plain generator of one more task is one function and one line in `PLAIN`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

from synthshards.tasks.capo.biography import templates
from synthshards.tasks.capo.people import MONTHS, load_pools
from synthshards.tasks.mano.expressions import VALUE_BASE
from synthshards.tasks.mano.task import OPERATORS

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


def brevo(p: Any) -> Draw:
    """Rows of Brevo with training parameters `p`, words of one token or several (`qa` is not for it)."""

    def draw(rng: random.Random) -> Row:
        n = draw_size(rng, p.N)
        parents: list[list[int]] = [[] for _ in range(n)]
        children = [0] * n
        for node in range(rng.randint(1, (n - 1) // 4 + 1), n):
            free = [other for other in range(node) if children[other] < p.max_in]
            parents[node] = rng.sample(free, rng.randint(1, min(p.max_in, len(free))))
            for other in parents[node]:
                children[other] += 1
        edges = [(other, node) for node in range(n) for other in parents[node]]
        rng.shuffle(edges)
        if p.multi:
            names = distinct_words(rng, n, p.mini_vocab, p.min_tlen, p.max_tlen)
        else:
            names = [[number] for number in rng.sample(range(1, p.N + 1), n)]
        # From the query downward: take any node all of whose children are taken, then turn the list round.
        query = n - 1
        wanted = {query}
        for node in range(query, -1, -1):
            if node in wanted:
                wanted.update(parents[node])
        left = {node: sum(node in parents[other] for other in wanted) for node in wanted}
        ready, taken = [query], []
        while ready:
            node = ready.pop(rng.randrange(len(ready)))
            taken.append(node)
            for other in parents[node]:
                left[other] -= 1
                if left[other] == 0:
                    ready.append(other)
        ids = [p.bos_token_id]
        for other, node in edges:
            ids += names[other] + names[node]
        ids += [p.query_token_id, *names[query]]
        mask = [False] * len(ids)
        ids.append(p.answer_token_id)
        for node in reversed(taken):
            ids += names[node]
        ids.append(p.eos_token_id)
        return {"input_ids": ids, "loss_mask": mask + [True] * (len(ids) - len(mask))}

    return draw


def mano(p: Any) -> Draw:
    """Rows of Mano with training parameters `p` (`qa` and division are not for it)."""
    letters = [letter for letter in p.ttype if letter != "d"]

    def expression(rng: random.Random, length: int) -> tuple[list[int], int]:
        if length == 0:
            value = rng.randrange(p.value_mod)
            return [VALUE_BASE + value], value
        letter = rng.choice(letters)
        left = rng.randrange(length)
        left_ids, a = expression(rng, left)
        right_ids, b = expression(rng, length - 1 - left)
        value = {"a": a + b, "s": a - b, "m": a * b}[letter] % p.value_mod
        return [OPERATORS[letter] + 4 * synonym(rng), *left_ids, *right_ids], value

    def synonym(rng: random.Random) -> int:
        return rng.randrange(2) if p.knowledge_augment else 0

    def draw(rng: random.Random) -> Row:
        length = rng.randint(1, p.L)
        body, value = expression(rng, length)
        head = [p.bos_token_id - synonym(rng), 10 * length + synonym(rng)]
        ids = [*head, *body, 10 * length + 4 + synonym(rng), VALUE_BASE + value]
        return {"input_ids": ids, "loss_mask": [True] * len(ids)}

    return draw


def lano(p: Any) -> Draw:
    """Bare sentences of the grammar of `p` (`framing` is not for it)."""
    grammar = p.make_grammar()

    def expand(rng: random.Random, symbol: int) -> list[int]:
        if symbol not in grammar.rules:
            return [symbol]
        tokens: list[int] = []
        for part in rng.choice(grammar.rules[symbol]):
            tokens += expand(rng, part)
        return tokens

    def draw(rng: random.Random) -> Row:
        ids = expand(rng, grammar.root)
        return {"input_ids": ids, "loss_mask": [True] * len(ids)}

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
    "brevo": brevo,
    "mano": mano,
    "lano": lano,
    "capo": capo,
}


def units(row: Row) -> int:
    """Tokens of a row, or characters of a text row."""
    return len(row["input_ids"] if "input_ids" in row else row["text"])
