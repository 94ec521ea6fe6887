"""Sentences about people: the markup of templates, agreement with he, she and they, spans, and questions.

A template of `pools/biographies.txt` is one sentence about one attribute. `{He} [was|were] born in {value}.` is

    Anya Briar Forger was born in Taos, NM.      a full name is one person, whatever the pronoun
    She was born in Taos, NM.
    They were born in Taos, NM.

and `{His} parents lived in {value} when {he} [was|were] born.` about the same person, whose pronoun is "they":

    Anya Briar Forger's parents lived in Taos, NM when they were born.
    Their parents lived in Taos, NM when they were born.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from ...errors import DataError
from .people import MONTHS, PRONOUNS, pool_text

#: Attributes in the order of `spans`, of templates and of everything else.
ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer", "work_city")
#: What `spans` holds: the character [start, stop) of each.
SPANS = ("full_name", *ATTRIBUTES)
#: `form=qa`: one question an attribute; the value follows "Answer:".
QUESTIONS = {
    "birth_date": "When was {name} born?",
    "birth_city": "In which city was {name} born?",
    "university": "Which school did {name} attend?",
    "major": "What did {name} major in?",
    "employer": "Which company did {name} work for?",
    "work_city": "In which city did {name} work?",
}
ANSWER = " Answer: "
_WORDS = {  # by pronoun
    "{He}": ("He", "She", "They"),
    "{His}": ("His", "Her", "Their"),
    "{he}": ("he", "she", "they"),
    "{him}": ("him", "her", "them"),
    "{his}": ("his", "her", "their"),
}
_MARKUP = re.compile(r"\{[^}]*\}|\[[^\]]*\]")


def date(month: int, day: int, year: int, reverse_md: bool = False) -> str:
    """A birth date as biographies write it.

    >>> date(10, 2, 1996), date(10, 2, 1996, reverse_md=True)
    ('October 2, 1996', '2 of October, 1996')
    """
    name = MONTHS[month - 1]
    return f"{day} of {name}, {year}" if reverse_md else f"{name} {day}, {year}"


def sentence(template: str, pronoun: str, name: str | None, value: str) -> str:
    """A template about a person whose pronoun is `pronoun`; the subject is `name`, or the pronoun where it is None."""
    before, after = parts(template, pronoun, named=name is not None)
    return f"{name or ''}{before}{value}{after}"


@cache
def parts(template: str, pronoun: str, named: bool) -> tuple[str, str]:
    """What stands before and after the value. With `named` the full name comes first, and is not in the part before.

    Raises:
        DataError: the template is not one: it must start with {He} or {His}, hold {value} once and end with a period.
    """
    which = PRONOUNS.index(pronoun)
    found = _MARKUP.findall(template)
    if (
        not template.startswith(("{He} ", "{His} "))
        or found.count("{value}") != 1
        or not template.endswith(".")
        or template.count(".") != 1
        or found.count("{He}") + found.count("{His}") != 1
    ):
        raise DataError(f"not a template: {template!r}")
    plural = False

    def fill(match: re.Match[str]) -> str:
        nonlocal plural
        mark = match[0]
        if mark == "{value}":
            return mark
        if mark in _WORDS:
            if mark in ("{He}", "{he}"):
                plural = pronoun == "they" and not (named and mark == "{He}")
            if named and mark in ("{He}", "{His}"):
                return "" if mark == "{He}" else "'s"
            return _WORDS[mark][which]
        forms = mark[1:-1].split("|")
        if mark[0] != "[" or len(forms) != 2:
            raise DataError(f"not a template: {template!r} has {mark}")
        return forms[plural]

    before, after = _MARKUP.sub(fill, template).split("{value}")
    return before, after


def templates() -> dict[str, tuple[str, ...]]:
    """The shipped templates of each attribute, in their order in the file."""
    return parse_templates(pool_text("biographies"))


@cache
def parse_templates(text: str) -> dict[str, tuple[str, ...]]:
    """Attribute → templates, of a text in the markup of `pools/biographies.txt`.

    Raises:
        DataError: an unknown attribute, or one without a template.
    """
    out: dict[str, list[str]] = {name: [] for name in ATTRIBUTES}
    here: list[str] | None = None
    for line in text.splitlines():
        if line.startswith("[") and line[1:-1] in out:
            here = out[line[1:-1]]
        elif line and not line.startswith("#"):
            if here is None or line.startswith("["):
                raise DataError(f"not a template: {line!r}")
            here.append(line)
    if missing := [name for name, some in out.items() if not some]:
        raise DataError(f"no templates of {missing[0]}")
    return {name: tuple(some) for name, some in out.items()}


def byte_spans(text: str, spans: Sequence[int]) -> list[int]:
    """Character spans of `text` as spans of its UTF-8 bytes (the same where the text is ASCII); −1 stays −1."""
    at = [0]
    for character in text:
        at.append(at[-1] + len(character.encode()))
    return [at[i] if i >= 0 else -1 for i in spans]


def token_spans(spans: Sequence[int], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Character spans as spans of tokens: the tokens that touch a value; −1 stays −1.

    Args:
        spans: start, stop, start, stop … in characters.
        offsets: each token's character [start, stop), as a fast tokenizer's `offset_mapping` gives them. Tokens of no
            characters (special ones) belong to no span.
    """
    out = []
    for start, stop in zip(spans[::2], spans[1::2], strict=True):
        inside = [i for i, (a, b) in enumerate(offsets) if a < b and a < stop and b > start] if start >= 0 else []
        out += [inside[0], inside[-1] + 1] if inside else [-1, -1]
    return out
