"""Capo's checker: reads a text by the templates and pools in plain Python, and compares it with the row's facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ...errors import UsageError
from ..task import BrokenLaw
from .biod import check_biod
from .biography import ANSWER, ATTRIBUTES, QUESTIONS, SPANS, date, parts, templates
from .params import CapoParams
from .people import DAYS, FIRST_YEAR, MONTHS, PRONOUNS, YEARS, load_pools, person
from .tables import sentence_orders

#: The columns that say who a person is.
FACTS = (
    "first_name", "middle_name", "last_name", "pronoun", "birth_month", "birth_day", "birth_year",
    "birth_city", "university", "major", "employer", "work_city",
)  # fmt: skip


def check_row(p: CapoParams, version: int, example: Mapping[str, Any]) -> None:
    """See `CapoTask.check_example`; `version` is the task's."""
    check_facts(p, example)
    text = example["text"]
    if p.form == "biod":
        check_biod(p, version, example)
    elif p.form == "qa":
        right = question_text(p, example)
        if text != right:
            raise BrokenLaw(f"the text is {text!r}, not {right!r}")
        asked = example["question"]
        value = value_of(p, example, asked)
        start = QUESTIONS[asked].index("{name}")
        spans = {"full_name": (start, start + len(full_name(example))), asked: (len(text) - len(value), len(text))}
        check_spans(example, spans)
    else:
        check_spans(example, read_biography(p, example))
    if "seed" in example:
        check_person(p, version, example)


