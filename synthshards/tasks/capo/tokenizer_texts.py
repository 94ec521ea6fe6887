"""What a tokenizer of Capo's texts is trained on: names, values and sentences, each about as often as rows hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .biod import POSSESSIVES, SYLLABLES
from .biography import ANSWER, ATTRIBUTES, QUESTIONS, parts, templates
from .people import DAYS, FIRST_YEAR, MONTHS, PRONOUNS, YEARS, load_pools

#: A list of things that a biography takes one of is repeated until there are about so many: so many biographies.
_BIOGRAPHIES = 4_000
#: bioD has its own few texts: heads of sentences, and syllables alone and in pairs.
_BIOD = 40


def texts() -> Iterator[str]:
    """Texts of all forms and options, the same for all of Capo's parameters: some 4,000 biographies in pieces.

    Values stand with the space before them, names also as the first word of a text.
    """
    pools = load_pools()
    months, days = list(MONTHS), [str(day + 1) for day in range(DAYS)]
    years = [str(FIRST_YEAR + year) for year in range(YEARS)]
    for values in (
        pools.first_names, pools.middle_names, pools.last_names, months, days, years,
        pools.birth_cities, pools.universities, pools.majors, pools.companies, pools.work_cities,
    ):  # fmt: skip
        yield from _often([f" {value}" for value in values])
    yield from _often(pools.first_names)
    yield from _often(["Answer:", *QUESTIONS.values(), *(f" of {month}," for month in months), ANSWER])
    for name in ATTRIBUTES:
        sentences = []
        for template in templates()[name]:
            for pronoun in PRONOUNS:
                for named in (False, True):
                    before, after = parts(template, pronoun, named)
                    sentences.append(f"{before if named else f' {before}'}x{after}")
        yield from _often(sentences)
    for _ in range(_BIOD):
        yield from (f"{subject} ID {k} is" for subject in ("'s", *POSSESSIVES.values()) for k in range(1, 51))
        yield from (f" {syllable}" for syllable in SYLLABLES)
        yield from (f" ba{syllable}" for syllable in SYLLABLES)


def _often(values: Sequence[str]) -> Iterator[str]:
    for _ in range(max(1, _BIOGRAPHIES // len(values))):
        yield from values
