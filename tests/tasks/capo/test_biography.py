"""Sentences are grammatical with every pronoun, name form and value; markup, spans and questions."""

from __future__ import annotations

import re
from itertools import product

import pytest

from synthshards.errors import DataError
from synthshards.tasks.capo.biography import (  # fmt: skip
    ATTRIBUTES,
    QUESTIONS,
    byte_spans,
    date,
    parse_templates,
    parts,
    sentence,
    templates,
    token_spans,
)
from synthshards.tasks.capo.people import PRONOUNS, load_pools

TEMPLATES = templates()
NAME = "Anya Briar Forger"
VALUES = {
    "birth_date": "October 2, 1996",
    "birth_city": "Taos, NM",
    "university": "Avonlea College",
    "major": "Greek and Latin",
    "employer": "Halden Motor Company",
    "work_city": "Reston, VA",
}
#: What no sentence about one person may say.
WRONG = {
    "he": r"\b(he|He) (were|have|are)\b|\b(she|her|She|Her|they|their|them|They|Their)\b",
    "she": r"\b(she|She) (were|have|are)\b|\b(he|his|him|He|His|they|their|them|They|Their)\b",
    "they": r"\b(they|They) (was|has|is)\b|\b(he|his|him|He|His|she|her|She|Her)\b",
}
RENDERED = [
    (attribute, i, pronoun, named, sentence(template, pronoun, NAME if named else None, VALUES[attribute]))
    for attribute, some in TEMPLATES.items()
    for i, template in enumerate(some)
    for pronoun, named in product(PRONOUNS, (True, False))
]


def complaints(said: str, pronoun: str, named: bool, value: str) -> list[str]:
    """What is wrong with a sentence."""
    subject = {"he": "(He|His)", "she": "(She|Her)", "they": "(They|Their)"}[pronoun]
    rules = {
        "starts with its subject": re.match(rf"{NAME}( |'s )" if named else rf"{subject} ", said),
        "ends with one period": said.endswith(".") and said.count(".") == 1,
        "has its value once": said.count(value) == 1,
        "has single spaces": "  " not in said and " ." not in said and " ," not in said,
        "agrees": not re.search(WRONG[pronoun], said),
        "is singular behind a name": not re.search(rf"{NAME} (were|have|are)\b", said),
        "has no article before a value": not re.search(rf"\b(a|an) {re.escape(value)}", said),
        "has no article before a wrong sound": not re.search(r"\b(a [aeiou](?!niv)|an [^aeiouh])", said),
        "repeats no word": not re.search(r"\b(\w+) \1\b", said),
        "has no markup left": not re.search(r"[{}\[\]|]", said),
        "is a sentence": len(said.replace(value, "").split()) >= 3,
    }
    return [rule for rule, holds in rules.items() if not holds]


def test_every_sentence_is_grammatical() -> None:
    assert len(RENDERED) == 291 * 6
    for attribute, _i, pronoun, named, said in RENDERED:
        assert complaints(said, pronoun, named, VALUES[attribute]) == [], said


@pytest.mark.parametrize(
    ("said", "pronoun", "named", "rule"),
    [
        ("He were born in Taos, NM.", "he", False, "agrees"),
        ("They was born in Taos, NM.", "they", False, "agrees"),
        ("Her parents lived in Taos, NM when he was born.", "she", False, "agrees"),
        (f"{NAME} were born in Taos, NM.", "they", True, "is singular behind a name"),
        ("She was  born in Taos, NM.", "she", False, "has single spaces"),
        ("He was born in a Taos, NM.", "he", False, "has no article before a value"),
        ("He was an native of Taos, NM.", "he", False, "has no article before a wrong sound"),
        ("He was a early child of Taos, NM.", "he", False, "has no article before a wrong sound"),
        ("He was born in in Taos, NM.", "he", False, "repeats no word"),
        ("he was born in Taos, NM.", "he", False, "starts with its subject"),
        (f"{NAME}'s was born in Taos, NM", "he", True, "ends with one period"),
        ("He was born in Taos.", "he", False, "has its value once"),
        ("He [was|were] born in Taos, NM.", "he", False, "has no markup left"),
        ("He Taos, NM.", "he", False, "is a sentence"),
    ],
)
def test_the_grammar_test_can_fail(said: str, pronoun: str, named: bool, rule: str) -> None:
    assert rule in complaints(said, pronoun, named, "Taos, NM")


