"""Parameters are strict, and each refusal is one line that names what, the value, and what is legal."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from msgspec import Meta

from synthshards import DepoTask, UsageError, make_task
from synthshards.params import TaskParams, assignments, describe, legal, parse
from synthshards.tasks.depo import MAX_ID, DepoParams
from synthshards.tasks.lano.task import LanoParams

ALL = [
    "N", "K", "M", "mini_vocab", "min_tlen", "max_tlen", "qa", "fixed_k", "separator",
    "bos_token_id", "separator_token_id", "query_token_base", "answer_token_id",
]  # fmt: skip


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UsageError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# Values that no field takes, and what the message says between the value and the legal range.
WRONG = [
    ("N", True, "expected int, got bool", "int 3..65535"),
    ("N", 225.0, "expected int, got float", "int 3..65535"),
    ("N", 2.5, "expected int, got float", "int 3..65535"),
    ("N", "225", "expected int, got str", "int 3..65535"),
    ("N", None, "expected int, got null", "int 3..65535"),
    ("N", [225], "expected int, got array", "int 3..65535"),
    ("N", np.int64(225), "expected int, got numpy.int64", "int 3..65535"),
    ("N", 2, "expected int >= 3", "int 3..65535"),
    ("N", 65536, "expected int <= 65535", "int 3..65535"),
    ("N", 10**30, "expected int <= 65535", "int 3..65535"),
    ("K", 0, "expected int >= 1", "int 1..65535"),
    ("K", 65536, "expected int <= 65535", "int 1..65535"),
    ("M", 0, "expected int >= 1", "int 1..65535"),
    ("M", 65536, "expected int <= 65535", "int 1..65535"),
    ("mini_vocab", 0, "expected int >= 1", "int 1..1000000"),
    ("mini_vocab", 1_000_001, "expected int <= 1000000", "int 1..1000000"),
    ("min_tlen", 0, "expected int >= 1", "int 1..64"),
    ("max_tlen", 65, "expected int <= 64", "int 1..64"),
    ("qa", 1, "expected bool, got int", "true or false"),
    ("qa", "true", "expected bool, got str", "true or false"),
    ("separator", None, "expected bool, got null", "true or false"),
    ("fixed_k", 0, "expected int >= 1", "int 1..65535 or null"),
    ("fixed_k", True, "expected int | null, got bool", "int 1..65535 or null"),
    ("fixed_k", 2.0, "expected int | null, got float", "int 1..65535 or null"),
    ("bos_token_id", -1, "expected int >= 0", f"int 0..{MAX_ID}"),
    ("separator_token_id", MAX_ID + 1, f"expected int <= {MAX_ID}", f"int 0..{MAX_ID}"),
    ("query_token_base", 0.5, "expected int, got float", f"int 0..{MAX_ID}"),
    ("answer_token_id", "x", "expected int, got str", f"int 0..{MAX_ID}"),
]


@pytest.mark.parametrize(("name", "value", "why", "range_"), WRONG, ids=[f"{w[0]}={w[1]!r}" for w in WRONG])
def test_a_value_that_no_parameter_takes(name: str, value: Any, why: str, range_: str) -> None:
    assert refusal(DepoTask, {name: value}) == f"depo: {name}={value!r} is not legal ({why}); legal: {range_}"
    assert refusal(make_task, "depo1-300", **{name: value}).startswith(f"depo: {name}={value!r} is not legal")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Mini_vocab", "; did you mean 'mini_vocab'?"), ("fixedk", "; did you mean 'fixed_k'?"), ("zzz", "")],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    assert refusal(DepoTask, {name: 1}) == f"depo: no parameter {name!r}{hint}; legal: {', '.join(ALL)}"
    assert refusal(DepoTask, **{name: 1}) == refusal(make_task, "depo", {name: 1})


# Values that are legal one by one: (parameters, the whole message).
COMBINATIONS: list[tuple[dict[str, Any], str]] = [
    ({"fixed_k": 9}, "depo: fixed_k=9 exceeds K=8; legal: 1..8 or null"),
    ({"min_tlen": 3}, "depo: min_tlen=3 exceeds max_tlen=2; legal: min_tlen ≤ max_tlen"),
    (
        {"N": 2551},
        "depo: mini_vocab=50 with words of 1..2 tokens makes 2550 distinct words, fewer than N=2551; "
        "legal: N ≤ 2550, or a larger mini_vocab or max_tlen",
    ),
    (
        {"mini_vocab": 1, "max_tlen": 2, "N": 3},
        "depo: mini_vocab=1 with words of 1..2 tokens makes 2 distinct words, fewer than N=3; "
        "legal: N ≤ 2, or a larger mini_vocab or max_tlen",
    ),
    (
        {"mini_vocab": 2, "max_tlen": 62},
        "depo: mini_vocab=2 with max_tlen=62 spans more than 2^62 words; legal: smaller of either",
    ),
    (
        {"query_token_base": MAX_ID - 7},
        f"depo: query_token_base={MAX_ID - 7} + K=8 exceeds {MAX_ID}; legal: query_token_base 0..{MAX_ID - 8}",
    ),
    (
        {"bos_token_id": 100},
        "depo: ids clash: word tokens (1..2*mini_vocab) and bos_token_id share 100; legal: ids that stay apart",
    ),
    (
        {"answer_token_id": 1},
        "depo: ids clash: word tokens (1..2*mini_vocab) and answer_token_id share 1; legal: ids that stay apart",
    ),
    (
        {"query_token_base": 99},
        "depo: ids clash: word tokens (1..2*mini_vocab) and queries (query_token_base + 1..K) share 100; "
        "legal: ids that stay apart",
    ),
    (
        {"mini_vocab": 5000},
        "depo: ids clash: word tokens (1..2*mini_vocab) and separator_token_id share 9700; legal: ids that stay apart",
    ),
    (
        {"separator_token_id": 0},
        "depo: ids clash: bos_token_id and separator_token_id share 0; legal: ids that stay apart",
    ),
    (
        {"bos_token_id": 9008},
        "depo: ids clash: bos_token_id and queries (query_token_base + 1..K) share 9008; legal: ids that stay apart",
    ),
    (
        {"bos_token_id": 9500},
        "depo: ids clash: bos_token_id and answer_token_id share 9500; legal: ids that stay apart",
    ),
    (
        {"separator_token_id": 9001},
        "depo: ids clash: separator_token_id and queries (query_token_base + 1..K) share 9001; "
        "legal: ids that stay apart",
    ),
    (
        {"answer_token_id": 9700},
        "depo: ids clash: separator_token_id and answer_token_id share 9700; legal: ids that stay apart",
    ),
    (
        {"K": 500},
        "depo: ids clash: queries (query_token_base + 1..K) and answer_token_id share 9500; legal: ids that stay apart",
    ),
]


@pytest.mark.parametrize(("params", "message"), COMBINATIONS, ids=[str(params) for params, _ in COMBINATIONS])
def test_a_combination_that_cannot_be(params: dict[str, Any], message: str) -> None:
    assert refusal(DepoTask, params) == message


@pytest.mark.parametrize(
    "params",
    [
        {"N": 2550},  # every name there is
        {"N": 3, "K": 400},  # k wraps
        {"K": 8, "fixed_k": 8},
        {"K": 499},
        {"bos_token_id": 9000},  # the base itself is no query's id
        {"bos_token_id": 101},
        {"mini_vocab": 4499},
        {"mini_vocab": 2, "min_tlen": 56, "max_tlen": 56, "N": 9},
        {"query_token_base": MAX_ID - 8},
        {"M": 65535},
        {"fixed_k": None},
    ],
    ids=str,
)
def test_the_last_legal_value(params: dict[str, Any]) -> None:
    task = DepoTask(params)
    assert {name: getattr(task.params, name) for name in params} == params


def test_parameters_cannot_change_afterwards() -> None:
    with pytest.raises(AttributeError):
        DepoTask().params.N = 5


def test_keywords_win_over_the_mapping() -> None:
    assert make_task("depo1-300", {"N": 10, "K": 3}, N=20).params == DepoParams(N=20, K=3)
    assert repr(DepoTask(N=20)).startswith("DepoTask(N=20, K=8, ")


def test_a_task_prints_no_whole_grammar() -> None:
    shown = repr(make_task("lano", grammar="S -> " + " | ".join("1 " * i + "2" for i in range(1, 60))))
    assert shown.startswith("LanoTask(grammar='6 -> 1 2 | 1 1 2")
    assert "…, framing='none', bos_token_id=0, " in shown
    assert len(shown) < 400


# From text ---------------------------------------------------------------------------------------------------------


def test_values_typed_on_a_command_line() -> None:
    typed = assignments(("N=300", "qa=true", "separator=false", "fixed_k=7"), "depo")
    assert parse(DepoParams, typed, "depo", text=True) == DepoParams(N=300, qa=True, fixed_k=7)
    assert parse(LanoParams, {"symbols": "3,4", "depth": "2", "grammar": "drawn"}, "lano", text=True).symbols == "3,4"
    for null in ("null", "none", "None"):
        assert parse(DepoParams, {"fixed_k": null}, "depo", text=True).fixed_k is None


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("N", "many", "int 3..65535"),
        ("N", "2.5", "int 3..65535"),
        ("N", "5.0", "int 3..65535"),
        ("N", "3e1", "int 3..65535"),
        ("N", " 30", "int 3..65535"),
        ("N", "٣٠", "int 3..65535"),
        ("fixed_k", "7.0", "int 1..65535 or null"),
        ("N", "", "int 3..65535"),
        ("N", "null", "int 3..65535"),
        ("N", "2", "int 3..65535"),
        ("qa", "yes", "true or false"),
        ("fixed_k", "x", "int 1..65535 or null"),
    ],
)
def test_text_that_is_no_value(name: str, value: str, range_: str) -> None:
    said = refusal(parse, DepoParams, {name: value}, "depo", text=True)
    assert said.startswith(f"depo: {name}={value!r} is not legal (expected ")
    assert said.endswith(f"; legal: {range_}")


def test_assignments_are_key_value_and_once() -> None:
    assert assignments(["a=b=c", "d="], "x") == {"a": "b=c", "d": ""}
    assert refusal(assignments, ["N"], "depo") == "depo: 'N' is not KEY=VALUE"
    assert refusal(assignments, ["=3"], "depo") == "depo: '=3' is not KEY=VALUE"
    assert refusal(assignments, ["N=3", "N=4"], "depo") == "depo: N is given twice"


# Descriptions and identity -----------------------------------------------------------------------------------------


class _Params(TaskParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    later: ClassVar[frozenset[str]] = frozenset({"added"})
    size: Annotated[int, Meta(ge=1, description="how large")] = 3
    form: Annotated[str, Meta(pattern="^[a-z]+$")] = "x"
    added: bool = False


def test_legal_ranges_in_words() -> None:
    words = {row["name"]: row["legal"] for row in describe(DepoParams)}
    assert list(words) == ALL
    assert words["N"] == "int 3..65535"
    assert words["qa"] == "true or false"
    assert words["fixed_k"] == "int 1..65535 or null"
    assert [row["legal"] for row in describe(_Params)] == ["int from 1", "str ^[a-z]+$", "true or false"]
    assert legal(str) == "str"


def test_every_parameter_has_a_default_and_a_meaning() -> None:
    for row in describe(DepoParams):
        assert row["meaning"], row
        assert row["default"] == getattr(DepoParams(), row["name"])


def test_a_later_parameter_enters_the_identity_only_where_it_differs() -> None:
    assert _Params().canonical() == {"size": 3, "form": "x"}
    assert _Params(added=True).canonical() == {"size": 3, "form": "x", "added": True}
    assert list(DepoParams().canonical()) == ALL


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "0", True, None])
def test_a_seed_that_is_none(seed: Any) -> None:
    said = f"seed={seed!r} is not legal; legal: an integer 0..2^64-1"
    task = DepoTask()
    task.key(1, "train")  # remembered: 1.0 and True equal 1
    for call in (lambda: task.identity(seed, "train"), lambda: task.key(seed, "train")):
        assert refusal(call) == said


@pytest.mark.parametrize("split", ["", "Train", "a-b", "a b", "train\n", "é", None, 3])
def test_a_split_that_is_none(split: Any) -> None:
    said = f"split={split!r} is not legal; legal: lower-case letters, digits and _"
    assert refusal(DepoTask().identity, 0, split) == said
    assert refusal(DepoTask().example, 0, split, 0) == said
