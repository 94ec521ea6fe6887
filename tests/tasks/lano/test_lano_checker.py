"""Lano's checker refuses what breaks the law, for the right reason, and scores sentences that a model made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import plain

from synthshards import make_task
from synthshards.tasks.lano.grammar import SHIPPED

TASK = make_task("lano")
FRAMED = make_task("lano-cfg3f", framing="bos", bos_token_id=9)
GOOD = plain(FRAMED.example(0, "train", 0))


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def with_ids(ids: Sequence[int]) -> dict[str, Any]:
    return {"input_ids": ids, "loss_mask": [True] * len(ids)}


IDS = GOOD["input_ids"]
ON = [True] * len(IDS)
BROKEN: list[tuple[dict[str, Any], str]] = [
    (with_ids(IDS[1:]), "the row does not start with <bos> (9)"),
    (with_ids([]), "the row does not start with <bos> (9)"),
    (with_ids([9]), "the sentence is unfinished after 0 terminals"),
    (with_ids([0, *IDS[1:]]), "the row does not start with <bos> (9)"),
    (with_ids([9, *IDS]), "no sentence goes on with 9 after its first 0 terminals"),
    (with_ids(IDS[:-1]), f"the sentence is unfinished after {len(IDS) - 2} terminals"),
    (with_ids([*IDS, 4]), f"no sentence goes on with 4 after its first {len(IDS) - 1} terminals"),
    (with_ids([*IDS[:50], 0, *IDS[51:]]), "no sentence goes on with 0 after its first 49 terminals"),
    (with_ids([*IDS[:50], 4, *IDS[51:]]), "no sentence goes on with 4 after its first 49 terminals"),
    (changed(loss_mask=ON[:-1]), f"loss_mask has {len(IDS) - 1} entries for {len(IDS)} tokens"),
    (changed(loss_mask=[False, *ON[1:]]), "loss_mask is 0 at 0; legal: 1"),
    (changed(loss_mask=[*ON[:-1], False]), f"loss_mask is 0 at {len(IDS) - 1}; legal: 1"),
    (changed(labels=[-100, *GOOD["labels"][1:]]), "label -100 at 0; legal: 9"),
    (changed(length=GOOD["length"] + 1), f"length is {len(IDS)}, not {len(IDS) - 1}"),
    ({"input_ids": IDS}, "the row has no 'loss_mask'"),
    ({"loss_mask": ON}, "the row has no 'input_ids'"),
]


@pytest.mark.parametrize(("row", "reason"), BROKEN, ids=[b[1][:60] for b in BROKEN])
def test_broken_rows_are_refused_for_the_right_reason(row: dict[str, Any], reason: str) -> None:
    verdict = FRAMED.validate_example(row)
    assert (bool(verdict), verdict.reason) == (False, reason)


def test_unframed_rows() -> None:
    row = plain(TASK.example(0, "train", 0))
    assert TASK.validate_example(row)
    assert TASK.validate_example({name: row[name] for name in ("input_ids", "loss_mask")})
    assert TASK.validate_example(with_ids([0, *row["input_ids"]])).reason == (
        "no sentence goes on with 0 after its first 0 terminals"
    )
    assert not TASK.validate_example(plain(make_task("lano-cfg3g").example(0, "train", 0)))


@pytest.mark.parametrize("name", SHIPPED)
def test_one_wrong_token_is_found(name: str) -> None:
    # Of all changes of one token a few make another sentence, in grammars where that is possible at all.
    task = make_task(f"lano-{name}")
    V, refused, tried = task.grammar.terminals, 0, 0  # type: ignore[attr-defined]
    for row in task.take(1, 2):
        ids = row["input_ids"].tolist()
        for at in range(0, len(ids), 5):
            other = [*ids[:at], ids[at] % V + 1, *ids[at + 1 :]]
            refused += not task.validate_example(with_ids(other))
            tried += 1
    assert refused > 0.8 * tried


def test_scoring_generated_sentences() -> None:
    ids = IDS[1:]
    for task in (TASK, FRAMED):
        bos = task.params.bos_token_id
        other = task.take(5, 3)[2]["input_ids"].tolist()
        assert task.score_answer(GOOD, other), "another sentence than the row's is as good"
        for answer in (ids, [bos, *ids], [*ids, 4], [bos, *ids, 4], [bos, *ids, bos], np.array(ids)):
            assert task.score_answer(GOOD, answer), task.score_answer(GOOD, answer).reason
        wrong = {
            "no sentence goes on with 4 after its first": [*ids, 4, 4],
            f"no sentence goes on with {bos} after its first 0": [bos, bos, *ids],
            "the sentence is unfinished after 100 ": [bos, *ids[:100], 4],
            "the sentence is unfinished after 0 ": [],
            "no sentence goes on with 5 after its first 100 ": [*ids[:100], 5, *ids[100:]],
        }
        for reason, answer in wrong.items():
            verdict = task.score_answer(GOOD, answer)
            assert not verdict
            assert str(verdict.reason).startswith(reason)
        assert task.score_answer({}, [bos]).reason == "the sentence is unfinished after 0 terminals"


def test_names_of_tokens() -> None:
    assert TASK.decode([0, 1, 3, 4, 5, 6, 7, 9]) == [
        "<bos>",
        "1",
        "3",
        "<eos>",
        "<mask>",
        "<sep>",
        "<unknown_7>",
        "<unknown_9>",
    ]
    assert FRAMED.decode(np.array([9, 0, 2])) == ["<bos>", "<unknown_0>", "2"]
    assert make_task("lano-cfg3e1").decode([9, 10, 12]) == ["9", "<eos>", "<sep>"]
