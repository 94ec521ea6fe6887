"""Capo's kernels: which person a row is about, that person's facts, and texts put together from pieces.

The order of draws is part of the law's version. `synthshards.tasks.capo.people` says in plain Python who a person is.
The file is long because its kernels share the layouts of people, lists and texts, defined at its head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.arrays import I32, I64, U8, U16, U32, U64
from ...kernels.copying import copy32, copy64
from ...kernels.jit import helper, kernel
from ...kernels.permutation import permute, round_keys
from ...kernels.rng import below, mulhi, stream, word_for
from .people import DAYS, HALVES_STREAM, NAMES_STREAM, YEARS

#: Streams of the rows' own key: a biography is stream person · 2^16 + its number; pass t over the people takes the
#: round keys of ORDER_STREAM + 2t and 2t + 1; all passes start at the place that SHIFT_STREAM gives.
BIOGRAPHY_BITS = 16
ORDER_STREAM, SHIFT_STREAM = 1 << 61, (1 << 61) + (1 << 60)

_0, _1, _2, _6 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(6)
_16, _32 = np.uint64(BIOGRAPHY_BITS), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ORDER, _SHIFT = np.uint64(ORDER_STREAM), np.uint64(SHIFT_STREAM)
_NAMES, _HALVES = np.uint64(NAMES_STREAM), np.uint64(HALVES_STREAM)
_DAYS, _YEARS, _12, _720 = np.uint64(DAYS), np.uint64(YEARS), np.uint64(12), np.uint64(720)


class People(NamedTuple):
    """The people that rows are about.

    Attributes:
        person: [rows].
        pronoun: [rows], number of `PRONOUNS`.
        birth: [rows, 3], month, day, year of the pool, from 0.
        pieces: [rows, 12], pieces of `TextTables.data`: first and middle name (each with its space), last name,
            pronoun, day, year, birth city, university, major, employer, work city; the last is left free.
    """

    person: U32
    pronoun: U8
    birth: U16
    pieces: U64


class Lists(NamedTuple):
    """What people's facts are drawn from, as pieces of `TextTables.data`.

    Attributes:
        first, middle, last: [names], the former two with a space behind each.
        pronouns: [3].
        days: [336], "October 2, " (or "2 of October, "), at month · 28 + day.
        years: [200].
        values: [values], birth cities, universities, majors, companies, and work cities (one for each company), end
            to end.
        value_start: [6]: where each of these begins.
        names: [3]: the number of full names, and a and b of the network on it.
    """

    first: U64
    middle: U64
    last: U64
    pronouns: U64
    days: U64
    years: U64
    values: U64
    value_start: I64
    names: U64


class Templates(NamedTuple):
    """Sentences as pieces of `data`.

    Attributes:
        data: [bytes], every piece, with room for a wide copy behind the last.
        before, after: [form, sentence]: what stands before and after the value, with a space at the end. Forms 0..2:
            the subject is a pronoun; 3..5: the full name of a person of that pronoun, which is not in the piece.
        start: [7]: attribute a has the sentences start[a]..start[a+1]-1.
    """

    data: U8
    before: U64
    after: U64
    start: I64


class TextRows(NamedTuple):
    """Where texts are written, end to end.

    Attributes:
        text: [bytes], with room for the longest row behind the last.
        offsets: [rows + 1]: row r has the bytes offsets[r]..offsets[r+1]-1.
        spans: [rows, 14]: start, stop of each of `SPANS`, in bytes; of what is not in the text −1.
    """

    text: U8
    offsets: I64
    spans: I32


@helper
def piece_size(piece: np.uint64) -> np.int64:
    """Bytes of a piece."""
    return np.int64(piece >> _32)


@helper
def piece_place(piece: np.uint64) -> np.int64:
    """Where a piece begins."""
    return np.int64(piece & _LOW)


@kernel
def locate(
    key: U64, of_people: U64, indices: U64, people: np.uint64, rank0: np.uint64, num_people: np.uint64, sides: U64,
    person: U32, passes: U64,
) -> None:  # fmt: skip
    """Row i is pass i // people over the people of the dataset; `person` and `passes` say which one, and which pass.

    A pass shows each of the `people` ranks once: the first half of the ranks in its first half, in an order of its
    own, then the second half. So between a person and that person's return there are at least people // 2 rows. Ranks
    are turned by a number of the dataset's own. Where the people are a half of all (rank0 and people tell which),
    the people's permutation of halves leads from rank to person.

    Args:
        key: [2 or more]; of_people: [2], the people's key; indices, person, passes: [rows].
        sides: [3, 2], of the two halves' networks and of all people's.
    """
    s = stream(key, _SHIFT)
    s, shift = below(s, people)
    first_half = people - people // _2
    halves = round_keys(of_people, _HALVES)
    keys = halves
    keys_order = _0 - _1  # whose keys they are: of none yet
    for r in range(indices.size):
        t = indices[r] // people
        at = indices[r] - t * people
        half = np.uint64(at >= first_half)
        order = (t << _1) | half
        if order != keys_order:
            keys = round_keys(key, _ORDER + order)
            keys_order = order
        if half == _0:
            rank = permute(at, first_half, sides[0, 0], sides[0, 1], keys)
        else:
            rank = first_half + permute(at - first_half, people - first_half, sides[1, 0], sides[1, 1], keys)
        rank += shift
        if rank >= people:
            rank -= people
        if people < num_people:
            rank = permute(rank0 + rank, num_people, sides[2, 0], sides[2, 1], halves)
        person[r] = rank
        passes[r] = t


@kernel
def facts_of(of_people: U64, lists: Lists, pronouns: np.uint64, people: People) -> None:
    """Who the people are, by `people.person`: one word of stream `person` holds all facts but the name.

    Args:
        of_people: [2], the people's key.
        pronouns: how many there are, 2 or 3.
        people: filled but for `person`.
    """
    first, middle, last, pronoun_piece, days, years, values, value_start, names = lists
    person, pronoun, birth, pieces = people
    keys = round_keys(of_people, _NAMES)
    middles, lasts = np.uint64(middle.size), np.uint64(last.size)
    cities, schools = np.uint64(value_start[1]), np.uint64(value_start[2] - value_start[1])
    majors, companies = np.uint64(value_start[3] - value_start[2]), np.uint64(value_start[4] - value_start[3])
    product = pronouns * _12 * _DAYS * _YEARS * cities * schools * majors * companies
    school0, major0, company0, work0 = value_start[1], value_start[2], value_start[3], value_start[4]
    for r in range(person.size):
        p = np.uint64(person[r])
        name = permute(p, names[0], names[1], names[2], keys)
        rest = name // lasts
        first_name = rest // middles
        pieces[r, 0] = first[first_name]
        pieces[r, 1] = middle[rest - first_name * middles]
        pieces[r, 2] = last[name - rest * lasts]
        s = stream(of_people, p)
        s, x = word_for(s, product)
        number = mulhi(x, pronouns)
        x *= pronouns
        pronoun[r] = number
        pieces[r, 3] = pronoun_piece[number]
        month = mulhi(x, _12)
        x *= _12
        birth[r, 0] = month
        day = mulhi(x, _DAYS)
        x *= _DAYS
        birth[r, 1] = day
        pieces[r, 4] = days[month * _DAYS + day]
        year = mulhi(x, _YEARS)
        x *= _YEARS
        birth[r, 2] = year
        pieces[r, 5] = years[year]
        pieces[r, 6] = values[np.int64(mulhi(x, cities))]
        x *= cities
        pieces[r, 7] = values[school0 + np.int64(mulhi(x, schools))]
        x *= schools
        pieces[r, 8] = values[major0 + np.int64(mulhi(x, majors))]
        x *= majors
        company = np.int64(mulhi(x, companies))
        pieces[r, 9] = values[company0 + company]
        pieces[r, 10] = values[work0 + company]


@kernel
def write_columns(data: U8, pieces: U64, which: I64, out: U8, starts: I64, offsets: I64) -> None:
    """String columns: row r of column c is the piece pieces[r, which[c]], without the space behind a name.

    Args:
        data: [bytes], that of `TextTables`; pieces: [rows, 12]; which: [columns].
        out: [bytes], the columns'; starts: [columns], where each begins, with room for a wide copy behind each.
        offsets: [columns, rows + 1].
    """
    cursor = starts.copy()
    for c in range(which.size):
        offsets[c, 0] = 0
    for r in range(pieces.shape[0]):
        for c in range(which.size):
            piece = pieces[r, which[c]]
            copy64(out, cursor[c], data, piece_place(piece))
            cursor[c] += piece_size(piece) - np.int64(which[c] < 2)
            offsets[c, r + 1] = cursor[c] - starts[c]


@kernel
def write_biographies(
    key: U64, people: People, fresh: U16, templates: Templates, orders: U8, fullname: bool, out: TextRows
) -> None:
    """Six sentences about each person.

    One word of the biography's stream gives its order of sentences, and then a template for each attribute in turn.

    Args:
        key: [2 or more]; fresh: [rows], the number of the biography among the person's own.
        orders: [orders, 6], as `sentence_orders` makes them.
    """
    person, pronoun, _birth, pieces = people
    data, before, after, start = templates
    text, offsets, spans = out
    sizes = np.empty(6, np.uint64)
    product = np.uint64(orders.shape[0])
    for a in range(6):
        sizes[a] = np.uint64(start[a + 1] - start[a])
        product *= sizes[a]
    choices = np.uint64(orders.shape[0])
    template = np.empty(6, np.int64)
    at: Any = np.int64(0)
    offsets[0] = 0
    for r in range(person.size):
        s = stream(key, (np.uint64(person[r]) << _16) | np.uint64(fresh[r]))
        s, x = word_for(s, product)
        order = orders[mulhi(x, choices)]
        x *= choices
        for a in range(6):
            template[a] = start[a] + np.int64(mulhi(x, sizes[a]))
            x *= sizes[a]
        begin = at
        form: Any = np.int64(pronoun[r])
        for j in range(6):
            about = np.int64(order[j])
            subject: Any = form
            if j == 0 or fullname:
                subject = form + 3
                for part in range(3):
                    copy32(text, at, data, piece_place(pieces[r, part]))
                    at += piece_size(pieces[r, part])
                if j == 0:
                    spans[r, 0] = 0
                    spans[r, 1] = at - begin
            piece = before[subject, template[about]]
            copy64(text, at, data, piece_place(piece))
            at += piece_size(piece)
            spans[r, 2 + 2 * about] = at - begin
            if about == 0:
                copy32(text, at, data, piece_place(pieces[r, 4]))
                at += piece_size(pieces[r, 4])
            piece = pieces[r, 5 + about]
            copy64(text, at, data, piece_place(piece))
            at += piece_size(piece)
            spans[r, 3 + 2 * about] = at - begin
            piece = after[subject, template[about]]
            copy64(text, at, data, piece_place(piece))
            at += piece_size(piece)
        at -= 1  # the space after the last sentence
        offsets[r + 1] = at


@kernel
def ask(key: U64, person: U32, passes: U64, orders: U8, asked: U8) -> None:
    """Which of the six attributes a question is about.

    An exposure is six passes; in each, a person is asked another question, in an order drawn for the exposure from
    stream person · 2^16 + exposure.

    Args:
        key: [2 or more]; person, passes: [rows]; orders: [720, 6]; asked: out, [rows].
    """
    for r in range(person.size):
        exposure = passes[r] // _6
        s = stream(key, (np.uint64(person[r]) << _16) | exposure)
        s, which = below(s, _720)
        asked[r] = orders[which, passes[r] - exposure * _6]


@kernel
def write_questions(asked: U8, pieces: U64, questions: U64, data: U8, out: TextRows) -> None:
    """A question and its answer a row.

    Args:
        asked: [rows]; pieces: [rows, 12]; questions: [6, 2], `TextTables.asked`; data: [bytes], its own.
    """
    text, offsets, spans = out
    at: Any = np.int64(0)
    offsets[0] = 0
    for r in range(asked.size):
        a = np.int64(asked[r])
        begin = at
        for i in range(14):
            spans[r, i] = -1
        piece = questions[a, 0]
        copy64(text, at, data, piece_place(piece))
        at += piece_size(piece)
        spans[r, 0] = at - begin
        for part in range(3):
            copy32(text, at, data, piece_place(pieces[r, part]))
            at += piece_size(pieces[r, part])
        spans[r, 1] = at - begin
        piece = questions[a, 1]
        copy64(text, at, data, piece_place(piece))
        at += piece_size(piece)
        spans[r, 2 + 2 * a] = at - begin
        if a == 0:
            copy32(text, at, data, piece_place(pieces[r, 4]))
            at += piece_size(pieces[r, 4])
        piece = pieces[r, 5 + a]
        copy64(text, at, data, piece_place(piece))
        at += piece_size(piece)
        spans[r, 3 + 2 * a] = at - begin
        offsets[r + 1] = at


@kernel
def to_characters(rows: TextRows) -> None:
    """Byte spans become character spans (needed where a pool is not ASCII); `rows` as in `TextRows`."""
    text, offsets, spans = rows
    for r in range(offsets.size - 1):
        for i in range(spans.shape[1]):
            if spans[r, i] >= 0:
                start = offsets[r]
                count = 0
                for at in range(start, start + spans[r, i]):
                    count += (text[at] & 0xC0) != 0x80
                spans[r, i] = count