def test_numbers_of_templates_are_the_published_ones() -> None:
    assert {name: len(some) for name, some in TEMPLATES.items()} == {
        "birth_date": 46, "birth_city": 49, "university": 49, "major": 52, "employer": 48, "work_city": 47,
    }  # fmt: skip
    every = [template for some in TEMPLATES.values() for template in some]
    assert len(set(every)) == len(every)


def test_templates_are_varied() -> None:
    for some in TEMPLATES.values():
        assert sum(template.startswith("{His}") for template in some) >= 6  # possessive names
        assert sum(not template.endswith("{value}.") for template in some) >= 5  # values in the middle
        assert len({template.split()[1] for template in some}) >= 15
    assert sum("{value}'s" in template for template in TEMPLATES["university"] + TEMPLATES["employer"]) >= 6


def test_no_sentence_fits_two_templates() -> None:
    for pronoun, named in product(PRONOUNS, (True, False)):
        skeletons = [parts(t, pronoun, named) for some in TEMPLATES.values() for t in some]
        assert len(set(skeletons)) == len(skeletons)


def test_agreement() -> None:
    template = "{His} parents lived in {value} when {he} [was|were] born."
    assert sentence(template, "they", NAME, "X") == f"{NAME}'s parents lived in X when they were born."
    assert sentence(template, "she", None, "X") == "Her parents lived in X when she was born."
    template = "{He} [was|were] fond of {value}, where {he} [was|were] seen with {his} dog, which loved {him}."
    assert sentence(template, "they", NAME, "X") == (
        f"{NAME} was fond of X, where they were seen with their dog, which loved them."
    )
    assert sentence(template, "they", None, "X").startswith("They were fond of X, where they were")


@pytest.mark.parametrize(
    "template",
    [
        "Yesterday {he} was born in {value}.",
        "{He} was born.",
        "{He} moved from {value} to {value}.",
        "{He} was born in {value}",
        "{He} was born. It was in {value}.",
        "{He} and {His} dog live in {value}.",
        "{He} likes {it} in {value}.",
        "{He} [was] born in {value}.",
        "{He}was born in {value}.",
    ],
)
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(DataError, match=r"^not a template: "):
        parts(template, "he", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{He} lived in {value}.\n", "not a template"),
        ("[hobby]\n{He} likes {value}.\n", "not a template"),
        ("[major]\n{He} studied {value}.\n", "no templates of birth_date"),
    ],
)
def test_what_is_no_file_of_templates(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        parse_templates(text)


def test_dates() -> None:
    assert date(1, 1, 1900) == "January 1, 1900"
    assert date(12, 28, 2099, reverse_md=True) == "28 of December, 2099"


def test_one_question_an_attribute() -> None:
    assert tuple(QUESTIONS) == ATTRIBUTES
    assert len(set(QUESTIONS.values())) == 6
    assert all(q.count("{name}") == 1 and q.endswith("?") for q in QUESTIONS.values())


def test_spans_of_bytes() -> None:
    text = "Zoë was born in São Paulo."
    spans = [0, 3, 16, 25, -1, -1]
    found = byte_spans(text, spans)
    assert found == [0, 4, 17, 27, -1, -1]
    assert text.encode()[17:27].decode() == text[16:25] == "São Paulo"
    assert byte_spans("plain", [1, 5]) == [1, 5]


def test_spans_of_tokens() -> None:
    #          <s>     "Ann"   " was"  " in"   " Ta"    "os,"     " NM"     "."       </s>
    offsets = [(0, 0), (0, 3), (3, 7), (7, 10), (10, 13), (13, 16), (16, 19), (19, 20), (0, 0)]
    assert token_spans([0, 3, 11, 19, -1, -1], offsets) == [1, 2, 4, 7, -1, -1]
    assert token_spans([11, 15], offsets) == [4, 6]  # a token that reaches over the edge belongs to the value
    assert token_spans([30, 35], offsets) == [-1, -1]


def test_the_pools_make_no_sentence_ambiguous() -> None:
    """No value holds a word of agreement that the grammar test would take for the sentence's own."""
    pools = load_pools()
    for value in (*pools.universities, *pools.majors, *pools.companies, *pools.birth_cities, *pools.work_cities):
        assert not re.search(r"\b(he|she|they|his|her|their|him|them|was|were)\b", value, re.IGNORECASE)
