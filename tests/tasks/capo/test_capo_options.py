"""What the options of Capo do: orders, names, dates, fresh biographies, questions, bioD; what is refused; formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from capo_parts import CASES, SMALL, everything, order_of, rows_of, values_of
from law_statistics import chi_square

from synthshards.digest import ContentDigest
from synthshards.errors import UsageError
from synthshards.formats import get_format
from synthshards.tasks.capo import people
from synthshards.tasks.capo import task as capo_module
from synthshards.tasks.capo.biod import make_biod, spell, string_key
from synthshards.tasks.capo.biography import QUESTIONS, SPANS, templates
from synthshards.tasks.capo.people import FIRST_YEAR, load_pools
from synthshards.tasks.capo.tables import make_text_tables
from synthshards.tasks.capo.task import CapoTask, text_tables

# Biographies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"permute": False},
        {"couple": True},
        {"fullname": True},
        {"reverse_md": True},
        {"they": True},
        {"permute": False, "order": 1},
    ],
    ids=str,
)
def test_spans_are_where_values_are_written(params: dict[str, Any]) -> None:
    for row in everything(CapoTask({"num_people": 50, "exposures": 4, **params})):
        values, spans = values_of(row, params.get("reverse_md", False)), row["spans"]
        for i, name in enumerate(SPANS):
            assert row["text"][spans[2 * i] : spans[2 * i + 1]] == values[name]
        assert row["text"].startswith(values["full_name"])


def test_permute_gives_every_order_and_none_when_off() -> None:
    rows = everything(CapoTask(num_people=100, exposures=100))
    assert len({order_of(row) for row in rows}) == 720
    assert {order_of(row) for row in everything(CapoTask(num_people=20, exposures=9, permute=False))} == {
        (0, 1, 2, 3, 5, 4)
    }
    assert {order_of(row) for row in everything(CapoTask(num_people=20, exposures=9, permute=False, order=1))} == {
        (0, 1, 2, 3, 4, 5)
    }


def test_couple_keeps_pairs() -> None:
    orders = {order_of(row) for row in everything(CapoTask(num_people=50, exposures=10, couple=True))}
    assert len(orders) == 6
    for order in orders:
        assert {order[0:2], order[2:4], order[4:6]} == {(0, 1), (2, 3), (4, 5)}


def test_fullname_is_in_every_sentence() -> None:
    for row in everything(CapoTask(num_people=30, exposures=2, fullname=True)):
        name = values_of(row)["full_name"]
        assert all(part.startswith(name) for part in row["text"].split(". "))
    for row in everything(SMALL):
        name = values_of(row)["full_name"]
        assert row["text"].count(name) == 1
        subjects = {part.split()[0] for part in row["text"].split(". ")[1:]}
        assert subjects <= {"he": {"He", "His"}, "she": {"She", "Her"}}[row["pronoun"]]


@pytest.mark.parametrize("fresh", [1, 2, 3, 6, None])
def test_fresh_biographies(fresh: int | None) -> None:
    """M different biographies a person, each met exposures / M times, as late again as can be."""
    rows = everything(CapoTask(num_people=30, exposures=6, fresh=fresh))
    for p in range(30):
        mine = sorted((row["exposure_idx"], row["text"]) for row in rows if row["person_id"] == p)
        texts = [text for _, text in mine]
        many = fresh or 6
        assert len(set(texts)) == many
        assert texts == texts[:many] * (6 // many)


def test_pronouns() -> None:
    assert {row["pronoun"] for row in everything(CapoTask(num_people=60, exposures=1))} == {"he", "she"}
    rows = everything(CapoTask(num_people=60, exposures=1, they=True))
    assert {row["pronoun"] for row in rows} == {"he", "she", "they"}
    assert any(" They were " in row["text"] or " Their " in row["text"] for row in rows)


def test_questions() -> None:
    task = CapoTask(num_people=30, exposures=3, form="qa", reverse_md=True)
    rows = everything(task)
    for row in rows:
        values, asked = values_of(row, True), row["question"]
        question, answer = row["text"].split(" Answer: ")
        assert question == QUESTIONS[asked].format(name=values["full_name"])
        assert answer == values[asked]
        for i, name in enumerate(SPANS):
            start, stop = row["spans"][2 * i : 2 * i + 2]
            if name in ("full_name", asked):
                assert row["text"][start:stop] == values[name]
            else:
                assert (start, stop) == (-1, -1)
        assert task.score_answer(row, answer)
        assert task.score_answer(row, list(f" {answer}".encode()))
        said = task.score_answer(row, answer[:-1]).reason
        assert said == f"the answer is {answer[:-1]!r}, not {answer!r}"
    mine = [[row["question"] for row in rows if row["person_id"] == p] for p in range(30)]
    assert len({tuple(six[:6]) for six in mine}) > 20  # everybody is asked in an order of their own
    assert all(six[:6] != six[6:12] for six in mine[:5])
    assert all(sorted(six[:6]) == sorted(QUESTIONS) for six in mine)


def test_only_questions_have_answers() -> None:
    with pytest.raises(UsageError, match=r"^capo: form=bios asks no question; legal: form=qa$"):
        SMALL.score_answer(SMALL.example(0, "train", 0), "Taos, NM")
    assert CapoTask(form="qa").score_answer({}, "x").reason == "the row has no 'question'"
    with pytest.raises(
        UsageError,
        match=r"^capo: rows are text; legal: a tokenizer \(synthshards tasks capo --tokenizer FILE",
    ):
        SMALL.token_ids()
    assert SMALL.decode([65, 10]) == ["A", "<0a>"]


# bioD --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("K", "C", "D", "L", "T"),
    [(4, 2, 1000, 2, 100), (1, 1, 20, 1, 20), (3, 2, 50, 20, 4000), (50, 1, 10, 1, 40_000), (2, 50, 10_000, 3, 101)],
)
def test_biod(K: int, C: int, D: int, L: int, T: int) -> None:
    task = CapoTask(num_people=40, exposures=2, form="biod", K=K, C=C, D=D, L=L, T=T)
    law, key = make_biod(K, C, D, L, T), string_key(task.params, task.version, 0)
    picked = {}
    for row in everything(task):
        assert len(row["picks"]) == K * C
        assert picked.setdefault(row["person_id"], row["picks"]) == row["picks"] == law.picks(key, row["person_id"])
        for k in range(K):
            start, stop = row["spans"][2 + 2 * k : 4 + 2 * k]
            strings = [law.string(key, k, j) for j in row["picks"][k * C : (k + 1) * C]]
            words = [spell(word, law.width) for string in strings for word in string]
            assert row["text"][start:stop] == " ".join(words)
            assert row["text"][:start].endswith(f" ID {k + 1} is ")
    assert max(max(picks) for picks in picked.values()) < D


def test_biod_s_strings_are_different_and_spread() -> None:
    for D, L, T in ((20, 1, 20), (400, 2, 20), (500, 20, 20), (1000, 6, 40_000)):
        task = CapoTask(form="biod", D=D, L=L, T=T)
        law, key = make_biod(4, 2, D, L, T), string_key(task.params, task.version, 0)
        made = [[tuple(law.string(key, k, j)) for j in range(min(D, 400))] for k in range(2)]
        for strings in made:
            assert len(set(strings)) == len(strings)
            assert len({string[-1] for string in strings}) > min(T, 400) // 3  # the last word varies too
        assert made[0] != made[1]


def test_biod_s_sentences_come_in_any_order() -> None:
    rows = everything(CapoTask(num_people=100, exposures=48, form="biod"))
    orders = [tuple(sorted(range(4), key=row["spans"][2::2].__getitem__)) for row in rows]
    assert chi_square(np.unique(orders, axis=0, return_counts=True)[1]) > 1e-6
    assert len(set(orders)) == 24
    mine = [order for order, row in zip(orders, rows, strict=True) if row["person_id"] == 7]
    assert len(set(mine)) > 12


def test_biod_s_strings_are_a_world_of_their_own_for_every_parameter() -> None:
    values = [{}, {"K": 5}, {"C": 3}, {"D": 999}, {"L": 3}, {"T": 101}, {"num_people": 7}, {"they": True}]
    shared = {tuple(CapoTask({"form": "biod", **some}).shared_state(0).tolist()) for some in values}
    assert len(shared) == len(values)
    assert len({keys[2:] for keys in shared}) == len(values)
    assert len({keys[:2] for keys in shared}) == 3  # the people are the same but for the last two


def test_biod_s_words() -> None:
    for T, width in ((20, 2), (100, 2), (101, 4), (10_000, 4), (10_001, 6), (40_000, 6)):
        law = make_biod(1, 1, 10, 1, T)
        words = [bytes(law.words[8 * i : 8 * i + width + 1]).decode() for i in range(T)]
        assert len(set(words)) == T
        assert all(word.endswith(" ") and word[:-1].isalpha() for word in words)


# Parameters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"fresh": 7}, "capo: fresh=7 does not divide exposures=100; legal: 1, 2, 4, 5, 10, 20, 25, 50, 100 or null"),
        ({"couple": True, "permute": False}, "capo: couple=true permutes pairs of sentences; legal: with permute=true"),
        ({"K": 5}, "capo: K=5 says nothing about form=bios; leave it out"),
        ({"order": 1}, "capo: order=1 says nothing about permute=true; leave it out"),
        ({"couple": True, "order": 1}, "capo: order=1 says nothing about permute=true; leave it out"),
        ({"form": "biod", "order": 1}, "capo: order=1 says nothing about form=biod; leave it out"),
        ({"form": "biod", "reverse_md": True}, "capo: reverse_md=True says nothing about form=biod; leave it out"),
        ({"form": "qa", "permute": False}, "capo: permute=False says nothing about form=qa; leave it out"),
        ({"form": "qa", "fresh": 1}, "capo: fresh=1 says nothing about form=qa; leave it out"),
        (
            {"form": "biod", "D": 401, "L": 2, "T": 20},
            "capo: D=401 different strings of L=2 words of T=20; legal: D 10..400",
        ),
        ({"num_people": 1}, "capo: num_people=1 is not legal (expected int >= 2); legal: int 2..160000000"),
        ({"form": "qanda"}, "capo: form='qanda' is not legal (invalid enum value 'qanda'); legal: 'bios' 'biod' 'qa'"),
        (
            {"people": "half"},
            "capo: people='half' is not legal (invalid enum value 'half'); legal: 'all' 'train' 'test'",
        ),
    ],
    ids=str,
)
def test_illegal_parameters(params: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        CapoTask(params)
    assert sorted(str(caught.value)) == sorted(said)  # msgspec's choices come in any order


# Other alphabets, formats ------------------------------------------------------------------------------------------


def test_spans_count_characters_in_any_alphabet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped pools are ASCII; the code does not count on it."""
    pools = load_pools()
    foreign = replace(
        pools,
        first_names=tuple(f"Zoë{i}" for i in range(400)),
        birth_cities=tuple(f"São Paulo {i}, BR" for i in range(200)),
        majors=tuple(f"数学 {i}" for i in range(100)),
    )
    foreign_tables = {reverse: make_text_tables(foreign, templates(), reverse) for reverse in (False, True)}
    assert text_tables(False).ascii
    assert not foreign_tables[False].ascii
    monkeypatch.setattr(people, "load_pools", lambda: foreign)
    monkeypatch.setattr(capo_module, "load_pools", lambda: foreign)
    monkeypatch.setattr(capo_module, "text_tables", foreign_tables.__getitem__)
    monkeypatch.setattr("synthshards.tasks.capo.checker.load_pools", lambda: foreign)
    for params in ({}, {"form": "qa"}, {"form": "biod"}):
        task = CapoTask({"num_people": 50, "exposures": 2, **params})
        for row in everything(task):
            verdict = task.validate_example({**row, "seed": 0} if "form" not in params else row)
            assert verdict, verdict.reason
            assert row["first_name"].startswith("Zoë")


@pytest.mark.parametrize("format", ["parquet", "arrow", "webdataset"])
@pytest.mark.parametrize("case", ["capo/capo-50k", "capo/questions, few people", "capo/bioD"])
def test_formats_keep_every_column(format: str, case: str) -> None:
    task, made = CASES[case], get_format(format)
    batch = task.batch(0, "train", 0, 378)
    compression = {"parquet": "zstd", "arrow": "none", "webdataset": "none"}[format]
    writer = made.writer(task.columns, compression, {}, 0)
    writer.write(batch)
    reader = made.reader(writer.finish(), task.columns)
    again = reader.read(0, 378)
    digests = []
    for some in (batch, again):
        digest = ContentDigest(task.columns)
        digest.update(some)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]
    assert rows_of(again.slice(5, 9)) == rows_of(batch.slice(5, 9))


def test_years_are_those_of_the_pool() -> None:
    years = [row["birth_year"] for row in everything(CapoTask(num_people=3000, exposures=1))]
    assert (min(years), max(years)) == (FIRST_YEAR, FIRST_YEAR + 199)
