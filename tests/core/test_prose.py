"""The prose is enough: rows and digests written from docs alone (reference.py) equal the package's.

The reference is slow and obvious; the package is fast. They share no line.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import golden_rows
import numpy as np
import pytest
import reference
import reference_brevo
import reference_lano
import reference_mano
from helpers import SUPPORT, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from synthshards.catalog import make_task
from synthshards.digest import ContentDigest, canonical_json
from synthshards.kernels.rng import key_from_rng
from synthshards.ragged import KINDS, Column, RaggedBatch, is_ragged, offsets_of

DOC = SUPPORT.parents[1] / "docs" / "randomness.md"
CASES = golden_rows.cases("depo")


def assert_same(rows: list[dict[str, Any]], batch: RaggedBatch) -> None:
    made = [plain(row) for row in batch.rows()]
    for row in made:
        del row["labels"]
    assert made == rows


@pytest.mark.parametrize("case", CASES)
def test_rows_and_their_digest(case: str) -> None:
    task = CASES[case]
    law = reference.Depo(task.params.canonical())
    rows = law.rows(0, "train", range(25))
    batch = task.batch(0, "train", 0, 25)
    assert law.kinds() == task.columns
    assert_same(rows, batch)
    digest = ContentDigest(task.columns)
    digest.update(batch)
    assert digest.hexdigest() == reference.content_digest(rows, law.kinds())


@settings(max_examples=60, deadline=None)
@given(
    case=st.sampled_from(sorted(CASES)),
    seed=st.integers(0, 2**64 - 1),
    split=st.text("abz_09", min_size=1, max_size=8),
    i=st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([2**31, 2**32 - 1, 2**32, 2**63 - 1])),
)
def test_any_row_of_any_seed_and_split(case: str, seed: int, split: str, i: int) -> None:
    task = CASES[case]
    rows = reference.Depo(task.params.canonical()).rows(seed, split, [i])
    assert_same(rows, task.batch(seed, split, i, 1))


@given(number=st.integers())
@settings(max_examples=30, deadline=None)
def test_a_caller_s_integer(number: int) -> None:
    assert tuple(key_from_rng(number).tolist()) == reference.int_key(number)


@pytest.mark.parametrize("number", [0, -5, 2**200])
def test_generate_example_is_row_0_of_the_caller_s_key(number: int) -> None:
    task = make_task("depo1-225")
    row = plain(task.generate_example(number))
    del row["labels"]
    assert row == reference.Depo(task.params.canonical()).row(reference.int_key(number), 0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES))
def test_canonical_json(value: dict[str, Any]) -> None:
    assert canonical_json(value) == reference.canonical(value).encode()
    assert json.loads(canonical_json(value)) == value


def test_canonical_json_of_hard_strings() -> None:
    value = {"é": '\x7f/\u2028"\\\x00\x1f\n😀', "Z": [True, None, -0, 10**20], "a": ""}
    right = '{"Z":[true,null,0,100000000000000000000],"a":"","é":"\x7f/\u2028\\"\\\\\\u0000\\u001f\\n😀"}'
    assert canonical_json(value) == right.encode() == reference.canonical(value).encode()


@pytest.mark.parametrize("case", ["depo/depo1-225", "depo/fixed-k"])
def test_fingerprint_and_key(case: str) -> None:
    task = CASES[case]
    identity = task.identity(2**64 - 1, "eval_2")
    digest = reference.identity_digest("depo", task.version, task.params.canonical(), 2**64 - 1, "eval_2")
    assert identity.fingerprint == "sha256:" + digest.hex()
    assert tuple(task.key(2**64 - 1, "eval_2").tolist()) == reference.key_of(digest)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """A schema of any kinds and a few rows of it."""
    kinds = draw(st.dictionaries(st.text("abc_", min_size=1), st.sampled_from(sorted(KINDS)), min_size=1, max_size=5))
    cells = {}
    for name, kind in kinds.items():
        scalar = kind.removeprefix("list<").removesuffix(">")
        if scalar == "string":
            cells[name] = st.text("aé😀", max_size=5)
            continue
        bits = 8 * KINDS[scalar].itemsize
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if scalar.startswith("int") else (0, 2**bits - 1)
        value = st.booleans() if scalar == "bool" else st.integers(low, high)
        cells[name] = st.lists(value, max_size=5) if is_ragged(kind) else value
    return kinds, draw(st.lists(st.fixed_dictionaries(cells), max_size=6))


def as_batch(kinds: dict[str, str], rows: list[dict[str, Any]]) -> RaggedBatch:
    columns = {}
    for name, kind in kinds.items():
        values = [row[name].encode() if kind == "string" else row[name] for row in rows]
        flat = [v for value in values for v in value] if is_ragged(kind) else values
        offsets = offsets_of([len(value) for value in values]) if is_ragged(kind) else None
        columns[name] = Column(kind, np.array(flat, KINDS[kind]), offsets)
    return RaggedBatch(columns)


@settings(deadline=None)
@given(table=tables(), cut=st.integers(0, 6))
def test_content_digest_of_any_columns_however_cut(table: tuple[Any, Any], cut: int) -> None:
    kinds, rows = table
    right = reference.content_digest(rows, kinds)
    digest = ContentDigest(kinds)
    for part in (rows[:cut], rows[cut:]):
        digest.update(as_batch(kinds, part))
    assert digest.hexdigest() == right
    if rows:
        assert reference.content_digest(rows[1:], kinds) != right


def known_answers(text: str) -> dict[str, str]:
    """The table of the section "Known answers"."""
    section = text.split("## Known answers")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| ([^|]+?) \| `([^`]+)` \|$", section, re.MULTILINE))


def test_the_known_answers_of_the_prose() -> None:
    task = make_task("depo1-225")
    digest = reference.identity_digest("depo", 1, task.params.canonical(), 0, "train")
    key = reference.key_of(digest)
    state = reference.start(key, 7)
    row = reference.Depo(task.params.canonical()).row(key, 7)
    right = {
        "canonical identity": None,
        "digest": digest.hex(),
        "key0, key1": ", ".join(map(hex, key)),
        "start of row 7": ", ".join(map(hex, state)),
        "its first three words": ", ".join(map(hex, islice(reference.words(state), 3))),
        "n, and the number of tokens": f"{row['n']}, {len(row['input_ids'])}",
        "first tokens": " ".join(map(str, row["input_ids"][:12])),
        "last tokens": " ".join(map(str, row["input_ids"][-6:])),
    }
    answers = known_answers(DOC.read_text())
    identity = answers["canonical identity"]
    assert hashlib.sha256(identity.encode()).digest() == digest
    assert {**right, "canonical identity": identity} == answers


def test_every_heading_that_the_reference_names_exists() -> None:
    headings = {
        name: set(re.findall(r"^#+ (.+)$", (Path(DOC).parent / name).read_text(), re.MULTILINE))
        for name in ("randomness.md", "format.md")
    }
    for module, least in ((reference, 15), (reference_brevo, 6), (reference_mano, 6), (reference_lano, 3)):
        seen = set()
        for doc in re.findall(r'"""(.*?)"""', Path(module.__file__ or "").read_text(), re.DOTALL):
            for page, names in re.findall(r'(randomness\.md|format\.md)((?:(?:,| and)? "[^"]+")+)', doc):
                for name in re.findall(r'"([^"]+)"', names):
                    assert name in headings[page], f"{page} has no heading {name!r}"
                    seen.add(name)
        assert len(seen) >= least, module


def test_the_known_answers_of_the_other_tasks() -> None:
    """By the rewritings, not by the package; that these are right on more rows is theirs to show."""
    lano = make_task("lano-cfg3f")
    rows = {
        "brevo1-70": reference_brevo.Brevo(make_task("brevo1-70").params.canonical()).rows(0, "train", [7])[0],
        "brevo2-30": reference_brevo.Brevo(make_task("brevo2-30").params.canonical()).rows(0, "train", [7])[0],
        "mano-10": reference_mano.Mano(make_task("mano-10").params.canonical()).rows(0, "train", [7])[0],
        "lano-cfg3f": reference_lano.by_the_prose(lano, 0, "train", 7),
    }
    stated = re.findall(r"^\| `([a-z0-9-]+)` \| (\d+) \| ([\d ]+) \| ([\d ]+) \|$", DOC.read_text(), re.MULTILINE)
    assert [name for name, *_ in stated] == list(rows)
    for name, count, first, last in stated:
        ids = rows[name]["input_ids"]
        assert (len(ids), ids[:12], ids[-6:]) == (int(count), [*map(int, first.split())], [*map(int, last.split())])


def test_the_columns_that_the_prose_states() -> None:
    table = (DOC.parent / "format.md").read_text()
    for name in ("depo", "brevo", "mano", "lano"):
        facts = list(make_task(name).columns.items())[2:]
        (line,) = re.findall(rf"^\| {name} \| (.+) \|$", table, re.MULTILINE)
        assert line.startswith(", ".join(f"`{column}` {kind}" for column, kind in facts))
