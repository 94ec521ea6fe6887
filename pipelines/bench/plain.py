"""The tasks in plain Python, as one writes them on a first afternoon: what `bench` measures the package against.

`random.Random`, lists and sets, the standard library alone; rows of the same laws, of other random streams. Nothing but
`bench` imports this. The plain generator of one more task is one function and one line in `PLAIN`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

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


#: Task → a function that takes the task's parameters and gives the drawing function.
PLAIN: dict[str, Callable[[Any], Draw]] = {
    "depo": depo,
}


def units(row: Row) -> int:
    """Tokens of a row, or characters of a text row."""
    return len(row["input_ids"] if "input_ids" in row else row["text"])
