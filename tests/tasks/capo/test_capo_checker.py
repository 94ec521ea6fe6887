"""The checker of Capo takes every true row and says what is wrong with each broken one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from helpers import plain

from synthshards.tasks.capo.task import CapoTask

Row = dict[str, Any]
BIOS = CapoTask(num_people=40, exposures=4)
IN_ORDER = CapoTask(num_people=40, exposures=4, permute=False)
COUPLE = CapoTask(num_people=40, exposures=4, couple=True)
FULL = CapoTask(num_people=40, exposures=4, fullname=True)
THEY = CapoTask(num_people=40, exposures=4, they=True)
QA = CapoTask(num_people=40, exposures=4, form="qa")
BIOD = CapoTask(num_people=40, exposures=4, form="biod", K=3, C=2, D=20, L=2, T=30)
BIOD_IN_ORDER = CapoTask(num_people=40, exposures=4, form="biod", permute=False)


def put(name: str, value: Any) -> Callable[[Row], None]:
    return lambda row: row.__setitem__(name, value)


def drop(name: str) -> Callable[[Row], None]:
    return lambda row: row.pop(name)


def text(old: str, new: str, count: int = 1) -> Callable[[Row], None]:
    """Change the text by a regular expression; it must match."""

    def change(row: Row) -> None:
        found, times = re.subn(old, new, row["text"], count=count)
        assert times, old
        row["text"] = found

    return change


def value(name: str, new: str) -> Callable[[Row], None]:
    """Change a fact and leave the text."""
    return put(name, new)


def span(at: int, by: int) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row["spans"] = list(row["spans"])
        row["spans"][at] += by

    return change


def swap_sentences(row: Row) -> None:
    """Exchange sentences 2 and 3, and leave the spans."""
    parts = row["text"].split(". ")
    parts[1], parts[2] = parts[2], parts[1]
    row["text"] = ". ".join(parts)


def repeat_sentence(row: Row) -> None:
    parts = row["text"].split(". ")
    parts[2] = parts[1]
    row["text"] = ". ".join(parts)


def both(*changes: Callable[[Row], Any]) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        for one in changes:
            one(row)

    return change


def exchange_picks(row: Row) -> None:
    """Two different picks of one attribute, exchanged; then the strings name other picks than they should."""
    row["picks"][0] = (row["picks"][0] + 1) % 20


CASES: list[tuple[str, CapoTask, Callable[[Row], Any], str]] = [
    ("no text", BIOS, drop("text"), "the row has no 'text'"),
    ("no name", BIOS, drop("last_name"), "the row has no 'last_name'"),
    ("no spans", BIOS, drop("spans"), "the row has no 'spans'"),
    ("no city", BIOS, drop("work_city"), "the row has no 'work_city'"),
    ("person", BIOS, put("person_id", 40), "person_id is 40; legal: 0..39"),
    ("exposure", BIOS, put("exposure_idx", 4), "exposure_idx is 4; legal: 0..3"),
    ("negative", BIOS, put("exposure_idx", -1), "exposure_idx is -1; legal: 0..3"),
    ("first name", BIOS, put("first_name", "Xq"), "first_name is 'Xq'; legal: one of 400 in the pool"),
    ("last name", BIOS, put("last_name", "Xq"), "last_name is 'Xq'; legal: one of 1000 in the pool"),
    ("pronoun", BIOS, put("pronoun", "they"), "pronoun is 'they'; legal: one of 2 in the pool"),
    ("month", BIOS, put("birth_month", 13), "birth_month is 13; legal: 1..12"),
    ("day", BIOS, put("birth_day", 29), "birth_day is 29; legal: 1..28"),
    ("year", BIOS, put("birth_year", 2100), "birth_year is 2100; legal: 1900..2099"),
    ("city", BIOS, put("birth_city", "Atlantis, XX"), "birth_city is 'Atlantis, XX'; legal: one of 200 in the pool"),
    ("major", BIOS, put("major", "Alchemy"), "major is 'Alchemy'; legal: one of 100 in the pool"),
    ("employer", BIOS, put("employer", "Acme"), "employer is 'Acme'; legal: one of 263 in the pool"),
    ("home", BIOS, put("work_city", "Taos, NM"), r"work_city is 'Taos, NM', but .* is in "),
    ("other fact", BIOS, put("birth_year", 1899 + 1), "no template and value of this person make "),
    ("other major", BIOS, put("major", "Botany"), "no template and value of this person make "),
    ("text's fact", BIOS, text(r"\d\d\d\d", "1900"), "no template and value of this person make "),
    ("no period", BIOS, text(r"\.$", ""), "5 sentences; legal: 6, each ending with a period"),
    ("more", BIOS, text(r"\.$", ". Bye."), "7 sentences; legal: 6, each ending with a period"),
    ("two spaces", BIOS, text(r"\. ", ".  "), "no template and value of this person make "),
    ("no space", BIOS, text(r"\. ", "."), "sentence 2 is not behind one space"),
    ("space first", BIOS, text("^", " "), "sentence 1 does not start with"),
    ("newline", BIOS, text(r"\. ", ".\n"), "sentence 2 is not behind one space"),
    ("small", BIOS, text(r"\. (H|S)", ". h"), "no template and value of this person make "),
    ("agreement", THEY, text(r"\. They (?=\w)", ". He "), "no template and value of this person make "),
    ("own words", BIOS, text(r"\.$", " today."), "no template and value of this person make "),
    ("same twice", BIOS, repeat_sentence, "two sentences about "),
    (
        "in order",
        IN_ORDER,
        swap_sentences,
        "the order of sentences is birth_date, university, birth_city, ",
    ),
    ("pairs", COUPLE, swap_sentences, "the order of sentences is "),
    ("swapped", BIOS, swap_sentences, "the span of "),
    ("no full name", FULL, text(r"\. [A-Z]\w+ [A-Z]\w+ [A-Z]\w+ ", ". She "), "sentence .* does not start with"),
    ("span start", BIOS, span(2, 1), "the span of birth_date is "),
    ("span stop", BIOS, span(13, -1), "the span of work_city is "),
    ("span of name", BIOS, span(1, 1), "the span of full_name is "),
    ("short spans", BIOS, put("spans", [0, 1]), "spans has 2 entries; legal: 14"),
    ("qa text", QA, text(r"\?", "!"), "the text is "),
    ("qa answer", QA, text("$", " "), "the text is "),
    ("qa asked", QA, put("question", "hobby"), "question is 'hobby'; legal: birth_date, birth_city"),
    ("qa no question", QA, drop("question"), "the row has no 'question'"),
    ("qa span", QA, span(0, 1), "the span of full_name is "),
    ("qa spans", QA, span(13, 1), "the span of "),
    ("id twice", BIOD, text(r"ID (\d) (.*)ID \d", r"ID \1 \2ID \1"), r"sentence . is about ID \d; legal: each of 1..3"),
    ("id", BIOD, text(r"ID \d", "ID 9"), r"sentence 1 is about ID 9; legal: each of 1..3 once"),
    ("word", BIOD, text(r"is \w\w", "is zu"), r"ID \d is 'zu .*; legal: 4 of the 30 words"),
    ("words", BIOD, text(r"is \w\w ", "is "), r"ID \d is .*; legal: 4 of the 30 words"),
    ("subject", BIOD, text(r"\. (His|Her)", ". Its"), "sentence 2 is no statement of bioD about H"),
    ("name", BIOD, text("^", "A"), "sentence 1 is no statement of bioD about "),
    ("end", BIOD, text(r"\.$", ""), "sentence 3 is no statement of bioD about "),
    ("fewer", BIOD, text(r"\. [^.]*\.$", "."), "sentence 2 is no statement"),
    ("picks", BIOD, put("picks", [0] * 5), r"picks are .*; legal: 6 numbers of 0..19"),
    ("pick", BIOD, put("picks", [20] + [0] * 5), r"picks are .*; legal: 6 numbers of 0..19"),
    ("same picks", BIOD, put("picks", [3] * 6), r"ID \d: the strings .* cannot be those that picks \[3, 3\] name"),
    ("biod span", BIOD, span(3, 1), "spans are "),
    ("biod order", BIOD_IN_ORDER, text(r"ID 2 (.*)ID 3", r"ID 3 \1ID 2"), r"the order of sentences is \[1, 3, 2, 4\]"),
]


@pytest.mark.parametrize(("task", "change", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_broken_rows_are_refused(task: CapoTask, change: Callable[[Row], Any], said: str) -> None:
    """Some row can be broken this way; every row so broken is refused, one of them with the reason we mean."""
    reasons = []
    for row in task.take(7, 160):
        broken = copy.deepcopy(plain(row))
        try:
            change(broken)
        except AssertionError:
            continue
        if broken != plain(row):
            verdict = task.validate_example(broken)
            reasons.append(verdict.reason)
    assert reasons
    assert any(reason and re.match(said, reason) for reason in reasons), reasons[:3]
    assert all(reasons), "a broken row passed"


@pytest.mark.parametrize("task", [BIOS, QA, BIOD], ids=["bios", "qa", "biod"])
def test_a_seed_has_the_facts_checked_against_its_people(task: CapoTask) -> None:
    for row in task.take(7, 40):
        assert task.validate_example({**row, "seed": 7})
        told = task.validate_example({**row, "seed": 8})
        assert not told
        other = task.validate_example({**row, "seed": 7, "person_id": (row["person_id"] + 1) % 40})
        assert not other
    if task is not BIOD:
        assert re.match(r"first_name of person \d+ is '\w+', not '\w+'", other.reason or "")


def test_bioD_with_a_seed_checks_strings_and_picks() -> None:
    """Without the seed nobody can know which string a pick names."""
    row = plain(BIOD.example(7, "train", 0))
    changed = copy.deepcopy(row)
    exchange_picks(changed)
    assert not BIOD.validate_example({**changed, "seed": 7})
    start, stop = row["spans"][2:4]
    words = row["text"][start:stop].split()
    if len(set(row["picks"][:2])) == 2:
        words = [*words[2:], *words[:2]]
        said = row["text"][:start] + " ".join(words) + row["text"][stop:]
        assert BIOD.validate_example({**row, "text": said})
        told = BIOD.validate_example({**row, "text": said, "seed": 7})
        assert re.match(r"ID 1: string \d+ of this seed is not ", told.reason or "")


def test_a_row_of_other_parameters_is_refused() -> None:
    for task, other in (
        (IN_ORDER, CapoTask(num_people=40, exposures=4, permute=False, order=1)),
        (IN_ORDER, CapoTask(num_people=40, exposures=4, permute=False, reverse_md=True)),
        (FULL, BIOS),
        (BIOS, FULL),
        (BIOS, QA),
        (QA, BIOS),
        (BIOD, BIOS),
        (BIOS, BIOD),
        (BIOD, BIOD_IN_ORDER),
    ):
        for row in other.take(0, 5):
            assert not task.validate_example(row)
    assert not all(IN_ORDER.validate_example(row) for row in BIOS.take(0, 20))
    assert not all(COUPLE.validate_example(row) for row in BIOS.take(0, 20))
    assert all(BIOS.validate_example(row) for row in IN_ORDER.take(0, 20))