def check_facts(p: CapoParams, example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless every fact is one that a person can have."""
    pools = load_pools()
    for name, stop in (("person_id", p.num_people), ("exposure_idx", p.exposures)):
        if not 0 <= example[name] < stop:
            raise BrokenLaw(f"{name} is {example[name]}; legal: 0..{stop - 1}")
    legal: dict[str, Sequence[Any]] = {
        "first_name": pools.first_names,
        "middle_name": pools.middle_names,
        "last_name": pools.last_names,
        "pronoun": PRONOUNS[: 2 + p.they],
    }
    if p.form != "biod":
        legal |= {
            "birth_month": range(1, len(MONTHS) + 1),
            "birth_day": range(1, DAYS + 1),
            "birth_year": range(FIRST_YEAR, FIRST_YEAR + YEARS),
            "birth_city": pools.birth_cities,
            "university": pools.universities,
            "major": pools.majors,
            "employer": pools.companies,
        }
    for name, values in legal.items():
        if example[name] not in values:
            words = f"{values[0]}..{values[-1]}" if isinstance(values, range) else f"one of {len(values)} in the pool"
            raise BrokenLaw(f"{name} is {example[name]!r}; legal: {words}")
    if p.form != "biod":
        home = pools.work_cities[pools.companies.index(example["employer"])]
        if example["work_city"] != home:
            raise BrokenLaw(f"work_city is {example['work_city']!r}, but {example['employer']} is in {home!r}")


def check_person(p: CapoParams, version: int, example: Mapping[str, Any]) -> None:
    """Raise `BrokenLaw` unless the facts are those of that person of the example's seed."""
    them = person(example["seed"], p.num_people, example["person_id"], they=p.they, version=version)
    for name in FACTS[:4] if p.form == "biod" else FACTS:
        if example[name] != getattr(them, name):
            raise BrokenLaw(
                f"{name} of person {example['person_id']} is {getattr(them, name)!r}, not {example[name]!r}"
            )


def full_name(example: Mapping[str, Any]) -> str:
    return f"{example['first_name']} {example['middle_name']} {example['last_name']}"


def value_of(p: CapoParams, example: Mapping[str, Any], attribute: str) -> str:
    """An attribute as texts write it."""
    if attribute == "birth_date":
        return date(example["birth_month"], example["birth_day"], example["birth_year"], p.reverse_md)
    return str(example[attribute])


def question_text(p: CapoParams, example: Mapping[str, Any]) -> str:
    """The text of a row of `form=qa`."""
    asked = example["question"]
    if asked not in QUESTIONS:
        raise BrokenLaw(f"question is {asked!r}; legal: {', '.join(QUESTIONS)}")
    return QUESTIONS[asked].format(name=full_name(example)) + ANSWER + value_of(p, example, asked)


def check_spans(example: Mapping[str, Any], right: Mapping[str, tuple[int, int]]) -> None:
    """Raise `BrokenLaw` unless `spans` are the right ones (−1, −1 where the text does not hold a value)."""
    spans = list(example["spans"])
    if len(spans) != 2 * len(SPANS):
        raise BrokenLaw(f"spans has {len(spans)} entries; legal: {2 * len(SPANS)}")
    for i, name in enumerate(SPANS):
        found, wanted = tuple(spans[2 * i : 2 * i + 2]), right.get(name, (-1, -1))
        if found != wanted:
            raise BrokenLaw(f"the span of {name} is {list(found)}, not {list(wanted)}")


@cache
def skeletons(pronoun: str, named: bool) -> dict[tuple[str, str], str]:
    """(part before the value, part after it) → attribute, over all templates."""
    return {parts(t, pronoun, named): name for name, some in templates().items() for t in some}


def read_biography(p: CapoParams, example: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Where the name and each value stand in the text, found by reading it sentence by sentence.

    Raises:
        BrokenLaw: it is not a biography of that person under these parameters.
    """
    name, text = full_name(example), example["text"]
    values = {attribute: value_of(p, example, attribute) for attribute in ATTRIBUTES}
    spans, order, at = {"full_name": (0, len(name))}, [], 0
    sentences = re.findall(r"[^.]*\.", text)
    if "".join(sentences) != text or len(sentences) != len(ATTRIBUTES):
        raise BrokenLaw(f"{len(sentences)} sentences; legal: {len(ATTRIBUTES)}, each ending with a period")
    for i, raw in enumerate(sentences):
        said = raw if i == 0 else raw[1:]
        if i and raw[0] != " ":
            raise BrokenLaw(f"sentence {i + 1} is not behind one space")
        at += i > 0
        named = i == 0 or p.fullname
        if named and not said.startswith(name):
            raise BrokenLaw(f"sentence {i + 1} does not start with {name}: {said!r}")
        attribute, start = _read_sentence(said, len(name) if named else 0, named, example["pronoun"], values)
        if attribute in spans:
            raise BrokenLaw(f"two sentences about {attribute}")
        spans[attribute] = (at + start, at + start + len(values[attribute]))
        order.append(ATTRIBUTES.index(attribute))
        at += len(said)
    if order not in sentence_orders(p.permute, p.couple, p.order).tolist():
        raise BrokenLaw(f"the order of sentences is {', '.join(ATTRIBUTES[a] for a in order)}")
    return spans


def _read_sentence(said: str, skip: int, named: bool, pronoun: str, values: Mapping[str, str]) -> tuple[str, int]:
    """The attribute that a sentence is about, and where in it the value starts."""
    known = skeletons(pronoun, named)
    for attribute, value in values.items():
        start = said.find(value, skip)
        while start >= 0:
            if known.get((said[skip:start], said[start + len(value) :])) == attribute:
                return attribute, start
            start = said.find(value, start + 1)
    raise BrokenLaw(f"no template and value of this person make {said!r}")


def check_answer(p: CapoParams, example: Mapping[str, Any], answer: Sequence[int] | str) -> None:
    """See `CapoTask.check_answer`."""
    if p.form != "qa":
        raise UsageError(f"capo: form={p.form} asks no question; legal: form=qa")
    said = answer if isinstance(answer, str) else bytes(answer).decode(errors="replace")
    right = value_of(p, example, example["question"])
    if said.strip(" ") != right:
        raise BrokenLaw(f"the answer is {said.strip(' ')!r}, not {right!r}")
