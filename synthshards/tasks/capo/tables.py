"""What Capo's kernels look up: one array of bytes, and where in it each name, value and part of a sentence lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from ...kernels.arrays import U8, U64
from ...kernels.permutation import sides
from .biography import ANSWER, ATTRIBUTES, QUESTIONS, parts
from .kernels import Lists, Templates
from .people import DAYS, FIRST_YEAR, MONTHS, PRONOUNS, YEARS, Pools

#: A piece of text is copied 64 bytes at a time, and is no longer.
WIDTH = 64
#: The order of sentences for `order` 0 (work city before employer), as numbers of `ATTRIBUTES`.
IN_ORDER = ((0, 1, 2, 3, 5, 4), (0, 1, 2, 3, 4, 5))


@dataclass(frozen=True)
class TextTables:
    """Pieces are uint64: where a piece starts in `data`, and its length in the high half.

    Attributes:
        data: everything end to end, with room for a wide copy behind the last piece.
        lists: of names, pronouns, days, years and values.
        templates: the sentences.
        asked: [6, 2]: a question's part before the name, and after it.
        attributes: their names.
        ascii: whether every piece is ASCII, so that characters are bytes.
        longest: bytes of the longest biography with the full name in every sentence, and of the longest question.
    """

    data: U8
    lists: Lists
    templates: Templates
    asked: U64
    attributes: U64
    ascii: bool
    longest: int


def make_text_tables(pools: Pools, sentences: Mapping[str, tuple[str, ...]], reverse_md: bool) -> TextTables:
    """Lay out pools and templates for the kernels."""
    data = bytearray()
    known: dict[bytes, int] = {}

    def piece(text: str) -> int:
        raw = text.encode()
        assert len(raw) <= WIDTH, f"{text!r} is longer than {WIDTH} bytes"
        if raw not in known:
            known[raw] = len(data)
            data.extend(raw)
        return known[raw] | len(raw) << 32

    def pieces(texts: list[str]) -> U64:
        return np.array([piece(text) for text in texts], np.uint64)

    lists = [pools.birth_cities, pools.universities, pools.majors, pools.companies, pools.work_cities]
    if reverse_md:
        days = [f"{day + 1} of {month}, " for month in MONTHS for day in range(DAYS)]
    else:
        days = [f"{month} {day + 1}, " for month in MONTHS for day in range(DAYS)]
    flat = [template for name in ATTRIBUTES for template in sentences[name]]
    forms = [[parts(t, pronoun, named) for t in flat] for named in (False, True) for pronoun in PRONOUNS]
    names = [[f"{n} " for n in pools.first_names], [f"{n} " for n in pools.middle_names], list(pools.last_names)]
    first, middle, last = (pieces(some) for some in names)
    questions = [QUESTIONS[name].split("{name}") for name in ATTRIBUTES]
    before = np.array([pieces([b for b, _ in form]) for form in forms])
    after = np.array([pieces([f"{a} " for _, a in form]) for form in forms])
    asked = np.array([pieces([before, after + ANSWER]) for before, after in questions])
    attributes = pieces(list(ATTRIBUTES))
    value_start = np.cumsum([0, *(len(values) for values in lists)]).astype(np.int64)
    years = [str(FIRST_YEAR + year) for year in range(YEARS)]
    values = [value for values in lists for value in values]
    numbers = np.array([pools.names, *sides(pools.names)], np.uint64)
    looked_up = Lists(
        first, middle, last, pieces(list(PRONOUNS)), pieces(days), pieces(years), pieces(values), value_start, numbers
    )
    raw = bytes(data)
    flat_data = np.frombuffer(raw + bytes(2 * WIDTH), np.uint8)
    start = np.cumsum([0, *(len(sentences[name]) for name in ATTRIBUTES)]).astype(np.int64)
    return TextTables(
        data=flat_data,
        lists=looked_up,
        templates=Templates(flat_data, before, after, start),
        asked=asked,
        attributes=attributes,
        ascii=raw.isascii(),
        longest=6 * (sum(_length(some) for some in (first, middle, last)) + 3 * WIDTH),
    )


def _length(some: U64) -> int:
    return int((some >> np.uint64(32)).max())


@cache
def sentence_orders(permute: bool, couple: bool, order: int) -> U8:
    """Every order of sentences that a biography may have, [orders, 6], as numbers of `ATTRIBUTES`."""
    if not permute:
        return np.array([IN_ORDER[order]], np.uint8)
    if couple:
        pairs = list(permutations(((0, 1), (2, 3), (4, 5))))
        return np.array([[a for pair in three for a in pair] for three in pairs], np.uint8)
    return np.array(list(permutations(range(6))), np.uint8)
